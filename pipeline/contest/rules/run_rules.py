"""The rules that no check of a run decides (`contest/checks/`): the machine, the framework, the call, the network.

Each takes the evidence and the contest's numbers. A value that is missing is unknown, one that is wrong fails; nothing
passes for being absent.
"""

from __future__ import annotations

import re
from typing import Any

from pipeline.check import CheckResult
from pipeline.contest.numbers import Contest
from pipeline.contest.rules.evidence import Evidence, decide, fail, unknown
from pipeline.device import board

UNSEEN = "cannot be seen"
VERSION = re.compile(r"[0-9][0-9A-Za-z.+!_-]{0,80}")


def device(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = f"{board.MODULES[board.TARGET_MODULE]} ({board.TARGET_MODULE})"
    if evidence.at("board.before.board.is_jetson") is False:
        return fail(f"not a Jetson: {evidence.at('environment.gpu') or evidence.at('environment.processor')}", expected)
    module = evidence.at("board.before.board.module")
    if not isinstance(module, str):
        return unknown(f"the module {UNSEEN}", expected)
    return decide(module == board.TARGET_MODULE, f"{board.MODULES.get(module, 'another module')} ({module})", expected)


def jetpack(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = f"JetPack {board.TARGET_JETPACK}"
    if evidence.at("board.before.board.is_jetson") is False:
        return fail("none: not a Jetson", expected)
    l4t = evidence.at("board.before.board.l4t")
    if not isinstance(l4t, str):
        return unknown(f"the release {UNSEEN}", expected)
    release = board.jetpack_of(l4t) or "unknown"
    return decide(release == board.TARGET_JETPACK, f"JetPack {release} (L4T {l4t})", expected)


def power_mode(evidence: Evidence, _contest: Contest) -> CheckResult:
    before, after = (evidence.at(f"board.{moment}.mode.name") for moment in ("before", "after"))
    if not isinstance(before, str) or not isinstance(after, str):
        return unknown(f"the power mode {UNSEEN}", "one mode, before and after")
    return decide(
        before == after, before if before == after else f"{before}, then {after}", "one mode, before and after"
    )


def framework(evidence: Evidence, contest: Contest) -> CheckResult:
    expected = f"torch {contest.torch_major}.x"
    version = evidence.at("environment.packages.torch")
    if not isinstance(version, str):
        return unknown("torch's version is not recorded", expected)
    fine = version.split(".")[0] == str(contest.torch_major) and VERSION.fullmatch(version) is not None
    return decide(fine, f"torch {version!a}" if not version.isprintable() else f"torch {version}", expected)


def arguments(evidence: Evidence, _contest: Contest) -> CheckResult:
    pinned = evidence.arguments
    given = {key: evidence.at(f"arguments.{key}") for key in pinned}
    expected = _words(pinned)
    if evidence.at("arguments") is None or not pinned:
        return unknown("the run does not say how it was called", expected)
    # 0 == False in Python: a temperature of False is no temperature.
    same = all(type(given[key]) is type(pinned[key]) and given[key] == pinned[key] for key in pinned)
    return decide(same, _words(given), expected)


def network(evidence: Evidence, _contest: Contest) -> CheckResult:
    expected = "no network, or not a byte over it under the clock"
    interfaces = evidence.at("network.interfaces")
    received, sent = evidence.at("network.received_bytes"), evidence.at("network.sent_bytes")
    if not isinstance(interfaces, list | tuple) or not isinstance(received, int) or not isinstance(sent, int):
        return unknown("the run did not look", expected)
    if not interfaces:
        none = received == sent == 0
        return decide(none, "there was none" if none else f"{received + sent:,} bytes over none", expected)
    over = ", ".join(map(str, interfaces))
    return decide(received == sent == 0, f"{received:,} bytes came and {sent:,} went over {over}", expected)


def _words(arguments: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in arguments.items())
