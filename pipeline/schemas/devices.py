"""A device that need not be here: its memory, its rates as a range with their sources, and what follows for a pass.

Rates are shares of a peak: low, likely, high. A device file that a run of this board wrote has the curve measured
there, which then takes their place for models of the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.engine import cost
from pipeline.engine.cost import PassCost
from pipeline.engine.shape import Shape
from pipeline.schemas import Strict

Positive = Annotated[float, Field(gt=0)]


class Share(Strict):
    value: Annotated[float, Field(gt=0, le=1)]
    source: str


class Range(Strict):
    """Shares of a peak that work reaches; `low` and `high` are left out where `likely` was measured."""

    likely: Share
    low: Share | None = None
    high: Share | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.at("low").value <= self.likely.value <= self.at("high").value:
            raise ValueError("low is more than likely, or likely more than high")
        return self

    def at(self, name: str) -> Share:
        return getattr(self, name) or self.likely


class PowerMode(Strict):
    flops_per_s: Positive
    """Peak of dense matrix products in bfloat16."""
    bytes_share: Range


class Measured(Strict):
    """The cost of passes of one model, as a run's warm-up timed them on this device."""

    model: str
    parameters: int
    flops_per_row: float
    rows: tuple[int, ...]
    elapsed_s: tuple[Positive, ...]
    source: str

    def is_of(self, shape: Shape) -> bool:
        return (self.parameters, self.flops_per_row) == (shape.parameters, shape.flops_per_row)

    @property
    def curve(self) -> PassCost:
        return PassCost(self.rows, self.elapsed_s)


class DeviceConfig(Strict):
    """A file under `configs/devices`, or one that `invoke plan --save-device` wrote."""

    name: str
    title: str
    kind: Literal["cuda", "cpu"] = "cuda"
    item_bytes: Literal[2, 4] = 2
    """Of a weight and an activation: bfloat16, or float32."""
    memory_mib: Annotated[int, Field(gt=0)]
    in_use_mib: Annotated[int, Field(ge=0)]
    """Memory in use by everything but the pipeline."""
    mode: str = ""
    """Power mode that the rates belong to: the one that counts. Empty: it has no others."""
    flops_per_s: Positive
    """Peak of dense matrix products in bfloat16."""
    flops_share: Range
    """Of that peak, and of each mode's."""
    bytes_per_s: Positive
    bytes_share: Range
    modes: Mapping[str, PowerMode] = {}
    """Further power modes."""
    assumption: str = ""
    """What nobody has seen, and the rates rest on all the same."""
    measured: Measured | None = None

    def estimates(self, shape: Shape, largest: int) -> dict[str, Estimate]:
        """Times of passes of up to `largest` rows, by power mode, the contest's first."""
        if self.measured is not None and self.measured.is_of(shape):
            curve = self.measured.curve
            return {self.mode: Estimate(curve, curve, curve, self._break_even_rows(shape))}
        own = {self.mode: PowerMode(flops_per_s=self.flops_per_s, bytes_share=self.bytes_share)}
        return {name: self._estimate(shape, mode, largest) for name, mode in {**own, **self.modes}.items()}

    def _estimate(self, shape: Shape, mode: PowerMode, largest: int) -> Estimate:
        def curve(at: str) -> PassCost:
            flops_per_s = mode.flops_per_s * self.flops_share.at(at).value
            bytes_per_s = self.bytes_per_s * mode.bytes_share.at(at).value
            return cost.roofline(shape, self.item_bytes, flops_per_s, bytes_per_s, largest)

        return Estimate(curve("low"), curve("likely"), curve("high"), self._break_even_rows(shape, mode))

    def _break_even_rows(self, shape: Shape, mode: PowerMode | None = None) -> float:
        """The rows whose products take, at the likely rates, as long as reading all weights."""
        bytes_per_s = self.bytes_per_s * (mode or self).bytes_share.likely.value
        flops_per_s = (mode or self).flops_per_s * self.flops_share.likely.value
        return shape.swept_parameters * self.item_bytes / bytes_per_s * flops_per_s / shape.flops_per_row


@dataclass(frozen=True)
class Estimate:
    """Times of a pass on a device in one power mode, at the low, the likely and the high rates."""

    slowest: PassCost
    likely: PassCost
    fastest: PassCost
    break_even_rows: float
    """Smaller passes wait for the weights, larger ones for arithmetic."""
