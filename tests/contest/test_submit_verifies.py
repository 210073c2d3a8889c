"""`invoke submit` verifies what it packed: what it calls good is not INVALID to the organiser's verification."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import forgeries, papers
from support.audited import DECLARED, DIGEST, Ground
from support.drafts_of_submissions import Draft, source_of
from support.forgeries import LIES, UNSETTLED, UNTOLD
from support.submissions import Clone

from pipeline.contest.rules import rules
from pipeline.contest.submit import method, submit
from pipeline.contest.verify import verify
from pipeline.contest.verify.verify import INVALID
from pipeline.errors import PipelineError

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

Lie = Callable[[Draft, Any], None]


@pytest.fixture(scope="module")
def draft(ground: Ground) -> Draft:
    return Draft.of(ground.light)


@pytest.fixture(autouse=True)
def quick_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_submit.py makes the real ones, which takes a second each."""
    monkeypatch.setattr(method, "make", papers.drawn)


def checkout_of(draft: Draft, ground: Ground, folder: Path) -> tuple[Path, Path]:
    """The draft as its team has it: a checkout with the draft's source committed, and the run's folder."""
    shutil.copytree(ground.light_organiser.checkout, folder / "checkout")
    made = Clone(folder / "checkout")
    try:
        source = source_of(draft)
    except Exception:  # a source that is no archive: nobody can commit that
        source = {}
    for name, (mode, content) in source.items():
        (made.path / name).parent.mkdir(parents=True, exist_ok=True)
        (made.path / name).write_bytes(content)
        (made.path / name).chmod(mode)
    for name in set(made.git("ls-files").splitlines()) - source.keys() if source else ():
        (made.path / name).unlink()
    (made.path / ".gitignore").write_text("team.yaml\ndist/\n")
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "As it is handed in")
    if draft.manifest["code"]["commit"] == ground.light_organiser_commit:
        draft.manifest["code"]["commit"] = made.git("rev-parse", "HEAD")
    team = {**draft.submission["team"], "declarations": draft.submission["declarations"]}
    team["image"] = draft.submission["image"]["reference"] and f"blue/phi3@{DIGEST}"
    (made.path / "team.yaml").write_text(json.dumps(team))
    run = folder / "runs" / "run"
    for name, content in draft.contents().items():
        if name.startswith("run/"):
            (run.parent / name).parent.mkdir(parents=True, exist_ok=True)
            (run.parent / name).write_bytes(content)
    return made.path, run


def submitted(draft: Draft, ground: Ground, folder: Path) -> submit.Submission:
    checkout, run = checkout_of(draft, ground, folder)
    known = ground.organiser_of(checkout)
    return submit.submit(submit.Request(run, rehearsal=True), checkout=checkout, organiser=known)


def test_a_good_run_is_packed_and_its_verdict_is_told(draft: Draft, ground: Ground, tmp_path: Path) -> None:
    done = submitted(draft.copy(), ground, tmp_path)
    assert done.path is not None
    assert [path.name for path in done.path.parent.iterdir()] == [done.path.name]
    assert "invoke verify says VALID" in submit.text(done)
    assert submit.as_json(done)["verdict"] == verify.VALID
    submit.conclude(done)


REFUSED_BY_ITS_VERDICT = {
    forgeries.edited_text: ("M721", 4, "tokens"),
    forgeries.answers_without_times: ("I421", 8, "answer-times"),
    forgeries.higher_score: ("A421", 7, "score"),
}


@pytest.mark.parametrize("lie", REFUSED_BY_ITS_VERDICT, ids=lambda lie: lie.__name__)
def test_what_verification_finds_is_said_in_its_words_and_leaves_nothing(
    lie: Lie, draft: Draft, ground: Ground, tmp_path: Path
) -> None:
    code, status, check = REFUSED_BY_ITS_VERDICT[lie]
    changed = draft.copy()
    lie(changed, ground.light_organiser.model("").tokenizer)
    changed.settle()
    done = submitted(changed, ground, tmp_path)
    assert done.path is None
    assert list((tmp_path / "checkout" / "dist").iterdir()) == []
    with pytest.raises(PipelineError) as caught:
        submit.conclude(done)
    assert (caught.value.code, caught.value.exit_status) == (code, status)
    with pytest.raises(PipelineError) as theirs:
        verify.conclude(done.verdict, tmp_path)
    assert (theirs.value.code, theirs.value.actual) == (code, caught.value.actual)
    assert caught.value.actual.startswith(f"{check}: ")
    assert caught.value.what == "nothing was packed: the verdict is INVALID"


def test_a_file_of_the_same_bytes_goes_when_it_is_found_invalid(
    draft: Draft, ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For instance since a reference run came to be known in between."""
    checkout, run = checkout_of(draft.copy(), ground, tmp_path)
    known, asked = ground.organiser_of(checkout), submit.Request(run, rehearsal=True)
    good = submit.submit(asked, checkout=checkout, organiser=known)
    assert good.path.exists()
    monkeypatch.setattr(verify.Verdict, "state", INVALID)
    assert submit.submit(asked, checkout=checkout, organiser=known).path is None
    assert not good.path.exists()


ONLY_OF_ARCHIVES = {
    # What submit writes itself is right, whatever a forger would write there; a team's own source is its own.
    *(forgeries.two_models, forgeries.two_data_sets, forgeries.listing_of_other_sizes, forgeries.no_paper),
    *(forgeries.an_empty_picture, forgeries.no_explanation, forgeries.another_teams_source),
    *(forgeries.source_with_another_mode, forgeries.no_source, forgeries.team_with_a_terminals_escape),
    *(forgeries.paper_of_another_time, forgeries.paper_of_another_score, forgeries.paper_of_another_team),
    forgeries.image_that_is_an_option,
}


ALL = [*LIES, *UNTOLD]


@pytest.mark.parametrize(
    "lie",
    [pytest.param(lie, marks=[] if number % 8 == 0 else [pytest.mark.slow]) for number, lie in enumerate(ALL)],
    ids=[lie.__name__ for lie in ALL],
)
def test_what_submit_calls_good_is_not_invalid(lie: Lie, draft: Draft, ground: Ground, tmp_path: Path) -> None:
    changed = draft.copy()
    lie(changed, ground.light_organiser.model("").tokenizer)
    if lie not in UNSETTLED:
        changed.settle()
    try:
        done = submitted(changed, ground, tmp_path)
        submit.conclude(done)
    except PipelineError:
        assert not list(tmp_path.glob("checkout/dist/*.tar"))
        assert lie not in UNTOLD
        return
    assert done.path is not None
    again = verify.verify(done.path, ground.organiser_of(tmp_path / "checkout"), out=tmp_path / "verdict")
    assert again.state != INVALID, again.reasons
    waived = {f"rule-{rule.id}" for rule in rules.load().rules if rule.contest} | {f"rule-{name}" for name in DECLARED}
    assert lie in ONLY_OF_ARCHIVES or lie in UNTOLD or LIES[lie] <= waived | {"model"}
