"""Two models small enough for a smoke run, made on the spot from a seed: right shapes and files, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .models import no_progress_bars

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_llama(folder: Path) -> None:
    """Write `tiny-random-llama`: 2 layers, hidden 64, 4 heads over 2 key-value heads, 259 tokens, fp32.

    The tokenizer has one token a byte and SmolLM2's special tokens and chat format.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
        model_max_length=2048,
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).float()
    with no_progress_bars():
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def make_encoder(folder: Path) -> None:
    """Write `tiny-random-encoder`: a BERT of 1 layer, hidden 32, 2 heads, 260 tokens, 512 positions, fp32."""
    import torch
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    tokenizer = _byte_tokenizer(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=512,
        processor=BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config).float()
    with no_progress_bars():
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _byte_tokenizer(special: list[str], processor: Any = None, **options: Any) -> PreTrainedTokenizerFast:
    """One token a byte after the special ones, which take the first ids in their order."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    if processor is not None:
        core.post_processor = processor
    return PreTrainedTokenizerFast(tokenizer_object=core, **options)
