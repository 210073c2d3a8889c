"""What `benchmarks/audit.py` computes: answers of honest runs and of lies, and looks at them, a JSON file each.

A file is named by a hash of all that it depends on, but for the versions of torch and transformers, which it tells: a
call that was cut off, or is asked for more, goes on, and what another machine computed can be copied in.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers.utils import logging  # noqa: E402

from pipeline import reference, text_generation  # noqa: E402
from pipeline.contest.audit import looking  # noqa: E402
from pipeline.contest.audit.looking import Seen, Subject  # noqa: E402
from pipeline.dataset import records  # noqa: E402
from pipeline.dataset.records import Record  # noqa: E402
from pipeline.engine.arrays import Ints  # noqa: E402
from pipeline.engine.teacher_forcing import Look  # noqa: E402
from pipeline.files import write_atomically  # noqa: E402
from pipeline.model import config, lock  # noqa: E402
from pipeline.text.chat_template import token_ids  # noqa: E402

MODEL, BASE = ROOT / "models" / "standin", ROOT / "models" / "standin-base"
GROUP = 32
GIB = 2**30
MEMORY_BYTES = 6 * GIB
"""For each of our engines: several share a GPU."""

HONEST = [(engine, dtype) for dtype in ("float32", "bfloat16") for engine in ("ours", "pipe-1", "pipe-16")]
GENERATED_LIES = ("int4", "int8", "standin-base", "half-adapter", "truncated")
DERIVED_LIES = ("copied", "flipped")
LIES = (*GENERATED_LIES, *DERIVED_LIES)
AUDITED = [(*each, each[1]) for each in HONEST] + [(lie, "float32", "bfloat16") for lie in LIES]
"""Who answers, in which dtype, and the dtype that the submission claims."""

Tokens = list[list[int]]
"""Of each row of a set; an empty one is not looked at."""


class Set:
    """Rows spread over a set, and their prompts."""

    def __init__(self, name: str, chosen: argparse.Namespace, tokenizer: Any) -> None:
        every = records.read(chosen.data / f"{name}.jsonl")
        self.name = name
        self.rows = [every[index] for index in looking.spread(range(len(every)), chosen.rows)]
        self.prompts = token_ids(tokenizer, [row.messages for row in self.rows])
        self.on = [name, chosen.max_new_tokens, digest(self.prompts), lock.current(MODEL).root[:12]]


class Cells:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(MODEL))
        self.end = min(config.stop_tokens(MODEL))
        self.sets = {name: Set(name, chosen, self.tokenizer) for name in chosen.sets}

    def path(self, kind: str, *on: str, of: Set) -> Path:
        return self.chosen.kept / f"{'.'.join((kind, *on, of.name))}.{digest([*on, *of.on])}.json"

    # Answers

    def answers_path(self, contender: str, dtype: str, of: Set) -> Path:
        return self.path("answers", contender, dtype, self.chosen.device, of=of)

    def answers(self, contender: str, dtype: str, of: Set) -> Tokens | None:
        """None: not computed yet."""
        if contender not in DERIVED_LIES:
            return kept(self.answers_path(contender, dtype, of))
        own = kept(self.answers_path("ours", "float32", of))
        if own is None:
            return None
        return self._copied(of.rows, own) if contender == "copied" else self._flipped(own)

    def _copied(self, rows: Sequence[Record], own: Tokens) -> Tokens:
        """The key's answer, where it is not the model's own."""
        encode = self.tokenizer.encode
        key = [[*encode(row.answer or "", add_special_tokens=False), self.end] for row in rows]
        key = [tokens[: self.chosen.max_new_tokens] for tokens in key]
        return [
            tokens if row.answer and tokens != mine else [] for row, tokens, mine in zip(rows, key, own, strict=True)
        ]

    def _flipped(self, own: Tokens) -> Tokens:
        """Another ordinary token, at random, in one place of each answer."""
        chance, made = random.Random(16), []
        for tokens in own:
            changed = list(tokens)
            changed[chance.randrange(max(1, len(tokens) - 1))] = chance.randrange(1000, 40_000)
            made.append(changed)
        return made

    def answer(self, contender: str, dtype: str, sets: Sequence[Set]) -> None:
        """Computes and keeps the answers of one contender."""
        sets = [each for each in sets if not self.answers_path(contender, dtype, each).exists()]
        if not sets:
            return
        how: dict[str, Any] = {"dtype": dtype, "device": self.chosen.device}
        asked: dict[str, Any] = {"max_new_tokens": self.chosen.max_new_tokens}
        if contender.startswith("pipe"):
            load: Callable[..., Any] = reference.load
            asked["batch_size"] = int(contender.split("-")[1])
        else:
            load, how["memory_bytes"] = text_generation.load, MEMORY_BYTES
        with folder_of(contender) as folder:
            pipe = load(folder, **how)
            for each in sets:
                start, got = time.perf_counter(), dict[int, list[int]]()
                chats = [truncated(row) if contender == "truncated" else row.messages for row in each.rows]
                keep = lambda made, got=got: got.__setitem__(made.index, list(map(int, made.token_ids)))  # noqa: E731
                pipe(chats, return_full_text=False, do_sample=False, on_answer=keep, **asked)
                write(self.answers_path(contender, dtype, each), [got[index] for index in range(len(chats))])
                say(f"answers {contender} {dtype} {each.name}: {len(chats)} in {time.perf_counter() - start:.1f} s")

    # Looks

    def looks_path(self, contender: str, dtype: str, audited_as: str, of: Set) -> Path:
        return self.path("looks", contender, dtype, audited_as, self.chosen.device, self.chosen.look_on, of=of)

    def look(self, sets: Sequence[Set]) -> None:
        """Computes and keeps all looks at the answers to these sets: at every row, not at those alone that an audit
        looks at more than once, so that what an audit makes of them can be tried without the model."""
        open_for = [
            (contender, dtype, audited_as, each)
            for each in sets
            for contender, dtype, audited_as in AUDITED
            if not self.looks_path(contender, dtype, audited_as, each).exists()
            and self.answers(contender, dtype, each) is not None
        ]
        found: dict[Path, dict[str, Any]] = {}
        for audited_as in looking.DTYPES:  # one model in memory at a time
            model = looking.Model(MODEL, self.chosen.look_on, MEMORY_BYTES)
            for contender, dtype, claimed, each in open_for:
                if audited_as not in ("float32", claimed):
                    continue
                start, path = time.perf_counter(), self.looks_path(contender, dtype, claimed, each)
                subject = self._subject(claimed, self.answers(contender, dtype, each) or [], each)
                if audited_as == "float32":
                    found[path] = first_looks(model, subject)
                else:
                    found[path] |= more_looks(model, subject, found[path])
                if audited_as == claimed:
                    write(path, found[path])
                    say(f"looks {contender} {dtype} as {claimed} {each.name}: {time.perf_counter() - start:.1f} s")

    @staticmethod
    def _subject(dtype: str, answers: Tokens, of: Set) -> Subject:
        given = {row: tokens for row, tokens in enumerate(answers) if tokens}
        return Subject(MODEL, dtype, dict(enumerate(of.prompts)), given)

    def seen(self, contender: str, dtype: str, audited_as: str, of: Set) -> Seen | None:
        """What an audit sees, by `invoke verify --audit`'s own code; None: not computed yet, or nothing to look at."""
        answers = self.answers(contender, dtype, of)
        looks = kept(self.looks_path(contender, dtype, audited_as, of))
        if answers is None or looks is None or not any(answers):
            return None
        return looking.seen(self._subject(audited_as, answers, of), lambda *which: answered(looks, *which))


