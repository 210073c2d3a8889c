"""Every key that a generation_config.json may hold, sorted by what it does to a greedy answer.

pipe() heeds the file silently; an engine that does not would answer otherwise just as silently. So each key is harmless
to greedy decoding of one answer a prompt, or followed, or refused by name where its value is not one that changes
nothing. The lists hold the keys of transformers 4.44 to 5.20; a test walks the installed release's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FOLLOWED = frozenset({"eos_token_id", "max_length", "max_new_tokens"})

HARMLESS = frozenset(
    # Only sampling heeds these, or the caller's arguments stand before them.
    {"do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
    # Only beams heed these.
    | {"early_stopping", "length_penalty", "low_memory"}
    # Only drafts by another model, or by the prompt, heed these.
    | {"is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold"}
    | {"assistant_early_exit", "assistant_lookbehind", "assistant_ensemble_weight", "target_lookbehind"}
    | {"max_matching_ngram_size"}
    # How transformers computes and keeps its books.
    | {"use_cache", "cache_config", "max_cache_len", "return_legacy_cache", "prefill_chunk_size", "compile_config"}
    | {"disable_compile", "continuous_batching_config", "remove_invalid_values", "transformers_version"}
    | {"_from_model_config", "_commit_hash"}
    # Padding and beginnings, which an answer has none of.
    | {"pad_token_id", "bos_token_id", "decoder_start_token_id"}
)

REFUSED: Mapping[str, tuple[Any, ...]] = {
    "repetition_penalty": (1,),
    "encoder_repetition_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "diversity_penalty": (0,),
    "penalty_alpha": (0,),
    "guidance_scale": (1,),
    "renormalize_logits": (False,),
    "token_healing": (False,),
    "use_mtp": (False,),
    "return_dict_in_generate": (False,),
    "output_attentions": (False,),
    "output_hidden_states": (False,),
    "output_scores": (False,),
    "output_logits": (False,),
    "cache_implementation": ("dynamic", "static"),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "constraints": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_decoder_ids": ([],),
    "stop_strings": ([], ""),
    "sequence_bias": ({}, []),
    "generation_kwargs": ({},),
    "prompt_lookup_num_tokens": (0,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "watermarking_config": (),
    "dola_layers": (),
    "speculation_type": (),
    "max_time": (),
}
"""Key to the values besides null with which it changes nothing."""


def changing(values: Mapping[str, Any], *, every: bool = True) -> dict[str, Any]:
    """The keys of a generation_config.json that change what greedy decoding answers and are not followed.

    `every`: keys in none of the lists count as well, where the installed transformers knows them and they have another
    value than its own; what it does not know it does not heed.
    """
    found = {
        key: value
        for key, value in values.items()
        if key in REFUSED and value is not None and not any(value == harmless for harmless in REFUSED[key])
    }
    unsorted = values.keys() - FOLLOWED - HARMLESS - REFUSED.keys() if every else ()
    if unsorted:
        from transformers import GenerationConfig  # noqa: PLC0415 - takes seconds

        own = vars(GenerationConfig())
        found |= {key: values[key] for key in unsorted if key in own and values[key] not in (None, own[key])}
    return found


def default_new_tokens(values: Mapping[str, Any]) -> int | None:
    """The new tokens of an answer where the caller of the installed pipe() names no number, by the keys of a
    generation_config.json; None where no one number says it: `max_length` counts the prompt as well, and releases
    before 4.49 know nothing else."""
    if values.get("max_new_tokens") is not None:
        return int(values["max_new_tokens"])
    from transformers import GenerationConfig  # noqa: PLC0415 - takes seconds
    from transformers.pipelines.text_generation import TextGenerationPipeline  # noqa: PLC0415

    if values.get("max_length") not in (None, vars(GenerationConfig()).get("max_length")):
        return None
    return getattr(getattr(TextGenerationPipeline, "_default_generation_config", None), "max_new_tokens", None)
