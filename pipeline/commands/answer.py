"""Tasks that answer prompts, and that hold answers against each other."""

from __future__ import annotations

from pathlib import Path

from invoke import Context, task

from pipeline import paths, table
from pipeline.commands.common import TORCH, guarded, names_of, saying, show, whole
from pipeline.commands.next_step import then


@task(
    help={
        "dataset": "a name under configs/datasets, or a .jsonl file in the organiser's form",
        "model": "a name under configs/models, or a checkpoint's folder",
        "engine": "ours, or reference: transformers' own pipe() under the same clock",
        "limit": "only the first N rows",
        "repeat": "time it N times; the median counts",
        "batch-size": "how many prompts the reference answers at once",
        "max-new-tokens": "the most tokens of an answer; left out: 500, as in the contest",
        "dtype": "float32 or bfloat16; left out: as the checkpoint is stored",
        "device": "cpu or cuda; left out: a GPU where there is one",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
        "resume": "finish a run that was cut off: its folder, or its name under runs/",
        "shards": "cut the file into N jobs that each load the model; such a run has no valid time for the contest",
        "on": "where shards run. local: on this machine, one a GPU at a time; slurm: on the boards of a partition",
        "partition": "a partition of Slurm; left out: the default one",
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
    execute_code: bool = False,
    resume: str = "",
    shards: str = "",
    on: str = "local",
    partition: str = "",
) -> None:
    """Answer a data set under the clock, and write runs/<utc>-<name>/. Example: invoke run --dataset obqa --limit 5"""
    rows, sections = whole("limit", limit), whole("repeat", repeat)
    batch, tokens = whole("batch-size", batch_size), whole("max-new-tokens", max_new_tokens)
    pieces = whole("shards", shards)
    from pipeline import settings
    from pipeline.runs import resume as resuming
    from pipeline.runs.request import Request, begin
    from pipeline.runs.shards import sharded as sharding
    from pipeline.text import tokenizers_only

    asked = Request(
        dataset=settings.dataset_name(dataset),
        model=model,
        engine=engine,
        dtype=dtype or None,
        device=device or None,
        execute_code=execute_code,
        limit=rows,
        repeat=1 if sections is None else sections,
        batch_size=batch,
        max_new_tokens=tokens,
    )
    unfinished = resuming.find(resume, asked) if resume else None
    request = unfinished.request if unfinished else asked
    sharding.check_used(pieces, on, partition, resumed=bool(resume))
    in_shards = pieces is not None or (unfinished is not None and sharding.is_sharded(unfinished))
    how = sharding.How(pieces, on, partition or None)
    if in_shards:
        sharding.check(request, how)
    with saying("looking at model and data"):
        looked = begin(request)
    if in_shards:
        print(sharding.text(request, sharding.run(request, looked, how, unfinished=unfinished)))
        return
    with saying(TORCH):
        if request.engine == "ours":
            tokenizers_only.import_without_torch(tokenizers_only.PIPES_TEXTS)
        from pipeline.runs import summary, timed, validity

    done = timed.run(request, unfinished=unfinished, looked=looked)
    print(summary.text(request, done))
    validity.check_verdict(done.verdict, done.folder)
    then("run" + " --engine reference" * (request.engine == "reference"), run=done.folder.name)


@task(
    help={
        "sets": "names under configs/datasets, by commas",
        "engine": "ours, reference, or both by a comma",
        "model": "a name under configs/models, or a checkpoint's folder",
        "limit": "only the first N rows of each set",
        "max-new-tokens": "the most tokens of an answer; left out: 500, as in the contest",
        "dtype": "float32 or bfloat16; left out: as the checkpoint is stored",
        "device": "cpu or cuda; left out: a GPU where there is one",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
        "resume": "finish an evaluation that was cut off: its folder, or its name under runs/",
        "shards": "cut each engine's work into N jobs, which load the model once and take a piece of every set",
        "on": "where shards run. local: on this machine, one a GPU at a time; slurm: on the boards of a partition",
        "partition": "a partition of Slurm; left out: the default one",
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
    shards: str = "",
    on: str = "local",
    partition: str = "",
) -> None:
    """Answer and score many sets, the model loaded once. Example: invoke evaluate --sets obqa,boolq,arc-easy"""
    from pipeline import settings
    from pipeline.runs import evaluate as evaluating
    from pipeline.runs import evaluate_table
    from pipeline.runs.shards import sharded as sharding

    asked = evaluating.Evaluation(
        sets=tuple(dict.fromkeys(map(settings.dataset_name, names_of(sets)))),
        engines=tuple(names_of(engine)),
        model=model,
        limit=whole("limit", limit),
        max_new_tokens=whole("max-new-tokens", max_new_tokens),
        dtype=dtype or None,
        device=device or None,
        shards=whole("shards", shards),
    )
    sharding.check_used(asked.shards, on, partition, resumed=bool(resume))
    how = sharding.How(asked.shards, on, partition or None)
    folder, asked = evaluating.find(resume, asked) if resume else (None, asked)
    with saying("looking at model and data"):
        looked = evaluating.look(asked)
    folder = folder or evaluating.begin(asked)
    print(table.fitted(f"to go on if this is cut off: invoke evaluate --resume {folder.name}"))
    results = evaluating.evaluate(asked, folder, execute_code, looked=looked, how=how)
    evaluate_table.write(results, folder)
    print(table.fitted(evaluate_table.text(results, folder)))
    then("evaluate", folder=paths.shown(folder))


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
def stress(
    _context: Context,
    set_: str = "boolq-validation",
    model: str = "standin",
    engine: str = "ours",
    dtype: str = "",
    device: str = "",
) -> None:
    """Answer only a set's hardest rows (longest prompts, most choices, longest answers) before the whole set."""
    from pipeline.dataset import hardest
    from pipeline.runs.request import Request, begin

    prepared = hardest.prepare(set_)
    print(table.fitted(hardest.text(prepared)))
    asked = Request(dataset=str(prepared.path), model=model, engine=engine, dtype=dtype or None, device=device or None)
    with saying("looking at model and data"):
        looked = begin(asked)
    with saying(TORCH):
        from pipeline.runs import summary, timed

    print(summary.text(asked, timed.run(asked, looked=looked)))
    then("stress", dataset=set_)


@task(
    positional=["run_a", "run_b"],
    help={
        "run_a": "the yardstick: a run's folder, or its name under runs/",
        "run_b": "the run to compare with it",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
        "margins": "load run A's model and show, where two answers first differ, how near a tie it was",
        "json": "print JSON, for programs, with every row that differs",
    },
)
@guarded
def compare(
    _context: Context,
    run_a: str,
    run_b: str,
    execute_code: bool = False,
    margins: bool = False,
    json: bool = False,
) -> None:
    """Compare two runs row by row, and say whether the contest's 0.5 % rule is kept. Example: invoke compare A B"""
    from pipeline.accuracy import compare as comparing
    from pipeline.accuracy import compare_text

    made = comparing.compare(run_a, run_b, execute_code)
    if margins and made.differing:
        with saying(TORCH):
            from pipeline.runs import margins as measuring

        made = measuring.measure(made, run_a, (lambda line: None) if json else print)
    show(made, compare_text.as_json, compare_text.text, json)
    compare_text.check_kept(made)
    then("compare", json, run=run_b, other=run_a)


@task(
    help={
        "run": "a finished run's folder, or its name under runs/",
        "image": "run it in this image instead of here",
        "show": "with --image: only print the docker command",
    }
)
@guarded
def reproduce(_context: Context, run: str = "", image: str = "", show: bool = False) -> None:
    """Do a recorded run again, offline, and compare answers and time. Writes reproduction.json."""
    from pipeline.device import host
    from pipeline.prepare import container

    if image:
        command = container.run(host.current(), image, ["reproduce", "--run", Path(run).name])
        print(container.text(command)) if show else container.call(command)
        return
    with saying(TORCH):
        from pipeline.runs import reproduce as reproducing

    result = reproducing.reproduce(run, host.current())
    print(reproducing.text(result))
    reproducing.conclude(result)
    then("reproduce", run=Path(run).name)


@task(
    positional=["run"],
    help={
        "run": "a run's folder, or its name under runs/",
        "against": "a baseline: show how much faster this run was, and compare both row by row",
        "to": "the page's file; left out: report.html in the run's folder",
        "execute-code": "run answers to HumanEval and MBPP as programs, in a sandbox, to score them",
    },
)
@guarded
def report(_context: Context, run: str, against: str = "", to: str = "", execute_code: bool = False) -> None:
    """Write a run as a web page in one file. Example: invoke report NAME --against BASELINE"""
    with saying("drawing the page"):
        from pipeline.report import report as reporting

        made = reporting.make(run, against, to, execute_code)
    for line in made.missing:
        print(table.fitted(f"not on the page: {line}"))
    print(table.fitted(f"written: {paths.shown(made.path)}"))
    then("report" + " --against" * bool(against))
