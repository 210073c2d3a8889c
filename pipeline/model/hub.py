"""One file of a model from the Hugging Face hub, at a pinned revision, and that it is the file that the hub lists.

huggingface_hub resumes what was cut off, but compares sizes only
(https://github.com/huggingface/huggingface_hub/issues/3643). The hub lists a file's sha256, or git's hash of a small
file, as its ETag: with that each file is checked by itself, so that a damaged one costs no other.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline import paths
from pipeline.errors import EnvironmentProblem, IntegrityError
from pipeline.files import resource_trouble, sha256_of
from pipeline.schemas import HubModelConfig
from pipeline.table import Say

TRIES = 2
"""How often a file that comes damaged is fetched."""

BREAKS = 8
"""How often a connection may break within one file. Newer releases of the library go on by themselves; 0.36, which the
image has, does so when a connection falls silent, but not when it is cut."""


def fetch(config: HubModelConfig, name: str, folder: Path, say: Say) -> None:
    """`name` into `folder`, whole and verified. What is there under that name is taken for damaged.

    Raises EnvironmentProblem (E201 the hub does not give it), ResourceError (R101, R102), IntegrityError (M221 what
    comes is not what the hub lists, twice).
    """
    path = folder / name
    for _ in range(TRIES):
        path.unlink(missing_ok=True)  # the library would take it for finished
        listed = _fetched(config, name, folder)
        if listed is None:
            say(f"the hub lists no hash of {name}: it is locked as it came")
            return
        actual = _hash_like(listed, path)
        if actual == listed:
            return
        say(f"{paths.shown(path)} did not come as the hub lists it; fetching it again")
    path.unlink(missing_ok=True)
    raise IntegrityError(
        "M221",
        "a file of the model is not what the hub lists",
        where=f"{config.repo}/{name} at {config.revision[:10]}",
        expected=listed,
        actual=actual,
        fix="find out who answers in the hub's place (HF_ENDPOINT, a proxy); then the same command goes on",
    )


def _fetched(config: HubModelConfig, name: str, folder: Path) -> str | None:
    """The hash that the hub lists for the file that lies there now, if it lists one."""
    import huggingface_hub  # noqa: PLC0415 - slow to import, and only needed to fetch

    url = huggingface_hub.hf_hub_url(config.repo, name, revision=config.revision)
    try:
        listed = huggingface_hub.get_hf_file_metadata(url).etag
        _download(config, name, folder)
    except Exception as error:
        # `Exception`: the library's errors come from requests or from httpx, depending on its version.
        if isinstance(error, OSError) and (trouble := resource_trouble(error, folder / name)):
            raise trouble from error
        raise EnvironmentProblem(
            "E201",
            "a file of the model could not be fetched from the Hugging Face hub",
            where=f"{config.repo}/{name} at {config.revision[:10]}",
            actual=" ".join(f"{type(error).__name__}: {error}".split())[:300],
            fix=f"check the network, then invoke setup --model {config.name} goes on where it stopped; "
            f"or name a folder that has the files with --model",
        ) from error
    return listed if listed and len(listed) in {40, 64} else None


def _download(config: HubModelConfig, name: str, folder: Path) -> None:
    """The library keeps what has come, and goes on from there when it is called again."""
    import huggingface_hub  # noqa: PLC0415

    for turn in range(BREAKS + 1):
        try:
            huggingface_hub.hf_hub_download(config.repo, name, revision=config.revision, local_dir=folder)
        except Exception as error:
            # By name: requests is not there where the library does without it.
            if type(error).__name__ != "ChunkedEncodingError" or turn == BREAKS:
                raise
        else:
            return


def _hash_like(listed: str, path: Path) -> str:
    """sha256 of a large file, git's blob hash of a small one: whichever the hub lists."""
    if len(listed) == 64:
        return sha256_of(path)
    content = path.read_bytes()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
