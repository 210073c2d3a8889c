"""From a source's row to the organiser's form by YAML alone, for every shape of choices and answers that sets have."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import paths, settings
from pipeline.dataset import catalog, fetch, records
from pipeline.dataset.convert import HEAD, Converted, Located, check_repeats, convert, one_line
from pipeline.errors import FormError, IntegrityError
from pipeline.files import sha256_of
from pipeline.schemas import FormConfig

PROMPT = "{head}question: {question}\nchoices: {choices}\n"


def converted_row(form: dict[str, Any], row: dict[str, Any], file: str = "rows") -> Converted:
    return convert(FormConfig(**form), Located(file, 7, row))


def choice_form(choices: Any, answer: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"choices": choices, "answer": answer, "prompt": PROMPT, **more}


def refused(form: dict[str, Any], row: dict[str, Any]) -> FormError:
    with pytest.raises(FormError) as caught:
        converted_row(form, row)
    assert caught.value.where == "rows row 7"
    return caught.value


# Shapes of choices and answers


@pytest.mark.parametrize(
    ("choices", "answer", "row", "listed", "right"),
    [
        pytest.param(
            {"path": "c.text"},
            {"kind": "label", "of": "key", "labels": "c.label"},
            {"c": {"text": ["a", "it's b"], "label": ["1", "2"]}, "key": "2"},
            "['a', \"it's b\"]",
            "it's b",
            id="labels that are numbers",
        ),
        pytest.param(
            ["{one}", "{two}"],
            {"kind": "index", "of": "label", "first": 1},
            {"one": " a\r\n", "two": "b\nc", "label": "2"},
            "['a', 'b c']",
            "b c",
            id="a field a choice, numbers from 1",
        ),
        pytest.param(
            [True, False],
            {"kind": "text", "of": "{is_so}"},
            {"is_so": False},
            "[True, False]",
            "False",
            id="bare True and False",
        ),
        pytest.param(
            ["True", "Neither", "False"],
            {"kind": "map", "of": "label", "to": {"e": "True", "n": "Neither", "c": "False"}},
            {"label": "n"},
            "['True', 'Neither', 'False']",
            "Neither",
            id="the same for all rows, by a table",
        ),
        pytest.param(
            {"path": "options", "replace": [[r"^\([A-E]\)", ""]]},
            {"kind": "letter", "of": "label"},
            {"options": ["(A)x", "(B)(A) y"], "label": "B"},
            "['x', '(A) y']",
            "(A) y",
            id="letters, and their marks removed",
        ),
        pytest.param(
            {"path": "options", "mark": r"^(?:\(([A-E])\)|([A-E]) )"},
            {"kind": "letter", "of": "label"},
            {"options": ["(A)v", "(C)w", "B x", "French y"], "label": "B"},
            "['v', 'w', 'x', 'French y']",
            "x",
            id="letters as they are printed, not by place",
        ),
        pytest.param(
            {"path": "targets"},
            {"kind": "flags", "of": "targets"},
            {"targets": {"a": 0, "b": 1, "c": 0}},
            "['a', 'b', 'c']",
            "b",
            id="an object of flags",
        ),
        pytest.param(
            {"listed_in": "input"},
            {"kind": "listed", "of": "target"},
            {"input": "Which?\nOptions:\n(A) one\n(B) two - or more", "target": "(B)"},
            "['one', 'two - or more']",
            "two - or more",
            id="listed in the text, by label",
        ),
        pytest.param(
            {"listed_in": "input"},
            {"kind": "listed", "of": "target"},
            {"input": "Which?\nOptions:\n- Yes\n- No", "target": "No"},
            "['Yes', 'No']",
            "No",
            id="listed in the text, by text",
        ),
    ],
)
def test_every_shape(choices: Any, answer: dict[str, Any], row: dict[str, Any], listed: str, right: str) -> None:
    result = converted_row(choice_form(choices, answer), {"question": "Why?", **row})
    assert result == Converted(f"{HEAD}question: Why?\nchoices: {listed}\n", right, {})


def test_choices_by_the_file_that_the_row_is_in() -> None:
    form = choice_form(
        {"listed_in": "question", "by_file": {"sports": ["yes", "no"]}}, {"kind": "listed", "of": "target"}
    )
    assert converted_row(form, {"question": "Is it?", "target": "no"}, file="sports").answer == "no"


def test_the_head_is_the_organisers() -> None:
    assert len(HEAD) == 172


TEXT_FORM = {"answer": {"kind": "text", "of": "{a}"}, "prompt": "{question}"}


@pytest.mark.parametrize(
    ("field", "row", "expected"),
    [
        ("{a.b}", {"a": {"b": "deep"}}, "deep"),
        ("{a}: {b:capitalize}", {"a": "x", "b": "yes It is"}, "x: Yes it is"),
        ("{tests}", {"tests": ["one", "two"]}, "one\ntwo"),
        ({"template": "passage: {p}\n", "when": "p"}, {"p": None}, ""),
        ({"template": "passage: {p}\n", "when": "p"}, {"p": "text"}, "passage: text\n"),
        ({"template": "{a}", "match": "#### (.*)$", "replace": [[",", ""]]}, {"a": "so\n#### 1,200"}, "1200"),
    ],
)
def test_fields_of_a_prompt(field: Any, row: dict[str, Any], expected: str) -> None:
    form = {"fields": {"question": field}, "answer": {"kind": "text", "of": "x"}, "prompt": "{question}"}
    assert converted_row(form, row).prompt == expected


def test_what_scoring_needs_is_taken_along() -> None:
    form = {**TEXT_FORM, "scoring": {"aliases": "more.aliases"}}
    assert converted_row(form, {"question": "q", "a": "b", "more": {"aliases": ["c"]}}).scoring == {"aliases": ["c"]}


WORDS = st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: one_line(text) != "")


@given(st.lists(WORDS, min_size=2, max_size=6, unique_by=one_line), st.data())
def test_the_list_in_the_prompt_reads_back_as_the_choices(texts: Sequence[str], data: st.DataObject) -> None:
    right = data.draw(st.integers(0, len(texts) - 1))
    form = choice_form({"path": "c"}, {"kind": "index", "of": "right"})
    result = converted_row(form, {"question": "Why?", "c": texts, "right": right})
    listed = result.prompt.removeprefix(f"{HEAD}question: Why?\nchoices: ").removesuffix("\n")
    assert ast.literal_eval(listed) == [one_line(text) for text in texts]
    assert result.answer == one_line(texts[right])
    assert "\n" not in result.answer


@given(st.lists(WORDS, min_size=2, max_size=6, unique_by=one_line))
def test_shuffling_does_not_depend_on_the_source_s_order(texts: list[str]) -> None:
    form = choice_form({"path": "c", "shuffle": True}, {"kind": "text", "of": "{right}"})
    row = {"question": "Why?", "right": texts[0]}
    first, second = converted_row(form, {**row, "c": texts}), converted_row(form, {**row, "c": texts[::-1]})
    assert first == second
    assert first.answer == one_line(texts[0])


def test_shuffling_depends_on_the_question() -> None:
    form = choice_form({"path": "c", "shuffle": True}, {"kind": "text", "of": "{right}"})
    row = {"right": "a", "c": list("abcdefgh")}
    orders = {
        converted_row(form, {**row, "question": f"{number}?"}).prompt.split("choices: ")[1] for number in range(9)
    }
    assert len(orders) == 9


@pytest.mark.parametrize("text", ["a b", "\r\na\r\nb ", " a\nb\n"])
def test_choices_are_one_line(text: str) -> None:
    assert one_line(text) == "a b"


# What a YAML or a row can get wrong


@pytest.mark.parametrize("missing", [{"prompt": "{qestion}"}, {"answer": {"kind": "text", "of": "{b}"}}])
def test_a_template_that_names_a_missing_field(missing: dict[str, Any]) -> None:
    error = refused({**TEXT_FORM, **missing}, {"question": "q", "a": "b"})
    assert error.code == "F301"
    assert "question, a" in error.actual


def test_a_path_below_what_has_no_fields() -> None:
    error = refused({**TEXT_FORM, "prompt": "{question.text}"}, {"question": "q", "a": "b"})
    assert (error.code, error.actual) == ("F301", "no fields, it is a str")


def test_choices_that_do_not_hold_the_answer() -> None:
    row = {"question": "q", "c": ["a", "b"], "a": "c"}
    error = refused(choice_form({"path": "c"}, {"kind": "text", "of": "{a}"}), row)
    assert (error.code, error.actual) == ("F302", "'c'")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ({"kind": "index", "of": "a"}, 2),
        ({"kind": "index", "of": "a"}, -1),
        ({"kind": "index", "of": "a"}, "B"),
        ({"kind": "index", "of": "a"}, None),
        ({"kind": "letter", "of": "a"}, "C"),
        ({"kind": "letter", "of": "a"}, None),
        ({"kind": "label", "of": "a", "labels": "labels"}, "3"),
        ({"kind": "flags", "of": "a"}, {"x": 0, "y": 0}),
        ({"kind": "flags", "of": "a"}, "x"),
        ({"kind": "listed", "of": "a"}, "(C)"),
        ({"kind": "map", "of": "a", "to": {"e": "x"}}, "n"),
    ],
)
def test_an_answer_that_names_no_choice(answer: dict[str, Any], value: Any) -> None:
    row = {"question": "q", "c": ["x", "y"], "labels": ["1", "2"], "a": value}
    assert refused(choice_form({"path": "c"}, answer), row).code == "F303"


@pytest.mark.parametrize(
    ("form", "row"),
    [
        (choice_form({"path": "c"}, {"kind": "index", "of": "a"}), {"question": "q", "c": "x", "a": 0}),
        (choice_form({"path": "c"}, {"kind": "index", "of": "a"}), {"question": "q", "c": ["x"], "a": 0}),
        (choice_form({"path": "c"}, {"kind": "index", "of": "a"}), {"question": "q", "c": [1, None], "a": 0}),
        (
            choice_form({"path": "c", "mark": r"^\((\w)\)"}, {"kind": "letter", "of": "a"}),
            {"question": "q", "c": ["(A)x", "(A)y"], "a": "A"},
        ),
        (choice_form({"listed_in": "question"}, {"kind": "listed", "of": "a"}), {"question": "none", "a": "(A)"}),
        ({**TEXT_FORM, "prompt": "{question"}, {"question": "q", "a": "b"}),
        ({**TEXT_FORM, "prompt": "{question:upper}"}, {"question": "q", "a": "b"}),
        ({**TEXT_FORM, "answer": {"kind": "text", "of": "{a}", "match": "(x)"}}, {"question": "q", "a": "b"}),
        (
            {**TEXT_FORM, "answer": {"kind": "text", "of": "{a}", "replace": [["b", r"\2"]]}},
            {"question": "q", "a": "b"},
        ),
    ],
)
def test_a_row_of_another_shape(form: dict[str, Any], row: dict[str, Any]) -> None:
    assert refused(form, row).code == "F303"


def test_prompts_that_repeat() -> None:
    rows = [Located("f", number, {}) for number in range(3)]
    converted = [Converted("p", str(number), {}) for number in range(3)]
    check_repeats(converted, rows, expected=2)
    with pytest.raises(FormError) as caught:
        check_repeats(converted, rows, expected=0)
    assert caught.value.code == "F304"
    assert caught.value.where == "f row 1 as f row 0; f row 2 as f row 0"


# The sets that the project describes


def test_every_benchmark_of_the_model_card_has_a_set() -> None:
    configs = [settings.dataset(name) for name in settings.dataset_names()]
    assert all(config.name == name for config, name in zip(configs, settings.dataset_names(), strict=True))
    assert {config.benchmark for config in configs} == set(settings.model_card().benchmarks)
    assert len(settings.model_card().benchmarks) == 19
    assert sum(each.score for each in settings.model_card().benchmarks.values()) / 19 == pytest.approx(78.46, abs=0.01)


def test_a_set_that_needs_more_for_scoring_says_so() -> None:
    for name in settings.dataset_names():
        config = settings.dataset(name)
        assert bool(config.form.scoring) == (config.score in {"alias", "humaneval", "mbpp"}), name
        assert (config.scoring_sha256 is not None) == (bool(config.form.scoring) and config.sha256 is not None), name


def test_a_pattern_that_is_none_is_refused_with_the_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "datasets").mkdir()
    text = (paths.CONFIGS / "datasets" / "gsm8k-test.yaml").read_text()
    (tmp_path / "datasets" / "bad.yaml").write_text(text.replace("#### (.*)$", "#### (.*$"))
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    with pytest.raises(IntegrityError, match="configuration") as caught:
        settings.dataset("bad")
    assert caught.value.code == "M101"
    assert "bad.yaml" in caught.value.where


PROVEN = {
    "arc-easy-validation": (570, "21f3175445e3cfa31a652036e9299d76e6438b493bdd8a57663f87671854a1ee"),
    "commonsenseqa-validation": (1221, "59f7d5a2edb75dcd062eb46474652811902187c10182d074ba50ddc578a664ab"),
    "social-iqa-validation": (1954, "3c6d80a646736332980431d20b6035da7291abb2d09e3c04178032ee20fc8de8"),
    "gsm8k-test": (1319, "6d4419d868d31a1636b73185859419ed2dc99b32e4be8f8a720c67b93927c511"),
    "humaneval": (164, "d615d6a406d0a185c355ab3d0b645fd4d726bbfd0eb9c320614c76ad91498058"),
    "obqa-validation": (500, "a8682f916f7897b963d566bb287b327041e97d6aa517b75dcf7d09c754c0f1b2"),
    "boolq-validation": (3270, "c897e3b412873180c4420134cbc4f8076d86f42ee34865c3685db9424a5d28a7"),
}
"""Rows in the organiser's form that others made from other mirrors of the same sets; the last two are his own."""


