"""The invoke tasks: parse, call one function, print. `invoke --list` shows them, `invoke --help TASK` explains one.

Nothing heavy is imported here: each task imports what it calls. Numbers arrive as text, so that a wrong
one gets a message of ours.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke import Context, Exit, task

ROOT = Path(__file__).resolve().parent

EXAMPLES = """\
Answer a file of chat prompts with Phi-3: exactly, within memory, in the least time.

  make run                                   set up and answer the contest's public set
  make test                                  run the tests

With .venv/bin on the path, from any folder of the checkout:

  invoke run --dataset obqa                  30 rows, the embedded stand-in model
  invoke run --dataset obqa-test --limit 50  the first rows of a larger set
  invoke run --dataset my/prompts.jsonl      a file of your own, in the organiser's form
  invoke run --engine reference              transformers' own pipe() under the same clock
  invoke run --resume runs/NAME              go on with a run that was cut off
  invoke run --model phi3-medium             the contest's model (28 GB; a GPU)
  invoke setup --model phi3-medium           only fetch and verify it
  invoke data --list                         the data sets of all 19 benchmarks; --set NAME fetches one
  invoke evaluate --sets obqa,gsm8k-test     many sets, one model load, beside the model card's scores
  invoke rehearse --set boolq-validation     only the longest and widest rows of a set, before it is run
  invoke compare RUN_A RUN_B                 two runs row by row, and the contest's 0.5 % rule
  invoke verify-weights --model standin      load it and compare memory with its lock, bit for bit
  invoke doctor                              look at all that can spoil a run, with remedies
  invoke reproduce --run runs/NAME           do a recorded run again and compare
  invoke image, invoke shell                 the container for JetPack 6.0 (docs/jetson.md)
  invoke plan --device orin-32gb             predict memory and time on a device that need not be here
  invoke --list                              every task
  invoke --help run                          every option of one
"""


def guarded(body: Callable[..., Any]) -> Callable[..., Any]:
    """Run a task's body so that a user sees our message and the exit status of its kind, never a traceback."""

    @functools.wraps(body)
    def wrapper(context: Context, *args: Any, **kwargs: Any) -> Any:
        from pipeline import files  # noqa: PLC0415
        from pipeline.errors import PipelineError  # noqa: PLC0415

        _quiet_log()
        signal.signal(signal.SIGTERM, _stop)
        try:
            return body(context, *args, **kwargs)
        except PipelineError as error:
            raise Exit(f"\n{error}", code=error.exit_status) from error
        except OSError as error:
            # Where the operating system refuses something that no module expected: still a message, not a traceback.
            refused = files.refused(error)
            raise Exit(f"\n{refused}", code=refused.exit_status) from error
        except KeyboardInterrupt as stop:
            raise Exit(
                "\nInterrupted. Nothing is half-written; what was answered is in the run folder.",
                code=143 if stop.args else 130,
            ) from None

    return wrapper


def _stop(*_: object) -> None:
    """`docker stop` and a shutdown ask by SIGTERM: an end as by Ctrl-C, with the reason in the run folder."""
    raise KeyboardInterrupt("stopped (SIGTERM)")


def _quiet_log() -> None:
    """Only warnings on the terminal; a run's folder gets everything."""
    from loguru import logger  # noqa: PLC0415

    logger.remove()
    logger.add(sys.stderr, level="WARNING", format="{level}: {message}")


def whole(option: str, text: str) -> int | None:
    """A whole number given as text; nothing for an empty one. Raises UsageError (U401)."""
    from pipeline.errors import UsageError  # noqa: PLC0415

    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            "U401",
            f"--{option} is a whole number",
            expected="digits",
            actual=text,
            fix=f"write for instance --{option} 10",
        ) from None


