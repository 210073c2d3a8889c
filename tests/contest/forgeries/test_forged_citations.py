"""What a copier can do to `invoke similarity` by his source or his citations."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.source_trees import COPIED, OTHER, SOURCE, tree

from pipeline.contest.similarity import fingerprints as similarity
from pipeline.contest.similarity import page as similarity_page

LIBRARY = "def helper(x):\n    return sorted(x, key=lambda y: -y)[:10] if x else None\n"


@pytest.mark.parametrize("path", [".", "./", "", "x/.."])
def test_a_citation_of_everything_hides_nothing(path: str, tmp_path: Path) -> None:
    victim = tree(tmp_path / "victim", {"own.py": COPIED, "borrowed.py": LIBRARY}, {"borrowed.py": SOURCE})
    thief = tree(tmp_path / "thief", {"mine.py": COPIED, "borrowed.py": LIBRARY}, {path: SOURCE})
    (pair,) = similarity.compare([str(victim), str(thief)]).pairs
    assert pair.highest > 0.9


def test_a_cited_source_does_not_write_to_the_terminal(tmp_path: Path) -> None:
    evil = "x\x1b[8m\x1b]0;pwned\x07\x1b[?1049hevil"
    trees = [tree(tmp_path / name, {"own.py": OTHER}, {"theirs": evil}) for name in "ab"]
    text = similarity_page.text(similarity.compare(list(map(str, trees))))
    assert "\x1b" not in text.replace("\x1b[1m", "").replace("\x1b[0m", "")


def test_many_times_the_same_file_is_compared(tmp_path: Path) -> None:
    trees = [tree(tmp_path / name, {f"f{i}.py": LIBRARY * 3 for i in range(60)}) for name in "ab"]
    (pair,) = similarity.compare(list(map(str, trees))).pairs
    assert (pair.share_a, pair.share_b) == (1.0, 1.0)
    assert len(pair.files) <= similarity.SHOWN_PAIRS
