"""When an answer is right, by every rule, on the cases by which the field's own scorers are known."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accuracy import metrics, sandbox
from pipeline.accuracy.scoring import verdicts
from pipeline.dataset import fetch
from pipeline.dataset.records import Record, read
from pipeline.errors import EnvironmentProblem


def rows(*answers: str | None) -> list[Record]:
    return [Record(index, [{"role": "user", "content": "?"}], answer) for index, answer in enumerate(answers)]


# The organiser's rule: lstrip, drop newlines, then exactly the answer; nothing else is forgiven


@pytest.mark.parametrize(
    ("text", "answer", "counts"),
    [
        pytest.param("the sun", "the sun", True, id="exact"),
        pytest.param(" \n\t the sun", "the sun", True, id="space before is dropped"),
        pytest.param("the\n sun\n", "the sun", True, id="newlines are dropped wherever they are"),
        pytest.param("the\nsun", "the sun", False, id="a newline is not a space"),
        pytest.param("the sun ", "the sun", False, id="space behind counts"),
        pytest.param("the sun\r\n", "the sun", False, id="a carriage return is no newline"),
        pytest.param("The sun", "the sun", False, id="case counts"),
        pytest.param("the sun.", "the sun", False, id="punctuation counts"),
        pytest.param("A: the sun", "the sun", False, id="more than the answer"),
        pytest.param("the sun", " the sun", False, id="the answer is taken as it stands"),
        pytest.param("", "", True, id="nothing for nothing"),
    ],
)
def test_what_the_organiser_takes_as_right(text: str, answer: str, counts: bool) -> None:
    assert metrics.is_exact(text, answer) == counts


# The last number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", "18"),
        ("She makes 9 * 2 = $18 every day.", "18"),
        ("The total is $1,200.50.", "1200.50"),
        ("It is -5 degrees", "-5"),
        ("a loss of -$3", "-3"),
        ("18.00", "18"),
        (".5 of it", "0.5"),
        ("first 3, then 4,", "4"),
        ("**72**\n", "72"),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str) -> None:
    assert metrics.last_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "$", "-", ".."])
def test_a_text_without_a_number(text: str) -> None:
    assert not metrics.is_last_number(text, "3")


def test_a_digit_of_another_script_is_one() -> None:
    assert metrics.is_last_number("٣", "3")


@given(st.integers(-(10**9), 10**9), st.text(st.characters(exclude_categories=["Nd", "No", "Nl"])))
def test_any_number_behind_any_words(number: int, words: str) -> None:
    words = words.rstrip("$-.,")
    assert metrics.is_last_number(f"{words} {number:,}", str(number))
    assert not metrics.is_last_number(f"{words} {number:,}", str(number + 1))


# Aliases


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (" Sunset Boulevard", True),
        ("The Sunset Boulevard.", True),
        ("sunset_blvd", True),
        ("“Sunset Blvd”", False),
        ("'Sunset   Blvd'\n", True),
        ("It is Sunset Boulevard", False),
        ("", False),
    ],
)
def test_any_alias_as_triviaqa_normalises_it(text: str, counts: bool) -> None:
    aliases = ["Sunset Blvd", "West Sunset Boulevard", "Sunset Blvd.", "The"]
    assert metrics.is_alias(text, "Sunset Boulevard", aliases) == counts


# Programs

HUMANEVAL = {
    "prompt": 'import math\n\ndef helper(x):\n    return x + 1\n\n\ndef twice(x: int) -> int:\n    """ Twice x. """\n',
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
    "entry_point": "twice",
}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        pytest.param("    return 2 * x\n", True, id="the prompt goes on"),
        pytest.param(" return 2 * x", True, id="a lost indentation"),
        pytest.param(" y = helper(x)\n    return y - 1 + x", True, id="the prompt's helper"),
        pytest.param("Sure:\n```python\ndef twice(x):\n    return 2 * x\n```\nDone.", True, id="a fenced function"),
        pytest.param("```\nprint()\n```\n```py\ndef twice(x):\n  return x+x\n```", True, id="the block that has it"),
        pytest.param("```python\ndef twice(x):\n    return math.floor(2 * x)", True, id="a fence cut off"),
        pytest.param("def twice(x: int) -> int:\n    return helper(x) * 2 - 2", True, id="the function bare"),
        pytest.param("    return x", False, id="wrong"),
        pytest.param("I cannot do that.", False, id="no program"),
        pytest.param("    exit(0)", False, id="an exit is no pass"),
        pytest.param("```python\ndef check(candidate):\n    pass\n```", False, id="its own check"),
        pytest.param("", False, id="nothing"),
    ],
)
def test_humaneval(text: str, counts: bool) -> None:
    assert sandbox.passes(metrics.humaneval_program(text, HUMANEVAL)) == counts


def test_mbpp_s_set_up_may_use_what_the_program_defines() -> None:
    scoring = {"setup": "root = Node(1)", "tests": ["assert value(root) == 1"]}
    text = "```python\nclass Node:\n    def __init__(self, v): self.v = v\r\ndef value(n): return n.v\n```"
    assert sandbox.passes(metrics.mbpp_program(text, scoring))
    assert not sandbox.passes(metrics.mbpp_program(text.replace("n.v", "0"), scoring))


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1')",
        "x = bytearray(2 << 30)",
        "open('large', 'wb').write(bytes(1 << 25))",
        "import sys; sys.exit(0)",
        "import os; os.kill(os.getpid(), 9)",
        "def f(): f()\nf()",
        "(",
    ],
)
def test_what_a_program_may_not(program: str) -> None:
    assert not sandbox.passes(program)


def test_a_program_gets_a_folder_of_its_own_and_nothing_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    monkeypatch.chdir(tmp_path)
    assert sandbox.passes("import os; open('f', 'w').write('x'); assert 'A_SECRET' not in os.environ")
    assert list(tmp_path.iterdir()) == []


def test_what_a_program_starts_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TIME_LIMIT_S", 1)
    late = f"import os, time\nif os.fork() == 0:\n    time.sleep(2)\n    open({str(tmp_path / 'late')!r}, 'w')\n"
    sandbox.passes(late)  # where a child may not even start, the program fails
    start = time.monotonic()
    assert not sandbox.passes("import time; time.sleep(60)")
    assert time.monotonic() - start < 5
    time.sleep(1.5)
    assert list(tmp_path.iterdir()) == []


def test_where_the_network_cannot_be_taken_away_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_GUARD", sandbox._GUARD.replace("x86_64", "none").replace("aarch64", "none"))
    with pytest.raises(EnvironmentProblem) as caught:
        sandbox.passes("pass")
    assert (caught.value.code, caught.value.exit_status) == ("E311", 3)


# A whole set


def test_a_file_of_one_s_own_is_scored_by_the_organisers_rule() -> None:
    result = verdicts("my/rows.jsonl", rows("a", None, "c"), [" a\n", "b", "c."], execute_code=False)
    assert (result.rule, result.right, result.correct, result.scored) == ("exact", (True, None, False), 1, 2)
    assert result.share == 0.5


def test_without_any_answer_there_is_no_share() -> None:
    assert verdicts("my/rows.jsonl", rows(None), ["a"], execute_code=False).share is None


def test_an_output_too_few_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="zip"):
        verdicts("my/rows.jsonl", rows("a", "b"), ["a"], execute_code=False)


ESCAPED = [
    pytest.param(r"\frac{1}{2}", True, id="a backslash"),
    pytest.param("""a "b" isn't""", True, id="both quotes"),
    pytest.param("it isn't", False, id="an apostrophe"),
    pytest.param('a "b"', False, id="quotes"),
    pytest.param("가 – é", False, id="other letters"),
]


