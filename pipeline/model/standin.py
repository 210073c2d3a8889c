"""The stand-in: SmolLM2-135M-Instruct, a Llama, rewritten exactly into the layout of a Phi-3 checkpoint.

Phi-3 computes what Llama computes; only the files differ: q, k and v are one matrix, gate and up are another. So
stacking rows is all there is to do, and the logits are the same to the last bit (`tests/model/test_standin.py` holds
the difference at 0.0).

The source is a GGUF file with weights quantised in blocks; `gguf` gives back their float32 values. llama.cpp permutes
the rows of q and k for its own rotary embedding (convert_hf_to_gguf.py, LlamaModel.permute); we undo it as transformers
does (modeling_gguf_pytorch_utils.py, LlamaTensorProcessor).

Every byte written is a function of the GGUF file alone: element-wise float32 arithmetic, sorted names, JSON by hand.
So the hashes in `configs/models/standin.yaml` hold on every machine. What is to keep that (an adapter merged through
`tensors(transform=…)`, see `adapter.py`) must sum in a fixed order too: a BLAS product does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from pipeline.model import safetensors_file

STORED_AS = {"float32": "F32", "bfloat16": "BF16"}

BLOCK_ROWS = 4096
"""The embedding is dequantised in blocks of so many rows: it alone is a fifth of the file."""

Transform = Callable[[str, np.ndarray], np.ndarray]
"""Name and float32 rows of one whole projection in Phi-3 layout to what is saved in its place."""


def total_bytes(reader: gguf.GGUFReader, dtype: str) -> int:
    """Size of the finished weights."""
    return sum(map(prod, tensor_shapes(reader).values())) * safetensors_file.ITEM_BYTES[STORED_AS[dtype]]


def convert(
    reader: gguf.GGUFReader,
    folder: Path,
    dtype: str,
    names: frozenset[str],
    on_bytes: Callable[[int], object] = lambda _: None,
    transform: Transform | None = None,
) -> None:
    """Write those `names` of the checkpoint's files into `folder`.

    dtype: "float32" holds the values exactly, "bfloat16" rounds them to nearest even.
    on_bytes: called with the number of bytes of weights just written. transform: see `tensors`.
    """
    texts = {
        "config.json": lambda: _json(config(reader, dtype)),
        "generation_config.json": lambda: _json(generation_config(reader)),
        "tokenizer.json": lambda: _json(tokenizer(reader)),
        "tokenizer_config.json": lambda: _json(tokenizer_config(reader)),
    }
    for name in sorted(names & texts.keys()):
        (folder / name).write_text(texts[name](), encoding="utf-8", newline="\n")
    if "model.safetensors" in names:
        pieces = _counted(_encoded(tensors(reader, transform), dtype), on_bytes)
        safetensors_file.write(folder / "model.safetensors", STORED_AS[dtype], tensor_shapes(reader), pieces)


# --- weights ------------------------------------------------------------------------------------------------


def tensor_shapes(reader: gguf.GGUFReader) -> dict[str, tuple[int, ...]]:
    """Names and shapes as a Phi3ForCausalLM checkpoint has them; the head is the embedding and has no tensor."""
    c = config(reader, "float32")
    hidden, intermediate = c["hidden_size"], c["intermediate_size"]
    head_dim = hidden // c["num_attention_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (c["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        qkv_rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * head_dim
        shapes[layer + "input_layernorm.weight"] = (hidden,)
        shapes[layer + "self_attn.qkv_proj.weight"] = (qkv_rows, hidden)
        shapes[layer + "self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[layer + "post_attention_layernorm.weight"] = (hidden,)
        shapes[layer + "mlp.gate_up_proj.weight"] = (2 * intermediate, hidden)
        shapes[layer + "mlp.down_proj.weight"] = (hidden, intermediate)
    return shapes


def tensors(reader: gguf.GGUFReader, transform: Transform | None = None) -> Iterator[np.ndarray]:
    """float32 pieces of all tensors in the order of their names, ready for `safetensors_file.write`.

    transform: the place where an adapter is merged; it sees whole projections, never the embedding or a norm.
    """
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    heads = {
        "attn_q": int(_field(reader, "llama.attention.head_count")),
        "attn_k": int(_field(reader, "llama.attention.head_count_kv")),
    }

    def rows(name: str) -> np.ndarray:
        tensor = by_name[name]
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        part = name.split(".")[-2]
        return unpermuted(values, heads[part]) if part in heads else values

    def projection(name: str, *parts: str) -> np.ndarray:
        stacked = np.concatenate([rows(part) for part in parts]) if len(parts) > 1 else rows(parts[0])
        return stacked if transform is None else transform(name, stacked)

    for name in sorted(tensor_shapes(reader)):
        if name == "model.embed_tokens.weight":
            embedding = by_name["token_embd.weight"]
            for start in range(0, len(embedding.data), BLOCK_ROWS):
                yield gguf.dequantize(embedding.data[start : start + BLOCK_ROWS], embedding.tensor_type)
        elif name == "model.norm.weight":
            yield rows("output_norm.weight")
        else:
            _, _, layer, *_, part, _ = name.split(".")
            block = f"blk.{layer}."
            if part == "input_layernorm":
                yield rows(block + "attn_norm.weight")
            elif part == "post_attention_layernorm":
                yield rows(block + "ffn_norm.weight")
            elif part == "qkv_proj":
                yield projection(name, *(f"{block}attn_{x}.weight" for x in "qkv"))
            elif part == "o_proj":
                yield projection(name, block + "attn_output.weight")
            elif part == "gate_up_proj":
                yield projection(name, block + "ffn_gate.weight", block + "ffn_up.weight")
            else:
                yield projection(name, block + "ffn_down.weight")


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of the two halves of each head. rows: (heads·D, H)."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def _encoded(pieces: Iterator[np.ndarray], dtype: str) -> Iterator[np.ndarray]:
    for piece in pieces:
        values = np.ascontiguousarray(piece, dtype="<f4")
        yield values if dtype == "float32" else bfloat16_bits(values)


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Finite float32 to bfloat16, nearest even, as the upper halves of their bits: numpy has no bfloat16."""
    bits = values.view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _counted(pieces: Iterator[np.ndarray], on_bytes: Callable[[int], object]) -> Iterator[np.ndarray]:
    for piece in pieces:
        yield piece  # and is written when we go on
        on_bytes(piece.nbytes)


