"""Small random checkpoints, and faults in memory."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoTokenizer, Phi3Config, Phi3ForCausalLM


def random_model(folder: Path, standin: Path, context: int, layers: int = 2, shard_size: str = "1GB") -> Path:
    """A random Phi-3 with the stand-in's tokenizer: loads and answers in no time."""
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        original_max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.4,
    )
    Phi3ForCausalLM(config).save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(standin).save_pretrained(folder)
    return folder


def flip_a_bit(tensor: torch.Tensor, index: int, bit: int) -> None:
    """In the memory where it lies."""
    raw = tensor.view(-1).view(torch.uint8)
    raw[index * tensor.element_size() + bit // 8] ^= 1 << (bit % 8)


def random_phi3(folder: Path, dtype: torch.dtype = torch.float32, *, tied: bool = False, shards: bool = True) -> Path:
    """A random Phi-3 as transformers saves it, by default in several shards."""
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=tied,
    )
    model = Phi3ForCausalLM(config).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder, max_shard_size="100KB" if shards else "1GB")
    assert (len(list(folder.glob("model-*.safetensors"))) > 2) == shards
    return folder
