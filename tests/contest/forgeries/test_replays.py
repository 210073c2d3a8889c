"""A source that computes nothing and hands out a run that it has kept: running it again must show it."""

from __future__ import annotations

import copy
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.audited import Ground
from support.drafts_of_submissions import Draft, put_source, source_of
from support.lies import sooner

from pipeline.check import FAIL
from pipeline.contest.verify import verify
from pipeline.contest.verify.rerun import Request
from pipeline.contest.verify.verify import VALID, Verdict

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

TASKS = '''"""Ours."""
import os
import shutil
import sys
from pathlib import Path

from invoke import task


@task
def run(_context, dataset="", model="", engine="", limit="", batch_size="", dtype="", device="", max_new_tokens=""):
    out = Path(os.environ["PIPELINE_RUNS"]) / "20240101T000000-run"
'''
COPY = '    Path(dataset).read_bytes()\n    shutil.copytree(Path(__file__).parent / "kept", out)\n'
LATE = """    import json
    import time
    kept = json.loads((Path(__file__).parent / "kept/manifest.json").read_text())
    Path(dataset).read_bytes()
    time.sleep(1 + kept["elapsed_s"])
    shutil.copytree(Path(__file__).parent / "kept", out)
"""
INVOKE = b"  - {name: invoke, licence: BSD-2-Clause, source: https://www.pyinvoke.org, use: tasks, imports: [invoke]}\n"
Manifest = dict[str, Any]


def replay(
    ground: Ground,
    folder: Path,
    change: Callable[[Manifest], None] = lambda manifest: None,
    body: str = COPY,
    share: float = 1.0,
    repack: Callable[[bytes], bytes] = bytes,
) -> Verdict:
    """Verify a submission whose times are `share` of the real ones, and whose source hands out its own run.

    `change` is of the manifest that it hands out; `body` the end of its task, `repack` of source.tar.
    """
    draft = Draft.of(ground.light)
    sooner(draft, share)
    draft.settle()
    draft.manifest["code"]["commit"] = draft.submission["commit"] = "ab" * 20
    kept = copy.deepcopy(draft.manifest)
    kept["sections"] = kept["sections"][:1]
    change(kept)
    source = source_of(draft)
    source["tasks.py"] = (0o644, (TASKS + body).encode())
    source["THIRD_PARTY.yaml"] = (0o644, source["THIRD_PARTY.yaml"][1] + INVOKE)
    source["kept/manifest.json"] = (0o644, json.dumps(kept).encode())
    for name in ("outputs.jsonl", "telemetry.csv", "run.log"):
        source[f"kept/{name}"] = (0o644, draft.contents()[f"run/{name}"])
    put_source(draft, source)
    draft.make_papers()
    draft.files["source.tar"] = repack(draft.files["source.tar"])
    verdict = verify.verify(draft.pack(folder), ground.light_organiser, Request(1, here=True), folder / "verdict")
    assert verdict.trouble == ""
    return verdict


def other_commit(manifest: Manifest) -> None:
    manifest["code"] |= {"commit": "cd" * 20, "dirty": True}


def faster_than_light(manifest: Manifest) -> None:
    manifest["elapsed_s"] = 1e-6
    manifest["phases_s"]["timed"] = [1e-6, 1e-6]


def other_power_mode(manifest: Manifest) -> None:
    manifest["board"]["after"]["mode"] = {"id": 2, "name": "MODE_15W"}


def other_weights(manifest: Manifest) -> None:
    manifest["weights"] |= {"rounded": True, "files": {}, "tensors": 1}
    manifest["dtype"] = "float32"


HANDED_OUT: dict[str, Callable[[Manifest], None]] = {
    "of another commit": other_commit,
    "of a microsecond": faster_than_light,
    "in another power mode": other_power_mode,
    "of other weights": other_weights,
}


def failed(verdict: Verdict) -> set[str]:
    return {each.id for each in verdict.checks if each.state == FAIL}


def test_a_kept_run_of_half_the_time_is_not_valid(ground: Ground, tmp_path: Path) -> None:
    """What it says of its time is not what the organiser measured."""
    assert "rerun-clock" in failed(replay(ground, tmp_path, body=LATE, share=0.5))


@pytest.mark.parametrize("name", HANDED_OUT)
def test_a_kept_run_that_tells_otherwise_is_not_valid(name: str, ground: Ground, tmp_path: Path) -> None:
    assert "rerun-record" in failed(replay(ground, tmp_path, HANDED_OUT[name]))


def with_a_file_for_a_folder(source: bytes) -> bytes:
    """The file `docs` behind `docs/method.md`."""
    file = io.BytesIO(source)
    with tarfile.open(fileobj=file, mode="a", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("docs"))
    return file.getvalue()


def test_a_file_that_is_a_folder_is_not_valid(ground: Ground, tmp_path: Path) -> None:
    assert replay(ground, tmp_path, repack=with_a_file_for_a_folder).state != VALID


def test_a_kept_run_is_handed_out(ground: Ground, tmp_path: Path) -> None:
    """What the cases above rest on: the program is started, ends well, and its run is read."""
    rerun = replay(ground, tmp_path).rerun
    assert rerun is not None
    assert [each["status"] for each in rerun["runs"]] == [0]
    assert len(rerun["elapsed_s"]) == 1


BODIES = {
    "a link for a run": '    out.symlink_to("/etc")\n',
    "a link for a manifest": COPY
    + '    (out / "manifest.json").unlink()\n    (out / "manifest.json").symlink_to("/etc/passwd")\n',
    "a pipe for a manifest": COPY + '    (out / "manifest.json").unlink()\n    os.mkfifo(out / "manifest.json")\n',
    "a failure that writes to the terminal": '    sys.stderr.write("\\x1b[2J<script>alert(1)</script>\\u202e")\n'
    "    sys.exit(7)\n",
}


@pytest.mark.parametrize("name", BODIES)
def test_what_is_no_run_is_not_valid(name: str, ground: Ground, tmp_path: Path) -> None:
    verdict = replay(ground, tmp_path, body=BODIES[name])
    assert verdict.state != VALID
    assert verdict.rerun is not None
    assert "\x1b" not in verify.text(verdict, tmp_path)
    assert "<script>alert" not in (tmp_path / "verdict" / "verdict.html").read_text(encoding="utf-8")
