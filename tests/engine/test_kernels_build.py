"""Building the kernels: with the compiler that is there or a reason in one line, never with an old binary."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.engine.kernels import build

FAKE_NVCC = """#!/bin/sh
for last; do :; done
while [ "$1" != -o ]; do shift; done
echo "built" > "$2"
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, nothing built, and a compiler that only writes its output."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    for name in (*build.SOURCES, *build.HEADERS):
        shutil.copy(build.HERE / name, folder)
    monkeypatch.setattr(build, "HERE", folder)
    monkeypatch.setattr(build, "BUILT", folder / "built")
    use(tmp_path / "cuda", FAKE_NVCC, monkeypatch)
    return folder


def use(home: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "bin").mkdir(parents=True, exist_ok=True)
    nvcc = home / "bin" / "nvcc"
    nvcc.write_text(script, encoding="utf-8")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(home))


def test_a_built_library_is_kept_and_found_again(sources: Path, tmp_path: Path) -> None:
    first = build.build((8, 7))
    assert first.parent == sources / "built"
    assert "sm87" in first.name
    (tmp_path / "cuda" / "bin" / "nvcc").unlink()
    assert build.build((8, 7)) == first


def test_another_device_or_a_changed_source_is_another_library(sources: Path) -> None:
    name = build.library_name((8, 7))
    assert build.library_name((9, 0)) != name
    with (sources / build.SOURCES[0]).open("a", encoding="utf-8") as file:
        file.write("// changed\n")
    assert build.library_name((8, 7)) != name


def test_without_a_compiler_the_reason_is_given(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    with pytest.raises(build.CannotBuild, match="no nvcc"):
        build.build((8, 7))


def test_a_compiler_that_fails_is_quoted(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(
        tmp_path / "cuda",
        "#!/bin/sh\necho 'fatal error: unsupported gpu architecture' >&2\nexit 3\n",
        monkeypatch,
    )
    with pytest.raises(build.CannotBuild, match=r"failed with 3.*unsupported gpu architecture"):
        build.build((8, 7))
    assert not (sources / "built").exists()


def test_where_the_installation_cannot_be_written_to_it_is_kept_in_the_users_cache(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "BUILT", sources / build.SOURCES[0] / "built")  # below a file: for root too
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = build.build((8, 7))
    assert made == tmp_path / "cache/phi3-pipeline/kernels" / build.library_name((8, 7))
    assert made.read_text(encoding="utf-8") == "built\n"
    monkeypatch.setattr(build, "find_nvcc", lambda: None)
    assert build.build((8, 7)) == made


def test_where_nothing_can_be_kept_it_builds_elsewhere(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BUILT", sources / build.SOURCES[0] / "built")
    monkeypatch.setenv("XDG_CACHE_HOME", str(sources / build.SOURCES[0] / "cache"))
    made = build.build((8, 7))
    assert made.read_text(encoding="utf-8") == "built\n"
    assert sources not in made.parents


def test_a_compiler_that_may_not_be_run_is_a_reason(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_nvcc", lambda: str(sources))
    with pytest.raises(build.CannotBuild, match="Permission denied"):
        build.build((8, 7))


@pytest.mark.slow
def test_the_command_builds_or_says_why_not(tmp_path: Path) -> None:
    """With the compiler of this machine, where it has one: for JetPack's device, and without a GPU."""
    ignored = shutil.ignore_patterns("built", "__pycache__")
    shutil.copytree(paths.ROOT / "pipeline", tmp_path / "pipeline", ignore=ignored)  # what it builds is not kept
    command = [sys.executable, "-m", "pipeline.engine.kernels.build", "8.7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    if build.find_nvcc() is None:
        assert done.returncode == 1
        assert "no nvcc" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == build.library_name((8, 7))
        assert (tmp_path / "pipeline/engine/kernels/built" / build.library_name((8, 7))).exists()
