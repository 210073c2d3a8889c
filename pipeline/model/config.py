"""A checkpoint's config.json as the engine's `Shape`; models that the engine does not run are refused.

We read the JSON ourselves, in both spellings of the rotary embedding: transformers 4.x writes `rope_theta` and
`rope_scaling` at the top, 5.x puts both into `rope_parameters`. Keys that may be absent have the defaults of
transformers' Phi3Config.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.engine.shape import Shape
from pipeline.errors import IntegrityError
from pipeline.text import generation_keys

WINDOW_SINCE = (4, 46)
"""First transformers whose Phi3 heeds `sliding_window` outside of flash-attention."""

OTHER_MODEL = "name a checkpoint of the Phi-3 family that is neither LongRoPE nor quantised, such as phi3-medium"


def read_shape(folder: Path, transformers_version: str | None = None) -> Shape:
    """The shape of the model in `folder`.

    transformers_version: whose reading of `sliding_window` to follow (see `window_tokens`); the installed one if None.

    Raises IntegrityError: M301 no config.json, M302 not a JSON object, M303 another architecture, M304 scaled rotary
    embedding (LongRoPE and others), M305 quantised, M306 rotary embedding over a part of each head, M307 another
    activation, M308 biases, M309 a key missing or with a value that cannot be.
    """
    path = folder / "config.json"
    config = _json(path)
    rope = _rope(path, config)
    _refuse_others(path, config, rope)

    heads = _positive(path, config, "num_attention_heads")
    hidden = _positive(path, config, "hidden_size")
    kv_heads = _positive(path, config, "num_key_value_heads", default=heads)
    head_dim = _positive(path, config, "head_dim", default=hidden // heads)
    if "head_dim" not in config and hidden % heads:
        raise _nonsense(path, "hidden_size", f"a multiple of num_attention_heads ({heads})", hidden)
    if heads % kv_heads:
        raise _nonsense(path, "num_key_value_heads", f"a divisor of num_attention_heads ({heads})", kv_heads)
    if head_dim % 2:
        raise _nonsense(path, "head_dim", "an even number, since the rotary embedding turns pairs", head_dim)
    tied = config.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise _nonsense(path, "tie_word_embeddings", "true or false", tied)
    sliding_window = config.get("sliding_window")
    if sliding_window is not None:
        _positive(path, config, "sliding_window")

    return Shape(
        vocab=_positive(path, config, "vocab_size"),
        hidden=hidden,
        layers=_positive(path, config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_positive(path, config, "intermediate_size"),
        norm_eps=_positive_float(path, config, "rms_norm_eps", default=1e-5),
        rope_theta=_positive_float(path, rope, "rope_theta", default=10_000.0),
        max_positions=_positive(path, config, "max_position_embeddings"),
        window=window_tokens(sliding_window, transformers_version),
        tied=tied,
    )


def window_tokens(sliding_window: int | None, transformers_version: str | None = None) -> int | None:
    """How many tokens a row sees, itself included, in the transformers that we have to equal; None: all.

    Exact means equal to the installed reference, and the reference changed. Measured with eager and, where Phi3 has
    it, sdpa attention, in one pass and with a cache:

    | transformers | rows see |
    | --- | --- |
    | 4.44.2, 4.45.2 | all tokens: the mask is plainly causal, only flash-attention is told of the window |
    | 4.46.3, 4.52.4 (mask made in modeling_phi3.py), 4.53.3, 5.20.2 (masking_utils.py) | `sliding_window` tokens |

    `tests/model/test_config.py` measures the installed one. (Flash-attention is not our reference: 4.44 to 4.53
    hand it the window unreduced, modeling_flash_attention_utils.py, and a row sees one token more.)
    """
    return sliding_window if _release(transformers_version) >= WINDOW_SINCE else None


def _release(transformers_version: str | None) -> tuple[int, ...]:
    """The first two numbers; of the installed one for None, of a newest one where there is none."""
    if transformers_version is None:
        try:
            transformers_version = version("transformers")  # its metadata; importing it takes seconds
        except PackageNotFoundError:
            return (999,)
    return tuple(int(part) for part in re.findall(r"\d+", transformers_version)[:2])


def stop_tokens(folder: Path) -> frozenset[int]:
    """Ids that end an answer, as transformers' generate() finds them.

    generation_config.json decides where there is one, even where it names none; otherwise config.json does.
    Raises IntegrityError (M301, M302, M309).
    """
    path = folder / "generation_config.json"
    if path.exists():
        ids = _json(path).get("eos_token_id")
    else:
        path = folder / "config.json"
        ids = _json(path).get("eos_token_id", 32000)  # Phi3Config's default
    ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    if not all(type(i) is int and i >= 0 for i in ids):
        raise _nonsense(path, "eos_token_id", "a token id or a list of them", ids)
    return frozenset(ids)


def check_generation(folder: Path, transformers_version: str | None = None) -> None:
    """Refuse what changes greedy decoding and only transformers follows. Raises IntegrityError (M301, M302, M310).

    generation_config.json is heeded, where there is none the same keys in config.json, and by transformers 4 what
    config.json says of the task.
    """
    path, config = folder / "config.json", _json(folder / "config.json")
    own = folder / "generation_config.json"
    found = {own: generation_keys.changing(_json(own))} if own.exists() else {}
    if not own.exists():
        found[path] = generation_keys.changing(config, every=False)
    tasks = config.get("task_specific_params")
    if isinstance(tasks, dict) and _release(transformers_version) < (5,):
        found[path] = {**found.get(path, {}), **generation_keys.changing(tasks.get("text-generation") or {})}
    for where, keys in found.items():
        if keys:
            raise IntegrityError(
                "M310",
                "this checkpoint asks for more than greedy decoding: pipe() would follow it, the engine does not",
                where=paths.shown(where),
                expected="only keys that change no greedy answer",
                actual=", ".join(f"{key} {json.dumps(value)[:60]}" for key, value in sorted(keys.items())),
                fix="use --engine reference, which is pipe() itself, or take the keys out if they are not meant",
            )


def default_new_tokens(folder: Path) -> int | None:
    """The new tokens that the installed pipe() makes with this checkpoint where the call does not say how many; None
    where it has no such number. Raises IntegrityError (M301, M302)."""
    own = folder / "generation_config.json"
    return generation_keys.default_new_tokens(_json(own if own.exists() else folder / "config.json"))


def own_dtype(folder: Path) -> str:
    """The dtype that the checkpoint says it is stored in, as torch names it ("bfloat16"); float32 if it says none.

    `torch_dtype` is transformers 4.x's spelling, `dtype` 5.x's. Raises IntegrityError (M301, M302).
    """
    config = _json(folder / "config.json")
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise FileNotFoundError(f"{path.name} is no file")  # noqa: TRY301 - a pipe would be waited for
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise IntegrityError(
            "M301",
            f"the model folder has no {path.name}",
            where=paths.shown(path.parent),
            fix="name a folder with a whole checkpoint",
        ) from error
    except ValueError as error:  # not JSON, not UTF-8
        raise _not_json(path, error) from error
    if not isinstance(value, dict):
        raise _not_json(path, f"a JSON {type(value).__name__}")
    return value


def _not_json(path: Path, actual: object) -> IntegrityError:
    return IntegrityError(
        "M302",
        f"{path.name} is not a JSON object",
        where=paths.shown(path),
        actual=actual,
        fix="copy the checkpoint anew; the file is damaged",
    )


def _rope(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Both spellings as one: rope_theta, rope_type and what else is there."""
    inner: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key)
        if value is not None and not isinstance(value, dict):
            raise _nonsense(path, key, "an object or null", value)
        inner.update(value or {})
    outer = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if config.get(key) is not None}
    return {**outer, **inner}