def name_of(dtype: str, rows: int | None) -> str:
    return dtype if rows is None else f"{dtype}/{rows}"


def first_looks(model: looking.Model, subject: Subject) -> dict[str, Any]:
    if not subject.answers:
        return {"top": {}, "lead": {}, "float32": {}, name_of("float32", looking.SMALL_PASS_ROWS): {}}
    own = looking.submitted(subject)
    first = model.take(subject, "float32", own)
    found: dict[str, Any] = {
        "top": {row: each.top.tolist() for row, each in first.items()},
        "lead": {row: rounded_list(each.lead) for row, each in first.items()},
        "float32": {row: rounded_list(each.behind) for row, each in first.items()},
    }
    found = json.loads(json.dumps(found))  # as it is read again
    small = looking.SMALL_PASS_ROWS
    return found | {name_of("float32", small): one_look(model, subject, found, "float32", small)}


def more_looks(model: looking.Model, subject: Subject, found: Mapping[str, Any]) -> dict[str, Any]:
    sizes = (None, looking.SMALL_PASS_ROWS)
    return {name_of(subject.dtype, rows): one_look(model, subject, found, subject.dtype, rows) for rows in sizes}


def one_look(
    model: looking.Model, subject: Subject, found: Mapping[str, Any], dtype: str, rows: int | None
) -> dict[str, Any]:
    if not subject.answers:
        return {}
    own = looking.submitted(subject)
    probes = {row: np.concatenate([each, np.array(found["top"][str(row)])], axis=1) for row, each in own.items()}
    looks = model.take(subject, dtype, probes, rows)
    return {str(row): rounded_list(each.behind) for row, each in looks.items()}


