"""Slurm as a queue, where its programs are scripts: what is refused at once, and what is asked of it. The real one is
tried by tests/cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.queues.queue import Job, QueueSilent
from pipeline.queues.slurm import Slurm

PARTITIONS = """\
PartitionName=orin AllowGroups=ALL Default=YES MaxTime=1-02:30:00 Nodes=orin[1-3]
PartitionName=lab Default=NO MaxTime=UNLIMITED Nodes=h200
"""
NODES = """\
NodeName=orin1 Arch=aarch64 State=IDLE Partitions=orin
NodeName=orin2 State=DOWN*+DRAIN Partitions=orin Reason=it smokes [root@2026]
NodeName=h200 State=MIXED Partitions=lab,all
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm's programs: each says what lies in its file, and notes what it was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "scancel"):
        (folder / name).write_text(
            f'#!/bin/sh\necho "$@" >> {folder}/{name}.called\n'
            f'cat "{folder}/{name}.$3" 2>/dev/null || cat "{folder}/{name}.says" 2>/dev/null || exit 0\n'
        )
        (folder / name).chmod(0o755)
    (folder / "scontrol.partition").write_text(PARTITIONS)
    (folder / "scontrol.node").write_text(NODES)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def refused(partition: str | None) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        Slurm(partition)
    return caught.value


def test_no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (refused(None).code, refused(None).exit_status) == ("E631", 3)


def test_no_controller(programs: Path) -> None:
    (programs / "scontrol").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    error = refused(None)
    assert error.code == "E632"
    assert "Unable to contact" in str(error)


def test_a_partition_that_is_not_there(programs: Path) -> None:
    error = refused("nowhere")
    assert (error.code, error.expected, error.actual) == ("U731", "lab, orin", "nowhere")
    (programs / "scontrol.partition").write_text(PARTITIONS.replace("Default=YES", "Default=NO"))
    assert refused(None).code == "U731"
    assert Slurm("lab").partition == "lab"


@pytest.mark.parametrize(("partition", "limit_s", "minutes"), [(None, 61.0, 2), (None, 1e6, 1590), ("lab", 1e6, 16667)])
def test_a_job_never_asks_for_more_than_its_partition_allows(
    programs: Path, tmp_path: Path, partition: str | None, limit_s: float, minutes: int
) -> None:
    Slurm(partition).submit(Job("j", ("true",), tmp_path / "log", limit_s))
    called = (programs / "sbatch.called").read_text()
    assert f"--time={minutes} " in called
    assert "--no-requeue" in called
    assert "--dependency=singleton" in called


def test_a_job_that_is_listed_is_not_queued_twice(programs: Path, tmp_path: Path) -> None:
    (programs / "squeue.says").write_text("7|PENDING||JobHeldUser|j\n8|RUNNING|orin1|None|other\n")
    queue = Slurm(None)
    queue.submit(Job("j", ("true",), tmp_path / "log", 60.0))
    assert not (programs / "sbatch.called").exists()
    assert [(each.name, each.state, each.node) for each in queue.jobs()] == [
        ("j", "held", None),
        ("other", "running", "orin1"),
    ]
    queue.cancel("other")
    assert (programs / "scancel.called").read_text() == "--full 8\n"


def test_which_boards_are_up(programs: Path) -> None:
    assert [(each.name, each.up) for each in Slurm("orin").nodes()] == [("orin1", True), ("orin2", False)]
    assert "it smokes" in Slurm("orin").nodes()[1].why
    assert [each.name for each in Slurm("lab").nodes()] == ["h200"]


def test_a_queue_that_falls_silent_says_nothing(programs: Path) -> None:
    queue = Slurm(None)
    (programs / "squeue").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(QueueSilent):
        queue.jobs()
