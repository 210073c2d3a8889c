"""transformers' own ways to answer a set, timed on our weights and on answers that are known beforehand.

With random weights nobody's answers mean anything, so they are scripted: every contender reads the same prompts and
writes the same number of tokens. Nothing here warms up; call once before the call that counts, with prompts of the
same sizes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, Phi3Config, Phi3ForCausalLM
from transformers.generation import GenerationConfig

from pipeline.engine.shape import Shape
from pipeline.engine.weights import Weights
from pipeline.model.loader import EMBEDDING, LAYER_TENSORS

SHARED_BLOCK = 16
"""Tokens in a block of the K/V cache where prefixes may be shared: vLLM's number."""


def build(weights: Weights) -> Phi3ForCausalLM:
    """transformers' Phi-3 over the very tensors of `weights`: nothing is copied, what changes here changes there.

    The weights must lie as the checkpoint has them, not as `engine.projection.packer` places them. Attention is SDPA,
    or eager where this transformers has no SDPA for Phi-3 (4.44).
    """
    config = Phi3Config(
        **_settings(weights.shape),
        attn_implementation="sdpa" if Phi3ForCausalLM._supports_sdpa else "eager",
    )
    with torch.device("meta"):
        model = Phi3ForCausalLM(config)
    model.requires_grad_(False)  # parameters take this over from those they replace
    model.load_state_dict(_state(weights), strict=True, assign=True)
    _place_rotary(model, weights)
    if left := [name for name, t in chain(model.named_parameters(), model.named_buffers()) if t.is_meta]:
        raise RuntimeError(f"this transformers' Phi-3 has tensors that nobody filled: {', '.join(left)}")
    return model.eval()


def generate(
    model: Phi3ForCausalLM, prompts: Sequence[list[int]], answers: Sequence[list[int]], batch_size: int
) -> float:
    """Seconds that `model.generate` takes: greedy, in file order, `batch_size` prompts at a time, padded on the left.

    A logits processor forces row i to write answers[i]. All answers end with the same end token, which occurs nowhere
    else in them; a batch ends when all its rows have. In the time: padding, copies to the device, and the tokens back
    on the host. Raises RuntimeError if what came back is not the script.
    """
    end = _end_token(prompts, answers)
    batches = [slice(start, start + batch_size) for start in range(0, len(prompts), batch_size)]
    scripts = [_Scripted(answers[batch], len(max(prompts[batch], key=len)), end, model.device) for batch in batches]
    found: list[list[int]] = []
    start = _now(model.device)
    for batch, script in zip(batches, scripts, strict=True):
        tokens, mask = _padded(prompts[batch], end)
        out = model.generate(
            tokens.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=script.tokens.shape[1],
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
            logits_processor=LogitsProcessorList([script]),
        )
        found += out[:, script.prompt :].tolist()
    elapsed_s = _now(model.device) - start
    for index, (row, answer) in enumerate(zip(found, answers, strict=True)):
        if row[: len(answer)] != answer or any(token != end for token in row[len(answer) :]):
            raise RuntimeError(f"generate, row {index}: {row} came back, the script says {answer}")
    return elapsed_s