def answered(looks: Mapping[str, Any], dtype: str, probes: Mapping[int, Ints], rows: int | None = None) -> Any:
    """A look, as `looking.Model.take` gives it, from what is kept."""
    of = looks[name_of(dtype, rows)]
    return {
        row: Look(
            np.array(of[str(row)], np.float32),
            np.array(looks["top"][str(row)]),
            np.array(looks["lead"][str(row)], np.float32),
        )
        for row in probes
    }


def rounded_list(values: Any) -> Any:
    return np.round(values.astype(np.float64), 5).tolist()


# Lies


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """A projection (out, in) rounded to whole multiples of a scale a group of `GROUP` inputs, symmetric about 0."""
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    most = 2 ** (bits - 1) - 1
    scale = (groups.abs().amax(-1, keepdim=True) / most).clamp_min(1e-12)
    return ((groups / scale).round().clamp(-most, most) * scale).reshape(weight.shape).to(weight.dtype)


@contextmanager
def folder_of(lie: str) -> Iterator[Path]:
    """The checkpoint that a contender answers with."""
    if lie not in ("int4", "int8", "half-adapter"):
        yield BASE if lie == "standin-base" else MODEL
        return
    with tempfile.TemporaryDirectory() as made:
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            (Path(made) / name).write_bytes((MODEL / name).read_bytes())
        tensors = load_file(MODEL / "model.safetensors")
        if lie == "half-adapter":
            base = load_file(BASE / "model.safetensors")
            tensors = {name: (each + base[name]) / 2 for name, each in tensors.items()}
        else:
            inner = {name: each for name, each in tensors.items() if ".layers." in name and each.ndim == 2}
            tensors |= {name: rounded(each, int(lie[3:])) for name, each in inner.items()}
        save_file(tensors, Path(made) / "model.safetensors", metadata={"format": "pt"})
        yield Path(made)


def truncated(row: Record) -> list[dict[str, str]]:
    last = row.messages[-1]
    return [*row.messages[:-1], {**last, "content": last["content"][: 2 * len(last["content"]) // 3]}]


# Files, and processes


def answer(chosen: argparse.Namespace, contender: str, dtype: str, names: Sequence[str]) -> None:
    """In a process of its own, as `look` is."""
    cells = _cells(chosen, names)
    cells.answer(contender, dtype, list(cells.sets.values()))


def look(chosen: argparse.Namespace, names: Sequence[str]) -> None:
    cells = _cells(chosen, names)
    cells.look(list(cells.sets.values()))


def _cells(chosen: argparse.Namespace, names: Sequence[str]) -> Cells:
    logging.set_verbosity_error()
    return Cells(argparse.Namespace(**{**vars(chosen), "sets": list(names)}))


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def kept(path: Path) -> Any:
    return json.loads(path.read_bytes())["value"] if path.exists() else None


def write(path: Path, value: Any) -> None:
    told = {"torch": torch.__version__, "transformers": transformers.__version__, "value": value}
    with write_atomically(path) as file:
        file.write(json.dumps(told).encode())


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