def names_of(text: str) -> list[str]:
    """Names by commas, each once."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


@task(name="help")
def help_(_context: Context) -> None:
    """What there is to do, with examples."""
    print(EXAMPLES)


@task(
    help={
        "model": "a name under configs/models",
        "dataset": "a name under configs/datasets",
        "plan": "only say what would be done",
        "reboot": "let the board boot if its power mode needs that",
        "unlock": "instead: clocks and fan as they were before set-up locked them",
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
    from pipeline import setup as setting_up  # noqa: PLC0415
    from pipeline.device import host, power  # noqa: PLC0415

    if unlock:
        print(f"clocks: {power.restore_clocks(host.current())}")
        return
    steps = setting_up.plan(host.current(), model, dataset, reboot=reboot)
    print(setting_up.text(steps))
    if not plan:
        setting_up.carry_out(steps)
        print(f"Ready: model {model}, data set {dataset}")


@task(
    help={
        "model": "a name under configs/models, or a checkpoint's folder",
        "dataset": "a name under configs/datasets",
        "fix": "mend what can be mended, then look again",
        "json": "for programs",
    }
)
@guarded
def doctor(
    _context: Context, model: str = "standin", dataset: str = "obqa", fix: bool = False, json: bool = False
) -> None:
    """Look at everything that can spoil a run: the board, torch, memory, disk, locks. One table, with remedies."""
    from json import dumps  # noqa: PLC0415

    from pipeline.device import doctor as doctoring  # noqa: PLC0415 - seconds, for torch
    from pipeline.device import host  # noqa: PLC0415

    quiet = (lambda line: None) if json else print
    found = doctoring.examine(host.current(), model, dataset, quiet)
    if fix:
        doctoring.mend(found, quiet)
        found = doctoring.examine(host.current(), model, dataset, quiet)
    print(dumps(doctoring.as_json(found), indent=2) if json else doctoring.table(found))
    doctoring.conclude(found)


@task(
    help={
        "set": "a name under configs/datasets; several by commas",
        "all": "every one of them",
        "list": "say which there are, their licences and lengths, and fetch nothing",
    },
)
@guarded
def data(_context: Context, set_: str = "obqa", all_: bool = False, list_: bool = False) -> None:
    """Fetch and verify public data sets. Example: invoke data --set boolq-validation,piqa-validation"""
    from pipeline import paths, settings  # noqa: PLC0415
    from pipeline.dataset import fetch, listing  # noqa: PLC0415
    from pipeline.errors import PipelineError  # noqa: PLC0415

    if list_:
        print(listing.text(listing.listing()))
        return
    names = settings.dataset_names() if all_ else names_of(set_)
    failed: PipelineError | None = None
    for name in names:
        try:
            path = fetch.ensure(name)
        except PipelineError as error:
            if not all_:
                raise
            # Of 19 benchmarks some source may be out of reach: the others are still wanted.
            print(f"{error}\n")
            failed = error
        else:
            print(f"{name:<26}{settings.dataset(name).rows:>7,} rows   {paths.shown(path)}")
    if failed is not None:
        raise Exit("\nNot all sets could be had; the reasons stand above.", code=failed.exit_status)


@task(
    help={
        "dataset": "a name under configs/datasets, or a .jsonl file in the organiser's form",
        "model": "a name under configs/models, or a checkpoint's folder",
        "engine": "ours, or reference: transformers' own pipe() under the same clock",
        "limit": "only the first N rows",
        "repeat": "time it N times; the median counts",
        "batch-size": "of the reference",
        "max-new-tokens": "instead of the contest's 500",
        "dtype": "float32 or bfloat16; left out: as the checkpoint is stored",
        "device": "cpu or cuda; left out: a GPU where there is one",
        "resume": "go on with a run that was cut off: its folder, or its name under runs/",
    }
)
@guarded
def run(
    _context: Context,
    dataset: str = "obqa",
    model: str = "standin",
    engine: str = "ours",
    limit: str = "",
    repeat: str = "1",
    batch_size: str = "",
    max_new_tokens: str = "",
    dtype: str = "",
    device: str = "",
    resume: str = "",
) -> None:
    """Answer a data set under the clock, and write runs/<utc>-<name>/. Example: invoke run --dataset obqa --limit 5"""
    numbers = {
        "limit": whole("limit", limit),
        "repeat": whole("repeat", repeat or "1"),
        "batch_size": whole("batch-size", batch_size),
        "max_new_tokens": whole("max-new-tokens", max_new_tokens),
    }
    from pipeline import resume as resuming  # noqa: PLC0415
    from pipeline import run as running  # noqa: PLC0415 - seconds, for torch
    from pipeline import summary, validity  # noqa: PLC0415

    asked = running.Request(
        dataset=dataset,
        model=model,
        engine=engine,
        dtype=dtype or None,
        device=device or None,
        **numbers,
    )
    unfinished = resuming.find(resume, asked) if resume else None
    request = unfinished.request if unfinished else asked
    done = running.run(request, unfinished=unfinished)
    print(summary.text(request, done))
    validity.check_verdict(done.verdict, done.folder)


@task(
    help={
        "sets": "names under configs/datasets, by commas",
        "engine": "ours, reference, or both by a comma",
        "model": "a name under configs/models, or a checkpoint's folder",
        "limit": "only the first N rows of each set",
        "max-new-tokens": "instead of the contest's 500",
        "dtype": "float32 or bfloat16; left out: as the checkpoint is stored",
        "device": "cpu or cuda; left out: a GPU where there is one",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
        "resume": "go on with an evaluation that was cut off: its folder, or its name under runs/",
    }
)
@guarded
def evaluate(
    _context: Context,
    sets: str = "",
    engine: str = "ours",
    model: str = "standin",
    limit: str = "",
    max_new_tokens: str = "",
    dtype: str = "",
    device: str = "",
    execute_code: bool = False,
    resume: str = "",
) -> None:
    """Answer and score many sets, the model loaded once. Example: invoke evaluate --sets obqa,boolq-validation"""
    from pipeline import evaluate as evaluating  # noqa: PLC0415 - seconds, for torch
    from pipeline import evaluation  # noqa: PLC0415

    asked = evaluating.Asked(
        sets=tuple(names_of(sets)),
        engines=tuple(names_of(engine)),
        model=model,
        limit=whole("limit", limit),
        max_new_tokens=whole("max-new-tokens", max_new_tokens),
        dtype=dtype or None,
        device=device or None,
    )
    folder, asked = evaluating.find(resume, asked) if resume else (evaluating.begin(asked), asked)
    print(f"to go on if this is cut off: invoke evaluate --resume {folder.name}")
    results = evaluating.evaluate(asked, folder, execute_code)
    evaluation.write(results, folder)
    print(evaluation.text(results, folder))


@task(
    help={
        "set": "a name under configs/datasets, or a .jsonl file in the organiser's form",
        "model": "a name under configs/models, or a checkpoint's folder",
        "engine": "ours, or reference",
        "dtype": "float32 or bfloat16; left out: as the checkpoint is stored",
        "device": "cpu or cuda; left out: a GPU where there is one",
    }
)
@guarded
def rehearse(
    _context: Context,
    set_: str = "boolq-validation",
    model: str = "standin",
    engine: str = "ours",
    dtype: str = "",
    device: str = "",
) -> None:
    """Answer only the longest prompts, widest branchings and longest answers of a set, before the set is run."""
    from pipeline import rehearse as rehearsing  # noqa: PLC0415
    from pipeline import run as running  # noqa: PLC0415 - seconds, for torch
    from pipeline import summary  # noqa: PLC0415

    rehearsal = rehearsing.prepare(set_)
    print(rehearsing.text(rehearsal))
    asked = running.Request(
        dataset=str(rehearsal.path), model=model, engine=engine, dtype=dtype or None, device=device or None
    )
    print(summary.text(asked, running.run(asked)))


@task(
    positional=["run_a", "run_b"],
    help={
        "run_a": "the yardstick: a run's folder, or its name under runs/",
        "run_b": "the run that is held against it",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
        "json": "for programs: every row that differs",
    },
)
@guarded
def compare(_context: Context, run_a: str, run_b: str, execute_code: bool = False, json: bool = False) -> None:
    """Compare two runs row by row, and say whether the contest's 0.5 % rule is kept. Example: invoke compare A B"""
    from json import dumps  # noqa: PLC0415

    from pipeline.accuracy import compare as comparing  # noqa: PLC0415
    from pipeline.accuracy import comparison  # noqa: PLC0415

    made = comparing.compare(run_a, run_b, execute_code)
    print(dumps(comparison.as_json(made), ensure_ascii=False) if json else comparison.text(made))
    comparison.check_kept(made)


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
    from pipeline import verify  # noqa: PLC0415 - seconds, for torch

    print(verify.text(verify.weights(model, dtype or None, device or None)))


