"""config.json in, Shape out; models that the engine does not run are refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from transformers import Phi3Config, Phi3ForCausalLM

from pipeline.errors import IntegrityError
from pipeline.model.config import check_generation, read_shape, stop_tokens, window_tokens
from pipeline.text import generation_keys

MEDIUM = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 10,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
"""The keys of Phi-3-medium-4k-instruct that matter."""


def folder_with(tmp_path: Path, **changes: object) -> Path:
    config = {**MEDIUM, **changes}
    config = {key: value for key, value in config.items() if value != "absent"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_medium(tmp_path: Path) -> None:
    shape = read_shape(folder_with(tmp_path), "5.20.2")
    assert (shape.vocab, shape.hidden, shape.layers, shape.heads, shape.kv_heads) == (32064, 5120, 40, 40, 10)
    assert (shape.head_dim, shape.intermediate, shape.max_positions, shape.window) == (128, 17920, 4096, 2047)
    assert (shape.norm_eps, shape.rope_theta, shape.tied) == (1e-5, 10000.0, False)


def test_both_spellings_of_rope(tmp_path: Path) -> None:
    old = read_shape(folder_with(tmp_path, rope_theta=5000.0))
    rope = {"rope_theta": 5000.0, "rope_type": "default", "partial_rotary_factor": 1.0}
    new = read_shape(folder_with(tmp_path, rope_theta="absent", rope_scaling="absent", rope_parameters=rope))
    assert old == new
    assert old.rope_theta == 5000.0


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    absent = (
        "rope_theta",
        "rms_norm_eps",
        "num_key_value_heads",
        "tie_word_embeddings",
        "sliding_window",
        "hidden_act",
    )
    shape = read_shape(folder_with(tmp_path, **dict.fromkeys(absent, "absent")))
    assert (shape.rope_theta, shape.norm_eps, shape.kv_heads, shape.tied) == (10000.0, 1e-5, 40, False)
    assert shape.window is None


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    Phi3Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, rope_theta=777.0, tie_word_embeddings=True
    ).save_pretrained(tmp_path)
    shape = read_shape(tmp_path)
    assert (shape.hidden, shape.head_dim, shape.kv_heads, shape.rope_theta, shape.tied) == (64, 16, 2, 777.0, True)


@pytest.mark.parametrize(
    ("code", "changes", "shown"),
    [
        ("M303", {"model_type": "llama"}, "llama"),
        ("M303", {"model_type": "absent"}, "None"),
        ("M304", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "longrope"),
        ("M304", {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}}, "su"),
        ("M304", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "linear"),
        ("M305", {"quantization_config": {"bits": 4}}, "bits"),
        ("M306", {"partial_rotary_factor": 0.75}, "0.75"),
        ("M306", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "0.5"),
        ("M307", {"hidden_act": "gelu"}, "gelu"),
        ("M308", {"attention_bias": True}, "attention_bias True"),
        ("M309", {"hidden_size": "absent"}, "hidden_size is missing"),
        ("M309", {"vocab_size": -1}, "-1"),
        ("M309", {"num_hidden_layers": 2.5}, "2.5"),
        ("M309", {"num_hidden_layers": True}, "True"),
        ("M309", {"hidden_size": 5121}, "a multiple of num_attention_heads (40)"),
        ("M309", {"num_key_value_heads": 7}, "a divisor of num_attention_heads (40)"),
        ("M309", {"head_dim": 127}, "even"),
        ("M309", {"rms_norm_eps": 0}, "rms_norm_eps"),
        ("M309", {"rope_theta": "much"}, "much"),
        ("M309", {"rope_scaling": 3}, "rope_scaling"),
        ("M309", {"tie_word_embeddings": 1}, "true or false"),
        ("M309", {"sliding_window": 0}, "sliding_window"),
    ],
)
def test_refused(tmp_path: Path, code: str, changes: dict, shown: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        read_shape(folder_with(tmp_path, **changes))
    assert caught.value.code == code
    assert shown in str(caught.value)


@pytest.mark.parametrize(
    ("code", "content"), [("M301", None), ("M302", b"{"), ("M302", b"[1]"), ("M302", b"\xff\xfe{}")]
)
def test_unreadable(tmp_path: Path, code: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        read_shape(tmp_path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("version", "window"),
    [("4.44.2", None), ("4.45.2", None), ("4.46.0", 4), ("4.57.1", 4), ("5.20.2", 4), ("6.0.dev0", 4)],
)
def test_window_follows_the_version(version: str, window: int | None) -> None:
    assert window_tokens(4, version) == window
    assert window_tokens(None, version) is None


@pytest.mark.parametrize("cached", [False, True])
def test_window_is_what_the_installed_transformers_does(cached: bool) -> None:
    """Change one token after another and see on which the last row's logits depend."""
    tokens, sliding_window = 12, 4
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        sliding_window=sliding_window,
        initializer_range=0.5,
    )
    model = Phi3ForCausalLM._from_config(config, attn_implementation="eager").eval()

    @torch.no_grad()
    def last_row(ids: torch.Tensor) -> torch.Tensor:
        if not cached:
            return model(ids).logits[0, -1]
        before = model(ids[:, :-1], use_cache=True, past_key_values=transformers.DynamicCache())
        return model(ids[:, -1:], use_cache=True, past_key_values=before.past_key_values).logits[0, -1]

    ids = torch.arange(1, tokens + 1)[None]
    base = last_row(ids)
    seen = 0
    for position in range(tokens):
        changed = ids.clone()
        changed[0, position] = 50
        seen += bool((last_row(changed) - base).abs().max() > 1e-5)
    assert seen == (window_tokens(sliding_window) or tokens)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [32000, 32001, 32007]}, 32000, {32000, 32001, 32007}),
        ({"eos_token_id": 2}, 32000, {2}),
        ({}, 32000, set()),
        (None, 32000, {32000}),
        (None, [1, 2], {1, 2}),
        (None, None, set()),
    ],
)
def test_stop_tokens(tmp_path: Path, generation: dict | None, config: object, expected: set[int]) -> None:
    folder_with(tmp_path, eos_token_id=config)
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert stop_tokens(tmp_path) == expected
    theirs = (
        transformers.GenerationConfig.from_model_config(Phi3Config.from_pretrained(tmp_path))
        if generation is None
        else transformers.GenerationConfig.from_pretrained(tmp_path)
    ).eos_token_id
    assert set(theirs if isinstance(theirs, list) else [theirs]) - {None} == expected


