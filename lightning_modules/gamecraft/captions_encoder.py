"""Captions as conditions: MiniLM's token states and their mean, kept in a bank so that a release needs no MiniLM.

Axis legend: B caption asked for, P caption in the bank, L token (16), C channel (384).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...registry import UserError

if TYPE_CHECKING:
    from ...datamodules.dnd.conditions import PromptEncoder

SCHEMA_VERSION = 1
Captions = tuple[Tensor, Tensor, Tensor]  # states [B, L, C], mask [B, L] bool, pooled [B, C]


class CaptionEncoder:
    """Frozen sentence encoder with a bank of the captions it has met; the empty caption is the unconditional one.

    A caption that the bank lacks loads the encoder, on the CPU, once. States are rounded to half precision when they
    enter the bank, so that a caption means the same before and after the bank was saved.

    Args:
        encoder: model name (`datamodules.sources.models.resolve_model`).
        length: L, tokens of a caption; longer ones are cut.
    """

    def __init__(self, encoder: str = "minilm-l6", length: int = 16) -> None:
        self.encoder, self.length = encoder, length
        self._rows: dict[str, int] = {}
        self._states_PLC = torch.empty(0)
        self._mask_PL = torch.empty(0, length, dtype=torch.bool)
        self._model: PromptEncoder | None = None

    @property
    def known(self) -> tuple[str, ...]:
        """The bank's captions."""
        return tuple(self._rows)

    def __call__(self, captions: Sequence[str]) -> Captions:
        """Token states [B, L, C] float32, their mask [B, L] (True = a token), their mean [B, C]; all on the CPU.

        Raises:
            UserError: if the encoder is needed and can't be had.
        """
        new = [c for c in dict.fromkeys(captions) if c not in self._rows]
        if new:
            self._add(new)
        rows_B = torch.tensor([self._rows[caption] for caption in captions])
        states_BLC, mask_BL = self._states_PLC[rows_B].float(), self._mask_PL[rows_B]
        count_B1 = mask_BL.sum(1, keepdim=True)
        pooled_BC = (states_BLC * mask_BL.unsqueeze(-1)).sum(1) / count_B1
        return states_BLC, mask_BL, pooled_BC

    @torch.no_grad()
    def _add(self, captions: list[str]) -> None:
        if self._model is None:
            from ...datamodules.dnd.conditions import PromptEncoder

            self._model = PromptEncoder(self.encoder, self.length, device=torch.device("cpu"))
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": self.length}
        tokens = self._model.tokenizer(captions, return_tensors="pt", **options)
        with torch.autocast("cpu", enabled=False):  # the bank is the same whatever precision the training has
            states_PLC = self._model.model(**tokens).last_hidden_state.half()
            self._states_PLC = torch.cat([self._states_PLC, states_PLC]) if self._rows else states_PLC
        self._mask_PL = torch.cat([self._mask_PL, tokens["attention_mask"].bool()])
        self._rows |= {caption: len(self._rows) + i for i, caption in enumerate(captions)}

    def save(self, path: str | Path) -> None:
        """Write the bank (safetensors; the captions stand in its metadata), atomically; the empty caption is in it.

        Raises:
            UserError: if the encoder is needed and can't be had.
        """
        from safetensors.torch import save_file

        from ...datamodules.files import atomic_write

        self([""])
        about = {"encoder": self.encoder, "length": self.length, "captions": self.known}
        metadata = {"schema_version": str(SCHEMA_VERSION), "about": json.dumps(about)}
        with atomic_write(path) as temporary:
            save_file({"states": self._states_PLC, "mask": self._mask_PL}, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path) -> CaptionEncoder:
        """A bank that `save` wrote.

        Raises:
            UserError: if there is none, it is damaged, or of another version.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("schema_version") != str(SCHEMA_VERSION):
                    raise UserError(f"{path}: a bank of captions of another version than {SCHEMA_VERSION}")
                about = json.loads(metadata["about"])
                made = cls(about["encoder"], about["length"])
                made._states_PLC, made._mask_PL = file.get_tensor("states"), file.get_tensor("mask")
                made._rows = {caption: row for row, caption in enumerate(about["captions"])}
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path}: no bank of captions can be read here: {error}") from None
        return made
