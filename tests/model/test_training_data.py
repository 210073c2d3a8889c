"""No prompt and no question that the stand-in's adapter was trained on is in an evaluation set.

The training rows are not in the project; their hashes are.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.dataset import fetch, records

sys.path.insert(0, str(paths.ROOT))  # `tools` is not installed

from tools import standin_rows

SHIPPED = paths.ROOT / "data" / "standin"
CONTENT = "Head.\n\nquestion: Is it so?\nchoices: ['yes', \"it isn't\", 'no']\n"


def hashes(name: str) -> set[str]:
    lines = (SHIPPED / name).read_text(encoding="utf-8").split()
    assert lines == sorted(set(lines))
    assert all(len(line) == 16 and int(line, 16) >= 0 for line in lines)
    return set(lines)


@pytest.mark.parametrize("name", ["obqa-validation", "obqa-test", "obqa"])
def test_nothing_evaluated_was_trained_on(name: str) -> None:
    prompts, questions = (hashes(file) for file in standin_rows.HASH_FILES)
    assert len(prompts) > 11_000
    assert len(questions) > 11_000
    contents = [record.messages[-1]["content"] for record in records.read(fetch.ensure(name))]
    assert prompts.isdisjoint(map(standin_rows.short_hash, contents))
    assert questions.isdisjoint(standin_rows.short_hash(standin_rows.question(content)) for content in contents)


def row(content: str = CONTENT, answer: str = "no", source: str = "s") -> standin_rows.TrainingRow:
    return standin_rows.TrainingRow(content, answer, source, *standin_rows._split(content))


def test_the_guard_drops_prompts_and_questions() -> None:
    other = CONTENT.replace("so?", "not so?")
    reworded = "Other head.\n\nquestion: is it  so\nchoices: ['other']\n"
    assert standin_rows.question(CONTENT) == standin_rows.question(reworded) == "is it so"
    assert standin_rows.guarded([row(), row(reworded), row(other)], [CONTENT]) == [row(other)]
    assert standin_rows.guarded([row()], [other]) == [row()]


def test_hashes_of_rows(tmp_path: Path) -> None:
    standin_rows.write_hashes(tmp_path, [row(), row()])
    prompts, questions = ((tmp_path / name).read_text() for name in standin_rows.HASH_FILES)
    assert prompts == standin_rows.short_hash(CONTENT) + "\n"
    assert questions == standin_rows.short_hash("is it so") + "\n"


def test_choices_are_varied_and_the_answer_stays() -> None:
    truth = "question: Is it?\nchoices: [True, False]\n"
    rows = [row(), row(truth, "True"), row(answer="yes")]
    seen = set()
    for seed in range(50):
        made = standin_rows.varied(rows, random.Random(seed), shuffle=True, distractors=0.5)
        assert [answer for _, answer in made] == ["no", "True", "yes"]
        assert made[1][0] == truth
        assert all(repr(answer) in content for content, answer in made[::2])
        assert all(len(row(content).choices) == 3 for content, _ in made[::2])
        seen.add(made[0][0])
    assert len(seen) > 6
    same = standin_rows.varied(rows, random.Random(0), shuffle=False, distractors=0.0)
    assert [content for content, _ in same] == [r.content for r in rows]


def test_batches_hold_every_row_once() -> None:
    lengths = [random.Random(i).randrange(50, 150) for i in range(1000)]
    made = standin_rows.batches(lengths, 64, random.Random(0))
    assert sorted(i for batch in made for i in batch) == list(range(1000))
    assert len(made) == 16
    assert max(map(len, made)) == 64
