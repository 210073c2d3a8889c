"""The organiser's form: what is read, and every way in which a file can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.dataset import records
from pipeline.errors import FormError, PipelineError, UsageError

GOOD = '{"message": [{"role": "user", "content": "Why?"}], "answer": "So."}'


def turn(role: str = '"user"', content: str = '"Why?"') -> str:
    return f'{{"message": [{{"role": {role}, "content": {content}}}]}}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_reads_rows_in_order(file: Path) -> None:
    file.write_text(GOOD + "\n" + GOOD.replace("So.", "Да"), encoding="utf-8")
    assert records.read(file) == [
        records.Record(0, [{"role": "user", "content": "Why?"}], "So."),
        records.Record(1, [{"role": "user", "content": "Why?"}], "Да"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(GOOD, id="no final newline"),
        pytest.param(GOOD + "\n\n \n", id="blank lines at the end"),
        pytest.param(GOOD + "\r\n", id="line ends of Windows"),
        pytest.param("\ufeff" + GOOD + "\n", id="byte order mark"),
        pytest.param(GOOD[:-1] + ', "source": "x"}\n', id="a key that the form does not know"),
        pytest.param(GOOD.replace('"content"', '"name": "x", "content"'), id="a turn's key that it does not know"),
        pytest.param(GOOD[:-1] + ', "source": "x \\ud83d", "p": -Infinity}', id="what a key that nobody reads holds"),
        pytest.param(GOOD.replace('"Why?"', '"first", "content": "Why?"'), id="a key twice: the last counts"),
        pytest.param(GOOD + "\n\t\n\r\n", id="blank lines with tabs at the end"),
    ],
)
def test_accepts(file: Path, content: str) -> None:
    file.write_bytes(content.encode())
    assert records.read(file) == [records.Record(0, [{"role": "user", "content": "Why?"}], "So.")]


@pytest.mark.parametrize("row", [turn(), turn()[:-1] + ', "answer": null}'])
def test_an_answer_may_be_missing(file: Path, row: str) -> None:
    file.write_text(row)
    assert records.read(file)[0].answer is None


@pytest.mark.parametrize(
    ("spelt", "text"),
    [("a \\ud83d\\ude00 b", "a \U0001f600 b"), ("a\\u0000b", "a\0b"), ("line\u2028para\u2029nel\u0085end", None)],
)
def test_characters_that_others_stumble_over(file: Path, spelt: str, text: str | None) -> None:
    file.write_text(GOOD.replace("Why?", spelt), encoding="utf-8")
    assert records.read(file)[0].messages == [{"role": "user", "content": text or spelt}]


def test_unicode_line_separators_are_characters(file: Path) -> None:
    messages = [{"role": "user", "content": "a\u2028b\u0085c\x0bd"}]
    file.write_bytes(records.write_line(messages, "e\u2029").encode())
    assert records.read(file) == [records.Record(0, messages, "e\u2029")]


def test_writes_the_organisers_bytes() -> None:
    line = records.write_line([{"role": "user", "content": "\nchoices: ['é', \"it's\"]\n"}], "é")
    assert line == '{"message": [{"role": "user", "content": "\\nchoices: [\'é\', \\"it\'s\\"]\\n"}], "answer": "é"}\n'


USER = '{"role": "user", "content": "Why?"}'
WRONG = {
    "not JSON": ('{"message": [', "F104", "column"),
    "two objects": (GOOD + GOOD, "F104", "Extra data at column 68"),
    "nested too deep": ("[" * 200_000, "F104", "recursion"),
    "endless number": ('{"a": ' + "9" * 5000 + "}", "F1", ""),
    "not an object": ("[1, 2]", "F105", "[1, 2]"),
    "null": ("null", "F105", "null"),
    "no message": ('{"messages": [], "answer": "x"}', "F106", "messages, answer"),
    "message not a list": ('{"message": "Why?"}', "F107", "Why?"),
    "no turns": ('{"message": []}', "F108", "[]"),
    "turn not an object": ('{"message": ["Why?"]}', "F109", "Why?"),
    "unknown role": (turn(role='"tool"'), "F110", "tool"),
    "no role": ('{"message": [{"content": "Why?"}]}', "F110", "no role"),
    "role not a string": (turn(role="{}"), "F110", "{}"),
    "no content": ('{"message": [{"role": "user"}]}', "F111", "no content"),
    "content not text": (turn(content='["Why?"]'), "F111", "Why?"),
    "content null": (turn(content="null"), "F111", "null"),
    "last turn not the user's": (turn(role='"assistant"'), "F113", "assistant"),
    "answer not text": (turn()[:-1] + ', "answer": 3}', "F112", "3"),
    "half a character": (turn(content='"a\\ud800"'), "F114", "\\ud800 at character 1"),
    "half a character in the answer": (turn()[:-1] + ', "answer": "\\udc00"}', "F114", "\\udc00"),
    "half a character in a key": ('{"\\ud800": 1}', "F106", "\\ud800"),
    "a blank line inside": ("", "F103", ""),
}


@pytest.mark.parametrize(("row", "code", "actual"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_row_is_named_by_its_line(file: Path, row: str, code: str, actual: str) -> None:
    file.write_text(f"{GOOD}\n{row}\n{GOOD}\n{{\n")
    with pytest.raises(FormError) as caught:
        records.read(file)
    assert caught.value.code.startswith(code)
    assert caught.value.where == f"{file} line 2"
    assert actual in (caught.value.actual or "")
    assert len(caught.value.actual or "") <= 80
    assert caught.value.expected
    assert caught.value.exit_status == 6
    str(caught.value).encode()


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\n", b"\xef\xbb\xbf"])
def test_an_empty_file(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(FormError, match="empty") as caught:
        records.read(file)
    assert caught.value.code == "F101"


def test_not_utf8_names_line_and_byte(file: Path) -> None:
    file.write_bytes((GOOD + "\n").encode() + GOOD.replace("Why", "Où").encode("latin-1"))
    with pytest.raises(FormError) as caught:
        records.read(file)
    assert (caught.value.code, caught.value.where) == ("F102", f"{file} line 2")
    assert caught.value.actual == "byte 0xf9 at byte 44 of the line"


def test_not_utf8_in_the_first_line(file: Path) -> None:
    file.write_bytes(b'{"\xff')
    with pytest.raises(FormError) as caught:
        records.read(file)
    assert (caught.value.code, caught.value.where) == ("F102", f"{file} line 1")
    assert "at byte 3" in caught.value.actual


def test_the_first_wrong_line_is_reported_whatever_is_wrong_with_it(file: Path) -> None:
    file.write_bytes(b"[]\n\xff\n")
    with pytest.raises(FormError) as caught:
        records.read(file)
    assert (caught.value.code, caught.value.where) == ("F105", f"{file} line 1")


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "test_dataset.jsonl").touch()
    with pytest.raises(UsageError) as caught:
        records.read(tmp_path / "test_datsaet.jsonl")
    assert caught.value.code == "U111"
    assert "test_dataset.jsonl" in caught.value.actual


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such data file") as caught:
        records.read(tmp_path / "nowhere" / "rows.jsonl")
    assert "nowhere" in caught.value.actual


def test_a_folder_is_no_data_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(UsageError) as caught:
        records.read(tmp_path)
    assert caught.value.code == "U112"
    assert "rows.jsonl" in caught.value.expected


def test_a_file_that_may_not_be_read(file: Path, as_nobody: Callable[..., str]) -> None:
    file.write_text(GOOD)
    file.chmod(0)
    file.parent.chmod(0o755)
    said = as_nobody(
        "from pathlib import Path; from pipeline.dataset import records; from pipeline.errors import UsageError",
        f"try: records.read(Path({file.name!r}))\nexcept UsageError as error: print(error)",
    )
    assert said.startswith("U113 ")
    assert "Permission denied" in said


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        records.read(tmp_path / ("x" * 5000 + ".jsonl"))


text = st.text(st.characters(exclude_categories=["Cs"]))
turns = st.fixed_dictionaries({"role": st.sampled_from(records.ROLES), "content": text})
chats = st.builds(lambda before, last: [*before, {"role": "user", "content": last}], st.lists(turns, max_size=3), text)
same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@same_file
@given(rows=st.lists(st.tuples(chats, st.none() | text), min_size=1, max_size=5))
def test_what_is_written_reads_back_equal(file: Path, rows: list[tuple[list[dict[str, str]], str | None]]) -> None:
    file.write_bytes("".join(records.write_line(*row) for row in rows).encode())
    assert [(record.messages, record.answer) for record in records.read(file)] == rows


near_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["user", "message", "answer", "\\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "role", "content", "answer", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@same_file
@given(content=st.binary() | st.lists(near_json.map(lambda row: str(row).replace("'", '"').encode())).map(b"\n".join))
def test_no_bytes_raise_anything_but_our_errors(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    refused = None
    try:
        records.read(file)
    except PipelineError as error:
        refused = error
    if refused is not None:
        str(refused).encode()
        assert "line" in refused.where or refused.code == "F115"  # which is of the whole file


def test_a_link_to_nothing_says_where_it_leads_and_does_not_advise_itself(file: Path) -> None:
    file.symlink_to("nowhere.jsonl")
    (file.parent / "rows2.jsonl").write_text(GOOD)
    with pytest.raises(UsageError) as caught:
        records.read(file)
    assert caught.value.code == "U111"
    assert caught.value.actual == "a link to nowhere.jsonl, where no file is; there are rows2.jsonl"
    assert caught.value.fix.endswith("rows2.jsonl")


def test_a_circle_of_links_is_no_data_file(file: Path) -> None:
    file.symlink_to(file.name)
    with pytest.raises(UsageError) as caught:
        records.read(file)
    assert caught.value.code == "U111"
