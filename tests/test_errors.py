"""One code, one check; one class, one letter and one exit status; and every message says what to do."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from pipeline import errors, paths
from pipeline.errors import PipelineError

CODE = re.compile(r"[A-Z]\d{3}")
CLASSES = {
    "U": errors.UsageError,
    "E": errors.EnvironmentProblem,
    "M": errors.IntegrityError,
    "R": errors.ResourceError,
    "F": errors.FormError,
    "A": errors.AccuracyError,
    "I": errors.InvalidRun,
    "C": errors.CannotTell,
}
MODULES = [*sorted((paths.ROOT / "pipeline").rglob("*.py")), paths.ROOT / "tasks.py"]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}


def derived(base: str) -> list[ast.ClassDef]:
    """Classes whose base stands by that name in a module of ours, loaded or not."""
    classes = (node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return [each for each in classes if any(isinstance(of, ast.Name) and of.id == base for of in each.bases)]


NAMES = {letter: {kind.__name__, *(each.name for each in derived(kind.__name__))} for letter, kind in CLASSES.items()}
"""Letter of a code to the names of its class and of the classes derived from it."""


def codes_in(tree: ast.AST) -> list[str]:
    """Codes as they are raised: text that is a code and nothing else, and is not only compared with."""
    compared = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
        if id(node) not in compared
    ]


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def raised_directly() -> list[tuple[Path, ast.Call]]:
    """Calls of an error class by its name, with where they are. A class with a constructor of its own is told nothing
    by who raises it: what counts is how it calls the constructor of its base."""
    known = set().union(*NAMES.values())
    classes = [each for kind in CLASSES.values() for each in derived(kind.__name__)]
    own = {each.name for each in classes if any(isinstance(part, ast.FunctionDef) for part in each.body)}
    return [
        (path, node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        if (isinstance(node.func, ast.Name) and node.func.id in known - own)
        or (ast.unparse(node.func) == "super().__init__" and any(node in set(ast.walk(each)) for each in classes))
    ]


def test_every_code_stands_for_one_check() -> None:
    used = Counter(code for tree in TREES.values() for code in codes_in(tree))
    assert len(used) > 50
    assert {code: times for code, times in used.items() if times > 1} == {}


def test_every_code_has_the_letter_of_a_class() -> None:
    for path, tree in TREES.items():
        for code in codes_in(tree):
            assert code[0] in CLASSES, f"{code} in {path.name}"


def test_a_class_raised_by_its_name_has_its_letter() -> None:
    direct = [(path, node) for path, node in raised_directly() if isinstance(node.args[0], ast.Constant)]
    assert len(direct) > 30
    for path, node in direct:
        if isinstance(node.func, ast.Name):  # a constructor's own code is told by the class that it stands in
            assert node.func.id in NAMES[node.args[0].value[0]], f"{path.name} line {node.lineno}"


def test_a_code_handed_to_a_helper_has_the_letter_of_a_class_that_its_module_raises() -> None:
    for path, tree in TREES.items():
        raised = names_in(tree)
        for code in codes_in(tree):
            helped = {"unknown", "refuse_again"} & raised and code[0] == "U"  # they make a UsageError
            assert helped or NAMES[code[0]] & raised, f"{code} in {path.name}"


def test_every_error_says_what_to_do() -> None:
    for path, node in raised_directly():
        fixes = [keyword.value for keyword in node.keywords if keyword.arg == "fix"]
        assert len(fixes) == 1, f"{path.name} line {node.lineno}"
        assert not isinstance(fixes[0], ast.Constant) or fixes[0].value, f"{path.name} line {node.lineno}"


def test_every_class_has_an_exit_status_of_its_own() -> None:
    kinds = PipelineError.__subclasses__()
    assert set(kinds) == set(CLASSES.values())
    statuses = [kind.exit_status for kind in kinds]
    assert len(set(statuses)) == len(statuses)
    # 0 is success, 1 any other failure, from 126 on the shell has meanings of its own.
    assert all(1 < status < 126 for status in statuses)


def test_the_module_explains_every_exit_status() -> None:
    told = {int(number) for number in re.findall(r"^\| (\d+) \|", errors.__doc__, re.MULTILINE)}
    assert told == {kind.exit_status for kind in CLASSES.values()}


def test_a_message_has_what_where_expected_actual_and_do() -> None:
    error = errors.FormError("F999", "what", where=Path("file"), expected=1, actual=0, fix="this")
    assert str(error).splitlines() == [
        "F999 what",
        "  where:    file",
        "  expected: 1",
        "  actual:   0",
        "  do:       this",
    ]


@pytest.mark.parametrize("kind", CLASSES.values())
def test_a_message_has_always_a_do(kind: type[PipelineError]) -> None:
    assert str(kind("X1", "what", fix="this")).splitlines() == ["X1 what", "  do:       this"]
    with pytest.raises(TypeError, match="fix"):
        kind("X1", "what")


def test_a_message_shows_no_control_character_of_what_it_names() -> None:
    odd = "\x1b[2Jred\r\x9b1A\u202egnp.\x7f"
    shown = str(PipelineError("U000", odd, where=odd, expected=odd, actual="two\nlines\tü 👩‍👧", fix=odd))
    assert not set(shown) & set("\x1b\r\x9b\u202e\x7f")
    assert shown.count("�[2Jred�") == 4
    assert "two\nlines\tü 👩‍👧" in shown


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "/manifest.json"), "No such file or directory"),
        (KeyError("weight_map"), "it has no 'weight_map'"),
        (ValueError("schema None"), "schema None"),
        (TypeError("list indices"), "its parts are of other kinds (list indices)"),
    ],
)
def test_python_s_own_names_for_what_is_wrong_with_a_file_are_not_shown(error: Exception, words: str) -> None:
    assert errors.in_words(error) == words
