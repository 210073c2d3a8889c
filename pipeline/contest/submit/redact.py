"""Redaction of what must not leave the machine: tokens, passwords, host and user names, home paths, addresses.

Every text file of a run is looked through before it is packed, and what is found is replaced by its kind in brackets.
JSON is taken apart and put together again, so that it stays JSON. What the model answered is never touched: a match
there is listed and left. So are names that are also words of the run itself (a user called "obqa").
"""

from __future__ import annotations

import getpass
import ipaddress
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.contest.source.secrets import TOKENS

OUTPUTS = "outputs.jsonl"

TOKEN, SECRET, HOME, USER, HOST, ADDRESS, ACCOUNT = (
    "token",
    "secret",
    "home path",
    "user name",
    "host name",
    "address",
    "account",
)

_ASSIGNED = re.compile(
    r"(?P<before>\b(?:export +)?(?P<key>[A-Z][A-Z0-9_]*)\s*[=:]\s*[\"']?)(?P<value>[^\s\"',;]+)"
    r"|(?P<before_url>\b[a-z][a-z0-9+.-]*://)(?P<account>[^\s/@:\"']+:[^\s/@\"']+)(?=@)"
)
_SECRET_KEY = re.compile(
    r"(?:^|_)(?:token|secret|passwd|password|api_?key|access_?key|credentials?|auth)$", re.IGNORECASE
)
_HOMES = re.compile(r"(?<![\w.])(?:/home|/Users|/var/home|/media)/(?P<name>[^/\s\"':;,<>|]+)")
_MAC = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![\w:])")
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?![\w:]|\.\d)")
_ACCOUNT = re.compile(r"(?<![\w.+-])[\w.+-]+@[A-Za-z0-9][\w.-]*\w")

EVERYBODYS = {"root", "user", "users", "admin", "ubuntu", "debian", "nvidia", "jetson", "orin", "localhost", "host"} | {
    "docker", "runner", "nobody", "home", "test", "build", "container", "default"
}  # fmt: skip
"""Common names of accounts and machines, which identify nobody."""
SHORTEST_NAME = 3


@dataclass(frozen=True)
class Redaction:
    """The findings of one kind in one file."""

    file: str
    kind: str
    count: int
    left: bool
    """Whether they were listed but not replaced: the file must stay as it is, or the name is also a word of the run."""


@dataclass(frozen=True)
class Names:
    """Names of users and hosts that are to be redacted."""

    users: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()


def names_here() -> Names:
    """This machine's name and its user's, without names that identify nobody."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a number without a name, in some containers
        user = ""
    full = socket.gethostname()
    return Names(users=_telling({user}), hosts=_telling({full, full.split(".")[0]}))


def _telling(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if len(name) >= SHORTEST_NAME and name.lower() not in EVERYBODYS)


def redact(
    files: dict[str, bytes], names: Names, words: Iterable[str] = ()
) -> tuple[dict[str, bytes], list[Redaction]]:
    """Redact a run's files (path to content); return the redacted files and the list of findings.

    `words` are values that the run cannot be checked without (its model, data set, commit): a user or host that has
    such a name is left in, and listed.
    """
    # Longest first: of a full host name the first part is another name.
    kept = frozenset(words)
    clean: dict[str, bytes] = {}
    redactions: list[Redaction] = []
    for path, content in sorted(files.items()):
        seen: Counter[tuple[str, bool]] = Counter()
        changed = _redact_file(path, content, _Text(names, kept, seen))
        left_alone = PurePosixPath(path).name == OUTPUTS
        clean[path] = content if left_alone else changed
        redactions += [Redaction(path, kind, count, left or left_alone) for (kind, left), count in sorted(seen.items())]
    return clean, redactions


def _redact_file(path: str, content: bytes, clean: _Text) -> bytes:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    if path.endswith(".jsonl"):
        # Bytes of a line, and not splitlines(): U+2028 is an ordinary character inside a JSON string.
        return "\n".join(_json(line, clean, indent=None) for line in text.split("\n")).encode()
    if path.endswith(".json"):
        return _json(text, clean, indent=2).encode()
    return clean(text).encode()


def _json(text: str, clean: _Text, indent: int | None) -> str:
    """Redact a JSON text; it is returned byte for byte if nothing is found in it."""
    try:
        value = json.loads(text)
    except ValueError:
        return clean(text)
    changed = _walk(value, clean)
    if changed == value:
        return text
    return json.dumps(changed, indent=indent, ensure_ascii=False) + "\n" * text.endswith("\n")


def _walk(value: Any, clean: _Text, key: str = "") -> Any:
    if isinstance(value, str):
        return clean.secret(value) if value and _SECRET_KEY.search(key) else clean(value)
    if isinstance(value, list):
        return [_walk(each, clean, key) for each in value]
    if isinstance(value, dict):
        return {clean(name): _walk(each, clean, name) for name, each in value.items()}
    return value


class _Text:
    """Redacts one text after another and counts the findings by kind in `seen`."""

    def __init__(self, names: Names, kept: frozenset[str], seen: Counter[tuple[str, bool]]) -> None:
        self.seen = seen
        self._names = [
            (re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])"), kind, name in kept)
            for kind, group in ((HOST, names.hosts), (USER, names.users))
            for name in sorted(group, key=len, reverse=True)
        ]

    def __call__(self, text: str) -> str:
        text = TOKENS.sub(lambda _: self._take(TOKEN), text)
        text = _ASSIGNED.sub(self._assigned, text)
        text = _HOMES.sub(lambda match: match[0][: -len(match["name"])] + self._take(HOME), text)
        text = _ACCOUNT.sub(lambda _: self._take(ACCOUNT), text)
        text = _MAC.sub(lambda _: self._take(ADDRESS), text)
        text = _IP.sub(self._address, text)
        for pattern, kind, left in self._names:
            text = pattern.sub(self._named(kind, left), text)
        return text

    def secret(self, _value: str) -> str:
        return self._take(SECRET)

    def _take(self, kind: str) -> str:
        self.seen[kind, False] += 1
        return f"[{kind}]"

    def _assigned(self, match: re.Match[str]) -> str:
        if match["account"]:
            return match["before_url"] + self._take(SECRET)
        if not _SECRET_KEY.search(match["key"]) or match["value"].startswith("["):
            return match[0]
        return match["before"] + self._take(SECRET)

    def _address(self, match: re.Match[str]) -> str:
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            return match[0]  # a time of day, a version
        return match[0] if address.is_loopback or address.is_unspecified else self._take(ADDRESS)

    def _named(self, kind: str, left: bool) -> Callable[[re.Match[str]], str]:
        def replace(match: re.Match[str]) -> str:
            if not left:
                return self._take(kind)
            self.seen[kind, True] += 1
            return match[0]

        return replace
