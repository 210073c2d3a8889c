"""Every YAML file loads, a key that nobody reads is refused by its name, and a typo gets the nearest names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline import paths, schemas, settings
from pipeline.contest import team
from pipeline.contest.checks import device_checks
from pipeline.contest.rules import rules
from pipeline.errors import IntegrityError, UsageError
from pipeline.schemas import devices

FILES = sorted(paths.CONFIGS.rglob("*.yaml"))


def load(path: Path) -> object:
    kinds = {
        "datasets": schemas.DatasetConfig,
        "models": schemas.ModelFile,
        "devices": devices.DeviceConfig,
        "run": schemas.RunConfig,
        "model_card": schemas.ModelCard,
        "rules": rules.Rules,
        "contest_board": device_checks.Described,
        "team.example": team.Team,
    }
    return settings.load(path, kinds[path.stem if path.parent.name == "configs" else path.parent.name])


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the configurations, free to be damaged."""
    folder = tmp_path / "configs"
    for path in FILES:
        copy = folder / path.relative_to(paths.CONFIGS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(paths, "CONFIGS", folder)
    return folder


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_loads(path: Path) -> None:
    load(path)


def test_a_file_is_named_as_what_it_describes() -> None:
    assert settings.dataset_names()
    assert settings.model_names()
    assert all(settings.dataset(name).name == name for name in settings.dataset_names())
    assert all(settings.model(name).name == name for name in settings.model_names())
    assert all(settings.device(name).name == name for name in settings.device_names())


@pytest.mark.parametrize("change", [{"layer": 40}, {"hidden": "wide"}, {"heads": None}])
def test_a_shape_with_a_wrong_key_or_value_is_refused(configs: Path, change: dict) -> None:
    path = configs / "models" / "phi3-medium.yaml"
    content = yaml.safe_load(path.read_text())
    content["model"]["shape"] |= change
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(IntegrityError, match=next(iter(change))):
        settings.model("phi3-medium")


def test_the_run_is_what_the_organisers_script_fixes() -> None:
    run = settings.run()
    assert (run.max_new_tokens, run.return_full_text, run.do_sample, run.temperature) == (500, False, False, 0.0)
    assert run.warmup_messages[-1]["role"] == "user"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_unknown_key_is_refused_by_its_name(configs: Path, path: Path) -> None:
    copy = configs / path.relative_to(paths.ROOT / "configs")
    value = yaml.safe_load(copy.read_text(encoding="utf-8"))
    value.get("model", value)["max_new_tokenz"] = 3
    copy.write_text(yaml.safe_dump(value), encoding="utf-8")
    with pytest.raises(IntegrityError, match="configuration") as caught:
        load(copy)
    assert caught.value.code == "M101"
    assert copy.name in caught.value.where
    assert "max_new_tokenz" in caught.value.actual


@pytest.mark.parametrize("content", [b"a: [", b"\xff", b"", b"max_new_tokens: many"])
def test_a_file_that_cannot_be_read_is_named(configs: Path, content: bytes) -> None:
    (configs / "run.yaml").write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        settings.run()
    assert caught.value.code == "M101"
    assert "run.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "name", "code", "nearest"),
    [
        (settings.dataset, "obqa-tset", "U101", "obqa-test"),
        (settings.dataset, "openbokqa", "U101", "openbookqa"),
        (settings.model, "standim", "U102", "standin"),
        (settings.model, "phi3medium", "U102", "phi3-medium"),
        (settings.device, "orin32gb", "U104", "orin-32gb"),
    ],
)
def test_a_typo_gets_the_nearest_names(ask, name: str, code: str, nearest: str) -> None:
    with pytest.raises(UsageError, match="did you mean") as caught:
        ask(name)
    assert caught.value.code == code
    assert nearest in caught.value.what
    assert nearest in caught.value.expected


def test_a_name_like_none_gets_the_command_that_lists_all() -> None:
    with pytest.raises(UsageError) as caught:
        settings.dataset("zzzzzz")
    assert "did you mean" not in str(caught.value)
    assert "invoke data --list" in caught.value.expected


def test_every_benchmark_s_plain_name_is_that_of_one_of_its_sets() -> None:
    for benchmark in settings.model_card().benchmarks:
        assert settings.dataset(benchmark).benchmark == benchmark
    assert settings.dataset("boolq").name == settings.dataset_name("boolq") == "boolq-validation"
    assert settings.dataset("obqa").rows == 30
    assert {alias for alias in settings.dataset_aliases() if alias not in settings.model_card().benchmarks} == set()


@pytest.mark.parametrize("name", ["obqa", "my/boolq", "boolq.jsonl", "bolq"])
def test_what_is_no_alias_is_left_as_it_is(name: str) -> None:
    assert settings.dataset_name(name) == name


@pytest.mark.parametrize("alias", ["boolq", "obqa-test"])
def test_two_sets_of_one_name_are_refused(configs: Path, alias: str) -> None:
    path = configs / "datasets" / "piqa-validation.yaml"
    path.write_text(path.read_text().replace("aliases: [piqa]", f"aliases: [{alias}]"))
    with pytest.raises(IntegrityError) as caught:
        settings.dataset("zzzzzz")
    assert caught.value.code == "M102"
    assert "piqa-validation.yaml" in caught.value.where
    assert alias in caught.value.what
