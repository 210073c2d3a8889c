"""A submission taken apart, so that a test can put a lie into it and pack it again as a liar would: with all hashes and
counts that belong to the lie set right."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import papers

from pipeline.contest.source import sbom
from pipeline.contest.submit import pack
from pipeline.contest.verify import documents
from pipeline.record.outputs import outputs_digest


@dataclass
class Draft:
    files: dict[str, bytes]
    """All but what is held apart below, and the list."""
    submission: dict[str, Any]
    manifest: dict[str, Any]
    rows: list[dict[str, Any]]
    telemetry: list[list[str]]
    """Its lines, the head first."""
    made: dict[str, bytes] = field(default_factory=dict)
    """Documents as they were made of the run."""

    @classmethod
    def of(cls, tar: Path) -> Draft:
        with tarfile.open(tar) as archive:
            files = {member.name.split("/", 1)[1]: archive.extractfile(member).read() for member in archive}
        del files["MANIFEST.sha256"]
        made = {name: files[name] for name in (documents.PAPER, sbom.NAME) if name in files}
        return cls(
            made=made,
            submission=json.loads(files.pop("submission.json")),
            manifest=json.loads(files.pop("run/manifest.json")),
            rows=[json.loads(line) for line in files.pop("run/outputs.jsonl").decode().split("\n")[:-1]],
            telemetry=[line.split(",") for line in files.pop("run/telemetry.csv").decode().splitlines()],
            files=files,
        )

    def copy(self) -> Draft:
        return copy.deepcopy(self)

    def row(self, index: int) -> dict[str, Any]:
        return next(row for row in self.rows if row["index"] == index)

    def say(self, index: int, text: str, token_ids: list[int] | None = None) -> None:
        """Another answer; without ids those that were there."""
        row = self.row(index)
        row["output"] = [{"generated_text": text}]
        row["token_ids"] = row["token_ids"] if token_ids is None else token_ids

    def settle(self) -> None:
        """What the run noted of its outputs, made to fit them: hash, tokens, and the line in the log."""
        told, tokens = self.manifest, sum(len(row["token_ids"]) for row in self.rows)
        by_row = {row["index"]: row["output"] for row in self.rows}
        outputs = [by_row[index] for index in sorted(by_row)]
        told["answer_tokens"] = told["engine"]["stats"]["answer_tokens"] = tokens
        for section in told["sections"]:
            section |= {"answer_tokens": tokens, "outputs_sha256": outputs_digest(outputs)}
        self.log_times()
        self.make_papers()

    def make_papers(self) -> None:
        """Paper and bill of materials, where the lie is not in them."""
        for name, make in (
            (documents.PAPER, lambda source: papers.paper_of(self.manifest, source, papers.about(self.submission))),
            (sbom.NAME, lambda source: sbom.make(self.manifest, source, 0)),
        ):
            if name in self.made and self.files.get(name) == self.made[name]:
                with contextlib.suppress(ArithmeticError, KeyError, ValueError, TypeError, tarfile.TarError):  # the lie
                    self.made[name] = self.files[name] = make({n: c for n, (_, c) in source_of(self).items()})

    def log_times(self) -> None:
        told = self.manifest
        lines = [line for line in self.files["run/run.log"].decode().splitlines() if " prompts in " not in line]
        lines += [
            f"2024-10-06T12:00:00.000+00:00 INFO {len(self.rows)} prompts in {s:.3f} s, {told['answer_tokens']} tokens"
            for s in told["phases_s"]["timed"]
        ]
        self.files["run/run.log"] = ("\n".join(lines) + "\n").encode()

    def contents(self) -> dict[str, bytes]:
        """Every file but the list, as they are to be packed."""
        found = {
            **self.files,
            "run/manifest.json": json.dumps(self.manifest, indent=2).encode(),
            "run/outputs.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows).encode(),
            "run/telemetry.csv": "".join(",".join(line) + "\n" for line in self.telemetry).encode(),
        }
        return {name: content for name, content in found.items() if name not in self.left_out}

    left_out: frozenset[str] = frozenset()

    def pack(self, out: Path, **raw: bytes) -> Path:
        """`raw` are contents by their names: bytes that no writer of JSON makes."""
        contents = self.contents() | raw
        sizes = {name: len(content) for name, content in sorted(contents.items()) if name != "submission.json"}
        told = {**self.submission, "files": self.submission["files"] if self.keep_listing else sizes}
        contents.setdefault("submission.json", json.dumps(told, indent=2).encode())
        return pack.write(contents, "blue", 0, out)

    keep_listing: bool = False


def retold(draft: Draft, old: str, new: str, keyword: str = "") -> None:
    """A paper that tells `new` where it told what the regular expression `old` matches."""
    source = {name: content for name, (_, content) in source_of(draft).items()}
    about = papers.about(draft.submission)
    text, count = re.subn(old, new, "\n".join([about.title, *papers.told(draft.manifest, source, about)]))
    assert count, old
    title, *lines = text.split("\n")
    outputs = keyword or draft.manifest["sections"][0]["outputs_sha256"]
    draft.files[documents.PAPER] = papers.paper(lines, title, outputs)


def source_of(draft: Draft) -> dict[str, tuple[int, bytes]]:
    """Path to mode and content."""
    with tarfile.open(fileobj=io.BytesIO(draft.files["source.tar"])) as archive:
        return {m.name: (m.mode, archive.extractfile(m).read()) for m in archive if m.isreg()}


def put_source(draft: Draft, files: dict[str, tuple[int, bytes]]) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (mode, content) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    draft.files["source.tar"] = made.getvalue()


def retar(path: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]) -> Path:
    """The same archive after `change` of its members, without a new list: what no packer of ours would write."""
    with tarfile.open(path) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]
    change(members)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content) if member.size else None)
    return path