def test_stop_tokens_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="eos_token_id") as caught:
        stop_tokens(folder_with(tmp_path, eos_token_id=["</s>"]))
    assert caught.value.code == "M309"


# --- how a checkpoint wants to be decoded -------------------------------------------------------------------

KEYS = sorted(vars(transformers.GenerationConfig()))


def test_every_key_of_the_installed_transformers_is_sorted() -> None:
    lists = [generation_keys.FOLLOWED, generation_keys.HARMLESS, frozenset(generation_keys.REFUSED)]
    assert {key: [key in each for each in lists].count(True) for key in KEYS} == dict.fromkeys(KEYS, 1)


def test_the_defaults_of_the_installed_transformers_are_harmless() -> None:
    assert generation_keys.changing(vars(transformers.GenerationConfig())) == {}


CHANGING = {
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 3,
    "min_new_tokens": 4,
    "min_length": 9,
    "suppress_tokens": [5],
    "forced_eos_token_id": 2,
    "num_beams": 4,
    "guidance_scale": 1.5,
    "stop_strings": ["x"],
    "bad_words_ids": [[3]],
    "sequence_bias": [[[3], -1.0]],
    "cache_implementation": "quantized",
    "token_healing": True,
}


@pytest.mark.parametrize("key", CHANGING)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_a_key_that_changes_greedy_answers_is_refused_by_name(tmp_path: Path, file: str, key: str) -> None:
    folder_with(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) if file == "config.json" else {"eos_token_id": 2}
    (tmp_path / file).write_text(json.dumps(values))
    check_generation(tmp_path)
    (tmp_path / file).write_text(json.dumps({**values, key: CHANGING[key]}))
    with pytest.raises(IntegrityError, match="more than greedy decoding") as caught:
        check_generation(tmp_path)
    assert (caught.value.code, caught.value.exit_status) == ("M310", 4)
    assert caught.value.actual.startswith(key)
    assert caught.value.where.endswith(file)


def test_keys_in_config_json_do_not_count_beside_a_generation_config(tmp_path: Path) -> None:
    folder_with(tmp_path, repetition_penalty=1.1)
    (tmp_path / "generation_config.json").write_text("{}")
    check_generation(tmp_path)


def test_what_the_task_is_given_counts_for_transformers_4(tmp_path: Path) -> None:
    folder_with(tmp_path, task_specific_params={"text-generation": {"do_sample": True, "repetition_penalty": 1.2}})
    (tmp_path / "generation_config.json").write_text("{}")
    check_generation(tmp_path, "5.0.0")
    with pytest.raises(IntegrityError, match="more than greedy decoding"):
        check_generation(tmp_path, "4.44.2")


def test_a_key_that_no_list_has_counts_where_the_installed_transformers_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"temperature": 0.5, "made_up": 1}
    assert generation_keys.changing(values) == {}
    monkeypatch.setattr(generation_keys, "HARMLESS", frozenset())
    assert generation_keys.changing(values) == {"temperature": 0.5}
    assert generation_keys.changing({"temperature": None}) == {}


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(IntegrityError) as caught:
        read_shape(tmp_path)
    assert caught.value.code == "M301"