def _refuse_others(path: Path, config: dict[str, Any], rope: dict[str, Any]) -> None:
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    kept = set(rope) <= {"rope_theta", "partial_rotary_factor", "rope_type", "type", "original_max_position_embeddings"}
    checks = [
        (
            "M303",
            "the architecture",
            "model_type",
            "phi3",
            config.get("model_type"),
            config.get("model_type") == "phi3",
        ),
        ("M304", "a scaled rotary embedding", "rope type", "default", rope_type, rope_type == "default" and kept),
        (
            "M305",
            "a quantised checkpoint",
            "quantization_config",
            "none",
            config.get("quantization_config"),
            not config.get("quantization_config"),
        ),
        (
            "M306",
            "a rotary embedding over a part of each head",
            "partial_rotary_factor",
            1.0,
            rope.get("partial_rotary_factor"),
            rope.get("partial_rotary_factor", 1.0) == 1.0,
        ),
        (
            "M307",
            "the activation",
            "hidden_act",
            "silu",
            config.get("hidden_act"),
            config.get("hidden_act", "silu") == "silu",
        ),
        ("M308", "projections with biases", "attention_bias", False, True, not config.get("attention_bias", False)),
    ]
    for code, what, key, expected, actual, fine in checks:
        if not fine:
            raise IntegrityError(
                code,
                f"the engine does not run this model: {what}",
                where=paths.shown(path),
                expected=f"{key} {expected}",
                actual=f"{key} {actual}",
                fix=OTHER_MODEL,
            )


def _positive(path: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value <= 0:
        raise _nonsense(path, key, "a positive whole number", value)
    return value


def _positive_float(path: Path, config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise _nonsense(path, key, "a positive number", value)
    return float(value)


def _nonsense(path: Path, key: str, expected: str, actual: object) -> IntegrityError:
    return IntegrityError(
        "M309",
        f"{path.name}: {key} is missing" if actual is None else f"{path.name}: {key} has a wrong value",
        where=paths.shown(path),
        expected=f"{key}: {expected}",
        actual="nothing" if actual is None else repr(actual),
        fix="copy the checkpoint anew, or correct the file",
    )
