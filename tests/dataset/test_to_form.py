"""Files as people have them: the error says what they are and the one command, and the command's result reads."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from invoke import Context

from pipeline.commands import prepare
from pipeline.dataset import records, to_form
from pipeline.errors import EnvironmentProblem, FormError, UsageError

CHATS = [
    ([{"role": "user", "content": "Why, “sir”?\nSay, so; now"}], "So."),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And\u2028you?"}], "No, 3."),
]
PLAIN = [([{"role": "user", "content": text}], answer) for text, answer in [('a, b;\n"c"', "x"), ("é", "7")]]
SHAREGPT = {"user": "human", "assistant": "gpt", "system": "system"}


def rows(key: str, said: list[Any] = CHATS) -> list[dict[str, Any]]:
    return [{"id": number, key: chat, "answer": answer} for number, (chat, answer) in enumerate(said)]


def with_last_turn(key: str, role: str, content: str, names: dict[str, str]) -> list[dict[str, Any]]:
    turns = [[*chat, {"role": "assistant", "content": answer}] for chat, answer in CHATS]
    return [{key: [{role: names.get(t["role"], t["role"]), content: t["content"]} for t in each]} for each in turns]


def columns(key: str, said: list[Any]) -> dict[str, list[Any]]:
    return {key: [chat for chat, _ in said], "answer": [answer for _, answer in said]}


def lines(some: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in some).encode()


def as_csv(head: str, encoding: str = "utf-8", delimiter: str = ",") -> bytes:
    cells = [[chat[0]["content"], answer] for chat, answer in PLAIN]
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
    return "\r\n".join([head, *quoted, ""]).encode(encoding)


def as_parquet(some: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), out)
    return out.getvalue()


UNANSWERED = [(chat, None) for chat, _ in CHATS]
TEXTS = [(chat[0]["content"], answer) for chat, answer in PLAIN]
BY_NUMBERS = {key: dict(enumerate(column)) for key, column in columns("message", CHATS).items()}
IN_A_CELL = 'messages\n"[{""role"": ""user"", ""content"": ""é""}]"\n'
FILES: dict[str, tuple[str, bytes, list[Any]]] = {
    "a JSON list": ("x.json", json.dumps(rows("message"), indent=1).encode(), CHATS),
    "a list in one line": ("x.jsonl", json.dumps(rows("messages")).encode(), CHATS),
    "an object that holds the list": (
        "x.json",
        json.dumps({"version": 1, "data": rows("prompt")}, indent=2).encode(),
        CHATS,
    ),
    "one row over lines": ("x.json", json.dumps(rows("message")[0], indent=2).encode(), CHATS[:1]),
    "messages": ("x.jsonl", lines(rows("messages")), CHATS),
    "messages with the answer in them": ("x.jsonl", lines(with_last_turn("messages", "role", "content", {})), CHATS),
    "conversations": ("x.jsonl", lines(with_last_turn("conversations", "from", "value", SHAREGPT)), CHATS),
    "prompts": ("x.jsonl", lines([{"prompt": c[0]["content"], "completion": a} for c, a in PLAIN]), PLAIN),
    "a message that is text": ("x.jsonl", lines([{"message": c[0]["content"], "answer": a} for c, a in PLAIN]), PLAIN),
    "a number as answer": ("x.jsonl", lines([{"prompt": "é", "answer": 7}]), PLAIN[1:]),
    "CSV": ("x.csv", as_csv("prompt,answer"), PLAIN),
    "CSV of Excel": ("x.csv", as_csv("Prompt;Answer", "utf-8-sig", ";"), PLAIN),
    "a table by tabs in UTF-16": ("x.txt", as_csv("prompt\tanswer", "utf-16", "\t"), PLAIN),
    "CSV of chats": (
        "x.csv",
        b'messages\n"[{""role"": ""user"", ""content"": ""\xc3\xa9""}]"\n',
        [(PLAIN[1][0], None)],
    ),
    "UTF-16": ("x.jsonl", lines(rows("message")).decode().encode("utf-16"), CHATS),
    "a list of chats": (
        "x.json",
        json.dumps([chat for chat, _ in CHATS]).encode(),
        [(chat, None) for chat, _ in CHATS],
    ),
    "chats and answers": ("x.json", json.dumps(CHATS).encode(), CHATS),
    "a line for each chat": ("x.jsonl", lines([chat for chat, _ in CHATS]), UNANSWERED),
    "one chat": ("x.json", json.dumps(CHATS[1][0], indent=1).encode(), [(CHATS[1][0], None)]),
    "a list of prompts": (
        "x.json",
        json.dumps([c[0]["content"] for c, _ in PLAIN]).encode(),
        [(c, None) for c, _ in PLAIN],
    ),
    "columns": ("x.json", json.dumps(columns("message", CHATS)).encode(), CHATS),
    "columns over lines": ("x.json", json.dumps({"n": 1, **columns("messages", CHATS)}, indent=1).encode(), CHATS),
    "columns of prompts": (
        "x.jsonl",
        json.dumps(columns("prompt", [(c[0]["content"], a) for c, a in PLAIN])).encode(),
        PLAIN,
    ),
    "columns by numbers": (
        "x.json",
        json.dumps({k: dict(enumerate(v)) for k, v in columns("message", CHATS).items()}).encode(),
        CHATS,
    ),
    "Parquet": ("x.parquet", as_parquet(rows("messages")), CHATS),
    "Parquet of prompts": ("x", as_parquet([{"prompt": c[0]["content"], "answer": a} for c, a in PLAIN]), PLAIN),
    "gzip of the form": ("x.jsonl.gz", gzip.compress(lines(rows("message"))), CHATS),
    "gzip of messages": ("x.jsonl", gzip.compress(lines(rows("messages"))), CHATS),
    "gzip of a list": ("x.json.gz", gzip.compress(json.dumps(rows("message")).encode()), CHATS),
    "gzip of CSV": ("x.csv.gz", gzip.compress(as_csv("prompt,answer")), PLAIN),
    "gzip of Parquet": ("x.parquet.gz", gzip.compress(as_parquet(rows("conversations"))), CHATS),
}


@pytest.mark.parametrize("case", FILES)
def test_the_error_names_the_command_and_its_result_reads(tmp_path: Path, case: str) -> None:
    name, content, expected = FILES[case]
    path = tmp_path / "my files" / name
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(FormError) as caught:
        records.read(path)
    assert caught.value.code in {"F106", "F107", "F112", "F115"}
    if case != "a number as answer":
        assert caught.value.fix == f"invoke data --convert {shlex.quote(str(path))}"
    made = to_form.convert(path)
    assert made.path.parent == path.parent
    assert [(each.messages, each.answer) for each in records.read(made.path)] == expected
    assert path.read_bytes() == content
    assert f"invoke run --dataset {shlex.quote(str(made.path))}" in to_form.text(made)
    assert sorted(each.name for each in path.parent.iterdir()) == sorted([name, made.path.name])


def test_nothing_is_overwritten_nor_left_half_made(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(as_csv("prompt,answer"))
    (tmp_path / "x.jsonl").symlink_to("nowhere")  # there, although it leads to nothing
    with pytest.raises(UsageError) as caught:
        to_form.convert(path)
    assert (caught.value.code, caught.value.where) == ("U115", str(tmp_path / "x.jsonl"))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.csv", "x.jsonl"]


def test_what_has_the_form_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(rows("message")))
    assert "already" in to_form.text(to_form.convert(path))
    assert [each.name for each in tmp_path.iterdir()] == ["x.jsonl"]


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines([{**row, "source": "web"} for row in rows("messages")]))
    made = to_form.convert(path)
    assert (made.left_out, made.rows, made.answers) == (("id", "source"), 2, 2)
    assert "left out  id, source" in to_form.text(made)


def workbook() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return out.getvalue()


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("rows.jsonl", "{}")
    return out.getvalue()


OTHERS: dict[str, tuple[str, bytes, str, str]] = {
    "Excel": ("x.xlsx", workbook(), "an Excel workbook", "save it as CSV (UTF-8)"),
    "Excel of old": ("x.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "an Excel workbook", "x.csv"),
    "zip": ("x.zip", archive(), "a zip archive", "unpack it (unzip)"),
    "xz": ("x.xz", b"\xfd7zXZ\x00\x00", "compressed by xz", "unpack it (unxz)"),
    "a pointer of Git LFS": ("x.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
    "a web page": ("x.jsonl", b"<!DOCTYPE html><html>Not found</html>", "a web page", "download the file itself"),
    "Arrow": ("x.arrow", b"ARROW1\0\0", "an Arrow file", "x.parquet"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_not_converted_says_what_comes_before(tmp_path: Path, case: str) -> None:
    name, content, called, remedy = OTHERS[case]
    path = tmp_path / name
    path.write_bytes(content)
    for code, read in [("F115", records.read), ("F123", to_form.convert)]:
        with pytest.raises(FormError) as caught:
            read(path)
        assert caught.value.code == code
        assert called in caught.value.what
        assert remedy in caught.value.fix
    assert [each.name for each in tmp_path.iterdir()] == [name]


DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "half of a gzip": ("x.gz", gzip.compress(lines(rows("message")))[:40], "F122"),
    "no Parquet": ("x.parquet", b"PAR1" + bytes(40), "F122"),
    "CSV in another encoding": ("x.csv", as_csv("prompt,answer", "latin-1"), "F122"),
    "CSV with a cell too many": ("x.csv", b"prompt,answer\na,b,c\n", "F122"),
    "CSV with two columns of prompts": ("x.csv", b"prompt,Prompt,answer\na,b,c\n", "F122"),
    "gzip of gzip": ("x.gz", gzip.compress(gzip.compress(b'{"prompt": "a"}')), "F123"),
    "CSV with an open quote": ("x.csv", b'prompt,answer\n"a,b\n', "F122"),
    "CSV without a known column": ("x.csv", b"text,label\na,b\n", "F121"),
    "a row of very many keys": ("x.jsonl", json.dumps({f"key{i}": i for i in range(5000)}).encode(), "F121"),
    "a row without a known key": ("x.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', "F121"),
    "a line that is no JSON": ("x.jsonl", b'{"prompt": "a"}\n{\n', "F104"),
    "a role that nobody knows": ("x.jsonl", b'{"messages": [{"role": "tool", "content": "a"}]}\n', "F110"),
    "half a character": ("x.jsonl", b'{"prompt": "\\ud83d"}\n', "F114"),
    "a list of lists in an object": ("x.json", b'{"a": [{}],\n "b": [{}]}', "F121"),
    "columns of two lengths": ("x.json", b'{"prompt": ["a", "b"], "answer": ["x"]}', "F122"),
    "pairs of texts, either of which may be the answer": ("x.json", b'[["a", "b"], ["c", "d"]]', "F105"),
    "an empty file": ("x.csv", b"", "F101"),
    "only a head": ("x.csv", b"prompt,answer\n", "F101"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_cannot_be_converted_is_named_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    name, content, code = DAMAGED[case]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormError) as caught:
        to_form.convert(path)
    assert caught.value.code == code
    assert str(path) in caught.value.where
    assert len(str(caught.value)) < 1500
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_without_pyarrow_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(as_parquet(rows("messages")))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EnvironmentProblem) as caught:
        to_form.convert(path)
    assert caught.value.code == "E112"
    assert "pip install pyarrow" in caught.value.fix


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError) as caught:
        to_form.convert(tmp_path / "pipe")
    assert caught.value.code == "U116"
    with pytest.raises(FormError) as refused:
        records.parse(tmp_path / "pipe", as_csv("prompt,answer"))
    assert refused.value.fix == "write the data to a FILE, then: invoke data --convert FILE"


def test_the_task_prints_where_it_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_bytes(as_csv("prompt,answer"))
    prepare.data(Context(), convert="x.csv")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  written  x.jsonl",
        "  run it   invoke run --dataset x.jsonl",
    ]


def test_a_mistake_of_json_is_not_said_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"message": "a\tb"}')
    with pytest.raises(FormError) as caught:
        records.read(path)
    assert "at at" not in str(caught.value)
