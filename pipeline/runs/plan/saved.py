"""A board's own curve, measured by a run's warm-up, as a device file: the next plan is then a measurement's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pipeline import paths, settings
from pipeline.engine.shape import Shape
from pipeline.errors import UsageError
from pipeline.files import write_atomically
from pipeline.model import config
from pipeline.record import run_folder
from pipeline.schemas.devices import DeviceConfig, Measured, Range, Share

MIB = 2**20
ITEM_BYTES = {"bfloat16": 2, "float32": 4}


def save(name: str) -> Path:
    """Write what the newest finished run measured as the device `name`; the file's path.

    Raises UsageError: U121 no name for a file, or one of the project's own; U122 no run that has a measured curve and
    whose model is here; and ResourceError (R101, R102).
    """
    own = [path.stem for path in settings.device_folders()[0].glob("*.yaml")]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name) or name in own:
        raise UsageError(
            "U121",
            "a device cannot be saved under this name",
            where="--save-device",
            expected=f"small letters, digits and -, and none of {', '.join(own)}",
            actual=name,
            fix="choose another name, for instance my-board",
        )
    device = _device(name, *_newest())
    path = settings.device_folders()[1] / f"{name}.yaml"
    with write_atomically(path) as file:
        file.write(yaml.safe_dump(device.model_dump(mode="json"), sort_keys=False, allow_unicode=True).encode())
    return path


def text(path: Path) -> str:
    return f"written: {paths.shown(path)}\nuse it:  invoke plan --device {path.stem}"


def _newest() -> tuple[Path, dict[str, Any], Shape]:
    """The newest finished run of our engine with a measured curve, on weights that stayed in memory."""
    for path in sorted(paths.runs().glob("*/manifest.json"), key=lambda path: path.parent.name, reverse=True):
        try:
            manifest = run_folder.finished_manifest(path.parent)
            engine = manifest["engine"]
            if len(engine["cost"]["rows"]) > 1 and engine["weights"] == "resident" and manifest["dtype"] in ITEM_BYTES:
                return path.parent, manifest, _shape(manifest["model"]["name"])
        except (UsageError, KeyError, TypeError):  # unfinished, of another engine or program, or its model is gone
            continue
    raise UsageError(
        "U122",
        "there is no finished run that measured this device",
        where=paths.shown(paths.runs()),
        expected="a run of --engine ours whose model is here",
        fix="invoke run, then the same again",
    )


def _shape(model: str) -> Shape:
    folder = paths.models() / model if model in settings.model_names() else Path(model)
    if not (folder / "config.json").is_file():
        raise KeyError(model)
    return config.read_shape(folder)


def _device(name: str, run: Path, manifest: dict[str, Any], shape: Shape) -> DeviceConfig:
    engine = manifest["engine"]
    item_bytes = ITEM_BYTES[manifest["dtype"]]
    rows, elapsed_s = engine["cost"]["rows"], engine["cost"]["elapsed_s"]
    # For models of another shape: weights as the smallest pass read them, products as the cheapest row had them.
    bytes_per_s = shape.swept_parameters * item_bytes / min(elapsed_s)
    moved_s = shape.moved_elements_per_row * item_bytes / bytes_per_s
    row_s = min(taken / count for count, taken in zip(rows, elapsed_s, strict=True))
    flops_per_s = shape.flops_per_row / max(row_s - moved_s, row_s / 2)
    source = f"the warm-up of {run.name}, {manifest['dtype']}"
    total_bytes = _total_bytes(manifest, shape, item_bytes)
    left_bytes = engine["memory_plan"]["free_bytes"] + shape.parameters * item_bytes
    whole = Range(likely=Share(value=1, source=source))
    return DeviceConfig(
        name=name,
        title=settings.device_title(manifest),
        kind="cpu" if manifest["device"] == "cpu" else "cuda",
        item_bytes=item_bytes,  # type: ignore[arg-type]
        memory_mib=int(total_bytes / MIB),
        in_use_mib=max(0, int((total_bytes - left_bytes) / MIB)),
        mode=(manifest["board"]["before"].get("mode") or {}).get("name") or "",
        flops_per_s=flops_per_s,
        flops_share=whole,
        bytes_per_s=bytes_per_s,
        bytes_share=whole,
        measured=Measured(
            model=manifest["model"]["name"],
            parameters=shape.parameters,
            flops_per_row=shape.flops_per_row,
            rows=tuple(rows),
            elapsed_s=tuple(elapsed_s),
            source=source,
        ),
    )


def _total_bytes(manifest: dict[str, Any], shape: Shape, item_bytes: int) -> float:
    """A board's GPU shares the machine's memory; of another no more is known than what was free."""
    if manifest["device"] == "cpu" or manifest["board"]["before"]["board"]["is_jetson"]:
        return float(manifest["environment"]["memory_bytes"])
    return float(manifest["engine"]["memory_plan"]["free_bytes"] + shape.parameters * item_bytes)
