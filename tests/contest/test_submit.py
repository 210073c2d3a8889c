"""`invoke submit` as a team calls it: what it refuses, what it packs, and that a rehearsal is plainly one."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support.submissions import Clone, change_manifest

from pipeline.contest.checks import read_submitted, read_telemetry
from pipeline.contest.rules import evidence, rules
from pipeline.contest.source import sbom
from pipeline.contest.submit import method, pictures, submit
from pipeline.contest.team import Team
from pipeline.contest.verify import run_figures
from pipeline.device import verdict
from pipeline.device.board import Board
from pipeline.device.power import Mode
from pipeline.errors import EnvironmentProblem, FormError, IntegrityError, PipelineError, UsageError

TEAM = """\
name: Blue Team
members: [Kim, Lee]
image: example.org/blue@sha256:{digest}
declarations:
{declared}
"""
DECLARED = [rule.id for rule in rules.load().rules if rule.by == "declaration"]


@pytest.fixture
def made(original: Clone, tmp_path: Path) -> Clone:
    shutil.copytree(original.path, tmp_path / "checkout", ignore=shutil.ignore_patterns("dist"))
    return Clone(tmp_path / "checkout")


def write_team(made: Clone) -> None:
    text = TEAM.format(digest="d" * 64, declared="\n".join(f"  {each}: true" for each in DECLARED))
    (made.path / "team.yaml").write_text(text)


def on_the_board(made: Clone, **changes: Any) -> None:
    """The run as if it had been made on the contest's board with the contest's model, as far as its words go."""
    manifest = json.loads((made.run / "manifest.json").read_text())
    seen = {**manifest["board"]["before"], "mode": {"id": 0, "name": "MAXN"}, "clocks_locked": True}
    seen["board"] |= {"is_jetson": True, "module": "p3701-0004", "l4t": "36.3.0", "jetpack": "6.0"}
    root = manifest["model"]["lock_sha256"]
    change_manifest(
        made.run,
        **{
            "model": {"name": "phi3-medium", "lock_sha256": root},
            "arguments": {**manifest["arguments"], "max_new_tokens": 500},
            "board": {"before": seen, "after": seen},
            "telemetry": {**manifest["telemetry"], "others_share": 0.0},
            "network": {"interfaces": [], "received_bytes": 0, "sent_bytes": 0},
            **changes,
        },
    )
    recording, trouble = read_telemetry.read(made.run, read_submitted.read_manifest(made.run)[0])
    assert trouble == ""
    seen = verdict.State(Board(**seen["board"]), Mode(0, "MAXN"), clocks_locked=True)
    change_manifest(made.run, verdict=asdict(verdict.judge(seen, seen, recording)))


def without_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a run whose words are made up, which verification sees (test_submit_verifies.py)."""
    monkeypatch.setattr(submit.verify, "verify", lambda tar, *_, **__: submit.Verdict(tar.stem, ()))


def submitted(made: Clone, **how: Any) -> submit.Submission:
    return submit.submit(submit.Request(made.run, **how), checkout=made.path)


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {member.name.split("/", 1)[1]: archive.extractfile(member).read() for member in archive}


