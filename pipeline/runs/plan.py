"""Predicts memory, passes and seconds of a data set on a device that need not be here, before anything is loaded.

Everything is a prediction: the real scheduler on a roofline of the device (`configs/devices`), with each answer
taken to be the reference answer of its row, and drafts as right as that makes them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline import paths, settings
from pipeline.dataset import fetch, records
from pipeline.engine import cost, memory
from pipeline.engine.forecast import Forecast, Script, forecast
from pipeline.engine.shape import Shape
from pipeline.errors import ResourceError
from pipeline.model import config
from pipeline.model import fetch as model_setup
from pipeline.schemas import DeviceConfig, HubModelConfig
from pipeline.table import Say
from pipeline.text.chat_template import token_ids

MIB = 2**20
DTYPE = torch.bfloat16
"""Dtype of the contest's weights and activations."""


@dataclass(frozen=True)
class SetPlan:
    name: str
    prompts: int
    prompt_tokens: int
    answer_tokens: int
    longest: int
    """Tokens of the longest prompt and of all the new ones that it may get."""
    forecast: Forecast


@dataclass(frozen=True)
class Plan:
    device: DeviceConfig
    model: str
    weights_bytes: int
    memory: memory.Plan
    sweep_s: float
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
    weights_bytes = shape.parameters * DTYPE.itemsize
    free_bytes = (device.memory_mib - device.in_use_mib) * MIB - weights_bytes
    planned = memory.plan(shape, DTYPE, torch.device("cuda"), max(0, free_bytes), fused=True)  # the image builds them
    limits = planned.limits
    flops_per_s, bytes_per_s = device.flops_per_s * device.flops_share, device.bytes_per_s * device.bytes_share
    curve = cost.roofline(shape, DTYPE.itemsize, flops_per_s, bytes_per_s, limits.budget_rows)
    data = _on_disk() if dataset == "all" else {Path(dataset).stem: fetch.resolve(dataset, say)}
    tokenizer = _tokenizer(tokenizer_folder)
    return Plan(
        device=device,
        model=model,
        weights_bytes=weights_bytes,
        memory=planned,
        sweep_s=curve.seconds(1),
        tokenizer=tokenizer_folder.name,
        sets=tuple(_set_plan(name, path, tokenizer, planned, curve) for name, path in data.items()),
    )


def _model(name: str, say: Say) -> tuple[Shape, Path]:
    """Its shape, and the folder of a tokenizer: its own, or the stand-in's while the model is not here."""
    folder = paths.models() / name
    if name in settings.model_names() and not (folder / "config.json").exists():
        described = settings.model(name)
        if isinstance(described, HubModelConfig):
            return described.shape, model_setup.ensure("standin", say)
    folder = model_setup.resolve(name, say)
    return config.read_shape(folder), folder


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    return AutoTokenizer.from_pretrained(str(folder))


def _on_disk() -> dict[str, Path]:
    places = {name: paths.data() / "sets" / f"{name}.jsonl" for name in settings.dataset_names()}
    found = {name: path for name, path in places.items() if path.exists()}
    return found or {"obqa": fetch.ensure("obqa")}


def _set_plan(name: str, path: Path, tokenizer: Any, planned: memory.Plan, curve: cost.PassCost) -> SetPlan:
    rows = records.read(path)
    prompts = token_ids(tokenizer, [row.messages for row in rows])
    answers = tokenizer([row.answer or "" for row in rows], add_special_tokens=False)["input_ids"]
    stop = len(tokenizer)  # no real token: nothing in an answer can be taken for it
    longest = max(map(len, prompts)) + settings.run().max_new_tokens
    limits, most = planned.limits, planned.most_slots
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
    return SetPlan(
        name=name,
        prompts=len(prompts),
        prompt_tokens=sum(map(len, prompts)),
        answer_tokens=sum(map(len, answers)),
        longest=longest,
        forecast=forecast(prompts, Script([[*answer, stop] for answer in answers]), limits, curve),
    )


def text(planned: Plan) -> str:
    """For the terminal: what was assumed, then a row a set."""
    device = planned.device
    left = device.memory_mib - device.in_use_mib - planned.weights_bytes / MIB
    lines = [
        f"{planned.model} on {device.name}: a PREDICTION; nothing here was measured on that device",
        f"  device   {device.title}",
        f"  assumed  {device.flops_share:.0%} of {device.flops_per_s / 1e12:.1f} TFLOP/s, "
        f"{device.bytes_share:.0%} of {device.bytes_per_s / 1e9:.0f} GB/s",
        f"  memory   {device.memory_mib:,} MiB, {device.in_use_mib:,} in use, weights "
        f"{planned.weights_bytes / MIB:,.0f}, left {left:,.0f}",
        f"  plan     {planned.memory.text()}",
        f"  weights  read once in {planned.sweep_s * 1e3:.0f} ms",
        f"  tokens   counted with the tokenizer of {planned.tokenizer}",
        "",
        f"  {'set':<20}{'prompts':>8}{'tokens':>9}{'as a tree':>11}{'answers':>9}{'longest':>9}"
        f"{'passes':>8}{'predicted':>12}",
    ]
    for each in planned.sets:
        seen = each.forecast
        lines.append(
            f"  {each.name:<20}{each.prompts:>8,}{each.prompt_tokens:>9,}{seen.prompt_rows:>11,}"
            f"{each.answer_tokens:>9,}{each.longest:>9,}{len(seen.pass_rows):>8,}{seen.elapsed_s:>10.1f} s"
        )
    return "\n".join(lines)


def as_json(planned: Plan) -> dict[str, Any]:
    """The same for programs."""
    return {**asdict(planned), "device": planned.device.model_dump(), "prediction": True}
