"""`invoke doctor` and the board's part of `invoke setup`: every check both ways, and mending what can be mended."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.fake_board import FakeBoard

from pipeline import paths, settings
from pipeline.check import FAIL, OK, WARN, CheckResult
from pipeline.device import board as boards
from pipeline.device import power
from pipeline.device.host import Host
from pipeline.engine import backend
from pipeline.engine.kernels import build
from pipeline.errors import EnvironmentProblem, IntegrityError
from pipeline.prepare import board_checks, doctor, setup, software_checks, torch_facts


def quiet(_: str) -> None:
    pass


def good(board: FakeBoard) -> None:
    board.boot_into("MAXN")
    board.lock_clocks()


def of_board(board: FakeBoard) -> dict[str, CheckResult]:
    return {check.id: check for check in board_checks.board_results(board.host)}


def test_a_board_as_it_should_be_has_nothing_to_mend(board: FakeBoard) -> None:
    good(board)
    found = of_board(board)
    assert {name: check.state for name, check in found.items()} == dict.fromkeys(found, OK)
    assert set(found) == {
        "JetPack",
        "module",
        "power mode",
        "clocks",
        "fan",
        "temperature",
        "swap",
        "desktop",
        "docker",
    }


def spoil(name: str, text: str) -> Callable[[FakeBoard], object]:
    return lambda board: board.write(name, text)


def docker(board: FakeBoard, version: str) -> None:
    info = json.dumps({"ServerVersion": version, "Runtimes": {"runc": {}, "nvidia": {}}})
    board.write("usr/bin/docker", f"#!/bin/bash\necho '{info}'")


SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
COMPATIBLE = "nvidia,p3737-0000+{0}\0nvidia,{0}\0nvidia,tegra234\0"
WORSE: dict[str, tuple[Callable[[FakeBoard], object], str, str, str, str]] = {
    "JetPack 6.1": (
        spoil("etc/nv_tegra_release", "# R36 (release), REVISION: 4.0, GCID"),
        "JetPack",
        FAIL,
        "6.1",
        "flash",
    ),
    "JetPack 5": (
        spoil("etc/nv_tegra_release", "# R35 (release), REVISION: 4.1, GCID"),
        "JetPack",
        FAIL,
        "35.4.1",
        "flash",
    ),
    "hidden release": (lambda b: b.remove("etc/nv_tegra_release"), "JetPack", WARN, "5.15.136-tegra", "-v /:/host"),
    "64 GB": (spoil("proc/device-tree/compatible", COMPATIBLE.format("p3701-0005")), "module", WARN, "64GB", "contest"),
    "kit": (
        spoil("proc/device-tree/compatible", COMPATIBLE.format("p3701-0000")),
        "module",
        WARN,
        "developer kit",
        "contest",
    ),
    "no tree": (lambda b: b.remove("proc/device-tree"), "module", WARN, "cannot be seen", "-v /:/host"),
    "30 W": (lambda b: b.boot_into("MODE_30W"), "power mode", FAIL, "MODE_30W", "sudo nvpmodel -m 0"),
    "no tool": (lambda b: (b.remove("usr/sbin/nvpmodel"), b.remove("var")), "power mode", WARN, "cannot", "-v /:/host"),
    "free clocks": (lambda b: b.lock_clocks(False), "clocks", WARN, "free to change", "sudo jetson_clocks"),
    "quiet fan": (lambda b: b.lock_clocks(False), "fan", WARN, "quiet", "--fan"),
    "hot": (spoil("sys/class/thermal/thermal_zone1/temp", "83500"), "temperature", WARN, "84 °C", "cool"),
    "blind": (lambda b: b.remove("sys/class/thermal"), "temperature", WARN, "cannot be read", "-v /:/host"),
    "zram": (spoil("proc/swaps", SWAPS + "/dev/zram0 partition 1965000 0 5"), "swap", WARN, "zram0", "nvzramconfig"),
    "swapped": (spoil("proc/swaps", SWAPS + "/swapfile file 9000000 204800 -2"), "swap", WARN, "200 MiB", "swapoff"),
    "desktop": (spoil("proc/77/comm", "Xorg"), "desktop", WARN, "Xorg", "multi-user.target"),
    "no docker": (lambda b: b.remove("usr/bin/docker"), "docker", WARN, "not installed", "apt-get"),
    **{
        f"docker {version}": (lambda b, version=version: docker(b, version), "docker", FAIL, version, "moby#49557")
        for version in ("28.0.1", "28.2.2", "29.1.0", "101.0")
    },
    "no runtime": (
        spoil("usr/bin/docker", '#!/bin/bash\necho \'{"ServerVersion":"27.5.1","Runtimes":{"runc":{}}}\''),
        "docker",
        FAIL,
        "27.5.1",
        "nvidia-ctk",
    ),
    "no daemon": (
        spoil("usr/bin/docker", "#!/bin/bash\necho 'Cannot connect to the Docker daemon'; exit 1"),
        "docker",
        WARN,
        "Cannot connect",
        "systemctl start docker",
    ),
}


@pytest.mark.parametrize("case", WORSE)
def test_what_is_wrong_is_found_and_has_a_remedy(board: FakeBoard, case: str) -> None:
    good(board)
    change, name, state, found, remedy = WORSE[case]
    change(board)
    check = of_board(board)[name]
    assert check.state == state
    assert found in check.found
    assert remedy in check.fix


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lib/modules/5.15.136-tegra/modules.dep", "kernel/net/ipv4/netfilter/iptable_raw.ko: ip_tables.ko"),
        ("lib/modules/5.15.136-tegra/modules.builtin", "kernel/net/ipv4/netfilter/iptable_raw.ko"),
        ("sys/module/iptable_raw/refcnt", "0"),
    ],
)
def test_a_new_docker_is_fine_on_a_kernel_with_the_raw_table(board: FakeBoard, name: str, text: str) -> None:
    docker(board, "28.2.2")
    board.write(name, text)
    assert of_board(board)["docker"].state == OK


def test_a_new_docker_is_fine_that_goes_without_the_raw_table(board: FakeBoard) -> None:
    docker(board, "28.2.2")
    told = "#!/bin/bash\necho Environment=DOCKER_INSECURE_NO_IPTABLES_RAW=1"
    board.write("usr/bin/systemctl", told).chmod(0o755)
    assert of_board(board)["docker"].state == OK


@pytest.mark.parametrize(
    ("release", "jetpack"),
    [
        ("36.3.0", "6.0"),
        ("36.4.7", "6.2.1"),
        ("36.5", "6.2.2"),
        ("36.5.0", "6.2.2"),
        ("36.4.9", "6.x"),
        ("35.4.1", None),
    ],
)
def test_every_release_of_jetpack_6_is_named(release: str, jetpack: str | None) -> None:
    assert boards.jetpack_of(release) == jetpack


def test_runs_that_cannot_be_written_are_found(tmp_path: Path, as_nobody: Callable[..., str]) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "runs").mkdir(mode=0o555)
    (tmp_path / "file").write_text("")
    told = as_nobody(
        "from pipeline.prepare import software_checks as s; from pipeline import paths; from pathlib import Path",
        "for name in ('runs', 'runs/below', 'file', 'file/below'):\n"
        "    paths.runs = lambda: Path(name)\n"
        "    print(s._runs().state, s._runs().fix)",
    )
    assert [line.split()[0] for line in told.splitlines()] == [FAIL] * 4
    assert told.count("PIPELINE_RUNS") == 4


def test_other_programs_load_is_told(board: FakeBoard, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_else(*_: object) -> list[CheckResult]:
        board.write("proc/stat", "cpu  3000 0 500 82000 20 0 0 0 0 0")
        return []

    monkeypatch.setattr(doctor, "software_results", nothing_else)
    last = doctor.examine(board.host, str(tiny), "obqa", quiet)[-1]
    assert (last.id, last.state) == ("other programs", WARN)
    assert "50%" in last.found


def test_a_container_needs_no_docker(board: FakeBoard) -> None:
    board.write(".dockerenv", "")
    assert of_board(board)["docker"].state == OK


def test_a_machine_that_is_no_jetson_is_not_asked_for_its_board(tmp_path: Path) -> None:
    assert [check.id for check in board_checks.board_results(Host(tmp_path))] == ["swap"]


# What runs on it


def of_software(board: boards.Board, model: Path | str) -> dict[str, CheckResult]:
    return {check.id: check for check in software_checks.software_results(board, str(model), "obqa", quiet)}


def test_here_everything_is_fine_with_a_locked_model(tiny: Path) -> None:
    found = of_software(boards.look(Host(Path("/"))), tiny)
    assert {check.state for check in found.values()} <= {OK, WARN}
    assert list(found) == [
        "torch",
        "CUDA",
        "kernels",
        "attention",
        "packages",
        "disk",
        "runs",
        "disk speed",
        "model",
        "memory",
        "data",
    ]


def test_what_is_said_of_torch_without_importing_it_is_what_torch_says() -> None:
    import torch

    facts = torch_facts.look()
    assert facts == torch_facts._imported()
    if not torch.cuda.is_available():
        chosen = backend.choose(settings.model("phi3-medium").shape, torch.bfloat16, torch.device("cpu"))
        assert (chosen.attention_name, chosen.ops_name) == ("buckets", backend.PLAIN)


def test_a_torch_whose_libraries_do_not_load_is_a_failure(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.9.9+cpu'\ncuda = None\n")
    (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('it was imported')")
    (tmp_path / "torch" / torch_facts.LAST_LIBRARY).write_bytes(b"no library")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=tmp_path / "torch/__init__.py"))
    found = of_software(boards.look(Host(Path("/"))), tiny)["torch"]
    assert found.state == FAIL
    assert "2.9.9+cpu does not load" in found.found


def test_on_a_jetson_a_torch_that_is_not_nvidias_is_a_failure(board: FakeBoard, tiny: Path) -> None:
    found = of_software(boards.look(board.host), tiny)
    assert (found["torch"].state, found["CUDA"].state) == (FAIL, FAIL)
    assert "pip" in found["torch"].fix
    assert found["kernels"].state == WARN
    assert "8.7" in found["kernels"].fix


def test_a_damaged_model_is_named(tiny: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "model"
    shutil.copytree(tiny, damaged)
    (damaged / "config.json").write_text("{}")
    check = software_checks._model(str(damaged), quiet)
    assert check.state == FAIL
    assert "config.json" in check.found


def test_a_model_that_is_not_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_MODELS", str(tmp_path))
    assert software_checks._model("phi3-medium", quiet).fix == "invoke setup --model phi3-medium"
    assert software_checks._disk_speed("phi3-medium").found == "no weights to read yet"


def test_memory_is_held_against_the_engines_own_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.engine.free_memory.free_bytes", lambda device: 20 << 30)
    check = software_checks._memory("phi3-medium", torch_facts.look())
    assert check.state == FAIL
    assert "20,480 MiB free" in check.found


def test_a_data_set_that_was_changed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    assert "not here" in software_checks._dataset("obqa", quiet).found
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "obqa.jsonl").write_text("{}\n")
    assert "damaged" in software_checks._dataset("obqa", quiet).found
    assert software_checks._dataset("obqa", quiet).fix == "invoke data --set obqa"


def test_a_data_set_that_nobody_has_built_yet_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs, sets = tmp_path / "configs" / "datasets", tmp_path / "sets"
    configs.mkdir(parents=True)
    sets.mkdir()
    pinned = (paths.CONFIGS / "datasets" / "anli-test.yaml").read_text()
    unpinned, count = re.subn(r"^sha256: \w+$", "sha256: null", pinned, flags=re.MULTILINE)
    assert count == 1
    (configs / "anli-test.yaml").write_text(unpinned)
    (sets / "anli-test.jsonl").write_text("{}\n")
    monkeypatch.setattr(paths, "CONFIGS", configs.parent)
    monkeypatch.setenv("PIPELINE_DATA", str(tmp_path))
    check = software_checks._dataset("anli", quiet)
    assert (check.found, check.fix) == ("anli-test is not here", "invoke data --set anli-test")


def test_packages_are_compared_by_what_is_for_this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements").mkdir()
    lock = (
        "numpy==0.0.1 ; python_full_version < '3' \\\n    --hash=sha256:00\ninvoke==0.1 \\\n    # via x\nnothing==1.0\n"
    )
    (tmp_path / "requirements" / "cpu.lock").write_text(lock)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.delenv("PIPELINE_LOCK", raising=False)
    check = software_checks._versions(boards.look(Host(tmp_path)))
    assert check.state == WARN
    assert "not 0.1" in check.found
    assert "nothing missing" in check.found
    assert "numpy" not in check.found
    (tmp_path / "requirements" / "image.lock").write_text("")
    monkeypatch.setenv("PIPELINE_LOCK", "image.lock")
    assert software_checks._versions(boards.look(Host(tmp_path))).state == OK


# Mending and showing


def test_mending_does_what_can_be_done_and_says_the_rest(board: FakeBoard) -> None:
    board.boot_into("MODE_40W")
    said: list[str] = []
    doctor.mend(board_checks.board_results(board.host), said.append)
    assert {name: of_board(board)[name].state for name in ("power mode", "clocks", "fan")} == dict.fromkeys(
        ("power mode", "clocks", "fan"), OK
    )
    board.boot_into("MODE_30W")
    doctor.mend(board_checks.board_results(board.host), said.append)
    assert "power mode: needs a reboot" in said
    board.write("nvpmodel-refuses", "")
    board.boot_into("MODE_40W")
    doctor.mend(board_checks.board_results(board.host), said.append)
    assert any("E302" in line for line in said)


def test_the_table_is_aligned_and_has_every_remedy() -> None:
    found = [
        CheckResult("one", OK, "b", "a", "hidden"),
        CheckResult("longer", WARN, "z", "x" * 30 + " " + "y" * 40, "do this"),
        CheckResult("three", FAIL, "w", "", "do that"),
    ]
    lines = doctor.table(found).splitlines()
    column = lines[0].index("found")
    assert lines[1].index(" a ") + 1 == lines[2].index("x") == lines[3].index("y") == column
    assert "hidden" not in "".join(lines)
    assert lines[-1] == "  1 ok, 1 warn, 1 fail"
    assert sum("do: " in line for line in lines) == 2


def test_a_failure_ends_with_the_status_of_the_environment() -> None:
    doctor.conclude([CheckResult("a", WARN, "", "")])
    with pytest.raises(EnvironmentProblem, match="2 checks failed"):
        doctor.conclude([CheckResult("a", FAIL, "", ""), CheckResult("b", FAIL, "", "")])


@pytest.mark.slow
def test_the_command_prints_a_table_or_json_and_fails_on_a_board_in_the_wrong_mode(
    board: FakeBoard, invoke: Any, standin: Path
) -> None:
    done = invoke("doctor")
    assert done.returncode == 3
    assert "E310" in done.stderr
    assert "power mode" in done.stdout
    found = {check["name"]: check for check in json.loads(invoke("doctor", "--json").stdout)}
    assert found["power mode"]["state"] == FAIL
    assert found["module"]["found"] == "Jetson AGX Orin 32GB (p3701-0004)"


# Set-up


@pytest.fixture
def steps(board: FakeBoard, standin: Path) -> Callable[..., list[str]]:
    """Set up the board; what was said."""

    def call(**options: Any) -> list[str]:
        said: list[str] = []
        planned = setup.plan(board.host, "standin", "obqa", say=said.append, **options)
        said += setup.text(planned).splitlines()
        setup.carry_out(planned, said.append)
        return said

    return call


def test_a_fresh_board_keeps_its_mode_without_reboot_and_its_clocks_wait(board: FakeBoard, steps: Any) -> None:
    said = "\n".join(steps())
    assert "Jetson AGX Orin 32GB, L4T 36.3.0, JetPack 6.0" in said
    assert "still MODE_30W: MAXN needs a boot; invoke setup --reboot" in said
    assert "left alone until the power mode is MAXN" in said
    assert not (board.root / "rebooted").exists()
    assert power.clocks_locked(board.host) is False


def test_with_reboot_it_boots_and_then_the_same_command_goes_on(board: FakeBoard, steps: Any) -> None:
    assert any("the board boots now" in line for line in steps(reboot=True))
    assert (board.root / "rebooted").exists()
    said = "\n".join(steps(reboot=True))
    assert "MAXN already" in said
    assert power.clocks_locked(board.host) is True
    assert not [line for line in steps() if line.startswith(("power mode:", "clocks:"))]  # nothing is left to do


def test_a_mode_without_boot_and_clocks_in_one_go(board: FakeBoard, steps: Any) -> None:
    board.boot_into("MODE_40W")
    said = steps()
    assert "power mode: MAXN" in said
    assert any(line.startswith("clocks: locked") for line in said)


def test_what_the_board_refuses_is_said_and_holds_nothing_up(
    board: FakeBoard, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.boot_into("MODE_40W")
    monkeypatch.setattr(Host, "may_change", False)
    assert any("R501" in line and "sudo nvpmodel -m 0" in line for line in steps())


def test_a_container_without_its_host_gets_the_commands_for_it(board: FakeBoard, steps: Any) -> None:
    board.write(".dockerenv", "")
    said = "\n".join(steps())
    assert "sudo nvpmodel -m 0; sudo jetson_clocks --store" in said
    assert power.mode(board.host).name == "MODE_30W"


def test_a_board_of_another_release_is_set_up_with_a_word(board: FakeBoard, steps: Any) -> None:
    board.write("etc/nv_tegra_release", "# R36 (release), REVISION: 4.0, GCID")
    assert any("not as wanted: JetPack" in line for line in steps())


def test_a_files_failure_ends_it(board: FakeBoard, steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IntegrityError("M211", "what came is not what is pinned", fix="report this")

    monkeypatch.setattr("pipeline.model.fetch.resolve", broken)
    with pytest.raises(IntegrityError):
        steps()


def test_the_plan_of_the_contests_model_names_its_size_and_licence(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("PIPELINE_MODELS", str(tmp_path / "not" / "there"))
    planned = setup.plan(Host(tmp_path), "phi3-medium", "obqa")
    assert "(MIT): 27.9 GB from microsoft/Phi-3-medium-4k-instruct" in planned[0].plan
    assert "GB are free" in planned[0].plan
    assert planned[-1].do is None


@pytest.mark.slow
def test_the_command_plans_without_doing_and_unlocks(board: FakeBoard, invoke: Any, standin: Path) -> None:
    board.boot_into("MODE_40W")
    done = invoke("setup", "--plan")
    assert (done.returncode, done.stderr) == (0, "")
    assert "MODE_40W to MAXN" in done.stdout
    assert power.mode(board.host).name == "MODE_40W"
    done = invoke("setup")
    built = (paths.ROOT / "pipeline/engine/kernels/built" / build.library_name((8, 7))).exists()  # as invoke sees it
    assert ("kernels: not built, torch's own are used" in done.stdout) is not built
    assert "Ready: model standin" in done.stdout
    assert power.clocks_locked(board.host) is True
    assert invoke("setup", "--unlock").stdout == "clocks: done\n"
    assert power.clocks_locked(board.host) is False