@task(
    help={
        "device": "a name under configs/devices; the device need not be here",
        "model": "a name under configs/models, or a checkpoint's folder; it need not be here",
        "dataset": "a name, a file, or 'all': every set on this disk",
        "json": "for programs",
    }
)
@guarded
def plan(
    _context: Context,
    device: str = "orin-32gb",
    model: str = "phi3-medium",
    dataset: str = "all",
    json: bool = False,
) -> None:
    """Predict memory, passes and seconds on a device that need not be here. Example: invoke plan --dataset obqa"""
    from json import dumps  # noqa: PLC0415

    from pipeline import plan as planning  # noqa: PLC0415 - seconds, for torch

    planned = planning.plan(device, model, dataset, (lambda line: None) if json else print)
    print(dumps(planning.as_json(planned), default=str) if json else planning.text(planned))


@task(
    help={
        "name": "the image's name",
        "torch-sha256": "of NVIDIA's wheel, as an earlier build told it",
        "show": "only print the command",
    }
)
@guarded
def image(_context: Context, name: str = "phi3-pipeline", torch_sha256: str = "", show: bool = False) -> None:
    """Build the image for JetPack 6.0 from Dockerfile.l4t; prints the docker command."""
    from pipeline import container  # noqa: PLC0415

    command = container.build(name, torch_sha256)
    print(container.text(command)) if show else container.call(command)


