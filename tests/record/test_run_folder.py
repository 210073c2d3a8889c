"""The run folder: whole lines whatever happens, a manifest that says why, errors of ours when it cannot be written."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from pipeline import paths
from pipeline.accuracy import compare
from pipeline.errors import ResourceError, UsageError
from pipeline.record import provenance, run_folder
from pipeline.record.outputs import read_outputs
from pipeline.record.run_folder import RunFolder
from pipeline.report import facts
from pipeline.runs import resume
from pipeline.runs.request import Request

OUTPUT = [{"generated_text": "Да\n\u2028"}]


def test_rows_read_back_by_index(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        for index in (2, 0, 1):
            folder.append(index, OUTPUT, [index])
    assert read_outputs(folder.path) == [{"index": index, "output": OUTPUT, "token_ids": [index]} for index in range(3)]


def test_a_row_is_on_its_way_to_the_disk_at_once(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        folder.append(0, OUTPUT, [1])
        assert (folder.path / "outputs.jsonl").read_bytes().endswith(b"\n")


def test_a_folder_is_named_by_its_time_and_what_ran(tmp_path: Path) -> None:
    with run_folder.create(tmp_path / "not" / "there", "obqa-standin-ours") as folder:
        assert re.fullmatch(r"\d{8}T\d{6}-obqa-standin-ours", folder.path.name)


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = []
    for _ in range(5):
        with run_folder.create(tmp_path, "x") as folder:
            folders.append(folder.path)
    assert len(set(folders)) == 5


def test_the_log_is_the_runs_own(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        logger.info("during {}", 1)
    logger.info("after")
    assert "during 1" in (folder.path / "run.log").read_text()
    assert "after" not in (folder.path / "run.log").read_text()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("why not"), "why not"),
        (ValueError(), "ValueError"),
        (KeyboardInterrupt(), "interrupted (Ctrl-C)"),
        (MemoryError(), "the host's memory was short"),
    ],
)
def test_a_failure_leaves_the_finished_rows_and_says_why(tmp_path: Path, error: BaseException, reason: str) -> None:
    def fail() -> None:
        with run_folder.create(tmp_path, "x") as folder:
            folder.begin({"asked": "this"})
            folder.append(0, OUTPUT, [1])
            raise error

    with pytest.raises(type(error)):
        fail()
    path = next(tmp_path.iterdir())
    failed = json.loads((path / "manifest.json").read_text())
    assert (failed["schema"], failed["state"], failed["asked"]) == (run_folder.SCHEMA, "failed", "this")
    assert failed["failed"] == {"kind": type(error).__name__, "reason": reason}
    assert len(read_outputs(path)) == 1
    assert "ended early" in (path / "run.log").read_text()


def told(folder: RunFolder) -> dict[str, Any]:
    return json.loads((folder.path / "manifest.json").read_text())


def test_the_manifest_grows_and_says_how_far_it_is(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        folder.begin({"a": "é"})
        assert told(folder) == {"schema": run_folder.SCHEMA, "state": "unfinished", "a": "é"}
        folder.note({"b": 1})
        assert told(folder) == {"schema": run_folder.SCHEMA, "state": "unfinished", "a": "é", "b": 1}
        folder.finish({"c": 2})
    assert told(folder) == {"schema": run_folder.SCHEMA, "state": "finished", "a": "é", "b": 1, "c": 2}


def test_a_finished_run_has_its_answers_in_file_order_and_nothing_else(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        for index in (2, 0, 1):
            folder.append(index, [{"generated_text": f"{index}\u2028é\n"}], [index])
        assert not (folder.path / "answers.jsonl").exists()
        folder.finish({})
    lines = (folder.path / "answers.jsonl").read_bytes().decode().split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [[{"generated_text": f"{i}\u2028é\n"}] for i in range(3)]
    assert lines[-1] == ""


def test_a_run_that_is_not_finished_has_no_answers_by_themselves(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        folder.append(0, OUTPUT, [0])
    assert not (folder.path / "answers.jsonl").exists()


def test_what_comes_after_the_end_does_not_undo_it(tmp_path: Path) -> None:
    def finish_and_fail() -> None:
        with run_folder.create(tmp_path, "x") as folder:
            folder.finish({})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finish_and_fail()
    assert json.loads(next(tmp_path.glob("*/manifest.json")).read_text())["state"] == "finished"


def line(index: int) -> bytes:
    return json.dumps({"index": index, "output": OUTPUT, "token_ids": [index]}).encode() + b"\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        line(2)[:1],
        line(2)[:-20],
        line(2)[:-1],  # all but the newline
        b"\n",
        b"\0" * 4096 + line(2),  # what a power cut may leave
        b"[]\n" + line(2),
        b'{"index": 2}\n',
        b'{"index": [], "output": [], "token_ids": []}\n',
        line(2)[:9] + b"\xff" + line(2)[9:],
    ],
)
def test_opened_again_only_whole_rows_are_kept(tmp_path: Path, rest: bytes) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        logger.info("the first time")
    outputs = folder.path / "outputs.jsonl"
    outputs.write_bytes(line(5) + line(1) + rest)
    (folder.path / ".manifest.json.123-abcd.part").write_bytes(b'{"sch')
    assert [row["index"] for row in read_outputs(folder.path)] == [1, 5]
    with RunFolder(folder.path) as again:
        assert outputs.read_bytes() == line(5) + line(1)
        assert {index: row["token_ids"] for index, row in again.kept.items()} == {5: [5], 1: [1]}
        again.append(3, OUTPUT, [3])
        assert again.answers == 3
        logger.info("the second time")
    assert [row["index"] for row in read_outputs(folder.path)] == [1, 3, 5]
    assert {path.name for path in folder.path.iterdir()} == {"outputs.jsonl", "run.log"}
    log = (folder.path / "run.log").read_text()
    assert "the first time" in log
    assert "the second time" in log


def test_one_process_a_folder(tmp_path: Path) -> None:
    with run_folder.create(tmp_path, "x") as folder:
        folder.append(0, OUTPUT, [1])
        with pytest.raises(UsageError) as caught:
            RunFolder(folder.path)
        assert caught.value.code == "U321"
        assert "still going on" in caught.value.what
        folder.append(1, OUTPUT, [1])
    with RunFolder(folder.path) as again:
        assert set(again.kept) == {0, 1}


class NearlyFull(io.FileIO):
    """A file on a disk with so many bytes left. What does not fit is cut off, then refused, as Linux does it."""

    left_bytes = 200

    def write(self, data: bytes) -> int:
        part = bytes(data[: self.left_bytes])
        if not part:
            raise OSError(28, "No space left on device")
        NearlyFull.left_bytes -= len(part)
        return super().write(part)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NearlyFull, "left_bytes", 200)

    def nearly_full(self: RunFolder, name: str) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BufferedWriter(NearlyFull(self.path / name, "w")), encoding="utf-8")

    def fill() -> None:
        with run_folder.create(tmp_path, "x") as folder:
            for index in range(100):
                folder.append(index, OUTPUT, [1])

    monkeypatch.setattr(RunFolder, "_open", nearly_full)
    with pytest.raises(ResourceError) as caught:
        fill()
    assert caught.value.code == "R101"
    assert [row["index"] for row in read_outputs(next(tmp_path.iterdir()))] == [0, 1]


def test_a_log_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    open_as_usual = RunFolder._open

    def full(self: RunFolder, name: str) -> object:
        return open_as_usual(self, name) if name != "run.log" else open("/dev/full", "w", encoding="utf-8")

    monkeypatch.setattr(RunFolder, "_open", full)
    with run_folder.create(tmp_path, "x") as folder:
        logger.info("lost")
        folder.append(0, OUTPUT, [1])
    assert len(read_outputs(folder.path)) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("parent", ["file", "file/below"])
def test_a_parent_that_is_a_file(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError) as caught:
        run_folder.create(tmp_path / parent, "x")
    assert caught.value.exit_status == 5
    assert "file" in caught.value.where


def test_a_parent_without_permission(tmp_path: Path, as_nobody: Callable[..., str]) -> None:
    tmp_path.chmod(0o555)
    said = as_nobody(
        "from pathlib import Path; from pipeline.errors import ResourceError; from pipeline.record import run_folder",
        "try: run_folder.create(Path('runs'), 'x')\nexcept ResourceError as error: print(error)",
    )
    assert said.startswith("R102 ")
    assert "Permission denied" in said
    assert "PIPELINE_RUNS" in said


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_COMMIT", raising=False)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == {"commit": None, "dirty": None, "changed": None}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit() == {"commit": None, "dirty": None, "changed": None}


def test_the_environment_names_no_person_and_no_host() -> None:
    import getpass
    import platform

    told = json.dumps(provenance.environment())
    assert json.loads(told)["packages"]["torch"]
    assert platform.node() not in told
    assert f'"{getpass.getuser()}"' not in told


def test_a_path_is_looked_for_where_the_user_stands_and_then_in_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, below = tmp_path / "checkout", tmp_path / "checkout" / "docs"
    (checkout / "runs" / "one").mkdir(parents=True)
    (below / "two").mkdir(parents=True)
    (checkout / "two").mkdir()
    monkeypatch.setattr(paths, "ROOT", checkout)
    monkeypatch.setenv("PIPELINE_RUNS", str(checkout / "runs"))
    monkeypatch.chdir(below)
    assert run_folder.find("runs/one").samefile(checkout / "runs" / "one")
    assert run_folder.find("one").samefile(checkout / "runs" / "one")
    assert run_folder.find("two").samefile(below / "two")
    assert paths.given("nowhere") == Path("nowhere")
    with pytest.raises(UsageError, match="no run is named"):
        run_folder.find("")


def test_where_there_are_no_runs_none_is_named_for_instance(runs: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run_folder.find("nowhere")
    assert caught.value.expected == "one of (there are none yet), or a run's folder"
    assert caught.value.fix == "make a run first"


UNREADABLE: dict[str, tuple[str | None, str]] = {
    "none": (None, "No such file"),
    "half of it": ('{"schema": "phi3', "Unterminated string"),
    "a list": ("[]", "it is not an object"),
    "nested without end": ("[" * 100_000, "nested too deeply"),
    "of another program": ('{"schema": 7, "state": "finished"}', "schema 7"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_whoever_reads_a_manifest_refuses_the_same(case: str, tmp_path: Path) -> None:
    """Each by its own error, which says what its reader wanted it for."""
    content, says = UNREADABLE[case]
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    readers: list[tuple[str, Callable[[], object]]] = [
        ("U701", lambda: facts.read(tmp_path)),
        ("U313", lambda: resume.find(str(tmp_path), Request())),
    ]
    if case != "of another program":  # whose run may be compared where it has what that takes
        readers += [("U331", lambda: compare.read(tmp_path)), ("U501", lambda: run_folder.finished_manifest(tmp_path))]
    for code, read in readers:
        with pytest.raises(UsageError) as caught:
            read()
        assert (caught.value.code, says in str(caught.value.actual)) == (code, True), caught.value


@pytest.mark.parametrize("name", ["new\nline", "bad\udcff", "\x1b[2Jred", "u\u202egnp.x"])
def test_a_folder_s_name_can_be_shown_and_typed_whatever_the_data_are_called(tmp_path: Path, name: str) -> None:
    folder = run_folder.make_stamped(tmp_path, name)
    assert folder.name.isprintable()
    folder.name.encode()


@pytest.mark.parametrize("target", ["nothing", "runs"])
def test_runs_that_is_a_link_to_nothing_is_a_message(tmp_path: Path, target: str) -> None:
    (tmp_path / "runs").symlink_to(target)
    with pytest.raises((ResourceError, OSError)) as caught:
        run_folder.create(tmp_path / "runs", "a")
    if target == "nothing":
        assert isinstance(caught.value, ResourceError)
        assert (caught.value.code, caught.value.actual) == ("R102", "a link to nothing")
