"""The layout of the project, read by `ast` without importing anything: which room may import which, sizes, names.

A room is a module that lies loose in `pipeline/` or one of its folders; of `pipeline/contest/` each folder is one.
Every rule is a function from a root to complaints, so that it is tried on trees that break it too.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import paths

FLOORS = (
    ("errors", "paths", "check", "process", "table", "requirements_lock"),
    ("files", "engine", "text"),
    ("schemas", "device", "html"),
    ("settings", "download", "queues"),
    ("model", "dataset", "record"),
    ("text_generation", "reference", "prepare", "accuracy"),
    ("runs", "report"),
    ("contest",),
    ("contest/archive", "contest/source", "contest/rerun"),
    ("contest/signing",),
    ("contest/checks",),
    ("contest/rules", "contest/ranking", "contest/similarity", "contest/audit"),
    ("contest/verify",),
    ("contest/submit", "contest/judge"),
    ("commands",),
)
"""From the ground up. A room imports only from the floors below its own, so there is no circle either."""

NARROW = {
    "engine": {"errors"},
    "device": {"errors", "files"},
    "text": {"errors", "files"},
    "html": {"errors", "files"},
}
"""Rooms that know little of ours, whatever their floor."""

MOST_LOOSE_MODULES = 12
MOST_FILES = 14
"""In a folder, sub-folders not counted; `engine/` is one subject and has more."""
MOST_LINES = 300
"""Tests are lists of cases and may be longer."""
LAID_OUT = ("pipeline", "benchmarks", "tools")
SUBMISSIONS = {"reportlab", "markdown_it", "copydetect", "cryptography"}
"""What only tasks for submissions import, which say how it is installed (requirements/host.in)."""
DISTRIBUTIONS = {"yaml": "pyyaml", "markupsafe": "jinja2"}
"""Of modules that are not named as what installs them."""


def modules(root: Path) -> dict[str, Path]:
    """All of `pipeline/` by dotted name; a package by its folder's."""
    found = {}
    for path in sorted((root / "pipeline").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(name: str, known: dict[str, Path]) -> str:
    """The room of a module of `pipeline/`; its own `__init__` is room ""."""
    parts = name.split(".")[1:]
    if not parts or parts[0] != "contest":
        return "/".join(parts[:1])
    folder = parts if known[name].name == "__init__.py" else parts[:-1]
    return "/".join(folder[:2])


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names, those inside of functions too; `from a import b` gives a.b, which may be a module or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(root: Path) -> Iterator[tuple[str, str, str]]:
    """Importing module, its room, the room that it imports; none within a room."""
    known = modules(root)
    for name, path in known.items():
        for target in imported(ast.parse(path.read_text(encoding="utf-8"))):
            while target and target not in known:
                target = target.rpartition(".")[0]  # noqa: PLW2901 - a name in a module is that module's
            if target and room(target, known) not in ("", room(name, known)):
                yield name, room(name, known), room(target, known)


def upward(root: Path) -> list[str]:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    rooms = {room(name, modules(root)) for name in modules(root)} - {""}
    return [f"{name} stands on no floor" for name in sorted(rooms - floor.keys())] + [
        f"{name} imports {to}, which is not below {of}"
        for name, of, to in arrows(root)
        if of in floor and to in floor and floor[to] >= floor[of]
    ]


def into_the_contest(root: Path) -> list[str]:
    return [
        f"{name} imports {to}"
        for name, of, to in arrows(root)
        if to.split("/")[0] == "contest" and of.split("/")[0] not in ("contest", "commands")
    ]


def too_curious(root: Path) -> list[str]:
    return [f"{name} imports {to}" for name, of, to in arrows(root) if of in NARROW and to not in NARROW[of]]


def folders(root: Path) -> list[Path]:
    """`pipeline/` and all below it that hold a file of ours; what is built there is none."""
    every = [root / "pipeline", *sorted(path for path in (root / "pipeline").rglob("*") if path.is_dir())]
    return [folder for folder in every if any(folder.glob("*.py")) and "__pycache__" not in folder.parts]


def too_full(root: Path) -> list[str]:
    complaints = []
    loose = [path for path in (root / "pipeline").glob("*.py") if path.name != "__init__.py"]
    if len(loose) > MOST_LOOSE_MODULES:
        complaints.append(f"{len(loose)} loose modules in pipeline/")
    for folder in folders(root):
        files = [path for path in folder.iterdir() if path.is_file()]
        if len(files) > MOST_FILES and folder != root / "pipeline/engine":
            complaints.append(f"{len(files)} files in {folder.relative_to(root)}")
    return complaints


def too_long(root: Path) -> list[str]:
    files = [*root.glob("*.py"), *(path for part in LAID_OUT for path in (root / part).rglob("*.py"))]
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in sorted(files)}
    return [f"{path.relative_to(root)} has {count} lines" for path, count in lines.items() if count > MOST_LINES]


def not_in_the_table(root: Path) -> list[str]:
    """Folders without a place in README's table "Where things are", where the engine's go by `engine/…`."""
    readme = (root / "README.md").read_text(encoding="utf-8")
    section = re.search(r"^## Where things are\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    table = "\n".join(line for line in (section[1] if section else "").splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([\w/]+/)`", table))
    rooms = [folder.relative_to(root).as_posix() + "/" for folder in folders(root)[1:]]
    return [name for name in rooms if not {name, name.removeprefix("pipeline/")} & named]


def unexplained(root: Path) -> list[str]:
    complaints = []
    for folder in folders(root):
        own = folder / "__init__.py"
        if not own.exists() or not ast.get_docstring(ast.parse(own.read_text(encoding="utf-8"))):
            complaints.append(f"{folder.relative_to(root)} does not say what it is")
    return complaints


