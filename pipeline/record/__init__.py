"""A run's folder: created, appended to while the run goes on, read again.

In: outputs, times, counters, what the environment is. Out: `outputs.jsonl`, `answers.jsonl`, `manifest.json`,
`passes.csv` and their readers. Knows neither how a run is made nor what a contest asks of it; `runs/`, `report/` and
`contest/` read it.
"""
