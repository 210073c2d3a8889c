"""The token audit's power: false alarms over honest runs, and how many of which lies it finds. Kept, so resumable.

    python benchmarks/audit.py --rows 20 --sets obqa-test,arc-easy-validation,social-iqa-validation --kept audit.jsonl

Honest: our engine, and transformers' pipe() at batch size 1 and 16, in float32 and bfloat16, `--rows` rows spread over
each set. Lies: weights rounded to int4 and int8 (groups of 32, float32 otherwise), the stand-in without its adapter,
prompts whose last third is missing, answers copied from the key where they are not the model's, one flipped token.
All are audited as bfloat16 submissions by what `invoke verify --audit` calls, except for honest float32 ones.

Every answer and every audit is kept in one file, a JSON line each, by the hash of all that it depends on; a call that
is cut off, or asked for more, goes on. `--only tables` prints the tables of docs/audit.md from what is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from pipeline.contest.audit import judging, looking  # noqa: E402
from pipeline.contest.audit.looking import Seen, Subject  # noqa: E402
from pipeline.dataset import fetch, records  # noqa: E402
from pipeline.dataset.records import Record  # noqa: E402
from pipeline.model import config, lock  # noqa: E402
from pipeline.text.chat_template import token_ids  # noqa: E402

MODEL, BASE = ROOT / "models" / "standin", ROOT / "models" / "standin-base"
GROUP = 32
HONEST = [(engine, dtype) for dtype in ("float32", "bfloat16") for engine in ("ours", "pipe-1", "pipe-16")]
GENERATED_LIES = ("int4", "int8", "standin-base", "truncated")
DERIVED_LIES = ("copied", "flipped")
TRIALS = 2000
SIZES = (1, 2, 5, 10, 20, 50, 100)


class Kept:
    """Values by key in a file of JSON lines; a line that was cut off is left out."""

    def __init__(self, path: Path) -> None:
        self.path, self.values = path, dict[str, Any]()
        for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            self.values[row["key"]] = row["value"]

    def get(self, on: list[Any], make: Callable[[], Any], make_it: bool = True) -> Any:
        key = hashlib.sha256(json.dumps(on).encode()).hexdigest()[:24]
        if key not in self.values and make_it:
            self.values[key] = make()
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "on": on[:4], "value": self.values[key]}) + "\n")
        return self.values.get(key)


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """A projection (out, in) rounded to whole multiples of a scale a group of `GROUP` inputs, symmetric about 0."""
    groups = weight.float().reshape(weight.shape[0], -1, GROUP)
    most = 2 ** (bits - 1) - 1
    scale = (groups.abs().amax(-1, keepdim=True) / most).clamp_min(1e-12)
    return ((groups / scale).round().clamp(-most, most) * scale).reshape(weight.shape).to(weight.dtype)


@contextmanager
def folder_of(lie: str) -> Iterator[Path]:
    """The checkpoint that a lie answers with."""
    if not lie.startswith("int"):
        yield BASE if lie == "standin-base" else MODEL
        return
    with tempfile.TemporaryDirectory() as made:
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            (Path(made) / name).write_bytes((MODEL / name).read_bytes())
        tensors = load_file(MODEL / "model.safetensors")
        inner = {name: each for name, each in tensors.items() if ".layers." in name and each.ndim == 2}
        tensors |= {name: rounded(each, int(lie[3:])) for name, each in inner.items()}
        save_file(tensors, Path(made) / "model.safetensors", metadata={"format": "pt"})
        yield Path(made)


def truncated(row: Record) -> list[dict[str, str]]:
    last = row.messages[-1]
    return [*row.messages[:-1], {**last, "content": last["content"][: 2 * len(last["content"]) // 3]}]


class Bench:
    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen, self.kept = chosen, Kept(chosen.kept)
        self.on = [lock.current(MODEL).root[:12], torch.__version__, transformers.__version__, chosen.device]
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(str(MODEL))
        self.stops = config.stop_tokens(MODEL)
        self.rows: list[tuple[str, Record]] = []
        for name in chosen.sets.split(","):
            every = records.read(fetch.ensure(name, lambda _: None))
            self.rows += [(name, every[index]) for index in looking.spread(range(len(every)), chosen.rows)]
        self.prompts = dict(enumerate(token_ids(self.tokenizer, [row.messages for _, row in self.rows])))

    def answers(self, contender: str, dtype: str) -> dict[int, list[int]] | None:
        """Token ids by number of the row; None where some are not kept and none are to be made."""
        made: dict[int, list[int]] = {}
        for name in self.chosen.sets.split(","):
            numbers = [number for number, (of, _) in enumerate(self.rows) if of == name]
            on = [contender, dtype, name, len(numbers), self.chosen.max_new_tokens, *self.on]
            got = self.kept.get(on, lambda n=numbers: self._generate(contender, dtype, n), self.chosen.only != "tables")
            if got is None:
                return None
            made |= dict(zip(numbers, got, strict=True))
        return made

    def _generate(self, contender: str, dtype: str, numbers: list[int]) -> list[list[int]]:
        start, rows = time.perf_counter(), [self.rows[number][1] for number in numbers]
        chats = [truncated(row) if contender == "truncated" else row.messages for row in rows]
        tokens: dict[int, list[int]] = {}
        asked = {"max_new_tokens": self.chosen.max_new_tokens, "return_full_text": False, "do_sample": False}
        engine = reference if contender.startswith("pipe") else text_generation
        if engine is reference:
            asked["batch_size"] = int(contender.split("-")[1])
        with folder_of(contender) as folder:
            pipe = engine.load(folder, dtype=dtype, device=self.chosen.device)
            pipe(chats, **asked, on_answer=lambda got: tokens.__setitem__(got.index, list(map(int, got.token_ids))))
        say(f"{contender} {dtype}: {len(rows)} answers, {time.perf_counter() - start:.0f} s")
        return [tokens[index] for index in range(len(rows))]

    def copied(self) -> dict[int, list[int]] | None:
        """The key's answer, where it is not the model's own."""
        own = self.answers("ours", "float32")
        if own is None:
            return None
        most = self.chosen.max_new_tokens
        key = {
            number: [*self.tokenizer(row.answer, add_special_tokens=False)["input_ids"], min(self.stops)][:most]
            for number, (_, row) in enumerate(self.rows)
            if row.answer
        }
        return {number: tokens for number, tokens in key.items() if tokens != own[number]}

    def flipped(self) -> dict[int, list[int]] | None:
        """Another ordinary token, at random, in one place of each answer."""
        own = self.answers("ours", "float32")
        chance, made = random.Random(16), {}
        for number, tokens in (own or {}).items():
            changed = list(tokens)
            changed[chance.randrange(max(1, len(tokens) - 1))] = chance.randrange(1000, 40_000)
            made[number] = changed
        return made if own is not None else None

    def seen(self, contender: str, dtype: str, audited_as: str, honest: Seen | None = None) -> Seen | None:
        """The audit of a contender; where `honest` was audited the same way, its noise counts."""
        answers = getattr(self, contender)() if contender in DERIVED_LIES else self.answers(contender, dtype)
        if answers is None:
            return None

        def make() -> dict[str, Any]:
            start = time.perf_counter()
            subject = Subject(MODEL, audited_as, self.prompts, answers)
            found = looking.look(subject, self.chosen.device, honest and honest.noise)
            say(f"audit of {contender} {dtype} as {audited_as}: {time.perf_counter() - start:.0f} s")
            behind = {str(number): each.tolist() for number, each in found.behind.items()}
            return {"behind": behind, "leads": found.leads.tolist(), "noise": found.noise.tolist()}

        on = ["audit", contender, audited_as, self.chosen.sets, self.chosen.rows, answers_hash(answers), *self.on]
        got = self.kept.get(on, make, self.chosen.only != "tables")
        if got is None:
            return None
        behind = {int(number): np.array(each, dtype=np.float32) for number, each in got["behind"].items()}
        return Seen(behind, np.array(got["leads"], np.float32), np.array(got["noise"], np.float32))


def answers_hash(answers: dict[int, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(answers.items())).encode()).hexdigest()[:16]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def caught(seen: Seen, honest: Seen, size: int, chance: np.random.Generator) -> tuple[float, float]:
    """The share of submissions of `size` rows, drawn from `seen`, that the limit finds, and that either check finds, by
    the whole allowance of an honest run."""
    made = judging.judge(honest)
    largest = np.array([each.max() for each in seen.behind.values()])
    total = np.array([each.sum() for each in seen.behind.values()], dtype=np.float64)
    drawn = chance.integers(0, len(largest), (TRIALS, size))
    beyond = largest[drawn].max(1) > made.allowed.limit
    in_sum = total[drawn].sum(1) > made.allowed.total
    return beyond.mean(), (beyond | in_sum).mean()


def tables(bench: Bench) -> str:
    names = bench.chosen.sets.split(",")
    lines = [
        f"{len(bench.rows)} rows, {bench.chosen.rows} of each of {', '.join(names)}; {bench.chosen.device}",
        "",
        "| honest run | dtype | rows | tokens | not the first choice | largest | limit | sum | allowed | verdict |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for contender, dtype in HONEST:
        if bench.chosen.only == "lies":
            break
        seen = bench.seen(contender, dtype, dtype)
        if seen is None:
            continue
        made = judging.judge(seen)
        states = "false alarm" if any(each.state != "ok" for each in judging.checks(made)) else "ok"
        lines.append(
            f"| {contender} | {dtype} | {made.rows} | {made.tokens:,} | {made.other} | {made.largest:.3f} "
            f"| {made.allowed.limit:.3f} | {made.total:.3f} | {made.allowed.total:.3f} | {states} |"
        )
    honest = bench.seen("ours", "bfloat16", "bfloat16")
    heads = " | ".join(f"{size} row{'s' * (size > 1)}" for size in SIZES)
    lines += ["", f"| lie | rows | beyond the limit | {heads} |", f"| --- | ---: | ---: |{' ---: |' * len(SIZES)}"]
    chance = np.random.default_rng(16)
    for lie in (*GENERATED_LIES, *DERIVED_LIES):
        if bench.chosen.only == "honest":
            break
        seen = None if honest is None else bench.seen(lie, "float32", "bfloat16", honest)
        if seen is None or honest is None:
            continue
        limit = judging.judge(honest).allowed.limit
        alone = np.mean([each.max() > limit for each in seen.behind.values()])
        rates = " | ".join(f"{caught(seen, honest, size, chance)[1]:.1%}" for size in SIZES)
        lines.append(f"| {lie} | {len(seen.behind)} | {alone:.1%} | {rates} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="obqa-test,arc-easy-validation,social-iqa-validation")
    parser.add_argument("--rows", type=int, default=20, help="of each set")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--kept", type=Path, default=Path("audit.jsonl"))
    parser.add_argument("--only", default="", choices=["", "honest", "lies", "tables"])
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    print(tables(Bench(chosen)))


if __name__ == "__main__":
    main()