@pytest.mark.parametrize("name", PROVEN)
def test_sets_come_out_byte_for_byte_as_others_made_them(name: str) -> None:
    rows, sha256 = PROVEN[name]
    path = fetch.ensure(name)
    assert sha256_of(path) == sha256
    assert len(records.read(path)) == rows


# The list


def test_the_list_says_what_is_here_and_under_which_licence() -> None:
    fetch.ensure("obqa")
    listed = catalog.listing()
    by_name = {each.config.name: each for each in listed.sets}
    assert list(by_name) == settings.dataset_names()
    assert by_name["obqa"].on_disk
    shown = catalog.text(listed)
    assert "non-commercial: CC BY-NC 4.0" in shown
    assert re.search(r"^  boolq-validation +boolq +3,270 ", shown, re.MULTILINE)
    if listed.tokenizer == "standin":
        assert round(by_name["obqa"].mean_tokens, 1) == 106.4
        assert by_name["obqa"].max_tokens == 135


def test_without_sets_and_without_a_tokenizer_the_list_still_stands(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PIPELINE_MODELS", str(tmp_path / "models"))
    listed = catalog.listing()
    assert not any(each.on_disk for each in listed.sets)
    assert listed.tokenizer is None
    assert "no tokenizer" in catalog.text(listed)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_lengths_are_counted_once(standin, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch.ensure("obqa")
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    counter = catalog._Counter(standin)
    counted = counter.lengths(path)
    assert counted == (pytest.approx(106.4, abs=0.05), 135)
    monkeypatch.setattr(counter, "_counts", None)
    assert counter.lengths(path) == counted
    kept = tmp_path / "sets" / ".lengths.json"
    (key,) = json.loads(kept.read_text())
    for damage in ("damaged", "[]", json.dumps({key: None}), json.dumps({key: ["x", 1]}), json.dumps({key: [1]})):
        kept.write_text(damage)
        assert catalog._Counter(standin).lengths(path) == counted