NO_SUBJECT = ("Of ", "What ", "As ", "By ", "Behind ", "Beyond ", "Those ", "Without ")


def riddles(root: Path) -> list[str]:
    """Docstrings that begin without naming the thing, or, but for a constructor's, with the errors that it raises."""
    complaints = []
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                text = ast.get_docstring(node) or ""
                if text.startswith(NO_SUBJECT) or (text.startswith("Raises ") and node.name != "__init__"):
                    complaints.append(f"{name}.{node.name} begins with {text.split()[0]!r}")
    return complaints


def undeclared(root: Path) -> list[str]:
    """Packages that the wheel imports and does not ask for."""
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    asked = {re.split(r"[^\w.-]", text)[0].lower() for text in re.findall(r'"([^"]+)"', block[1] if block else "")}
    complaints = set()
    for name, path in modules(root).items():
        for target in imported(ast.parse(path.read_text(encoding="utf-8"))):
            top = target.split(".")[0]
            fine = top == "pipeline" or top in sys.stdlib_module_names or DISTRIBUTIONS.get(top, top) in asked
            if not fine and not (top in SUBMISSIONS and name.startswith("pipeline.contest.")):
                complaints.add(f"{name} imports {top}")
    return sorted(complaints)


RULES = (upward, into_the_contest, too_curious, too_full, too_long, not_in_the_table, unexplained, riddles, undeclared)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_is_in_order(rule: Callable[[Path], list[str]]) -> None:
    assert len(modules(paths.ROOT)) > 100
    assert rule(paths.ROOT) == []


# On trees that are not


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """A small house in order, but for further or other modules of `pipeline/`: path without `.py` to text."""

    def build(more: dict[str, str]) -> Path:
        small = {"__init__": '"""All."""', "errors": "", "engine/__init__": '"""Tokens."""', "engine/loop": ""}
        small |= {"contest/__init__": '"""The other half."""', "commands/__init__": '"""Tasks."""'}
        for name, text in {**small, **more}.items():
            path = tmp_path / "pipeline" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        rows = "".join(f"| `pipeline/{name}/` | |\n" for name in ("engine", "contest", "commands"))
        (tmp_path / "README.md").write_text(f"# X\n\n`pipeline/record/`\n\n## Where things are\n\n{rows}\n## More\n")
        (tmp_path / "pyproject.toml").write_text('dependencies = [\n    "torch>=2.4",\n    "pyyaml",\n]\n')
        return tmp_path

    return build


def test_a_small_house_in_order_is_found_so(tree: Callable[[dict[str, str]], Path]) -> None:
    text = "import torch\nimport yaml\nfrom pipeline import errors\nfrom pipeline.engine import loop\n"
    root = tree({"engine/cost": text})
    assert [complaint for rule in RULES for complaint in rule(root)] == []


@pytest.mark.parametrize(
    ("rule", "more", "complaint"),
    [
        (upward, {"new": ""}, "new stands on no floor"),
        (upward, {"errors": "from pipeline import paths", "paths": ""}, "pipeline.errors imports paths, which"),
        (upward, {"errors": "def f():\n    import pipeline.engine.loop"}, "pipeline.errors imports engine, which"),
        (upward, {"contest/__init__": '"""X."""\nfrom pipeline.contest.verify.x import y', "contest/verify/x": ""},
         "pipeline.contest imports contest/verify, which"),
        (into_the_contest, {"runs/timed": "from pipeline.contest.team import Team", "contest/team": ""},
         "pipeline.runs.timed imports contest"),
        (into_the_contest, {"runs/timed": "from pipeline import contest"}, "pipeline.runs.timed imports contest"),
        (too_curious, {"engine/loop": "from pipeline import files", "files": ""}, "pipeline.engine.loop imp"),
        (too_curious, {"html/page": "from pipeline import paths", "paths": ""}, "pipeline.html.page imports paths"),
        (too_full, {f"m{number}": "" for number in range(MOST_LOOSE_MODULES)}, "13 loose modules in pipeline/"),
        (too_full, {f"runs/m{number}": "" for number in range(MOST_FILES + 1)}, "15 files in pipeline/runs"),
        (too_long, {"engine/loop": "x = 1\n" * (MOST_LINES + 1)}, "pipeline/engine/loop.py has 301 lines"),
        (not_in_the_table, {"record/__init__": '"""X."""'}, "pipeline/record/"),
        (not_in_the_table, {"engine/kernels/__init__": '"""X."""'}, "pipeline/engine/kernels/"),
        (unexplained, {"runs/timed": ""}, "pipeline/runs does not say"),
        (unexplained, {"engine/__init__": "# Tokens."}, "pipeline/engine does not say"),
        (riddles, {"engine/loop": 'def f():\n    """Of a pass."""'}, "pipeline.engine.loop.f begins with 'Of'"),
        (riddles, {"engine/loop": 'def f():\n    """Raises X."""'}, "pipeline.engine.loop.f begins with 'Raises'"),
        (undeclared, {"engine/loop": "import numpy.linalg"}, "pipeline.engine.loop imports numpy"),
        (undeclared, {"engine/loop": "from reportlab import x"}, "pipeline.engine.loop imports reportlab"),
    ],
)  # fmt: skip
def test_what_is_out_of_order_is_named(
    tree: Callable[[dict[str, str]], Path], rule: Callable[[Path], list[str]], more: dict[str, str], complaint: str
) -> None:
    found = rule(tree(more))
    assert len(found) == 1
    assert found[0].startswith(complaint)
