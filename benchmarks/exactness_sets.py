"""How many rows of all benchmarks differ between ours and transformers' pipe() in float32: thousands, so resumable.

    python benchmarks/exactness_sets.py --rows 180 --workers 2 --kept pipe_rows.jsonl

Rows are spread evenly over each set. pipe() answers one prompt at a time, which is the definition and nearly all of the
time: its answers are kept in a file, one JSON line each, by the hash of all that they depend on (weights, dtype, kind
of device, releases of torch and transformers, number of tokens, chat), and a later call goes on with the rows that are
missing. Ours answers a whole set in one call, as a run does, and anew in every call, as our code may have changed.

Every row that differs is explained: logits of the two tokens in float64, and the model's own choice in float64, behind
the tokens that both share. Prints the table of docs/exactness.md, and last a line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers.utils import logging  # noqa: E402

from pipeline import reference, settings, text_generation  # noqa: E402
from pipeline.dataset import fetch, records  # noqa: E402
from pipeline.model import lock  # noqa: E402

OURS_BYTES = 24 << 30
"""Memory of a GPU that our engine may take where the pipe's processes share it."""
Chat = list[dict[str, str]]


@dataclass(frozen=True)
class Picked:
    """A row, and the key of pipe()'s answer to it."""

    dataset: str
    index: int
    chat: Chat
    key: str


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: list[int]


def picked(options: argparse.Namespace) -> list[Picked]:
    """The rows, set by set in turn, so that a call that is cut off has seen all sets alike."""
    weights = lock.current(Path(options.model)).root
    on = [weights, "float32", options.device, torch.__version__.split("+")[0], transformers.__version__]

    def key(chat: Chat) -> str:
        return hashlib.sha256(json.dumps([*on, options.max_new_tokens, chat]).encode()).hexdigest()

    names = options.sets.split(",") if options.sets else settings.dataset_names()
    turns = []
    for name in names:
        if name == "obqa":
            continue  # the first rows of obqa-validation
        rows = records.read(fetch.ensure(name, lambda _: None))
        count = min(options.rows, len(rows))
        numbers = [turn * len(rows) // count for turn in range(count)]
        turns.append([Picked(name, index, rows[index].messages, key(rows[index].messages)) for index in numbers])
    return [each for turn in zip_longest(*turns) for each in turn if each is not None]


def read_kept(path: Path) -> dict[str, Answer]:
    """pipe()'s answers so far. A line that was cut off is left out: its row is answered again."""
    kept = {}
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        kept[row["key"]] = Answer(row["text"], row["tokens"])
    return kept


def rules(options: argparse.Namespace) -> dict[str, Any]:
    return {"max_new_tokens": options.max_new_tokens, "return_full_text": False, "do_sample": False}


def work(options: argparse.Namespace, shard: int) -> None:
    """One process's share of the rows that are not kept, by pipe(), until all are done or the time is up."""
    until = time.monotonic() + options.seconds
    torch.set_num_threads(1)
    kept = read_kept(options.kept)
    missing = [each for each in picked(options) if each.key not in kept]
    pipe = reference.load(options.model, dtype="float32", device=options.device)
    for each in missing:
        if int(each.key, 16) % options.workers != shard:
            continue  # by the key, not in turn: a process would get always the same sets
        if time.monotonic() > until:
            break
        tokens: list[list[int]] = []
        (output,) = pipe([each.chat], **rules(options), on_answer=lambda got, to=tokens: to.append(got.token_ids))
        row = {"key": each.key, "set": each.dataset, "row": each.index}
        row |= {"text": output[0]["generated_text"], "tokens": tokens[0]}
        with open(options.kept, "a", encoding="utf-8") as file:  # one write a line: processes do not mix
            file.write(json.dumps(row) + "\n")


def answer_ours(options: argparse.Namespace, rows: list[Picked]) -> dict[str, Answer]:
    """Ours, each set in one call. By the rows' keys."""
    pipe = text_generation.load(
        options.model,
        dtype="float32",
        device=options.device,
        memory_bytes=OURS_BYTES if options.device == "cuda" else None,
    )
    pipe.warm_up()
    answers: dict[str, Answer] = {}
    for name in dict.fromkeys(each.dataset for each in rows):
        of_set = [each for each in rows if each.dataset == name]
        tokens: dict[int, list[int]] = {}
        outputs = pipe(
            [each.chat for each in of_set],
            **rules(options),
            on_answer=lambda got, to=tokens: to.__setitem__(got.index, got.token_ids),
        )
        for index, (each, output) in enumerate(zip(of_set, outputs, strict=True)):
            answers[each.key] = Answer(output[0]["generated_text"], tokens[index])
    return answers


def explain(options: argparse.Namespace, each: Picked, ours: Answer, theirs: Answer, model: Any) -> dict[str, Any]:
    """The first token in which the answers differ, and the model's logits there in float64."""
    place = next((n for n, (a, b) in enumerate(zip_longest(ours.tokens, theirs.tokens)) if a != b), None)
    where = {"set": each.dataset, "row": each.index, "first_differing_token": place}
    if place is None:
        return where | {"texts": [ours.text, theirs.text]}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    text = tokenizer.apply_chat_template(each.chat, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ours.tokens[:place]]])).logits[0, -1]
    tokens = [None if place >= len(side.tokens) else side.tokens[place] for side in (ours, theirs)]
    best, second = logits.topk(2).values.tolist()
    return where | {
        "tokens_ours_pipe": tokens,
        "logits_float64": [None if token is None else logits[token].item() for token in tokens],
        "best_token_float64": int(logits.argmax()),
        "margin_float64": best - second,
    }


