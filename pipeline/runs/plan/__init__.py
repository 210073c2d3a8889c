"""Predicts memory, passes and seconds of a data set on a device that need not be here, before anything is loaded.

Everything is a prediction: the real scheduler on a roofline of the device (`configs/devices`), or on the curve that a
run has measured on it, with each answer taken to be the reference answer of its row, and drafts as right as that makes
them. In: names. Out: a `Plan`, which `shown` prints; `saved` writes a run's curve as a device.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline import paths, settings
from pipeline.dataset import fetch, records
from pipeline.engine import cost, memory
from pipeline.engine.forecast import Forecast, Script, forecast
from pipeline.engine.shape import Shape
from pipeline.errors import ResourceError
from pipeline.files import remember, remembered, sha256_of
from pipeline.model import config
from pipeline.model import fetch as model_setup
from pipeline.schemas import HubModelConfig
from pipeline.schemas.devices import DeviceConfig, Estimate
from pipeline.table import Say
from pipeline.text import quick_prompts
from pipeline.text.chat_template import Chats, token_ids

MIB = 2**20
FULL, ROOMY = 0.9, 4
"""From this share of the slots on the set is planned once more with so many times the slots, to see whether K/V memory
is what it waits for: whether it would be faster by more than `BOUND`."""
BOUND = 0.05

SCHEDULING = (
    *("arrays", "cost", "drafts", "forecast", "loop", "memory", "pool"),
    *("prefix_cache", "prefix_tree", "scheduler", "segment", "shape", "state"),
)
"""The modules of the engine that a forecast runs through: a change of them plans anew, one of a kernel does not."""


@dataclass(frozen=True)
class SetPlan:
    name: str
    prompts: int
    prompt_tokens: int
    answer_tokens: int
    longest: int
    """Tokens of the longest prompt and of all the new ones that it may get."""
    forecast: Forecast
    """At the likely rates of the mode that counts."""
    roomy_s: float
    """The same with K/V memory to spare."""
    modes: Mapping[str, Seconds] = field(default_factory=dict)
    """By power mode, the one that counts first."""
    bound_by: str = ""


@dataclass(frozen=True)
class Seconds:
    """Times of the same passes, at the high, the likely and the low rates of a device."""

    fastest: float
    likely: float
    slowest: float


@dataclass(frozen=True)
class Plan:
    device: DeviceConfig
    model: str
    weights_bytes: int
    memory: memory.Plan
    sweep_s: float
    break_even_rows: float
    measured: bool
    """The curve is that of a run of this model's shape on the device."""
    tokenizer: str
    """Whose token counts these are."""
    sets: tuple[SetPlan, ...]


def plan(device_name: str, model: str, dataset: str, say: Say = print) -> Plan:
    """`dataset`: a name, a file, or 'all': every set that is on this disk.

    Raises UsageError (U101, U102, U104), what fetching a named set raises, and ResourceError: R302 the model does
    not fit the device, R303 a prompt with its new tokens does not fit into what is left.
    """
    device = settings.device(device_name)
    shape, tokenizer_folder = _model(model, say)
    kind = memory.Kind(device.item_bytes, device.kind)
    weights_bytes = shape.parameters * kind.itemsize
    free_bytes = (device.memory_mib - device.in_use_mib) * MIB - weights_bytes
    fused = device.kind == "cuda"  # the image builds them
    planned = memory.plan(shape, kind, kind, max(0, free_bytes), fused=fused)
    estimates = device.estimates(shape, planned.limits.budget_rows)
    main = next(iter(estimates.values()))
    data = _on_disk() if dataset == "all" else {Path(dataset).stem: fetch.resolve(dataset, say)}
    for path in data.values():
        records.check_no_pipe(path)
    counting = _Counting(tokenizer_folder, planned, main.likely)
    return Plan(
        device=device,
        model=model,
        weights_bytes=weights_bytes,
        memory=planned,
        sweep_s=main.likely.seconds(1),
        break_even_rows=main.break_even_rows,
        measured=device.measured is not None and device.measured.is_of(shape),
        tokenizer=tokenizer_folder.name,
        sets=tuple(
            _with_modes(counting.set_plan(name, path), estimates)
            for name, path in tqdm(data.items(), "sets", unit="set", disable=None, leave=False)
        ),
    )


def _with_modes(each: SetPlan, estimates: Mapping[str, Estimate]) -> SetPlan:
    def seconds(curve: cost.PassCost) -> float:
        return sum(map(curve.seconds, each.forecast.pass_rows))

    modes = {name: Seconds(*map(seconds, (of.fastest, of.likely, of.slowest))) for name, of in estimates.items()}
    return replace(each, modes=modes, bound_by=_bound_by(each, next(iter(estimates.values()))))


