"""The organiser's rule: lstrip, drop newlines, then exactly the answer; nothing else is forgiven."""

from __future__ import annotations

import pytest

from pipeline.accuracy.score import Score, score


def said(text: str) -> list[dict[str, str]]:
    return [{"generated_text": text}]


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
def test_what_counts_as_correct(text: str, answer: str, counts: bool) -> None:
    assert score([said(text)], [answer]) == Score(correct=int(counts), scored=1)


def test_rows_without_an_answer_are_left_out() -> None:
    result = score([said("a"), said("b"), said("c")], ["a", None, "b"])
    assert result == Score(correct=1, scored=2)
    assert result.share == 0.5


def test_without_any_answer_there_is_no_share() -> None:
    assert score([said("a")], [None]).share is None


def test_an_output_too_few_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="zip"):
        score([said("a")], ["a", "b"])
