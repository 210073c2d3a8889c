"""Who hands in: `team.yaml` beside the README, which git ignores, or the example while there is none.

Git ignores it since names of people do not belong into a repository, and a run stays one of a clean commit.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from pipeline import paths, schemas, settings

NAME = "team.yaml"
EXAMPLE = "configs/team.example.yaml"
LONGEST_SLUG = 40

Line = Annotated[str, Field(min_length=1, max_length=80, pattern=r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")]

ADDRESS = re.compile(r"^\w[\w./:@-]*$")
Address = Annotated[str, Field(max_length=400, pattern=ADDRESS.pattern)]
"""Of an image; no blanks, and no option of docker's."""


class Team(schemas.Strict):
    name: Line
    members: Annotated[tuple[Line, ...], Field(min_length=1)]
    """How many there may be is a rule of the contest, and asked with the others."""
    image: Address | None = None
    """Where the image can be had, as `docker pull` takes it; with its digest (`…@sha256:…`) at best."""
    declarations: dict[str, bool] = Field(default_factory=dict)
    """By the ids of the rules that only the team can answer for."""

    @field_validator("members")
    @classmethod
    def _each_once(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(members)) < len(members):
            raise ValueError("a member is named twice")
        return members

    @property
    def words(self) -> TeamWords:
        return TeamWords(self.name, self.members, self.declarations, self.image)

    @property
    def slug(self) -> str:
        """Its name for a file's: letters and digits of any script, the rest a hyphen."""
        words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", self.name).lower())
        return words[:LONGEST_SLUG].strip("-") or "team"


@dataclass(frozen=True)
class TeamWords:
    """What somebody says of a team, before it is known to be one: of `team.yaml`, or of a stranger's archive."""

    name: str
    members: tuple[str, ...]
    declarations: Mapping[str, bool]
    image: str | None

    @property
    def trouble(self) -> str | None:
        """Why no `team.yaml` could say it; None where one could."""
        try:
            Team(name=self.name, members=self.members)
        except ValidationError as error:
            return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        return None


def load(checkout: Path = paths.ROOT) -> tuple[Team, bool]:
    """The team, and whether it is only the example. Raises IntegrityError (M101) for a file that is not one."""
    path = checkout / NAME
    if path.exists():
        return settings.load(path, Team), False
    return settings.load(checkout / EXAMPLE, Team), True