def generate_batch(
    model: Phi3ForCausalLM,
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    *,
    sharing: bool = False,
    **options: Any,
) -> float:
    """Seconds that transformers' continuous batching takes: what `model.generate_batch` does inside (transformers 5).

    It makes its logits processors from the generation config alone, so nothing is forced: row i writes len(answers[i])
    tokens of its own choice and no token ends a row, which is as many rows in as many steps. `generate_batch` itself
    knows one length for all rows, hence the manager behind it, which is told what `generate_batch` tells it.

    The manager and its K/V cache are new in each call, so that no prefix is known from before; making them is not in
    the time, nor is the capture of CUDA graphs; growing torch's memory again is. The time is that from handing in the
    first prompt to the last answer on the host. How many prompts the first pass gets depends on when the manager's
    thread wakes up.

    sharing: without the sliding window, which is exact for contexts shorter than it, and with blocks of SHARED_BLOCK
    tokens; else as shipped, which shares nothing as long as there is a window. Prompts share what an earlier pass has
    computed, not what the same pass computes.
    options: more fields of `ContinuousBatchingConfig`.

    Takes nine tenths of the memory that is free on the device, and gives it back. Raises ImportError where this
    transformers has no continuous batching, RuntimeError if it fails on this device or a row has the wrong length.
    """
    from transformers.generation.configuration_utils import ContinuousBatchingConfig  # noqa: PLC0415 - not in 4.x
    from transformers.generation.continuous_batching.utils import WorkloadHints  # noqa: PLC0415

    window = model.config.sliding_window
    longest = max(map(len, prompts)) + max(map(len, answers))
    if sharing and window is not None and longest > window:
        raise ValueError(f"without the window of {window} tokens a context of {longest} would be another computation")
    if sharing:
        # 5.20 renamed it.
        names = {field.name for field in fields(ContinuousBatchingConfig)}
        options = {"page_size" if "page_size" in names else "block_size": SHARED_BLOCK, **options}
    # Sorted as `add_requests` does where prefixes are shared.
    order = sorted(range(len(prompts)), key=lambda i: prompts[i], reverse=True) if sharing else range(len(prompts))
    if model.device.type == "cuda":
        torch.cuda.empty_cache()  # the manager counts what torch holds back as taken
    found: dict[str, Any] = {}
    model.config.sliding_window = None if sharing else window
    try:
        with model.continuous_batching_context_manager(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(**options),
            workload_hints=WorkloadHints(max(map(len, prompts)), max(map(len, answers)), len(prompts)),
            timeout=5,
        ) as manager:
            start = _now(model.device)
            for index in order:
                manager.add_request(
                    prompts[index], request_id=str(index), max_new_tokens=len(answers[index]), eos_token_id=-1
                )
            while len(found) < len(prompts):
                result = manager.get_result(timeout=1)
                if result is None and not manager.is_running():
                    raise RuntimeError("the thread of continuous batching died; its log says why")
                if result is not None and result.error is not None:
                    raise RuntimeError(f"continuous batching, row {result.request_id}: {result.error}")
                if result is not None and result.is_finished():
                    found[result.request_id] = result.generated_tokens
            elapsed_s = _now(model.device) - start
    finally:
        model.config.sliding_window = window
    for index, answer in enumerate(answers):
        if len(found[str(index)]) != len(answer):
            raise RuntimeError(f"row {index}: {len(found[str(index)])} tokens came back, {len(answer)} were asked for")
    return elapsed_s


class _Scripted(LogitsProcessor):
    """Leaves each row of a batch one token: the next of its answer, the end token behind it."""

    def __init__(self, answers: Sequence[list[int]], prompt: int, end: int, device: torch.device) -> None:
        longest = max(map(len, answers))
        self.prompt = prompt
        self.tokens = torch.tensor([[*a, *[end] * (longest - len(a))] for a in answers], device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self.prompt
        return torch.full_like(scores, -torch.inf).scatter_(1, self.tokens[:, step : step + 1], 0.0)


def _padded(prompts: Sequence[list[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Tokens and attention mask, padded on the left to the longest."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[filler] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return tokens, mask


def _end_token(prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> int:
    if len(prompts) != len(answers) or not all(prompts) or not all(answers):
        raise ValueError("there must be one answer a prompt, and none of them empty")
    end = answers[0][-1]
    if any(answer.index(end) != len(answer) - 1 if end in answer else True for answer in answers):
        raise ValueError(f"every answer must end with the first one's end token, {end}, and have it nowhere else")
    return end


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _settings(shape: Shape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "max_position_embeddings": shape.max_positions,
        "original_max_position_embeddings": shape.max_positions,
        "sliding_window": shape.window,
        "tie_word_embeddings": shape.tied,
        # Not known here, and the defaults may lie beyond the vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _state(weights: Weights) -> dict[str, Tensor]:
    """By transformers' names. A tied head is the embedding's tensor under a second name."""
    state = {
        EMBEDDING: weights.embed,
        "model.norm.weight": weights.norm,
        "lm_head.weight": weights.head,
    }
    for index, layer in enumerate(weights.layers):
        state |= {f"model.layers.{index}.{name}": getattr(layer, field) for field, name in LAYER_TENSORS.items()}
    return state


def _place_rotary(model: Phi3ForCausalLM, weights: Weights) -> None:
    """The frequencies are no part of a checkpoint: one module has them, or in older transformers every layer."""
    half = torch.arange(0, weights.shape.head_dim, 2, dtype=torch.int64).float() / weights.shape.head_dim
    frequencies = (1.0 / weights.shape.rope_theta**half).to(weights.device)
    for module in model.modules():
        for name in {"inv_freq", "original_inv_freq"} & module._buffers.keys():
            setattr(module, name, frequencies.clone())
