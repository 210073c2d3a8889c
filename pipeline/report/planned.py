"""A run's passes held against the device file of its machine: what `invoke plan` would say of these passes."""

from __future__ import annotations

from pathlib import Path

from pipeline import paths, settings
from pipeline.device import board
from pipeline.engine.shape import Shape
from pipeline.errors import PipelineError
from pipeline.model import config
from pipeline.report.facts import Facts
from pipeline.report.run_plots import seconds
from pipeline.schemas import HubModelConfig
from pipeline.schemas.devices import DeviceConfig


def sentence(seen: Facts, measured_s: float) -> str:
    """Empty where no device file is this machine's, or the model's shape is not known here."""
    device, shape = _device(seen), _shape(str(seen.get("model.name")))
    if device is None or shape is None or not seen.passes:
        return ""
    rows = [each.rows for each in seen.passes]
    estimates = device.estimates(shape, max(rows))
    mode = str(seen.get("board.before.mode.name") or "").removeprefix("MODE_")
    estimate = estimates.get(mode) or next(iter(estimates.values()))
    fastest, likely, slowest = (
        sum(map(curve.seconds, rows)) for curve in (estimate.fastest, estimate.likely, estimate.slowest)
    )
    of_range = f" ({seconds(fastest)} to {seconds(slowest)})" if fastest < slowest else ""
    off = measured_s / likely - 1
    held = f"{abs(off):.0%} {'more' if off > 0 else 'less'} than predicted"
    if of_range and fastest <= measured_s <= slowest:
        held = "within the range"
    return (
        f"The device file {device.name} (invoke plan) predicts {seconds(likely)}{of_range} for these passes; "
        f"they took {seconds(measured_s)}: {held}."
    )


def _device(seen: Facts) -> DeviceConfig | None:
    """The device file of the run: as its own machine measured, else the project's for that board or GPU."""
    own = _saved(seen)
    if own is not None:
        return own
    if seen.get("board.before.board.module") == board.TARGET_MODULE:
        return settings.device("orin-32gb")
    return settings.device("h100-80gb") if "H100" in str(seen.get("environment.gpu")) else None


def _saved(seen: Facts) -> DeviceConfig | None:
    try:
        title = settings.device_title(seen.manifest)
        saved = [settings.device(path.stem) for path in sorted(settings.device_folders()[1].glob("*.yaml"))]
    except (KeyError, TypeError, AttributeError, PipelineError):
        return None  # a manifest of another program, or a damaged file: a report goes without this line
    model = seen.get("model.name")
    ours = (each for each in saved if each.title == title and each.measured and each.measured.model == model)
    return next(ours, None)


def _shape(model: str) -> Shape | None:
    try:
        folder = paths.models() / model if model in settings.model_names() else Path(model)
        if (folder / "config.json").is_file():
            return config.read_shape(folder)
        described = settings.model(model)
    except PipelineError:
        return None
    return described.shape if isinstance(described, HubModelConfig) else None
