"""Answers that the submitted program did not get from the model as published: caught by the audit, and by nothing else.

The text is that of the tokens, and counts, hashes and score fit; the organiser has no reference run. The model is the
tiny one of the good submission; benchmarks/audit.py does the same with the stand-in, and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.audited import WRONG, Ground, in_state
from support.drafts_of_submissions import Draft
from transformers import AutoTokenizer

from benchmarks.audit_cells import rounded
from pipeline import text_generation
from pipeline.check import FAIL, OK
from pipeline.contest.audit import judging, looking
from pipeline.contest.audit.looking import Subject
from pipeline.contest.checks.organiser import Organiser
from pipeline.contest.verify import audit_checks, verify
from pipeline.dataset import records
from pipeline.text.chat_template import token_ids

pytestmark = [pytest.mark.checkout, pytest.mark.usefixtures("one_thread")]

AUDIT = {judging.TOKENS, judging.SUM}
Answers = dict[int, list[int]]
Weights = dict[str, torch.Tensor]


class Liar:
    """What a team has at hand: model, data with the key, and the answers of an honest run."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        self.ground, self.folder, self.draft = ground, folder, Draft.of(ground.light)
        self.rows = records.read(ground.data)
        self.tokenizer = AutoTokenizer.from_pretrained(str(ground.model))
        self.most = self.draft.manifest["request"]["max_new_tokens"]
        self.own = {row["index"]: row["token_ids"] for row in self.draft.rows}

    def answers(self, change: Callable[[Weights], Weights] = dict, cut: int | None = None) -> Answers:
        """Those of a model with other weights, or of prompts of which only so many letters are left."""
        made, model = dict[int, list[int]](), self.folder / "model"
        model.mkdir(exist_ok=True)
        for path in self.ground.model.iterdir():
            if path.suffix != ".safetensors" and "lock" not in path.name:
                (model / path.name).write_bytes(path.read_bytes())
        weights = load_file(self.ground.model / "model.safetensors")
        save_file(change(weights), model / "model.safetensors", metadata={"format": "pt"})
        pipe = text_generation.load(model, dtype="float32", device="cpu")
        chats = [[{**row.messages[-1], "content": row.messages[-1]["content"][:cut]}] for row in self.rows]
        keep = lambda got: made.__setitem__(got.index, list(got.token_ids))  # noqa: E731
        pipe(chats, max_new_tokens=self.most, return_full_text=False, do_sample=False, on_answer=keep)
        return made


def int4(liar: Liar) -> Answers:
    return liar.answers(
        lambda them: {n: rounded(w, 4) if w.shape[-1] % 32 == 0 and w.ndim == 2 else w for n, w in them.items()}
    )


def another_adapter(liar: Liar) -> Answers:
    """Of rank one, on every projection."""
    chance = torch.Generator().manual_seed(7)

    def moved(weight: torch.Tensor) -> torch.Tensor:
        out, into = (torch.randn(size, 1, generator=chance) for size in weight.shape)
        return weight + 0.2 * weight.std() * out @ into.T

    return liar.answers(lambda them: {n: moved(w) if ".layers." in n and w.ndim == 2 else w for n, w in them.items()})


def truncated_prompts(liar: Liar) -> Answers:
    return liar.answers(cut=12)


def flipped_token(liar: Liar) -> Answers:
    """One, in one answer."""
    (token, *rest) = liar.own[2]
    return {2: [token + (2 if (token + 1) % 8 == 0 else 1), *rest]}


def from_the_key(liar: Liar) -> Answers:
    """The row that the model gets wrong."""
    tokens = liar.tokenizer(liar.rows[WRONG].answer, add_special_tokens=False)["input_ids"]
    return {WRONG: [*(each for each in tokens if each % 8), 8][: liar.most]}


LIES = (int4, another_adapter, truncated_prompts, flipped_token, from_the_key)


def put(draft: Draft, answers: Answers, liar: Liar) -> None:
    stats = draft.manifest["engine"]["stats"]
    for index, tokens in answers.items():
        draft.say(index, liar.tokenizer.decode(tokens, skip_special_tokens=True), tokens)
        for drafts in (stats["drafts_proposed"], stats["drafts_accepted"]):
            drafts["lookup"] += len(tokens)  # so that its few passes could have given them
    draft.settle()


@pytest.fixture(scope="module")
def liar(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Liar:
    return Liar(ground, tmp_path_factory.mktemp("liar"))


def audited(draft: Draft, ground: Ground, folder: Path) -> verify.Verdict:
    organiser = Organiser(ground.data, None, str(ground.model), ground.light_organiser.checkout)
    verdict = verify.verify(draft.pack(folder), organiser, out=folder / "verdict", audit=audit_checks.Request("cpu"))
    assert verdict.trouble == ""
    return verdict


def test_the_honest_one_passes(ground: Ground, tmp_path: Path) -> None:
    verdict = audited(Draft.of(ground.light), ground, tmp_path)
    assert in_state(verdict, OK) >= AUDIT
    assert in_state(verdict, FAIL) == set()


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
@pytest.mark.slow
def test_it_is_caught_by_the_audit_and_by_nothing_else(
    lie: Callable[[Liar], Answers], liar: Liar, ground: Ground, tmp_path: Path
) -> None:
    answers = {row: tokens for row, tokens in lie(liar).items() if tokens != liar.own[row]}
    assert answers
    draft = Draft.of(ground.light)
    put(draft, answers, liar)
    right = sum(
        row.answer == draft.row(row.index)["output"][0]["generated_text"].lstrip().replace("\n", "")
        for row in liar.rows
    )
    draft.manifest["score"]["correct"] = right
    draft.make_papers()
    verdict = audited(draft, ground, tmp_path)
    assert in_state(verdict, FAIL) <= AUDIT, verdict.reasons
    assert judging.TOKENS in in_state(verdict, FAIL)
    assert verdict.audit is not None
    assert set(verdict.audit["rows_beyond"]) == set(answers)


@pytest.mark.slow
def test_one_answer_of_thirty_from_the_key_in_bfloat16(liar: Liar, ground: Ground) -> None:
    """Within the 5 % of rows in which honest runs in bfloat16 may differ from the reference: only the audit sees it."""
    chats = [[{"role": "user", "content": f"question: {number}?"}] for number in range(30)]
    pipe, made = text_generation.load(ground.model, dtype="bfloat16", device="cpu"), dict[int, list[int]]()
    keep = lambda got: made.__setitem__(got.index, list(got.token_ids))  # noqa: E731
    pipe(chats, max_new_tokens=8, return_full_text=False, do_sample=False, on_answer=keep)
    prompts = dict(enumerate(token_ids(liar.tokenizer, chats)))

    def beyond(answers: Answers) -> tuple[int, ...]:
        return judging.judge(looking.look(Subject(ground.model, "bfloat16", prompts, answers), "cpu")).beyond

    assert beyond(made) == ()
    assert beyond(made | {17: from_the_key(liar)[WRONG]}) == (17,)