@task(
    help={
        "image": "its name",
        "task": "a task and its options in quotes, as 'run --dataset obqa'; left out, a shell",
        "host": "with the whole host at /host, as set-up and doctor want it",
        "network": "with a network, as set-up wants it to fetch a model",
        "show": "only print the command",
    }
)
@guarded
def shell(
    _context: Context,
    image: str = "phi3-pipeline",
    task: str = "",
    host: bool = False,
    network: bool = False,
    show: bool = False,
) -> None:
    """A shell in the image, or one task of it, without a network; prints the docker command."""
    from shlex import split  # noqa: PLC0415

    from pipeline import container  # noqa: PLC0415
    from pipeline.device import host as device_host  # noqa: PLC0415

    command = container.run(device_host.current(), image, split(task), shell=not task, whole_host=host, network=network)
    print(container.text(command)) if show else container.call(command)


@task(
    help={
        "run": "a finished run's folder, or its name under runs/",
        "image": "in this image instead of here",
        "show": "with --image: only print the docker command",
    }
)
@guarded
def reproduce(_context: Context, run: str = "", image: str = "", show: bool = False) -> None:
    """Do a recorded run again, offline, and compare answers and time. Writes reproduction.json."""
    from pipeline import container  # noqa: PLC0415
    from pipeline.device import host  # noqa: PLC0415

    if image:
        command = container.run(host.current(), image, ["reproduce", "--run", Path(run).name])
        print(container.text(command)) if show else container.call(command)
        return
    from pipeline import reproduce as reproducing  # noqa: PLC0415 - seconds, for torch

    result = reproducing.reproduce(run, host.current())
    print(reproducing.text(result))
    reproducing.conclude(result)


