"""The first row of a data file, held against a run's answer to it: one_row.py MODEL DATA RUN

For an emulated processor, on which a run's warm-up takes hours: this loads, answers that row, and compares every token.
"""

import json
import sys
import time
from pathlib import Path

from pipeline import settings
from pipeline.text_generation import load, load_dataset

model, data, run = sys.argv[1:]
answers: list[list[int]] = []
start = time.perf_counter()
pipe = load(model)
loaded = time.perf_counter()
(output,) = pipe(
    [load_dataset(data)[0]["message"]],
    max_new_tokens=settings.run().max_new_tokens,
    return_full_text=False,
    on_answer=lambda answered: answers.append(answered.token_ids),
)
answered = time.perf_counter()
expected = json.loads(Path(run, "outputs.jsonl").read_text(encoding="utf-8").splitlines()[0])
print(f"load {loaded - start:.0f} s, answer {answered - loaded:.0f} s: {output[0]['generated_text']!r}")
if [0, output, answers[0]] != [expected["index"], expected["output"], expected["token_ids"]]:
    sys.exit(f"not the answer of {run}: {answers[0]}, {expected}")
print("every token is that of the run outside")