def _bound_by(each: SetPlan, estimate: Estimate) -> str:
    """The part that takes most of the time: in large passes arithmetic, in small ones weights; or the wait for
    slots."""
    if each.roomy_s < (1 - BOUND) * each.forecast.elapsed_s:
        return "K/V memory"
    large_s = sum(estimate.likely.seconds(rows) for rows in each.forecast.pass_rows if rows > estimate.break_even_rows)
    return "arithmetic" if large_s > each.forecast.elapsed_s / 2 else "weights"


def _model(name: str, say: Say) -> tuple[Shape, Path]:
    """Its shape, and the folder of a tokenizer: its own, or the stand-in's while the model is not here."""
    folder = paths.models() / name
    if name in settings.model_names() and not (folder / "config.json").exists():
        described = settings.model(name)
        if isinstance(described, HubModelConfig):
            return described.shape, model_setup.ensure("standin", say)
    folder = model_setup.resolve(name, say)
    return config.read_shape(folder), folder


def _on_disk() -> dict[str, Path]:
    places = {name: paths.data() / "sets" / f"{name}.jsonl" for name in settings.dataset_names()}
    found = {name: path for name, path in places.items() if path.exists()}
    return found or {"obqa": fetch.ensure("obqa")}


class _Counting:
    """Plans of sets by one tokenizer for one device, kept in `data()/sets/.plans.json` by the hash of all that they
    follow from, this code included: what was planned once is only read."""

    def __init__(self, folder: Path, planned: memory.Plan, curve: cost.PassCost) -> None:
        self._folder, self._planned, self._curve = folder, planned, curve
        self._cache = paths.data() / "sets" / ".plans.json"
        scheduling = [paths.PACKAGE / "engine" / f"{name}.py" for name in SCHEDULING]
        code = [*scheduling, Path(__file__), Path(quick_prompts.__file__)]
        own = [folder / name for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")]
        self._follows_from = {
            "files": [sha256_of(path) for path in (*own, *code) if path.exists()],
            "planned": asdict(planned),
            "curve": asdict(curve),
            "new_tokens": settings.run().max_new_tokens,
        }
        self._encode: quick_prompts.QuickPrompts | _ByTransformers | None = None

    def set_plan(self, name: str, path: Path) -> SetPlan:
        """Memory and time of one set. Raises ResourceError (R303)."""
        follows_from = json.dumps([name, sha256_of(path), self._follows_from], sort_keys=True)
        key, kept = hashlib.sha256(follows_from.encode()).hexdigest(), remembered(self._cache)
        with contextlib.suppress(KeyError, TypeError):  # not there, or damaged: it only saves time
            return SetPlan(**{**kept[key], "forecast": Forecast(**_with_tuple(kept[key]["forecast"])), "modes": {}})
        made = self._made(name, path)
        remember(self._cache, {**kept, key: asdict(made)})
        return made

    def _made(self, name: str, path: Path) -> SetPlan:
        rows = records.read(path)
        if self._encode is None:
            self._encode = _encoder(self._folder)
        prompts = self._encode([row.messages for row in rows])
        answers = self._encode.texts([row.answer or "" for row in rows])
        stop = -1  # no token: nothing in an answer can be taken for it
        longest = max(map(len, prompts)) + settings.run().max_new_tokens
        limits, most = self._planned.limits, self._planned.most_slots
        if longest > most:
            raise ResourceError(
                "R303",
                "the longest prompt of a set does not fit into the memory that the weights leave",
                where=name,
                expected=f"at most {most:,} tokens",
                actual=f"{longest:,} with its new tokens, {longest - most:,} too many",
                fix="free memory on the device, or allow fewer new tokens",
            )
        if longest > limits.slots:  # as the engine lets its pool grow
            limits = replace(limits, slots=min(most, longest + limits.slots))
        script = Script([[*answer, stop] for answer in answers])
        seen = forecast(prompts, script, limits, self._curve)
        roomy_s = seen.elapsed_s
        if seen.peak_slots >= FULL * limits.slots:
            roomy_s = forecast(prompts, script, replace(limits, slots=ROOMY * limits.slots), self._curve).elapsed_s
        return SetPlan(
            name=name,
            prompts=len(prompts),
            prompt_tokens=sum(map(len, prompts)),
            answer_tokens=sum(map(len, answers)),
            longest=longest,
            forecast=seen,
            roomy_s=roomy_s,
        )


class _ByTransformers:
    """Like QuickPrompts, for a tokenizer that only transformers reads."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))

    def __call__(self, chats: Chats) -> list[list[int]]:
        return token_ids(self._tokenizer, chats)

    def texts(self, texts: Sequence[str]) -> list[list[int]]:
        return list(self._tokenizer(list(texts), add_special_tokens=False)["input_ids"])


def _encoder(folder: Path) -> quick_prompts.QuickPrompts | _ByTransformers:
    try:
        return quick_prompts.QuickPrompts(folder)
    except quick_prompts.Doubt:
        return _ByTransformers(folder)


def _with_tuple(seen: dict[str, Any]) -> dict[str, Any]:
    """A forecast's fields as they were before JSON."""
    return {**seen, "pass_rows": tuple(seen["pass_rows"])}
