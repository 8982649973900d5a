"""Names of models, and the two that are made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.datamodules.sources.download import fetch, is_cached
from fulgurite.datamodules.sources.models import resolve_model
from fulgurite.datamodules.sources.unpack import sha256_of
from fulgurite.registry import UserError


def test_a_folder_is_itself_and_an_id_stays(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    assert resolve_model("some-org/some-model") == "some-org/some-model"
    assert resolve_model("gpt2") == "gpt2"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("smollm2-135m-instrct", "smollm2-135m-instruct"),
        ("./not/there", "no model folder"),
        ("/not/there", "no model folder"),
        ("a/b/c", "no model folder"),
        ("countries", "not a model"),
    ],
)
def test_a_mistake_is_explained(name: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        resolve_model(name)


def test_the_tiny_llama_loads_chats_and_is_the_same_everywhere(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    state = torch.random.get_rng_state()
    folder = Path(resolve_model("tiny-random-llama"))
    assert torch.equal(state, torch.random.get_rng_state())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (64, 2, 2)
    assert model.dtype == torch.float32
    text = "Grüße, 世界!\n\ttwo  spaces"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer("<|im_start|>").input_ids == [tokenizer.bos_token_id]
    assert len(tokenizer) == config.vocab_size
    monkeypatch.setenv("FULGURITE_CACHE", str(tmp_path / "second"))
    assert sha256_of(Path(resolve_model("tiny-random-llama")) / "model.safetensors") == sha256_of(
        folder / "model.safetensors"
    )


def test_the_tiny_encoder_gives_token_states(own_cache: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = resolve_model("tiny-random-encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["ab", "a longer one"], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = transformers.AutoModel.from_pretrained(folder)(**batch).last_hidden_state
    assert states.shape == (2, 14, 32) and batch["attention_mask"].sum().item() == 4 + 14


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france() -> None:
    if not is_cached("smollm2-135m-instruct"):
        pytest.skip("smollm2-135m-instruct is not in the cache: fulgurite fetch smollm2-135m-instruct")
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = fetch("smollm2-135m-instruct")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert model.dtype == torch.float32 and "quantization_config" not in model.config.to_dict()
    assert tokenizer.decode([int(logits.argmax())]) == " Paris"