@pytest.mark.slow
def test_make_run_and_make_submit_on_a_laptop_give_a_rehearsal(original: Clone) -> None:
    done = original.invoke("submit")
    assert (done.returncode, done.stderr) == (0, "")
    assert "REHEARSAL, not a result for the contest: this machine is not a Jetson" in done.stdout
    assert "cp configs/team.example.yaml team.yaml" in done.stdout
    (path,) = (original.path / "dist").glob("*.tar")
    assert path.name.startswith("example-team-rehearsal-")
    assert f"dist/{path.name}" in done.stdout
    assert hashlib.sha256(path.read_bytes()).hexdigest() in done.stdout
    found = unpacked(path)
    assert json.loads(found["submission.json"])["rehearsal"] is True
    assert {
        "MANIFEST.sha256", "submission.json", "source.tar", "THIRD_PARTY.yaml", "sbom.cdx.json",
        "method.md", "method.pdf", "leaderboard.png", "run/manifest.json", "run/outputs.jsonl",
    } <= found.keys()  # fmt: skip
    assert "A rehearsal" in found["method.md"].decode()
    assert original.git("status", "--porcelain") == ""
    before = path.read_bytes()
    assert json.loads(original.invoke("submit", "--run", original.run.name, "--json").stdout)["file"] == str(path)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_run_on_the_board_is_the_contests(made: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    write_team(made)
    on_the_board(made)
    without_verification(monkeypatch)
    done = submitted(made)
    assert rules.refused(done.judged, rehearsal=False) == []
    assert not done.rehearsal
    assert done.path.name.startswith("blue-team-")
    assert "rehearsal" not in done.path.name
    told = json.loads(unpacked(done.path)["submission.json"])
    assert told["image"] == {"reference": f"example.org/blue@sha256:{'d' * 64}", "digest": f"sha256:{'d' * 64}"}
    assert told["declarations"] == dict.fromkeys(sorted(DECLARED), True)
    assert "accuracy" in submit.text(done)
    submit.conclude(done)


STATUS = {"usage": 2, "environment": 3, "integrity": 4, "resource": 5, "form": 6, "accuracy": 7, "invalid": 8}


@pytest.mark.parametrize("kind", STATUS)
def test_the_status_is_that_of_the_first_failing_rules_kind(kind: str) -> None:
    judged = rules.judge(evidence.Evidence())
    failing = [replace(each, state="fail" if each.kind == kind else each.state, found="x") for each in judged]
    failing = [each for each in failing if each.kind == kind]
    with pytest.raises(PipelineError) as caught:
        submit.conclude(submit.Submission("run", failing, False, ""))
    assert caught.value.exit_status == STATUS[kind]
    assert caught.value.code[1:] == "622"
    assert failing[0].id in caught.value.what
    assert failing[0].fix in caught.value.fix
    assert "invoke submit --rehearsal" in caught.value.fix


def test_nothing_is_packed_while_a_rule_fails(made: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    write_team(made)
    on_the_board(made, dtype="float16")
    done = submitted(made)
    assert done.path is None
    assert not (made.path / "dist").exists()
    assert [each.id for each in rules.refused(done.judged, rehearsal=False)] == ["precision"]
    with pytest.raises(IntegrityError, match="precision") as caught:
        submit.conclude(done)
    assert caught.value.code == "M622"


@pytest.mark.slow
def test_the_same_can_be_rehearsed_where_it_is_asked_for(made: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_board(made)
    without_verification(monkeypatch)
    assert submitted(made).path is None
    done = submitted(made, rehearsal=True)
    assert done.path.name.startswith("example-team-rehearsal-")
    assert done.why_rehearsal == "as was asked for"


@pytest.mark.slow
def test_a_rehearsal_too_is_refused_for_what_is_not_the_contests_own(made: Clone) -> None:
    row = json.loads((made.run / "outputs.jsonl").read_text().splitlines()[0])
    lines = (made.run / "outputs.jsonl").read_text().splitlines()
    (made.run / "outputs.jsonl").write_text("\n".join([json.dumps({**row, "output": "yes"}), *lines[1:]]) + "\n")
    done = made.invoke("submit")
    assert done.returncode == 6
    assert "F622" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (made.path / "dist").exists()


@pytest.mark.slow
def test_without_a_run_it_says_how_to_make_one(made: Clone) -> None:
    shutil.rmtree(made.path / "runs")
    done = made.invoke("submit")
    assert (done.returncode, "U621" in done.stderr) == (2, True)
    assert "make run" in done.stderr


@pytest.mark.slow
def test_a_run_that_is_not_there_is_named_like_elsewhere(made: Clone) -> None:
    done = made.invoke("submit", "--run", "nothing")
    assert (done.returncode, "U311" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: A\nmembers: []", "members"),
        ("name: A\nmembers: [a, a]", "twice"),
        ("name: A\nmembers: [a]\nphone: 1", "phone"),
        ("name: A\nmembers: [a]\nimage: --privileged", "image"),
        ("name: ''\nmembers: [a]", "name"),
        ("[", "expected"),
    ],
)
def test_a_team_that_cannot_be_is_refused_with_the_key(made: Clone, text: str, says: str) -> None:
    (made.path / "team.yaml").write_text(text)
    with pytest.raises(PipelineError, match="configuration") as caught:
        submitted(made)
    assert caught.value.code == "M101"
    assert says in str(caught.value)


def test_a_team_of_four_is_told_that_it_is_four(made: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    write_team(made)
    path = made.path / "team.yaml"
    path.write_text(path.read_text().replace("[Kim, Lee]", "[Kim, Lee, Park, Choi]"))
    on_the_board(made)
    done = submitted(made)
    assert [each.id for each in rules.refused(done.judged, rehearsal=False)] == ["team"]
    with pytest.raises(UsageError) as caught:
        submit.conclude(done)
    assert (caught.value.code, caught.value.actual) == ("U622", "Blue Team: 4 members")
    assert not (made.path / "dist").exists()


def test_without_the_libraries_that_draw_it_says_which_lock_has_them(
    made: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "pipeline.contest.submit.method", "pipeline.contest.submit.pictures"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("pipeline.contest.submit.method")
    with pytest.raises(EnvironmentProblem) as caught:
        submitted(made)
    assert caught.value.code == "E623"
    assert "requirements/host.lock" in caught.value.fix


@pytest.mark.slow
def test_in_an_image_it_says_to_submit_in_a_clone(made: Clone) -> None:
    """An image has neither a history nor what draws."""
    shutil.rmtree(made.path / ".git")
    (made.path / "matplotlib.py").write_text("raise ModuleNotFoundError('matplotlib')")
    done = made.invoke("submit")
    assert done.returncode == 3
    assert "E601" in done.stderr
    assert "call invoke submit --run in a clone" in done.stderr


@pytest.mark.slow
def test_an_image_that_nobody_has_cannot_be_saved(made: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{made.path}:{shutil.which('git').rsplit('/', 1)[0]}")
    monkeypatch.setattr(submit.process, "docker", lambda *arguments: None)
    with pytest.raises(EnvironmentProblem) as caught:
        submitted(made, save_image=True)
    assert caught.value.code == "E621"
    assert list((made.path / "dist").iterdir()) == []


@pytest.mark.slow
def test_the_image_is_saved_by_docker_and_its_digest_asked_of_it(made: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker that writes down what it is asked, in the place of the real one."""
    docker = made.path.parent / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = save ]; then\n'
        'cd "${3%/*}"; echo "layers of $4" > manifest.json; tar cf "$3" manifest.json; exit; fi\n'
        "echo '[\"example.org/blue@sha256:1\"]'\n"
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{shutil.os.environ['PATH']}")
    (made.path / "team.yaml").write_text("name: Blue\nmembers: [Kim]\nimage: example.org/blue:final\n")
    found = unpacked(submitted(made, save_image=True).path)
    with tarfile.open(fileobj=io.BytesIO(found["image.tar"])) as archive:
        assert archive.extractfile("manifest.json").read() == b"layers of example.org/blue:final\n"
    assert json.loads(found["submission.json"])["image"]["digest"] == "sha256:1"


@pytest.mark.slow
def test_an_explanation_may_be_written_after_the_run(made: Clone) -> None:
    template = made.path / method.TEMPLATE
    template.write_text(template.read_text() + "\nWritten later.\n")
    made.git("commit", "--quiet", "--all", "--message", "Explain")
    found = unpacked(submitted(made).path)
    assert "Written later." in found["method.md"].decode()
    with tarfile.open(fileobj=io.BytesIO(found["source.tar"])) as archive:
        assert b"Written later." not in archive.extractfile(method.TEMPLATE).read()


@pytest.mark.slow
def test_rules_are_shown_without_a_run_and_with_one(made: Clone) -> None:
    seen = json.loads(made.invoke("rules", "--run", made.run.name, "--json").stdout)
    assert {each["id"]: each["state"] for each in seen}["output-form"] == "ok"
    shutil.rmtree(made.path / "runs")
    done = made.invoke("rules")
    assert done.returncode == 0
    assert "there is none yet" in done.stdout
    assert "unknown output-form" in done.stdout


def test_accuracy_is_held_against_a_run_of_the_unmodified_pipeline(made: Clone, tiny: Path) -> None:
    run = made.run  # the newest, before there is a reference

    def accuracy() -> str:
        return evidence.here(run, made.path).checked("accuracy", of_the_contest=False).state

    manifest = json.loads((run / "manifest.json").read_text())
    assert accuracy() == "unknown"
    other = run.with_name(f"{run.name}-reference")
    shutil.copytree(run, other)
    change_manifest(other, engine={"name": "reference"})
    assert evidence.reference_of(run, manifest) == other
    assert accuracy() == "ok"
    change_manifest(other, dataset={**manifest["dataset"], "rows": 29})
    assert accuracy() == "unknown"


def about(made: Clone, manifest: dict[str, Any], **changes: Any) -> run_figures.About:
    known = {
        "team": Team(name="Blue <Team> & Co", members=("Kim",)),
        "run": made.run.name,
        "commit": manifest["code"]["commit"],
        "committed_s": 1728216000,
        "rehearsal": False,
        "accuracy_words": None,
        "image": None,
    }
    return run_figures.About(**{**known, **changes})


def sources(made: Clone) -> dict[str, bytes]:
    names = made.git("ls-files").splitlines()
    return {name: (made.path / name).read_bytes() for name in names}


def test_the_documents_have_the_runs_figures_and_are_the_same_every_time(original: Clone) -> None:
    manifest = json.loads((original.run / "manifest.json").read_text())
    one = method.make(manifest, sources(original), about(original, manifest))
    assert one == method.make(manifest, sources(original), about(original, manifest))
    text = one["method.md"].decode()
    assert f"**{manifest['elapsed_s']:,.2f} s**" in text
    assert f"{manifest['engine']['stats']['prompt_tokens']:,} prompt" in text
    assert "{{" not in text
    assert "arXiv" in text
    assert one["method.pdf"].startswith(b"%PDF-")
    assert b"/CreationDate (D:2000" in one["method.pdf"]  # reportlab's fixed date
    for name in ("leaderboard.png", "method-rows.png", "method-cost.png"):
        assert one[name].startswith(b"\x89PNG\r\n")
        assert f"({name})" in text


@pytest.mark.parametrize(
    ("model", "said", "unsaid"),
    [
        (
            "standin",
            "quantised in blocks, whose values were read back exactly into float32, and an adapter",
            "published",
        ),
        ("phi3-medium", "those that the model's authors published", "adapter"),
        ("my/folder", "of the folder my/folder", "published"),
    ],
)
def test_the_document_says_whose_weights_they_are(model: str, said: str, unsaid: str) -> None:
    words = run_figures.origin(model)
    assert said in words
    assert unsaid not in words


def test_figures_of_the_reference_are_not_made_up(original: Clone) -> None:
    manifest = json.loads((original.run / "manifest.json").read_text())
    manifest["engine"] = {"name": "reference"}
    made = method.make(manifest, sources(original), about(original, manifest))
    assert run_figures.UNSEEN in made["method.md"].decode()
    assert "method-rows.png" not in made
    assert "method-rows.png" not in made["method.md"].decode()


def test_a_template_with_an_unknown_figure_names_it_and_the_line() -> None:
    with pytest.raises(FormError) as caught:
        method.fill("# a\n\nIt took {{ tiem_s }} s", {"time_s": "1"}, {})
    assert caught.value.code == "F602"
    assert caught.value.where == "docs/method.md line 3"


def test_a_missing_template_is_said() -> None:
    with pytest.raises(FormError) as caught:
        method.template({})
    assert caught.value.code == "F601"


def test_a_team_whose_letters_no_font_has_is_told() -> None:
    assert not pictures.without_letters("Blue Team")
    assert pictures.without_letters("\U00012000")


def test_the_bill_of_materials_is_the_runs(original: Clone) -> None:
    manifest = json.loads((original.run / "manifest.json").read_text())
    source = sources(original)
    bill = json.loads(sbom.make(manifest, source, 1728216000))
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert bill["metadata"]["timestamp"] == "2024-10-06T12:00:00Z"
    found = {each["name"]: each for each in bill["components"]}
    for name, version in manifest["environment"]["packages"].items():
        assert found[name]["version"] == version
    assert all("licenses" in each for each in bill["components"] if each["type"] == "library")
    assert "colorama" not in found  # for Windows only
    assert len({each["bom-ref"] for each in bill["components"]}) == len(bill["components"])


def test_the_lock_is_the_one_that_the_runs_packages_are_of(original: Clone) -> None:
    manifest = json.loads((original.run / "manifest.json").read_text())
    source = sources(original)
    old = dict(sbom.pins(source["requirements/jetpack6.lock"], {**manifest["environment"], "machine": "aarch64"}))
    on_a_board = {"python": "3.10.12", "machine": "aarch64", "packages": {"torch": "2.4.0a0", **old}}
    assert sbom.lock_of({"environment": on_a_board}, source) == "requirements/jetpack6.lock"


def test_an_empty_folder_of_runs_is_a_usage_error(runs: Path) -> None:
    with pytest.raises(UsageError) as caught:
        submit.newest()
    assert caught.value.code == "U621"


def test_the_newest_run_is_the_newest_of_ours_that_is_finished(runs: Path) -> None:
    ours, theirs = {"name": "ours"}, {"name": "reference"}
    for name, manifest in (
        ("20240101T000000-a", {"state": "finished", "engine": ours}),
        ("20240102T000000-b", {"state": "failed", "engine": ours}),
        ("20240103T000000-c", {"state": "finished", "engine": theirs}),
        ("20240104T000000-d", []),
    ):
        (runs / name).mkdir(parents=True)
        (runs / name / "manifest.json").write_text(json.dumps(manifest))
    assert submit.newest().name == "20240101T000000-a"
