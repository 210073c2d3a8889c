"""All tasks in one collection: for invoke, by `tasks.py`, and for the console script `phi3-pipeline` of a wheel."""

from __future__ import annotations

import re
from importlib import metadata

from invoke import Collection, Context, Task, task

from pipeline import paths
from pipeline.commands import answer, contest, develop, image, prepare
from pipeline.commands.common import guarded, needs_checkout
from pipeline.commands.next_step import SCRIPT
from pipeline.commands.own_program import OwnProgram, with_defaults

DISTRIBUTION = "phi3-offline-pipeline"

EXAMPLES = """\
Answer a file of chat prompts with Phi-3: exactly, within memory, in the least time.

  make run                                   set up and answer the contest's public set
  make test                                  run the tests

With .venv/bin on the path, from any folder of the checkout:

  invoke run --dataset obqa                  30 rows, the embedded stand-in model
  invoke run --dataset obqa-test --limit 50  the first rows of a larger set
  invoke run --dataset my/prompts.jsonl      a file of your own, in the organiser's form
  invoke data --convert my/prompts.csv       write CSV, Parquet, a JSON list, `messages` in that form
  invoke run --engine reference              transformers' own pipe() under the same clock
  invoke run --resume runs/NAME              finish a run that was cut off
  invoke run --model phi3-medium             the contest's model (28 GB; a GPU)
  invoke setup --model phi3-medium           only fetch and verify it
  invoke data --list                         the data sets of all 19 benchmarks; --set NAME fetches one
  invoke evaluate --sets obqa,boolq,gsm8k    many sets, one model load, beside the model card's scores
  invoke stress --set boolq-validation       only the hardest rows of a set, before you run the whole set
  invoke compare RUN_A RUN_B                 two runs row by row, and the contest's 0.5 % rule
  invoke report runs/NAME                    one run as a page: time, passes, power, accuracy, every wrong row
  invoke verify-weights --model standin      load it and compare memory with its lock, bit for bit
  invoke doctor                              check all that can spoil a run, with remedies
  invoke reproduce --run runs/NAME           do a recorded run again and compare
  invoke rules                               the contest's rules, and whether this checkout and its newest run meet them
  invoke submit --run runs/NAME              pack a run to hand it in (docs/participant.md)
  invoke verify team-1a2b3c4d5e6f.tar        check a submission and compute all its claims again
  invoke judge received --data FILE          run every submission under your own clock (docs/farm.md)
  invoke leaderboard dist                    rank verified submissions, as a page and here
  invoke similarity A.tar B.tar              source that two submissions share, side by side
  invoke image, invoke shell                 the container for JetPack 6.0 (docs/jetson.md)
  invoke plan --device orin-32gb             predict memory and time on a device that need not be here
  invoke --list                              every task
  invoke --help run                          every option of one
"""


@task(name="help")
@guarded
def help_(_context: Context) -> None:
    """Print the most useful commands, with examples."""
    print(image.IN_THE_IMAGE if paths.in_image() else EXAMPLES if paths.CHECKOUT else without_checkout(EXAMPLES))


def without_checkout(examples: str) -> str:
    """The examples as they are with the console script: neither make nor the tasks that work on a checkout."""
    kept = []
    for line in examples.splitlines():
        called = re.findall(r"\binvoke ([a-z-]+)", line)
        if not line.startswith(("  make ", "With ")) and not any(name in NEED_A_CHECKOUT for name in called):
            kept.append(line.replace("invoke ", f"{SCRIPT} "))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)) + "\n"


def _gathered() -> Collection:
    found = [each for module in (answer, contest, develop, image, prepare) for each in vars(module).values()]
    every = dict.fromkeys(each for each in (help_, *found) if isinstance(each, Task))  # one module may import another's
    return Collection(*map(with_defaults, every))


namespace = _gathered()
NEED_A_CHECKOUT = {name for name, each in namespace.tasks.items() if needs_checkout(each.body)}


def main() -> None:
    """The console script."""
    OwnProgram(namespace=namespace, name=SCRIPT, binary=SCRIPT, version=metadata.version(DISTRIBUTION)).run()