@pytest.mark.parametrize(("answer", "escaped"), ESCAPED)
def test_an_answer_that_its_prompt_prints_escaped_is_counted_in_the_note(answer: str, escaped: bool) -> None:
    listed = Record(0, [{"role": "user", "content": f"?\nchoices: {[answer, 'other']}\n"}], answer)
    plain = Record(1, [{"role": "user", "content": f"? {answer}"}], answer)
    result = verdicts("my/rows.jsonl", [listed, plain], [repr(answer)[1:-1], answer], execute_code=False)
    assert result.right == (not escaped, True)
    note = "answers that stand escaped in their prompts (wrong if copied as printed): 1"
    assert result.note == (note if escaped else None)


def test_each_set_is_scored_by_its_own_rule() -> None:
    assert verdicts("gsm8k-test", rows("18"), ["so it is $18."], execute_code=False).right == (True,)
    assert verdicts("gsm8k", rows("18"), ["so it is $18."], execute_code=False).rule == "last-number"
    result = verdicts("truthfulqa", rows("x"), ["x"], execute_code=False)
    assert "MC2" in result.note


def test_programs_are_not_run_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "passes", None)
    result = verdicts("humaneval", rows("x"), ["x"], execute_code=False)
    assert (result.right, result.scored) == ((None,), 0)
    assert "--execute-code" in result.note


@pytest.mark.parametrize("name", ["humaneval", "mbpp-test", "triviaqa-validation"])
def test_the_reference_answers_of_real_rows_are_right(name: str) -> None:
    some = read(fetch.ensure(name))[:5]
    result = verdicts(name, some, [row.answer for row in some], execute_code=True)
    assert result.right == (True,) * 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["humaneval", "mbpp-test", "triviaqa-validation", "gsm8k-test"])
def test_every_reference_answer_is_right(name: str) -> None:
    every = read(fetch.ensure(name))
    result = verdicts(name, every, [row.answer for row in every], execute_code=True)
    assert [row.index for row, right in zip(every, result.right, strict=True) if not right] == []
