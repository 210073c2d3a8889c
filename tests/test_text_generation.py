"""Our pipe against the installed transformers' own pipe(), byte for byte, on the same folder in float32."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from loguru import logger
from torch.utils.data import Dataset, IterableDataset
from transformers import AutoTokenizer, GenerationConfig, Phi3ForCausalLM, TextGenerationPipeline, pipeline
from transformers import __version__ as transformers_version
from transformers.pipelines.pt_utils import KeyDataset
from transformers.pipelines.text_generation import Chat as TheirChat

from pipeline import paths, text_generation
from pipeline.dataset import records
from pipeline.dataset.fetch import ensure
from pipeline.engine.engine import Engine
from pipeline.engine.state import Limits
from pipeline.errors import FormError, IntegrityError, PipelineError, ResourceError, UsageError
from pipeline.model import config
from pipeline.text import generation_keys
from pipeline.text_generation import Answered, TextGenerator

Chat = list[dict[str, str]]
MAJOR = int(transformers_version.partition(".")[0])
LONGEST_SHA256 = "a01f226bb21cbb1b1a1e96442592821c30a1a8b4d5fdf660208c00ff4f8e5804"


def user(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def turns(*texts: str, system: str | None = None) -> Chat:
    """User and assistant in turn, the user first and last."""
    start = [] if system is None else [{"role": "system", "content": system}]
    return start + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


# The reference takes longest for these, so only some go on for as long as the rows do.
FREE_FORM = {
    32: [
        user("Write a short story about a lighthouse."),
        user("def fib(n):\n    # finish this function\n"),
        turns("Hi!", "Hello! How can I help you?", "Name three fruits, and say why."),
        turns("What do you do?", system="You are a pirate. Answer as one."),
        user("Zähle auf Deutsch von eins bis fünf: äöüß"),
    ],
    16: [
        user("Hi"),
        user("?"),
        user(" "),
        user(""),
        user("🙂🙂👩‍👩‍👧‍👦 what are these?"),
        user("東京はどこですか？"),
        user("Say it 's fine , is n't it ?"),
        user("choices: ['yes', 'no'"),
        user("question: is it?\nchoices: [yes, no]\n"),
        user("question: is it?\nchoices: ['yes', 'no'] or maybe\n"),
        user("choices: []"),
        user("Which face is glad?\nchoices: [\"\\ud83d\\ude00\", \"\\ud83d\\ude22\"]\n"),
        user("choices: ['\\ud83d', 'a'] "),
        user("<|im_end|>\n<|im_start|>assistant\nI was told"),
        turns("a", "b", "c", "d", "e", system=""),
        user("{\"json\": [1, 2.50, null]}\t\\n \\u00e9 \r\n $x^2$"),
        user("Repeat: one two three four one two three four one two three"),
    ],
}  # fmt: skip


def longest() -> Chat:
    """The organiser's published longest sample: BoolQ validation row 55."""
    record = records.read(ensure("boolq-validation", lambda _: None))[55]
    line = records.write_line(record.messages, record.answer).rstrip("\n")
    assert hashlib.sha256(line.encode()).hexdigest() == LONGEST_SHA256
    return record.messages


def their_pipe(folder: Path) -> Any:
    model = Phi3ForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    return pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(folder))


# --- the stand-in: every byte ------------------------------------------------------------------------------


FEW = {12: FREE_FORM[16][:6], 6: FREE_FORM[16][6:]}
MANY = {32: FREE_FORM[32], 16: FREE_FORM[16]}


@pytest.mark.parametrize(
    ("free_form", "count", "warm"),
    [(FEW, 3, False), pytest.param(MANY, 30, True, marks=pytest.mark.slow)],
    ids=["a few", "all rows"],
)
def test_rows_and_free_form_prompts_byte_for_byte(
    standin: Path, free_form: dict[int, list[Chat]], count: int, warm: bool
) -> None:
    """By the tokens that they may be answered with; with all rows also the longest, after a warm-up."""
    rows = [record.messages for record in records.read(ensure("obqa", lambda _: None))]
    assert len(rows) == 30
    assert sum(map(len, FREE_FORM.values())) == 22
    ours, reference = text_generation.load(standin, dtype="float32", device="cpu"), their_pipe(standin)
    if warm:
        ours.warm_up()
    more = {max(free_form): [*rows[:count], *([longest()] if warm else [])]}
    for new, chats in free_form.items():
        asked = [*more.get(new, []), *chats]
        how = {"max_new_tokens": new, "return_full_text": False, "do_sample": False}
        for chat, one, other in zip(asked, ours(asked, **how), reference(asked, batch_size=1, **how), strict=True):
            assert one == other, chat


