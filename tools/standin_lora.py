"""LoRA (arXiv 2106.09685) on the stand-in, written by hand, its loss, and the judging of what comes of it.

What is judged is what ships: the adapter rounded to bfloat16, merged by `pipeline.model.adapter`, answers made greedily
in float32.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.dataset import records
from pipeline.model import adapter
from pipeline.text import candidates as choices

PARTS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
MAX_NEW_TOKENS = 48


def load(folder: Path, device: str) -> nn.Module:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return model.to(device).eval()


# --- the adapter --------------------------------------------------------------------------------------------


class LoraLinear(nn.Module):
    """y = x·Wᵀ + scale·dropout(x)·Aᵀ·Bᵀ with W frozen; A as in the paper's code, B zero."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = linear.weight.shape
        self.weight, self.scale, self.dropout = linear.weight, scale, dropout
        bound = 1 / math.sqrt(inputs)  # kaiming_uniform with a = √5
        a = (torch.rand(rank, inputs, generator=generator) * 2 - 1) * bound
        self.lora_a = nn.Parameter(a.to(linear.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank, device=linear.weight.device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dropped = F.dropout(x, self.dropout, self.training) if self.dropout else x
        low = F.linear(F.linear(dropped, self.lora_a), self.lora_b)
        return torch.add(F.linear(x, self.weight), low, alpha=self.scale)


def with_lora(
    model: nn.Module, ranks_of_parts: tuple[int, ...], scale: float, dropout: float, seed: int
) -> dict[str, LoraLinear]:
    """Put a LoRA on every projection, in place, with ranks in the order of `PARTS`. Returns them by name."""
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    ranks = dict(zip(PARTS, ranks_of_parts, strict=True))
    made = {}
    for name, module in list(model.named_modules()):
        if (part := name.rpartition(".")[2]) in ranks:
            made[name] = LoraLinear(module, ranks[part], scale, dropout, generator)
            model.set_submodule(name, made[name])
        elif type(module).__name__ == "Phi3RMSNorm":  # one kernel in place of six; training alone takes it
            module.forward = lambda x, m=module: F.rms_norm(x, x.shape[-1:], m.weight, m.variance_epsilon)
    return made


def rounded(loras: dict[str, LoraLinear]) -> dict[str, torch.Tensor]:
    """The adapter as it ships."""
    halves = {f"{n}.lora_{h}": getattr(lora, f"lora_{h}") for n, lora in loras.items() for h in "ab"}
    return {name: half.detach().to("cpu", torch.bfloat16).contiguous() for name, half in halves.items()}


# --- the loss -----------------------------------------------------------------------------------------------


def examples(tokenizer: Any, pairs: list[tuple[str, str]], end: int) -> list[tuple[list[int], int]]:
    """Token ids of prompt, answer and end token, and how many of them are the prompt's."""
    prompts = choices.token_ids(tokenizer, [[{"role": "user", "content": content}] for content, _ in pairs])
    answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    return [([*p, *a, end], len(p)) for p, a in zip(prompts, answers, strict=True)]


def loss_sum(model: nn.Module, batch: list[tuple[list[int], int]], bf16: bool) -> tuple[torch.Tensor, int]:
    """Cross entropy summed over answers and end tokens, and their number.

    Padding is on the right, behind all that counts, so causal attention needs no mask. Logits are made only of rows
    that have a target: of all rows they would be the largest tensor by far.
    """
    device = model.device
    width = -(-max(len(ids) for ids, _ in batch) // 8) * 8
    padded = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
    rows = [(i, j) for i, (ids, prompt) in enumerate(batch) for j in range(prompt - 1, len(ids) - 1)]
    line, column = torch.tensor(rows).T
    targets = padded[line, column + 1].to(device, non_blocking=True)
    flat = (line * width + column).to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        hidden = model.model(padded.to(device, non_blocking=True), use_cache=False).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1).index_select(0, flat))
    return F.cross_entropy(logits.float(), targets, reduction="sum"), len(rows)


@torch.no_grad()
def mean_loss(model: nn.Module, rows: list[tuple[list[int], int]], bf16: bool) -> float:
    model.eval()
    sums = [loss_sum(model, rows[i : i + 128], bf16) for i in range(0, len(rows), 128)]
    model.train()
    return float(sum(total for total, _ in sums)) / sum(count for _, count in sums)


def warm_cosine(step: int, steps: int) -> float:
    """Share of the learning rate: up in a straight line for a twentieth of the steps, then half a cosine to zero."""
    warm_up = max(1, steps // 20)
    done = max(0, step - warm_up) / max(1, steps - warm_up)
    return min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * done))


# --- evaluation ---------------------------------------------------------------------------------------------


class Judge:
    """Greedy answers of the base with an adapter merged, as inference gives them."""

    def __init__(self, model: nn.Module, tokenizer: Any, sets: dict[str, list[records.Record]]) -> None:
        self.model, self.tokenizer, self.sets = model, tokenizer, sets
        self.weights = {name: p for name, p in model.named_parameters() if name.split(".")[-2] in PARTS}
        self.base = {name: p.detach().cpu().numpy().copy() for name, p in self.weights.items()}

    def merge(self, halves: dict[str, torch.Tensor], scale: float) -> None:
        def one(name: str) -> np.ndarray:
            a, b = (halves[name.removesuffix("weight") + half].float().numpy() for half in ("lora_a", "lora_b"))
            return adapter.merged(self.base[name], a, b, scale)

        with ThreadPoolExecutor(os.cpu_count()) as pool, torch.no_grad():
            for name, values in zip(self.weights, pool.map(one, self.weights), strict=True):
                self.weights[name].copy_(torch.from_numpy(values))

    @torch.no_grad()
    def scores(self, name: str) -> dict[str, int]:
        """Exact answers and answers among the choices, as `pipeline.accuracy.metrics` counts them."""
        rows = self.sets[name]
        generated: list[str] = []
        torch.set_float32_matmul_precision("highest")
        for start in range(0, len(rows), 256):
            ids = choices.token_ids(self.tokenizer, [row.messages for row in rows[start : start + 256]])
            batch = self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
            batch = {key: value.to(self.model.device) for key, value in batch.items()}
            with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):  # float32 and a mask
                out = self.model.generate(**batch, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
            new = out[:, batch["input_ids"].shape[1] :].tolist()
            generated += [self.tokenizer.decode(line, skip_special_tokens=True) for line in new]
        torch.set_float32_matmul_precision("high")
        answers = [text.lstrip().replace("\n", "") for text in generated]
        exact = sum(text == row.answer for text, row in zip(answers, rows, strict=True))
        listed = [choices.listed(row.messages[-1]["content"]) for row in rows]
        among = sum(text in items for text, items in zip(answers, listed, strict=True))
        return {"exact": exact, "among_choices": among, "rows": len(rows)}