def table(rows: list[Picked], same: dict[str, tuple[bool, bool]]) -> str:
    """A line a benchmark, in Markdown."""
    lines = ["| benchmark | sets | rows | same bytes | same tokens |", "| --- | --- | ---: | ---: | ---: |"]
    by_benchmark: dict[str, list[Picked]] = {}
    for each in sorted(rows, key=lambda each: each.dataset):
        by_benchmark.setdefault(settings.dataset(each.dataset).benchmark, []).append(each)
    for benchmark, of_it in [*sorted(by_benchmark.items()), ("all", rows)]:
        sets = sorted({each.dataset for each in of_it})
        names = f"{len(sets)} sets" if benchmark == "all" else ", ".join(sets)
        texts, tokens = (sum(same[each.key][which] for each in of_it) for which in (0, 1))
        lines.append(f"| {benchmark} | {names} | {len(of_it):,} | {texts:,} | {tokens:,} |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "standin"))
    parser.add_argument("--sets", default="", help="several by commas; left out: all")
    parser.add_argument("--rows", type=int, default=180, help="of each set")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, default=1, help="processes that run pipe()")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which pipe() starts no further row")
    parser.add_argument("--kept", type=Path, default=Path("pipe_rows.jsonl"))
    parser.add_argument("--shard", type=int, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def main(chosen: argparse.Namespace) -> None:
    if chosen.shard is not None:
        work(chosen, chosen.shard)
        return
    start = time.perf_counter()
    rows = picked(chosen)
    again = [sys.executable, __file__, *sys.argv[1:], "--shard"]
    workers = [subprocess.Popen([*again, str(shard)]) for shard in range(chosen.workers)]
    ours = answer_ours(chosen, rows)
    print(f"ours: {len(ours)} rows, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    failed = [worker.pid for worker in workers if worker.wait() != 0]
    kept = read_kept(chosen.kept)
    both = [each for each in rows if each.key in kept]
    print(f"pipe: {len(both)} rows, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    same = {
        each.key: (ours[each.key].text == kept[each.key].text, ours[each.key].tokens == kept[each.key].tokens)
        for each in both
    }
    differing = [each for each in both if not all(same[each.key])]
    why = []
    if differing:
        model = transformers.Phi3ForCausalLM.from_pretrained(chosen.model, torch_dtype=torch.float64).eval()
        why = [explain(chosen, each, ours[each.key], kept[each.key], model) for each in differing]
    where = torch.cuda.get_device_name() if chosen.device == "cuda" else "CPU"
    print(f"\n{where}, float32, torch {torch.__version__}, transformers {transformers.__version__}")
    print(f"{len(both):,} of {len(rows):,} rows, at most {chosen.max_new_tokens} new tokens\n\n{table(both, same)}\n")
    print(json.dumps({"rows": len(both), "picked": len(rows), "differing": why, "failed_workers": len(failed)}))
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    logging.set_verbosity_error()  # pipe() warns at every call
    logging.disable_progress_bar()
    main(options())