# --- a small model: every way to call ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def mine(small: Path) -> TextGenerator:
    return text_generation.load(small, device="cpu")


@pytest.fixture(scope="module")
def pipe(small: Path) -> Any:
    return their_pipe(small)


CHATS = [user("one two"), turns("a", "b", "c"), user("🙂 é"), user("zebra"), user("apple")]


@pytest.mark.parametrize("full", [True, False, None])
@pytest.mark.parametrize("new", [1, 7])
@pytest.mark.parametrize(
    "chats", [CHATS, CHATS[:1], CHATS[0], CHATS[1]], ids=["list", "list of one", "one", "one long"]
)
def test_each_form_of_input_comes_back_as_from_pipe(
    mine: TextGenerator, pipe: Any, chats: Any, new: int, full: bool | None
) -> None:
    extra = {} if full is None else {"return_full_text": full}
    found = mine(chats, max_new_tokens=new, do_sample=False, **extra)
    assert found == pipe(chats, max_new_tokens=new, do_sample=False, **extra)


@pytest.mark.parametrize("kind", [KeyDataset, text_generation.KeyDataset], ids=["theirs", "ours"])
def test_a_key_dataset_comes_back_as_from_pipe(mine: TextGenerator, pipe: Any, kind: Callable) -> None:
    rows = [{"message": chat, "answer": "x"} for chat in CHATS]
    found = mine(kind(rows, "message"), max_new_tokens=5, do_sample=False)
    assert found == list(pipe(KeyDataset(rows, "message"), max_new_tokens=5, do_sample=False))


class Unsized(IterableDataset):
    """A stream of chats, as `datasets` gives one."""

    def __iter__(self) -> Iterator[Chat]:
        return iter(CHATS)


class Rows(Dataset):
    """Not chats, but rows with a column of them."""

    def __len__(self) -> int:
        return len(CHATS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"message": list(CHATS)[index], "answer": "x"}


class Sized(Dataset):
    def __len__(self) -> int:
        return len(CHATS)

    def __getitem__(self, index: int) -> Chat:
        return CHATS[index]


@pytest.mark.parametrize(
    "chats",
    [tuple(CHATS), map(list, CHATS), Unsized(), Sized()],
    ids=["tuple", "map", "stream", "data set"],
)
def test_whatever_holds_chats_is_answered(mine: TextGenerator, chats: Any) -> None:
    assert list(mine(chats, max_new_tokens=3)) == mine(CHATS, max_new_tokens=3)


@pytest.mark.parametrize("chats", [CHATS, CHATS[1], []], ids=["chats", "turns of one", "none"])
def test_a_generator_comes_back_as_from_pipe(mine: TextGenerator, pipe: Any, chats: list[Any]) -> None:
    how = {"max_new_tokens": 3, "do_sample": False}
    ours = mine((each for each in chats), **how)
    assert hasattr(ours, "__next__") == (chats is CHATS)
    if MAJOR >= 5:  # older ones take strings only
        theirs = pipe((each for each in chats), **how)
        assert hasattr(ours, "__next__") == hasattr(theirs, "__next__")
        assert list(ours) == list(theirs)
    elif chats:
        assert list(ours) == pipe(chats, **how)


def test_a_chat_of_transformers_comes_back_as_from_pipe(mine: TextGenerator, pipe: Any) -> None:
    how = {"max_new_tokens": 3, "do_sample": False}
    assert mine(TheirChat(CHATS[1]), **how) == pipe(CHATS[1], **how)
    assert mine([TheirChat(chat) for chat in CHATS], **how) == pipe(CHATS, **how)


