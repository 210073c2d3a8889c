"""Lies that a submission can hold, one each, and the checks that must fail for it.

A lie is told well: `Draft.settle` and `Draft.pack` set right with it what would give it away cheaply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from support.audited import DECLARED, ROWS, WRONG
from support.drafts_of_submissions import Draft, put_source, retold, source_of

from pipeline.engine.memory import STREAMED

DECLARED_RULES = {f"rule-{name}" for name in DECLARED}

EOS = 8
"""An end token of the tiny model: every multiple of it is one."""


# Lies about answers


def edited_text(d: Draft, tokenizer: Any) -> None:
    d.say(2, d.row(2)["output"][0]["generated_text"] + "!")


def edited_tokens(d: Draft, tokenizer: Any) -> None:
    ids = d.row(2)["token_ids"]
    ids[0] += 2 if ids[0] % EOS == EOS - 1 else 1


def impossible_tokens(d: Draft, tokenizer: Any) -> None:
    d.row(2)["token_ids"][0] = 10**9


def edited_answer(d: Draft, tokenizer: Any) -> None:
    """Text and tokens together: a right answer for a wrong one."""
    ids = tokenizer("another one", add_special_tokens=False)["input_ids"]
    ids = [token for token in ids if token % 8]
    d.say(WRONG, tokenizer.decode(ids), [*ids, EOS])
    right = tokenizer.decode(ids).lstrip() == "another one"
    d.manifest["score"] |= {"correct": ROWS - 1 + right}


def swapped_rows(d: Draft, tokenizer: Any) -> None:
    one, two = d.row(0), d.row(1)
    for key in ("output", "token_ids"):
        one[key], two[key] = two[key], one[key]
    assert one["output"] != two["output"]
    d.manifest["score"]["correct"] -= 2


def dropped_row(d: Draft, tokenizer: Any) -> None:
    d.rows.remove(d.row(ROWS - 1))
    d.manifest["score"] |= {"correct": ROWS - 2, "scored": ROWS - 1}


def dropped_row_said_to_be_all(d: Draft, tokenizer: Any) -> None:
    dropped_row(d, tokenizer)
    d.manifest["dataset"]["rows"] = d.submission["dataset"]["rows"] = ROWS - 1
    d.manifest["engine"]["stats"]["prompt_tokens"] -= 53


def duplicated_row(d: Draft, tokenizer: Any) -> None:
    d.rows.append({**d.row(0), "at_s": d.rows[-1]["at_s"]})


def row_that_is_not_there(d: Draft, tokenizer: Any) -> None:
    d.rows.append({**d.row(0), "index": ROWS, "at_s": d.rows[-1]["at_s"]})


def truncated_answer(d: Draft, tokenizer: Any) -> None:
    row = max(d.rows, key=lambda row: len(row["token_ids"]))
    d.say(row["index"], tokenizer.decode(row["token_ids"][:2]), row["token_ids"][:2])
    d.manifest["score"]["correct"] -= row["index"] != WRONG


def empty_answers(d: Draft, tokenizer: Any) -> None:
    for row in d.rows:
        d.say(row["index"], "", [])
    d.manifest["score"]["correct"] = 0


def silent_answers(d: Draft, tokenizer: Any) -> None:
    """Ended at once: as cheap as answers can be, and consistent."""
    for row in d.rows:
        d.say(row["index"], "", [EOS])
    d.manifest["score"]["correct"] = 0


def talk_behind_the_end(d: Draft, tokenizer: Any) -> None:
    ids = [*d.row(2)["token_ids"], 1001, EOS]
    d.say(2, tokenizer.decode(ids, skip_special_tokens=True), ids)
    d.manifest["score"]["correct"] -= 1


def endless_answer(d: Draft, tokenizer: Any) -> None:
    ids = [1001] * 501 + [EOS]
    d.say(2, tokenizer.decode(ids, skip_special_tokens=True), ids)
    d.manifest["score"]["correct"] -= 1


def fewer_tokens_allowed(d: Draft, tokenizer: Any) -> None:
    d.manifest["arguments"]["max_new_tokens"] = 20


def sampled(d: Draft, tokenizer: Any) -> None:
    d.manifest["arguments"]["do_sample"] = True


def higher_score(d: Draft, tokenizer: Any) -> None:
    d.manifest["score"] |= {"correct": ROWS, "share": 1.0}


def careless_edit(d: Draft, tokenizer: Any) -> None:
    """Without setting the run's own hash of its outputs right."""
    swapped_rows(d, tokenizer)


