"""Copied source is found, also renamed; what both cite, and what all were given, is not held against anybody."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.audited import Ground
from support.page_checks import check
from support.source_trees import COPIED, OTHER, SOURCE, THIRD, disguised, tree

from pipeline import paths
from pipeline.contest.similarity import fingerprints as similarity
from pipeline.contest.similarity import page as similarity_page
from pipeline.contest.similarity import source_tree as trees
from pipeline.errors import CannotTell, PipelineError, UsageError

Invoke = Callable[..., "subprocess.CompletedProcess[str]"]


def shares(*folders: Path, **how: str) -> tuple[float | None, float | None]:
    (pair,) = similarity.compare([str(folder) for folder in folders], **how).pairs
    return pair.share_a, pair.share_b


def test_a_renamed_copy_is_found_where_it_is(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", {"x/tree.py": COPIED, "own.py": OTHER})
    b = tree(tmp_path / "b", {"y/forest.py": disguised(COPIED), "rest.py": THIRD})
    made = similarity.compare([str(a), str(b)])
    (pair,) = made.pairs
    assert pair.files[0].path_a == "x/tree.py"
    assert pair.files[0].path_b == "y/forest.py"
    assert pair.files[0].share_a > 0.85
    assert 0.2 < pair.share_a < 0.9
    text_a, text_b = (made.texts[key].split("\n") for key in (("a", "x/tree.py"), ("b", "y/forest.py")))
    for passage in pair.files[0].passages:
        first_a, first_b = (
            text[lines[0] - 1] for text, lines in ((text_a, passage.lines_a), (text_b, passage.lines_b))
        )
        assert first_a.strip() == first_b.strip().replace("my_", "") or not first_b.strip().startswith("def")
    longest = max(pair.files[0].passages, key=lambda each: each.lines_a[1] - each.lines_a[0])
    inside = "\n".join(text_b[longest.lines_b[0] - 1 : longest.lines_b[1]])
    assert "class PrefixTree" in inside or "def build" in inside


def test_what_was_written_apart_is_not_alike(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", {"a.py": COPIED}), tree(tmp_path / "b", {"b.py": THIRD})
    assert max(shares(a, b)) < 0.1


def test_the_same_tree_is_all_alike(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", {"a.py": OTHER}), tree(tmp_path / "b", {"b.py": OTHER})
    assert shares(a, b) == (1.0, 1.0)


def test_what_both_cite_from_one_source_is_left_out(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", {"x/tree.py": COPIED, "own.py": OTHER}, {"x/tree.py": SOURCE})
    b = tree(tmp_path / "b", {"y/forest.py": COPIED, "own.py": THIRD}, {"y": f"{SOURCE}.git/"})
    (pair,) = similarity.compare([str(a), str(b)]).pairs
    assert max(pair.share_a, pair.share_b) < 0.1
    assert pair.left_out == ("github.com/somebody/trees",)


def test_a_file_that_is_everywhere_is_shown_beside_a_few(tmp_path: Path) -> None:
    a, b = (tree(tmp_path / name, {f"m{number}.py": COPIED for number in range(12)}) for name in "ab")
    (pair,) = similarity.compare([str(a), str(b)]).pairs
    assert (pair.share_a, pair.share_b) == (1.0, 1.0)
    for side in ("path_a", "path_b"):
        beside = Counter(getattr(file, side) for file in pair.files)
        assert len(beside) == 12
        assert max(beside.values()) <= similarity.SHOWN_BESIDE


def test_a_source_beyond_the_limits_is_named_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tree(tmp_path / name, {"tree.py": COPIED}) for name in "abc"]
    read = similarity.prints.of_tree

    def bounded(of: trees.Tree, everyones: similarity.Hashes) -> object:
        if of.name == "b":
            os.kill(os.getpid(), signal.SIGXCPU)  # as the kernel does, without waiting for it
        return read(of, everyones)

    monkeypatch.setattr(similarity.prints, "of_tree", bounded)
    made = similarity.compare([str(folder) for folder in folders])
    assert [(pair.a, pair.b, pair.share_a) for pair in made.pairs] == [("a", "c", 1.0)]
    assert "CANNOT TELL what b shares: it took more than" in similarity_page.text(made)
    with pytest.raises(CannotTell) as caught:
        similarity.conclude(made)
    assert caught.value.code == "C102"
    assert str(caught.value.actual).startswith("b: it took more than")
    with pytest.raises(CannotTell, match="C102"):
        similarity.compare([str(folders[0]), str(folders[2])], given=str(folders[1]))


@pytest.mark.parametrize("name", ["tree.pyw", "tree.PY", "tree.pyi"])
def test_a_copy_by_another_ending_is_found(tmp_path: Path, name: str) -> None:
    a, b = tree(tmp_path / "a", {"tree.py": COPIED}), tree(tmp_path / "b", {name: disguised(COPIED)})
    assert min(share or 0.0 for share in shares(a, b)) > 0.85


def test_a_copy_in_a_notebook_is_found(tmp_path: Path) -> None:
    lines = COPIED.splitlines(keepends=True)
    cells = [
        {"cell_type": "markdown", "source": ["A story"]},
        {"cell_type": "code", "source": lines[:20]},
        {"cell_type": "code", "source": "".join(lines[20:])},
    ]
    a = tree(tmp_path / "a", {"tree.py": COPIED})
    b = tree(tmp_path / "b", {"tree.ipynb": json.dumps({"cells": cells}), "broken.ipynb": "[" * 100_000})
    assert (shares(a, b)[0] or 0.0) > 0.85


def test_what_is_alike_in_an_engine_comes_first(tmp_path: Path) -> None:
    short = "\n".join(COPIED.splitlines()[:25])
    files = {"app/tree.py": OTHER, "pipeline/engine/tree.py": short}
    a, b = tree(tmp_path / "a", files), tree(tmp_path / "b", files)
    (pair,) = similarity.compare([str(a), str(b)]).pairs
    assert [file.path_a for file in pair.files] == ["pipeline/engine/tree.py", "app/tree.py"]


def test_no_strangers_word_moves_the_cursor(tmp_path: Path) -> None:
    source = "https://github.com/\x1b[2Jsomebody"
    a, b = (
        tree(tmp_path / name, {"tree.py": COPIED, "\x1b[2J.py": OTHER}, {"tree.py": source})
        for name in ("a\x1b[1m", "b")
    )
    (tmp_path / "b" / "THIRD_PARTY.yaml").unlink()
    (b / "THIRD_PARTY.yaml").write_text((a / "THIRD_PARTY.yaml").read_text())
    shown = similarity_page.text(similarity.compare([str(a), str(b)]))
    assert "left out what both cite" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("cites", [{}, {"y/forest.py": "https://github.com/somebody/else"}])
def test_what_only_one_cites_is_not_left_out(tmp_path: Path, cites: dict[str, str]) -> None:
    a = tree(tmp_path / "a", {"x/tree.py": COPIED}, {"x/tree.py": SOURCE})
    b = tree(tmp_path / "b", {"y/forest.py": COPIED}, cites)
    assert shares(a, b) == (1.0, 1.0)


def test_a_citation_does_not_hide_another_file(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", {"tree.py": COPIED, "own.py": OTHER}, {"own.py": SOURCE})
    b = tree(tmp_path / "b", {"forest.py": COPIED, "own.py": OTHER}, {"own.py": SOURCE})
    assert shares(a, b) == (1.0, 1.0)


def test_what_all_were_given_is_left_out(tmp_path: Path) -> None:
    given = tree(tmp_path / "given", {"start.py": COPIED})
    a = tree(tmp_path / "a", {"start.py": COPIED, "own.py": OTHER})
    b = tree(tmp_path / "b", {"moved/start.py": COPIED, "own.py": THIRD})
    assert max(shares(a, b, given=str(given))) < 0.1
    c = tree(tmp_path / "c", {"start.py": COPIED})
    assert shares(c, a, given=str(given))[0] is None


def test_a_tree_without_citations_is_compared_and_noted(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", {"a.py": OTHER}), tree(tmp_path / "b", {"b.py": OTHER})
    (b / "THIRD_PARTY.yaml").write_text("code: [")
    made = similarity.compare([str(a), str(b)])
    assert made.pairs[0].share_a == 1.0
    assert any(note.startswith("b has no THIRD_PARTY.yaml") for note in made.notes)


def test_every_pair_of_three_is_compared_the_most_alike_first(tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", {"a.py": OTHER}), tree(tmp_path / "b", {"b.py": COPIED})
    c = tree(tmp_path / "c", {"c.py": disguised(COPIED)})
    made = similarity.compare([str(a), str(b), str(c)])
    assert (made.pairs[0].a, made.pairs[0].b) == ("b", "c")
    assert len(made.pairs) == 3


def test_what_runs_and_set_up_made_is_not_source(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", {"a.py": OTHER, ".venv/lib/x.py": COPIED, "models/m.py": COPIED})
    os.symlink(paths.ROOT / "pipeline/engine/engine.py", a / "link.py")
    assert sorted(trees.read(a).files) == ["THIRD_PARTY.yaml", "a.py"]


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_a_submission_is_read_from_its_tar(tmp_path: Path) -> None:
    source = archive(tmp_path / "source.tar", {"own.py": OTHER.encode(), "THIRD_PARTY.yaml": b"code: []"})
    whole = archive(
        tmp_path / "blue-0123.tar", {"blue-0123/source.tar": source.read_bytes(), "blue-0123/run/x.py": COPIED.encode()}
    )
    read = trees.read(whole)
    assert read.name == "blue-0123"
    assert sorted(read.files) == ["THIRD_PARTY.yaml", "own.py"]
    (tmp_path / "unpacked").mkdir()
    source.rename(tmp_path / "unpacked" / "source.tar")
    assert trees.read(tmp_path / "unpacked").files == read.files


def test_a_packed_submission_has_its_source_and_its_citations(ground: Ground) -> None:
    read = trees.read(ground.tar)
    assert read.name == ground.tar.name.removesuffix(".tar")
    assert read.files["pipeline/contest/similarity/source_tree.py"] == Path(trees.__file__).read_bytes()
    assert read.cited is not None


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py"])
def test_a_tar_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    inner = archive(tmp_path / "source.tar", {name: b"x = 1\n"})
    whole = archive(tmp_path / "t.tar", {"t/source.tar": inner.read_bytes()})
    for path in (inner, whole):
        with pytest.raises(PipelineError) as caught:
            trees.read(path)
        assert caught.value.code == "M702"


def test_a_source_archive_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "source.tar").open("wb") as file:
        file.truncate(2 * trees.LARGEST_BYTES + 1)
    with pytest.raises(PipelineError) as caught:
        trees.read(tmp_path)
    assert caught.value.code == "M715"


@pytest.mark.parametrize(("names", "code"), [(["a"], "U722"), (["a", "a"], "U723"), (["a", "nowhere"], "U721")])
def test_what_cannot_be_compared_is_refused(tmp_path: Path, names: list[str], code: str) -> None:
    tree(tmp_path / "a", {"a.py": OTHER})
    with pytest.raises(UsageError) as caught:
        similarity.compare([str(tmp_path / name) for name in names])
    assert caught.value.code == code


@pytest.mark.slow
def test_the_result_does_not_depend_on_pythons_hash_seed(tmp_path: Path) -> None:
    a = tree(tmp_path / "a", {"a.py": COPIED, "own.py": OTHER})
    b = tree(tmp_path / "b", {"b.py": disguised(COPIED), "rest.py": THIRD})
    ask = (
        "import sys; from pipeline.contest.similarity import fingerprints, page\n"
        "print(page.html(fingerprints.compare(sys.argv[1:])))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", ask, a, b],
            env={**os.environ, "PYTHONPATH": str(paths.ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1


def test_the_page_shows_passages_side_by_side_as_text(tmp_path: Path) -> None:
    evil = COPIED.replace("import", "import  # <script>alert(1)</script>\n#", 1)
    a, b = tree(tmp_path / "a", {"a.py": OTHER + evil}), tree(tmp_path / "b", {"b.py": evil + THIRD})
    page = similarity_page.html(similarity.compare([str(a), str(b)]))
    check(page)
    assert "<script>alert" not in page
    assert "b.py, lines " in page


@pytest.mark.slow
def test_a_shells_star_names_as_many_as_there_are(invoke: Invoke, tmp_path: Path) -> None:
    names = [str(tree(tmp_path / name, {"tree.py": COPIED})) for name in ("a", "b", "c d")]
    done = invoke("similarity", *names, "--to", tmp_path / "page.html", "--json")
    assert done.returncode == 0, done.stderr
    assert {(pair["a"], pair["b"]) for pair in json.loads(done.stdout)["pairs"]} == {
        ("a", "b"), ("a", "c d"), ("b", "c d")
    }  # fmt: skip
    behind = invoke("similarity", "--json", "--to", tmp_path / "page.html", *names[:2], "--", names[2])
    assert behind.stdout == done.stdout


@pytest.mark.slow
def test_as_a_user_calls_it(invoke: Invoke, tmp_path: Path) -> None:
    a, b = tree(tmp_path / "a", {"a.py": COPIED}), tree(tmp_path / "b", {"b.py": COPIED})
    c = tree(tmp_path / "with blank", {"c.py": OTHER})
    out = tmp_path / "page.html"
    done = invoke("similarity", a, b, "--to", out, "--", c)
    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout
    assert "with blank" in done.stdout
    check(out.read_text(encoding="utf-8"))
    done = invoke("similarity", a, b, "--to", out, "--json")
    assert json.loads(done.stdout)["pairs"][0]["share_a"] == 1.0
    assert not (tmp_path / "similarity.html").exists()
    assert invoke("similarity", a, b).returncode == 0
    check((tmp_path / "similarity.html").read_text(encoding="utf-8"))
    done = invoke("similarity", a, tmp_path / "nowhere")
    assert done.returncode == 2
    assert "U721" in done.stderr