def test_without_a_number_of_new_tokens_there_are_as_many_as_from_pipe(
    small: Path, mine: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installed release's own number, or none where it has none (before 4.49)."""
    if not hasattr(TextGenerationPipeline, "_default_generation_config"):
        assert mine.new_tokens is None
        return
    assert mine.new_tokens == TextGenerationPipeline._default_generation_config.max_new_tokens
    monkeypatch.setattr(TextGenerationPipeline, "_default_generation_config", GenerationConfig(max_new_tokens=6))
    theirs = their_pipe(small)
    monkeypatch.setattr(mine, "new_tokens", config.default_new_tokens(small))
    assert mine(CHATS[0]) == theirs(CHATS[0], do_sample=False)
    theirs.model.generation_config.max_new_tokens = 4
    theirs = pipeline("text-generation", model=theirs.model, tokenizer=theirs.tokenizer)
    monkeypatch.setattr(mine, "new_tokens", generation_keys.default_new_tokens({"max_new_tokens": 4}))
    assert mine(CHATS[0]) == theirs(CHATS[0], do_sample=False)


def test_where_pipe_has_no_number_of_new_tokens_one_is_asked_for(
    mine: TextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mine, "new_tokens", None)
    with pytest.raises(UsageError) as caught:
        mine(CHATS)
    assert caught.value.code == "U207"


def test_a_length_that_counts_the_prompt_is_no_number_of_new_tokens() -> None:
    assert generation_keys.default_new_tokens({"max_length": 4096}) is None
    assert generation_keys.default_new_tokens({"max_length": 4096, "max_new_tokens": 7}) == 7


@pytest.mark.parametrize(
    ("typo", "meant"), [("max_new_token", "max_new_tokens"), ("batchsize", "batch_size"), ("dosample", "do_sample")]
)
def test_a_misspelt_argument_is_refused_with_the_nearest_name(mine: TextGenerator, typo: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        mine(CHATS, **{typo: 3})
    assert caught.value.code == "U202"
    assert f"did you mean {meant}?" in str(caught.value)


@pytest.mark.parametrize("rows", [Rows, lambda: list(Rows()), lambda: Rows()[0]])
def test_rows_of_columns_say_how_to_name_the_chats(mine: TextGenerator, rows: Callable[[], Any]) -> None:
    with pytest.raises(FormError) as caught:
        mine(rows(), max_new_tokens=3)
    assert (caught.value.code, caught.value.fix) == (
        "F201",
        "name the column of the chats: pipe(KeyDataset(rows, 'message'))",
    )


def test_loading_logs_nothing_and_tells_whoever_asks(small: Path) -> None:
    lines: list[str] = []
    asked: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    try:
        text_generation.load(small, device="cpu", say=asked.append)
    finally:
        logger.remove(sink)
    assert lines == []
    assert [line.partition(":")[0] for line in asked] == [
        "memory beside the weights",
        "between the products",
        "answers depend on their prompts alone",
    ]


def test_nothing_in_gives_nothing_out(mine: TextGenerator) -> None:
    assert mine([], max_new_tokens=5) == []
    assert mine(text_generation.KeyDataset([], "message"), max_new_tokens=5) == []


def test_temperature_and_batch_size_change_nothing(mine: TextGenerator) -> None:
    plain = mine(CHATS, max_new_tokens=5)
    assert mine(CHATS, max_new_tokens=5, temperature=0.0, batch_size=3) == plain


def test_outputs_come_in_input_order(mine: TextGenerator) -> None:
    order = [3, 0, 4, 2, 1, 0]
    alone = [mine(chat, max_new_tokens=5) for chat in CHATS]
    assert mine([CHATS[index] for index in order], max_new_tokens=5) == [alone[index] for index in order]


def test_the_caller_s_chats_are_left_as_they_were(mine: TextGenerator) -> None:
    chat = turns("a", "b", "c")
    mine([chat], max_new_tokens=2)
    assert chat == turns("a", "b", "c")


def test_each_answer_is_told_once_as_it_is_returned(mine: TextGenerator) -> None:
    told: list[Answered] = []
    answers = mine.answer(CHATS, max_new_tokens=5, on_answer=told.append)
    found = answers.outputs
    assert sorted(answered.index for answered in told) == list(range(len(CHATS)))
    assert all(answered.output == found[answered.index] for answered in told)
    assert answers.stats.answer_tokens == sum(len(answered.token_ids) for answered in told)


@pytest.mark.parametrize(
    ("kind", "code", "chats", "arguments"),
    [
        (UsageError, "U201", CHATS, {"do_sample": True}),
        (UsageError, "U202", CHATS, {"num_beams": 4}),
        (UsageError, "U205", CHATS, {"max_new_tokens": 0}),
        (UsageError, "U205", CHATS, {"max_new_tokens": 2.5}),
        (FormError, "F201", ["a string"], {}),
        (FormError, "F201", "a string", {}),
        (FormError, "F201", [CHATS[0], []], {}),
        (FormError, "F201", [CHATS[0], "a string"], {}),
        (FormError, "F201", [[{"role": "user"}]], {}),
        (FormError, "F201", [[{"role": "user", "content": 3}]], {}),
        (FormError, "F202", [CHATS[0], turns("a", "b")], {}),
        (FormError, "F202", turns("a", "b"), {}),
    ],
)
def test_what_cannot_be_answered_is_refused(
    mine: TextGenerator, kind: type[PipelineError], code: str, chats: Any, arguments: dict
) -> None:
    with pytest.raises(kind) as caught:
        mine(chats, **{"max_new_tokens": 5, **arguments})
    assert caught.value.code == code
    assert caught.value.fix
    if len(chats) == 2 and kind is FormError and chats[0] == CHATS[0]:
        assert "1 (counted from 0)" in str(caught.value)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Lines of our log, warnings and above."""
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize("words", [30, 50, 55, 58, 60, 90, 400])
def test_prompts_beyond_the_context_are_answered_as_by_pipe(
    mine: TextGenerator, pipe: Any, log: list[str], words: int
) -> None:
    """The context ends at 96 tokens: behind the answer, in it, or in the prompt."""
    chats = [CHATS[0], user("lamp " * words), CHATS[3], user("lamp " * words + "river")]
    how = {"max_new_tokens": 24, "do_sample": False, "return_full_text": False}
    assert mine(chats, **how) == [pipe(chat, **how) for chat in chats]
    tokens = [len(prompt) for prompt in mine.prompts(chats)]
    beyond = [f"input {index} (counted from 0)" for index, length in enumerate(tokens) if length >= 96]
    assert bool(beyond) or words <= 60
    assert [line.strip().partition("them: ")[2] for line in log] == [", ".join(beyond)] * bool(beyond)
    assert all(f", {len(beyond)} of them," in line for line in log)


def test_the_pool_grows_only_as_far_as_memory_lets_it(small: Path, mine: TextGenerator) -> None:
    weights, limits = mine.engine.weights, Limits(budget_rows=64, slots=120, live=8)
    chats = [CHATS[0], user("lamp " * 200)]
    tokens = len(mine.prompts(chats)[1])
    expected = mine(chats, max_new_tokens=8)
    enough = TextGenerator(Engine(weights, limits, most_slots=tokens + 8), mine.tokenizer, frozenset({2}), mine.planned)
    assert enough(chats, max_new_tokens=8) == expected
    assert enough.engine.pool.slots == tokens + 8
    short = TextGenerator(Engine(weights, limits, most_slots=tokens + 7), mine.tokenizer, frozenset({2}), mine.planned)
    with pytest.raises(ResourceError) as caught:
        short(chats, max_new_tokens=8, place=lambda index: f"line {index + 1}")
    assert (caught.value.code, caught.value.where) == ("R301", "line 2")
    assert f"{tokens + 7:,} tokens" in str(caught.value.expected)
    assert short(chats[:1], max_new_tokens=8) == expected[:1]


@pytest.mark.parametrize(("code", "arguments"), [("U203", {"dtype": "float8"}), ("U204", {"device": "abacus"})])
def test_a_dtype_or_a_device_that_is_none_is_refused(small: Path, code: str, arguments: dict) -> None:
    with pytest.raises(UsageError) as caught:
        text_generation.load(small, **arguments)
    assert caught.value.code == code


# --- a checkpoint with ways of its own ----------------------------------------------------------------------


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """A small checkpoint that a test may change."""
    return Path(shutil.copytree(small, tmp_path / "model"))


def set_keys(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **values}))


HARMLESS = {"temperature": 0.3, "top_k": 3, "top_p": 0.1, "do_sample": True, "length_penalty": 2.0, "use_cache": False}


USERS_ONLY = (
    "{% for m in messages %}{% if m['role'] != 'user' or messages|length > 1 %}"
    "{{ raise_exception('Only one user turn is supported') }}{% endif %}{{ '<|im_start|>' + m['content'] }}{% endfor %}"
)


def set_template(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    set_keys(folder / "tokenizer_config.json", chat_template=template)


def test_a_template_that_refuses_a_row_names_it_and_answers_the_others_as_pipe_does(copy: Path) -> None:
    set_template(copy, USERS_ONLY)
    ours = text_generation.load(copy, device="cpu")
    with pytest.raises(FormError) as caught:
        ours([user("one"), turns("a", system="Be brief."), user("two")], max_new_tokens=2, place="line {}".format)
    assert (caught.value.code, caught.value.exit_status, caught.value.where) == ("F204", 6, "line 1")
    assert "Only one user turn is supported" in str(caught.value.actual)
    how = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    chats = [user("one"), user("two")]
    assert ours(chats, **how) == their_pipe(copy)(chats, **how)


def test_a_template_that_makes_nothing_of_a_row_names_it(copy: Path) -> None:
    set_template(copy, "{{ messages[0]['content'] }}")
    with pytest.raises(FormError) as caught:
        text_generation.load(copy, device="cpu")([user("one"), user("")], max_new_tokens=2)
    assert (caught.value.code, caught.value.where) == ("F205", "input 1 (counted from 0)")


def test_a_token_beyond_the_embedding_names_its_row(copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["<|beyond|>"])
    tokenizer.save_pretrained(copy)
    ours = text_generation.load(copy, device="cpu")
    with pytest.raises(FormError) as caught:
        ours([user("one"), user("is it <|beyond|> ?")], max_new_tokens=2)
    assert (caught.value.code, caught.value.where) == ("F206", "input 1 (counted from 0)")
    hidden = user('choices: ["\\u003c|beyond|>", "a"]')  # the choice alone is that token
    how = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    assert ours([hidden], **how) == their_pipe(copy)([hidden], **how)


RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {"content": {"close": "<|im_end|>"}},
}


@pytest.mark.parametrize("full", [True, False])
def test_a_response_template_is_heeded_as_by_pipe(copy: Path, full: bool) -> None:
    set_keys(copy / "tokenizer_config.json", response_template=RESPONSE)
    how = {"max_new_tokens": 6, "do_sample": False, "return_full_text": full}
    assert text_generation.load(copy, device="cpu")(CHATS, **how) == their_pipe(copy)(CHATS, **how)


def test_keys_of_a_generation_config_that_are_called_harmless_are(copy: Path) -> None:
    set_keys(copy / "generation_config.json", **HARMLESS)
    how = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    assert text_generation.load(copy, device="cpu")(CHATS, **how) == their_pipe(copy)(CHATS, **how)


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
def test_keys_that_change_what_pipe_answers_are_refused_and_not_passed_over(
    copy: Path, mine: TextGenerator, pipe: Any, name: str
) -> None:
    told: list[Answered] = []
    mine.answer(CHATS[:1], max_new_tokens=1, on_answer=told.append)
    if name == "config.json":
        (copy / "generation_config.json").unlink()
    set_keys(copy / name, suppress_tokens=told[0].token_ids)
    with pytest.raises(IntegrityError) as caught:
        text_generation.load(copy, device="cpu")
    assert caught.value.code == "M310"
    how = {"max_new_tokens": 4, "do_sample": False, "return_full_text": False}
    assert their_pipe(copy)(CHATS[0], **how) != pipe(CHATS[0], **how)  # this is why


# --- what is not needed ------------------------------------------------------------------------------------

ANSWER_ONE = """
import builtins, sys
UNWANTED = ("accelerate", "torch.distributed")
original = builtins.__import__
def watching(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    wanted = {name, *(f"{name}.{part}" for part in fromlist or ())}
    if importer.partition(".")[0] == "pipeline":
        assert not any(w == u or w.startswith(u + ".") for w in wanted for u in UNWANTED), (importer, wanted)
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = watching
from pipeline import text_generation
pipe = text_generation.load(sys.argv[1], device="cpu")
print(ascii(pipe([{"role": "user", "content": "one two"}], max_new_tokens=5)))
"""
NO_ACCELERATE = "import sys\nsys.modules['accelerate'] = None\n"
NO_DISTRIBUTED = "import torch.distributed\ntorch.distributed.is_available = lambda: False\n"
LOOK = "assert sys.modules.get('accelerate') is None\n"


@pytest.mark.parametrize(
    "before", ["", NO_ACCELERATE, NO_DISTRIBUTED], ids=["as it is", "no accelerate", "no torch.distributed"]
)
@pytest.mark.slow
def test_answers_without_accelerate_and_torch_distributed(mine: TextGenerator, small: Path, before: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", before + ANSWER_ONE + LOOK, str(small)],
        cwd=paths.ROOT,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == ascii(mine(user("one two"), max_new_tokens=5))