# Lies about time


def impossible_time(d: Draft, tokenizer: Any) -> None:
    """Told the same in every place."""
    retime(d, [1e-5, 1e-5])


def retime(d: Draft, seconds: list[float]) -> None:
    told = d.manifest
    told["phases_s"]["timed"], told["elapsed_s"] = seconds, sorted(seconds)[len(seconds) // 2]
    for pair, elapsed_s in zip(told["timeline_s"]["timed"], seconds, strict=True):
        pair[1] = pair[0] + elapsed_s
    for number, row in enumerate(d.rows, start=1):
        row["at_s"] = seconds[0] * number / (len(d.rows) + 1)
    told["engine"]["stats"]["passes_s"] = seconds[-1] * 0.9
    told["engine"]["cost"]["elapsed_s"] = [seconds[-1] / 100] * len(told["engine"]["cost"]["rows"])


def time_of_a_third(d: Draft, tokenizer: Any) -> None:
    d.manifest["elapsed_s"] /= 3


def negative_phase(d: Draft, tokenizer: Any) -> None:
    d.manifest["phases_s"]["load"] = -1.0
    load = d.manifest["timeline_s"]["load"]
    load[1] = load[0] - 1.0


def fewer_sections_than_asked(d: Draft, tokenizer: Any) -> None:
    d.manifest["request"]["repeat"], d.manifest["command"][-1] = 3, "3"


def sections_in_the_wrong_order(d: Draft, tokenizer: Any) -> None:
    d.manifest["timeline_s"]["timed"].reverse()
    d.manifest["phases_s"]["timed"].reverse()
    for row in d.rows:
        row["at_s"] /= 10
    d.log_times()


def data_before_the_warm_up(d: Draft, tokenizer: Any) -> None:
    line = d.manifest["timeline_s"]
    shift = 1 + line["timed"][0][0] - line["warm_up"][0]  # by more than telemetry is let off, however short the warm-up
    line["timed"][0] = [moment - shift for moment in line["timed"][0]]


def answers_behind_the_section(d: Draft, tokenizer: Any) -> None:
    d.rows[-1]["at_s"] = d.manifest["phases_s"]["timed"][0] + 1


def answers_before_the_section(d: Draft, tokenizer: Any) -> None:
    d.rows[0]["at_s"] = -0.5


def answers_without_times(d: Draft, tokenizer: Any) -> None:
    d.rows[0]["at_s"] = None


def another_time_of_day(d: Draft, tokenizer: Any) -> None:
    d.manifest["ended_utc"] = "2124-10-06T12:00:00.000+00:00"


def another_log(d: Draft, tokenizer: Any) -> None:
    d.files["run/run.log"] = re.sub(rb"prompts in \d+\.\d+ s", b"prompts in 99.000 s", d.files["run/run.log"])


def no_log(d: Draft, tokenizer: Any) -> None:
    del d.files["run/run.log"]


def cached_section(d: Draft, tokenizer: Any) -> None:
    """Two sections of three take no time, since the first one's answers were kept."""
    d.manifest["engine"]["cost"]["elapsed_s"] = [1e-4] * len(d.manifest["engine"]["cost"]["rows"])
    first_s = d.manifest["phases_s"]["timed"][0]
    told, line = d.manifest, d.manifest["timeline_s"]
    told["phases_s"]["timed"] = [first_s, first_s / 50]
    told["elapsed_s"] = first_s * 1.02 / 2
    line["timed"][1] = [line["timed"][1][0], line["timed"][1][0] + first_s / 50]
    told["engine"]["stats"]["passes_s"] = first_s / 60
    d.log_times()


def section_without_passes(d: Draft, tokenizer: Any) -> None:
    d.manifest["sections"][1]["passes"] = d.manifest["engine"]["stats"]["passes"] = 0


def impossible_passes(d: Draft, tokenizer: Any) -> None:
    d.manifest["engine"]["stats"]["passes_s"] = 1e6


def passes_faster_than_the_warm_up(d: Draft, tokenizer: Any) -> None:
    d.manifest["engine"]["cost"]["elapsed_s"] = [100.0] * len(d.manifest["engine"]["cost"]["rows"])


def no_passes_told(d: Draft, tokenizer: Any) -> None:
    del d.manifest["engine"]["cost"]


def altered_prompts(d: Draft, tokenizer: Any) -> None:
    d.manifest["engine"]["stats"]["prompt_tokens"] -= 6


def fewer_tokens_told(d: Draft, tokenizer: Any) -> None:
    d.manifest["engine"]["stats"]["answer_tokens"] -= 1


# Lies about where it ran


def another_device(d: Draft, tokenizer: Any) -> None:
    for moment in d.manifest["board"].values():
        moment["board"]["module"] = "p3701-0005"
    d.manifest["verdict"]["state"] = "VALID with notes"


def device_changed_under_way(d: Draft, tokenizer: Any) -> None:
    d.manifest["board"]["after"]["board"]["memory_bytes"] += 1


def device_not_seen(d: Draft, tokenizer: Any) -> None:
    for moment in d.manifest["board"].values():
        moment["board"]["module"] = None
    d.manifest["verdict"]["state"] = "VALID with notes"


def another_release(d: Draft, tokenizer: Any) -> None:
    for moment in d.manifest["board"].values():
        moment["board"] |= {"l4t": "36.4.3", "jetpack": "6.2"}
    d.manifest["verdict"]["state"] = "VALID with notes"


def another_framework(d: Draft, tokenizer: Any) -> None:
    d.manifest["environment"]["packages"]["torch"] = "1.13.1"


def column(d: Draft, name: str) -> int:
    return d.telemetry[0].index(name)


def throttled(d: Draft, tokenizer: Any) -> None:
    """The telemetry as it was, beside a verdict that forgets it."""
    d.telemetry[-1][column(d, "oc3_events")] = "7"


def held_back(d: Draft, tokenizer: Any) -> None:
    d.telemetry[-1][column(d, "devfreq-17000000.gpu_2_held")] = "2"


def another_power_mode(d: Draft, tokenizer: Any) -> None:
    d.manifest["board"]["before"]["mode"] = {"id": 2, "name": "MODE_30W"}


def power_mode_not_seen(d: Draft, tokenizer: Any) -> None:
    d.manifest["board"]["before"]["mode"] = None
    d.manifest["verdict"]["state"] = "VALID with notes"


def busy_machine(d: Draft, tokenizer: Any) -> None:
    d.manifest["telemetry"]["others_share"] = 0.6


def better_verdict(d: Draft, tokenizer: Any) -> None:
    d.manifest["verdict"]["state"] = "VALID"


def telemetry_cut_short(d: Draft, tokenizer: Any) -> None:
    """Its last sample lies a second before the end of the last section, however short the run was."""
    d.telemetry.pop()
    d.manifest["telemetry"]["samples"] -= 1
    timeline_s = d.manifest["timeline_s"]
    last_s = timeline_s["timed"][-1][1] - timeline_s["telemetry"][0] - 1.0
    too_late_s = float(d.telemetry[-1][0]) - last_s
    for line in d.telemetry[1:]:
        line[0] = f"{float(line[0]) - too_late_s:.3f}"


def telemetry_with_a_hole(d: Draft, tokenizer: Any) -> None:
    """Samples of a long section taken out."""
    d.telemetry.append(["60.000", *d.telemetry[-1][1:]])
    d.manifest["telemetry"]["samples"] += 1


def telemetry_with_a_sample_less(d: Draft, tokenizer: Any) -> None:
    d.manifest["telemetry"]["samples"] += 1


def telemetry_without_alarms(d: Draft, tokenizer: Any) -> None:
    kept = [at for at, name in enumerate(d.telemetry[0]) if not name.endswith(("_alarm", "_events", "_held"))]
    d.telemetry = [[line[at] for at in kept] for line in d.telemetry]


def telemetry_left_out(d: Draft, tokenizer: Any) -> None:
    d.left_out = frozenset({"run/telemetry.csv"})


def telemetry_of_nonsense(d: Draft, tokenizer: Any) -> None:
    d.telemetry[1][1] = "nan"


def telemetry_of_unknown_things(d: Draft, tokenizer: Any) -> None:
    d.telemetry[0][1] = "mood"


def network_used(d: Draft, tokenizer: Any) -> None:
    d.manifest["network"] = {"interfaces": ["eth0"], "received_bytes": 7000, "sent_bytes": 300}


def network_not_seen(d: Draft, tokenizer: Any) -> None:
    d.manifest["network"] = None


# Lies about what ran


def quantised_weights(d: Draft, tokenizer: Any) -> None:
    """Claimed to be whole; but they took a quarter of the room."""
    d.manifest["peak_memory"] = {"host_bytes": d.manifest["weights"]["size_bytes"] // 4, "gpu_bytes": None}


def quantised_weights_said_to_be_on_the_disk(d: Draft, tokenizer: Any) -> None:
    d.manifest["engine"]["weights"] = STREAMED
    d.manifest["peak_memory"] = {"host_bytes": 10_000, "gpu_bytes": None}


def quantised_weights_as_they_are(d: Draft, tokenizer: Any) -> None:
    d.manifest["weights"]["size_bytes"] //= 4


def rounded_weights(d: Draft, tokenizer: Any) -> None:
    d.manifest["weights"]["rounded"] = True


def another_dtype(d: Draft, tokenizer: Any) -> None:
    d.manifest["dtype"] = "float16"


def flipped_bit(d: Draft, tokenizer: Any) -> None:
    files = d.manifest["weights"]["files"]
    files["model.safetensors"] = f"{int(files['model.safetensors'], 16) ^ 1:064x}"


def pruned_layer(d: Draft, tokenizer: Any) -> None:
    d.manifest["weights"]["tensors"] -= 6


def another_model(d: Draft, tokenizer: Any) -> None:
    for place in (d.manifest["model"], d.submission["model"], d.manifest["weights"]):
        place["lock_sha256"] = "0" * 64


def two_models(d: Draft, tokenizer: Any) -> None:
    d.submission["model"]["lock_sha256"] = "0" * 64


def model_of_another_name(d: Draft, tokenizer: Any) -> None:
    d.manifest["model"]["name"] = d.submission["model"]["name"] = d.manifest["request"]["model"] = "standin"


def another_data_set(d: Draft, tokenizer: Any) -> None:
    d.manifest["dataset"]["sha256"] = d.submission["dataset"]["sha256"] = "0" * 64


def two_data_sets(d: Draft, tokenizer: Any) -> None:
    d.submission["dataset"]["sha256"] = "0" * 64


def changed_source(d: Draft, tokenizer: Any) -> None:
    d.manifest["code"]["dirty"] = True


def another_commit(d: Draft, tokenizer: Any) -> None:
    d.manifest["code"]["commit"] = "1" * 40


def another_teams_source(d: Draft, tokenizer: Any) -> None:
    source = source_of(d)
    source["pipeline/inner.py"] = (0o644, b'"""Theirs."""\n')
    put_source(d, source)


def source_with_another_mode(d: Draft, tokenizer: Any) -> None:
    source = source_of(d)
    source["pipeline/check.sh"] = (0o644, source["pipeline/check.sh"][1])
    put_source(d, source)


def source_bomb(d: Draft, tokenizer: Any) -> None:
    put_source(d, {**source_of(d), "zeros": (0o644, bytes((32 << 20) + 1))})


def no_source(d: Draft, tokenizer: Any) -> None:
    d.files["source.tar"] = b"\x1f\x8b not a tar"


def uncited_import(d: Draft, tokenizer: Any) -> None:
    put_source(d, {**source_of(d), "more.py": (0o644, b"import theirs\n")})


def no_citations(d: Draft, tokenizer: Any) -> None:
    put_source(d, {name: each for name, each in source_of(d).items() if name != "THIRD_PARTY.yaml"})


def citation_bomb(d: Draft, tokenizer: Any) -> None:
    """Nine lists of nine of the list before."""
    lines = ["a0: &a0 [lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
    put_source(d, {**source_of(d), "THIRD_PARTY.yaml": (0o644, "\n".join(lines).encode())})


def nested_source(d: Draft, tokenizer: Any) -> None:
    put_source(d, {**source_of(d), "deep.py": (0o644, b"(" * 100_000)})


def team_of_four(d: Draft, tokenizer: Any) -> None:
    d.submission["team"]["members"] = ["Kim", "Lee", "Park", "Choi"]


def team_with_a_terminals_escape(d: Draft, tokenizer: Any) -> None:
    d.submission["team"]["name"] = "\x1b[2J"


def nothing_declared(d: Draft, tokenizer: Any) -> None:
    d.submission["declarations"] = {}


def no_paper(d: Draft, tokenizer: Any) -> None:
    del d.files["method.pdf"]


def paper_of_another_time(d: Draft, tokenizer: Any) -> None:
    retold(d, r" in [\d.]+ s", " in 0.001 s")


def paper_of_another_score(d: Draft, tokenizer: Any) -> None:
    retold(d, r"\d+ of (\d+), [\d.]+%", r"\1 of \1, 100.0%")


def paper_of_another_team(d: Draft, tokenizer: Any) -> None:
    retold(d, "Blue: how", "Red: how")


def an_empty_picture(d: Draft, tokenizer: Any) -> None:
    d.files["leaderboard.png"] = b""


def no_image(d: Draft, tokenizer: Any) -> None:
    d.submission["image"] = {"reference": None, "digest": None}


def image_that_is_an_option(d: Draft, tokenizer: Any) -> None:
    d.submission["image"]["reference"] = "--privileged"


def without(d: Draft, name: str) -> None:
    put_source(d, {path: each for path, each in source_of(d).items() if path != name})


def no_script(d: Draft, tokenizer: Any) -> None:
    without(d, "test_script.py")


def clock_around_nothing(d: Draft, tokenizer: Any) -> None:
    script = b"import sys, time\nload_dataset(sys.argv[1])\nstart = time.time()\npipe()\nprint(time.time() - start)\n"
    put_source(d, {**source_of(d), "test_script.py": (0o644, script)})


def no_explanation(d: Draft, tokenizer: Any) -> None:
    d.files["method.md"] = b"Trust us."


def a_token_in_the_source(d: Draft, tokenizer: Any) -> None:
    put_source(d, {**source_of(d), "notes.txt": (0o644, b"hf_" + b"a1B2" * 8)})


def listing_of_other_sizes(d: Draft, tokenizer: Any) -> None:
    d.keep_listing = True
    d.submission["files"]["run/run.log"] += 1


LIES: dict[Callable[[Draft, Any], None], set[str]] = {
    edited_text: {"tokens", "score", "reference"},
    edited_tokens: {"tokens", "reference"},
    impossible_tokens: {"tokens", "reference"},
    edited_answer: {"reference"},
    swapped_rows: {"reference"},
    dropped_row: {"rows"},
    dropped_row_said_to_be_all: {"rows", "work"},
    duplicated_row: {"rows"},
    row_that_is_not_there: {"rows"},
    truncated_answer: {"ends", "reference"},
    empty_answers: {"ends", "reference", "accuracy"},
    silent_answers: {"reference", "accuracy"},
    talk_behind_the_end: {"ends", "reference"},
    endless_answer: {"limit", "reference", "passes"},
    fewer_tokens_allowed: {"rule-arguments"},
    sampled: {"rule-arguments"},
    higher_score: {"score"},
    careless_edit: {"outputs-hash", "reference"},
    impossible_time: {"floor", "answer-times", "costs"},
    time_of_a_third: {"phases"},
    negative_phase: {"phases", "timeline"},
    fewer_sections_than_asked: {"phases"},
    sections_in_the_wrong_order: {"timeline"},
    data_before_the_warm_up: {"timeline", "telemetry"},
    answers_behind_the_section: {"answer-times"},
    answers_before_the_section: {"answer-times"},
    answers_without_times: {"answer-times"},
    another_time_of_day: {"wall-clock"},
    another_log: {"log"},
    no_log: {"log"},
    cached_section: {"repeats"},
    section_without_passes: {"repeats"},
    impossible_passes: {"passes"},
    passes_faster_than_the_warm_up: {"passes"},
    no_passes_told: {"passes"},
    altered_prompts: {"work"},
    fewer_tokens_told: {"work"},
    another_device: {"rule-device"},
    device_changed_under_way: {"board"},
    another_release: {"rule-jetpack"},
    another_framework: {"rule-framework"},
    throttled: {"board"},
    held_back: {"board"},
    another_power_mode: {"board", "rule-power-mode"},
    busy_machine: {"board"},
    better_verdict: {"board"},
    telemetry_cut_short: {"telemetry"},
    telemetry_with_a_hole: {"telemetry"},
    telemetry_with_a_sample_less: {"telemetry"},
    telemetry_left_out: {"telemetry"},
    telemetry_of_nonsense: {"telemetry"},
    telemetry_of_unknown_things: {"telemetry"},
    network_used: {"rule-network"},
    quantised_weights: {"resident"},
    quantised_weights_said_to_be_on_the_disk: {"resident"},
    quantised_weights_as_they_are: {"weights"},
    rounded_weights: {"dtype"},
    another_dtype: {"dtype"},
    flipped_bit: {"weights"},
    pruned_layer: {"weights"},
    another_model: {"model"},
    two_models: {"model"},
    model_of_another_name: {"model"},
    another_data_set: {"dataset"},
    two_data_sets: {"dataset"},
    changed_source: {"commit"},
    another_commit: {"commit"},
    another_teams_source: {"source"},
    source_with_another_mode: {"source"},
    source_bomb: {"source"},
    no_source: {"source"},
    uncited_import: {"rule-third-party", "source"},
    no_citations: {"rule-third-party", "source"},
    citation_bomb: {"rule-third-party", "source"},
    nested_source: {"rule-third-party", "source"},
    team_of_four: {"rule-team"},
    team_with_a_terminals_escape: {"rule-team"},
    no_paper: {"documents"},
    paper_of_another_time: {"documents"},
    paper_of_another_score: {"documents"},
    paper_of_another_team: {"documents"},
    an_empty_picture: {"documents"},
    nothing_declared: DECLARED_RULES,
    no_image: {"rule-image"},
    image_that_is_an_option: {"rule-image"},
    no_script: {"rule-script", "source"},
    clock_around_nothing: {"rule-script", "source"},
    no_explanation: {"rule-method"},
    a_token_in_the_source: {"rule-no-secrets", "source"},
    listing_of_other_sizes: {"listing"},
}
"""A lie, and every check that must fail."""

BY_CHANCE: dict[Callable[[Draft, Any], None], set[str]] = {
    talk_behind_the_end: {"passes"},
    sections_in_the_wrong_order: {"passes"},
}
"""What may fail as well: more tokens than the passes can have given, if the answer was a long one;
passes of the last section do not fit into the first, if that happened to be shorter."""

UNTOLD: dict[Callable[[Draft, Any], None], set[str]] = {
    device_not_seen: {"rule-device"},
    power_mode_not_seen: {"board", "rule-power-mode"},
    telemetry_without_alarms: {"channels"},
    network_not_seen: {"rule-network"},
}
"""What was left out rather than lied about: nobody can tell."""

UNSETTLED = {another_log, no_log, time_of_a_third, fewer_tokens_told, careless_edit}
"""Lies that are in what the run noted of its outputs, or in not setting that right."""
