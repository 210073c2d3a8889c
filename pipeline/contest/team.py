"""The team that hands in: `team.yaml` beside the README, which git ignores, or the example if there is none.

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
"""Address of an image: no blanks, and never an option of docker's."""


class Team(schemas.Strict):
    name: Line
    members: Annotated[tuple[Line, ...], Field(min_length=1)]
    """Names of the members; the contest's rules check how many there may be."""
    image: Address | None = None
    """Address of the image for `docker pull`, at best with its digest (`…@sha256:…`)."""
    declarations: dict[str, bool] = Field(default_factory=dict)
    """Rule id to the team's answer, for rules that only the team can answer."""

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
        """The team's name for use in file names: letters and digits of any script, hyphens for the rest."""
        words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", self.name).lower())
        return words[:LONGEST_SLUG].strip("-") or "team"


@dataclass(frozen=True)
class TeamWords:
    """A team as described by `team.yaml` or by a stranger's archive, not validated."""

    name: str
    members: tuple[str, ...]
    declarations: Mapping[str, bool]
    image: str | None

    @property
    def trouble(self) -> str | None:
        """Reason why this would not be a valid `team.yaml`; None if it would."""
        try:
            Team(name=self.name, members=self.members)
        except ValidationError as error:
            return schemas.words(error)
        return None


def read_team(checkout: Path = paths.ROOT) -> tuple[Team, bool]:
    """Read the team; the flag says whether it is only the example. Raises IntegrityError (M101) for an invalid file."""
    path = checkout / NAME
    if path.exists():
        return settings.load(path, Team), False
    return settings.load(checkout / EXAMPLE, Team), True