# --- what stands beside the weights -------------------------------------------------------------------------


def config(reader: gguf.GGUFReader, dtype: str) -> dict:
    """config.json in the spelling of transformers 4.44 (`rope_theta` at the top), which 5.x reads too."""
    bos, eos, pad = _special_ids(reader)
    return {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": bos,
        "embd_pdrop": 0.0,
        "eos_token_id": eos,
        "hidden_act": "silu",
        "hidden_size": int(_field(reader, "llama.embedding_length")),
        "initializer_range": 0.02,
        "intermediate_size": int(_field(reader, "llama.feed_forward_length")),
        "max_position_embeddings": int(_field(reader, "llama.context_length")),
        "model_type": "phi3",
        "num_attention_heads": int(_field(reader, "llama.attention.head_count")),
        "num_hidden_layers": int(_field(reader, "llama.block_count")),
        "num_key_value_heads": int(_field(reader, "llama.attention.head_count_kv")),
        "original_max_position_embeddings": int(_field(reader, "llama.context_length")),
        "pad_token_id": pad,
        "resid_pdrop": 0.0,
        "rms_norm_eps": _shortest(_field(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": _shortest(_field(reader, "llama.rope.freq_base")),
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": dtype,
        "use_cache": True,
        "vocab_size": int(_field(reader, "llama.vocab_size")),
    }


def generation_config(reader: gguf.GGUFReader) -> dict:
    """generation_config.json with the ids of SmolLM2-135M-Instruct's own: an answer ends at <|im_end|>."""
    bos, eos, pad = _special_ids(reader)
    return {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}


def tokenizer(reader: gguf.GGUFReader) -> dict:
    """tokenizer.json. The GGUF names its pre-tokenizer "smollm": digits one by one, then GPT-2's pattern.

    Merges are strings "a b", which tokenizers 0.19 needs and newer ones read.
    """
    tokens, kinds = _field(reader, "tokenizer.ggml.tokens"), _field(reader, "tokenizer.ggml.token_type")
    if (_field(reader, "tokenizer.ggml.model"), _field(reader, "tokenizer.ggml.pre")) != ("gpt2", "smollm"):
        raise ValueError("the tokenizer is not SmolLM2's")
    added = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == gguf.TokenType.CONTROL
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": _field(reader, "tokenizer.ggml.merges"),
        },
    }


def tokenizer_config(reader: gguf.GGUFReader) -> dict:
    """tokenizer_config.json; the padding side is what batched generation by transformers needs."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    bos, eos, pad = (tokens[i] for i in _special_ids(reader))
    return {
        "bos_token": bos,
        "chat_template": _field(reader, "tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "model_max_length": int(_field(reader, "llama.context_length")),
        "pad_token": pad,
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[int(_field(reader, "tokenizer.ggml.unknown_token_id"))],
    }


def _special_ids(reader: gguf.GGUFReader) -> tuple[int, int, int]:
    bos, eos, pad = (int(_field(reader, f"tokenizer.ggml.{x}_token_id")) for x in ("bos", "eos", "padding"))
    return bos, eos, pad


def _field(reader: gguf.GGUFReader, name: str) -> Any:
    return reader.fields[name].contents()


def _shortest(value: float) -> float:
    """GGUF holds float32: 1e-05 comes as 9.999999747378752e-06. The shortest decimal that means the same float32."""
    return float(str(np.float32(value)))


def _json(value: dict) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
