"""`invoke setup`: a plan first, then each step, which finds out by itself whether there is anything left to do.

Model and data come before the board: a change of the power mode may end in a reboot, and then the same command goes on.
What this process may not do (no rights, or a container that does not see its host) is said as a command for the host.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline import files, paths, settings
from pipeline.check import FAIL
from pipeline.dataset import fetch
from pipeline.device import board as boards
from pipeline.device import power
from pipeline.device.host import Host
from pipeline.engine.kernels import build, cpu_build
from pipeline.errors import EnvironmentProblem, ResourceError
from pipeline.model import fetch as model_setup
from pipeline.prepare import board_checks
from pipeline.schemas import HubModelConfig, StandinConfig
from pipeline.table import Say


@dataclass(frozen=True)
class Step:
    name: str
    plan: str
    """One sentence: the step's work and its cost, or why there is nothing to do."""
    do: Callable[[], str] | None = None
    """Takes the step and returns its result; None where there is nothing to do, or not from here."""
    may_fail: bool = False
    """A board that stays as it is spoils times, not answers."""


def plan(host: Host, model: str, dataset: str, *, reboot: bool = False, say: Say = print) -> list[Step]:
    """The steps of a set-up, of which none has been taken. Raises UsageError for names that are none."""
    return [*_files(model, dataset, say), *_board(host, reboot)]


def text(steps: list[Step]) -> str:
    width = max(len(step.name) for step in steps)
    return "\n".join(["Plan", *(f"  {step.name:<{width}}  {step.plan}" for step in steps)])


def carry_out(steps: list[Step], say: Say = print) -> None:
    """One step after another. The board's may be refused, which is said and holds nothing up; a file's end it."""
    for step in steps:
        if step.do is None:
            continue
        try:
            say(f"{step.name}: {step.do()}")
        except (EnvironmentProblem, ResourceError) as error:
            if not step.may_fail:
                raise
            say(f"{step.name}: {error}")


def _files(model: str, dataset: str, say: Say) -> list[Step]:
    def fetch_model() -> str:
        return f"ready at {paths.shown(model_setup.resolve(model, say))}"

    def fetch_data() -> str:
        return f"ready at {paths.shown(fetch.resolve(dataset, say))}"

    return [
        Step("model", _model_plan(model), fetch_model),
        Step("data", f"{dataset}, its sha256 as pinned", fetch_data),
    ]


def _model_plan(name: str) -> str:
    if name not in settings.model_names():
        return f"the folder {name}, verified against its lock"
    config, folder = settings.model(name), paths.models() / name
    free = f"{shutil.disk_usage(files.nearest(folder)).free / 1e9:.0f} GB are free"
    if (folder / "lock.json").exists():
        return f"{config.title} ({config.licence}): every file against its lock, damaged ones anew"
    if isinstance(config, StandinConfig):
        return f"{config.title} ({config.licence}): {config.source.size_bytes / 1e6:.0f} MB by pip; {free}"
    return f"{config.title} ({config.licence}): {_hub_bytes(config) / 1e9:.1f} GB from {config.repo}; {free}"


def _hub_bytes(config: HubModelConfig) -> int:
    """Download size, for bfloat16 weights."""
    return 2 * config.shape.parameters


def _board(host: Host, reboot: bool) -> list[Step]:
    board = boards.look(host)
    if not board.is_jetson:
        return [_cpu_kernels(), Step("board", "not a Jetson: nothing to set")]
    if board.in_container:
        by_hand = f"{power.mode_command(host)}; {power.CLOCKS_COMMAND}"
        return [_kernels(), Step("board", f"this container does not see its host; there: {by_hand}")]
    found = f"{board.title}, L4T {board.l4t}, JetPack {board.jetpack or 'unknown'}"
    wrong = [each.id for each in board_checks.board_results(host) if each.state == FAIL and each.mend is None]
    noted = f"; not as wanted: {', '.join(wrong)} (invoke doctor says more)" if wrong else ""
    return [Step("board", found + noted), _kernels(), _mode(host, reboot), _clocks(host)]


def _kernels() -> Step:
    if (build.BUILT / build.library_name(boards.TARGET_CAPABILITY)).exists():
        return Step("kernels", "are built")
    if build.find_nvcc() is None:
        return Step("kernels", "no nvcc here: torch's own are used")

    return Step(
        "kernels",
        "compiled for sm_87, a minute or two",
        lambda: _compiled(lambda: build.build(boards.TARGET_CAPABILITY)),
    )


def _compiled(compile_them: Callable[[], Path]) -> str:
    try:
        return f"built {compile_them().name}"
    except build.CannotBuild as trouble:
        return f"not built, torch's own are used: {trouble}"


def _cpu_kernels() -> Step:
    """A machine with a GPU may compute on its CPU too."""
    if cpu_build.find_compiler() is None:
        return Step("kernels", "for CPUs: no C++ compiler here, torch's own are used")
    try:
        if cpu_build.built() is not None:
            return Step("kernels", "for CPUs: are built")
    except build.CannotBuild as trouble:
        return Step("kernels", f"for CPUs: torch's own are used: {trouble}")

    def compile_them() -> str:
        import torch  # noqa: F401, PLC0415 - takes seconds; brings the threads that the library is linked against

        return _compiled(cpu_build.build)

    return Step("kernels", "for CPUs: compiled for this processor, seconds", compile_them)


def _mode(host: Host, reboot: bool) -> Step:
    mode = power.mode(host)
    if mode is not None and mode.name == power.TARGET_MODE:
        return Step("power mode", f"{power.TARGET_MODE} already")
    before = mode.name if mode else "unknown"
    boot = "the board boots if it must" if reboot else "not if it needs a boot: --reboot allows that"

    by_hand = power.mode_command(host)

    def change() -> str:
        results = {
            "was so": f"{power.TARGET_MODE} already",
            "done": power.TARGET_MODE,
            "needs a reboot": f"still {before}: {power.TARGET_MODE} needs a boot; invoke setup --reboot, or {by_hand}",
            "rebooting": "the board boots now; then the same command goes on",
        }
        return results[power.set_mode(host, reboot=reboot)]

    return Step("power mode", f"{before} to {power.TARGET_MODE}; {boot}", change, may_fail=True)


def _clocks(host: Host) -> Step:
    if power.clocks_locked(host):
        return Step("clocks", "are locked")

    def lock() -> str:
        mode = power.mode(host)
        if mode is None or mode.name != power.TARGET_MODE:
            return f"left alone until the power mode is {power.TARGET_MODE}"
        power.lock_clocks(host)
        return "locked, and the fan at full speed; invoke setup --unlock brings back what was"

    return Step("clocks", f"stored, then locked; lost at boot; by hand: {power.CLOCKS_COMMAND}", lock, may_fail=True)