@task(
    help={
        "slow": "the slow tests instead",
        "gpu": "those that need a CUDA device instead",
        "only": "a file or a test, as pytest names it",
        "match": "pytest's -k",
    }
)
@guarded
def test(_context: Context, slow: bool = False, gpu: bool = False, only: str = "", match: str = "") -> None:
    """Run the tests; the slow ones (exactness on hundreds of rows) by --slow and in CI, those for a GPU by --gpu."""
    chosen = "slow" if slow else "gpu" if gpu else "not slow and not gpu"
    arguments = ["-m", chosen, *([only] if only else []), *(["-k", match] if match else [])]
    _call([sys.executable, "-m", "pytest", *arguments])


@task(help={"torch": "this torch instead of the locked one: 2.4.1 is the floor (a download of 3 GB on x86)"})
@guarded
def test_oldest(_context: Context, torch: str = "") -> None:
    """Run the equality tests on the oldest transformers that we support, in a virtual environment of its own."""
    folder = ROOT / f".venv-oldest{torch and '-torch-'}{torch}"
    python = folder / "bin" / "python"
    locks = [ROOT / "requirements" / name for name in ("oldest.lock", "torch.txt")]
    ready = folder / ".ready"
    if not ready.exists() or any(lock.stat().st_mtime > ready.stat().st_mtime for lock in locks):
        print(f"Making {folder.name}")
        _call([sys.executable, "-m", "venv", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*install, "--require-hashes", "-r", str(locks[0])])
        _call([*install, *([f"torch=={torch}"] if torch else ["-r", str(locks[1])])])
        ready.touch()
    equality = ["exactness", "text_generation", "form", "choices", "model_config", "model_loader", "model_attest"]
    _call([str(python), "-m", "pytest", "-m", "not slow and not gpu", *[f"tests/test_{name}.py" for name in equality]])


@task(help={"arch": "amd64, or arm64 under qemu; left out, as ARCH in the environment says"})
@guarded
def image_test(_context: Context, arch: str = "") -> None:
    """Build Dockerfile.l4t on a stand-in for its base, without Docker, and run the image offline. Root on Debian."""
    setup(_context)
    os.environ["PYTHON"] = sys.executable
    _call([str(ROOT / "tests" / "image" / "check.sh"), arch or os.environ.get("ARCH", "amd64")])


@task
@guarded
def lint(_context: Context) -> None:
    """Style, imports, and that nothing needs more than Python 3.10."""
    _call([sys.executable, "-m", "ruff", "check", "."])
    _call([sys.executable, "-m", "ruff", "format", "--check", "."])


@task(
    help={
        "model": "a name under configs/models",
        "rows": "rows of obqa-validation",
        "max-new-tokens": "tokens of an answer at most",
    }
)
@guarded
def bench(_context: Context, model: str = "standin", rows: str = "100", max_new_tokens: str = "48") -> None:
    """Ours and transformers' pipe() side by side on this CPU; a table, and last a line of JSON."""
    sizes = ["--rows", str(whole("rows", rows)), "--max-new-tokens", str(whole("max-new-tokens", max_new_tokens))]
    _call([sys.executable, str(ROOT / "benchmarks" / "cpu.py"), "--model", model, *sizes])


@task
@guarded
def lock(_context: Context) -> None:
    """Compile requirements/*.in into locked files with hashes."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    for name in ("cpu", "dev", "oldest", "jetpack6"):
        flags = ["--universal", "--python-version", "3.10", "--generate-hashes", "--no-header", "--quiet"]
        _call([uv, "pip", "compile", *flags, "-o", f"{name}.lock", f"{name}.in"], folder=ROOT / "requirements")


def _call(command: list[str], folder: Path = ROOT) -> None:
    """Run a command in the checkout, its output on ours; a failure ends with its status and no words of ours."""
    status = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode
    if status:
        raise Exit(code=status)
