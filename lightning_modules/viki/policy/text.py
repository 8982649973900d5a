"""Texts into tokens: Qwen's chat form, and a byte-pair vocabulary of our own for small policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from ....datamodules.files import atomic_write, write_json
from ....registry import UserError

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL = (PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO)
FILE = "tokenizer.json"
_PIECES = r" ?[A-Za-z_]+[0-9]?|[0-9]|\n+|[^A-Za-z_0-9\n]+"
"""Words, digits one by one, and the signs between them, so that JSON's are few tokens."""


class Texts:
    """Turns chats into tokens and tokens into answers.

    Args:
        tokenizer: with Qwen's special tokens.

    Raises:
        UserError: if one of those is missing.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        numbers = {text: n for text in SPECIAL if (n := tokenizer.token_to_id(text)) is not None}
        missing = [text for text in SPECIAL if text not in numbers]
        if missing:
            raise UserError(f"the tokenizer has no {', '.join(missing)}: it is not of Qwen2.5-VL's family")
        self.pad, self.end, self.image = numbers[PAD], numbers[END], numbers[IMAGE]
        self.special = numbers

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def prompts(self, chats: Iterable[tuple[str, str, Sequence[int]]]) -> list[list[int]]:
        """Tokens of prompts, up to where the answer begins.

        Args:
            chats: system prompt, instruction, and how many tokens each picture before it has.

        Raises:
            UserError: if words hold one of Qwen's special tokens, which would end the chat or stand for a picture.
        """
        texts = []
        for system, instruction, pictures in chats:
            held = next((mark for mark in SPECIAL if mark in system or mark in instruction), None)
            if held is not None:
                raise UserError(f"a prompt's words hold {held}, a special token of Qwen's: write it in another way")
            seen = "".join(f"{VISION_START}{IMAGE * count}{VISION_END}" for count in pictures)
            told = f"{START}system\n{system}{END}\n" if system else ""
            texts.append(f"{told}{START}user\n{seen}{instruction}{END}\n{START}assistant\n")
        return [coded.ids for coded in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def answers(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of answers, each with its end token."""
        coded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[*one.ids, self.end] for one in coded]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Texts of answers, without special tokens."""
        return list(self.tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=True))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, and what transformers wants beside it."""
        with atomic_write(folder / FILE) as temporary:
            self.tokenizer.save(str(temporary))
        told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": PAD}
        write_json(folder / "tokenizer_config.json", told)

    @classmethod
    def load(cls, folder: Path) -> Texts:
        """Read a folder's tokenizer.json, ours or a released one.

        Raises:
            UserError: if there is none.
        """
        if not (folder / FILE).is_file():
            raise UserError(f"{folder}: there is no {FILE}, so this is no policy")
        return cls(Tokenizer.from_file(str(folder / FILE)))

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Texts:
        """Learn a byte-level vocabulary; any text can be written in it.

        Args:
            texts: what it has to write in few tokens.
            vocab_size: at most, special tokens counted in.
        """
        tokenizer = Tokenizer(models.BPE())
        pieces = pre_tokenizers.Split(Regex(_PIECES), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)
