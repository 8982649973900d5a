"""The trained chunker's network: pictures, numbers and words of items, in order, to roles, breaks and flags.

Axis legend: B batch, N item, S state token, L = S + N, F number, C text channel, D width, H pixels down, W across,
A attention head, R role.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....datamodules.chunking.labels import FLAGS
from ....datamodules.chunking.layout.features import NUM_OWN, NUM_RELATED
from ....datamodules.chunking.layout.state import NUM_STATE, NUM_STATE_FEATURES
from ....datamodules.chunking.layout.text_states import WIDTH as TEXT_WIDTH
from ....datamodules.chunking.typeset.truth import ROLES

MAX_APART = 32  # items; farther ones are as far as this


@dataclass(frozen=True)
class Judgement:
    """Logits of each item: role [B, N, R], begins [B, N, 2], flag [B, N, 3]."""

    role: Tensor
    begins: Tensor
    flag: Tensor


class ChunkerNetwork(nn.Module):
    """A small transformer over the items of a batch, behind the tokens of the carried state.

    Attention has no absolute places: each head learns a bias for how many items apart two items stand, for a page
    in common, and for the state's tokens, which all items see.

    Args:
        width: D.
        num_layers: of the transformer.
        num_heads: A.
        dropout: of the transformer.
        text_dropout: share of items whose words are withheld while training: made-up documents repeat theirs.
    """

    def __init__(
        self,
        width: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        dropout: float = 0.1,
        text_dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.text_dropout = text_dropout
        self.numbers = nn.Sequential(nn.Linear(NUM_OWN + NUM_RELATED, width), nn.GELU(), nn.Linear(width, width))
        self.words = nn.Linear(TEXT_WIDTH, width, bias=False)
        self.picture = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(32 * 2 * 6, width),
        )
        self.state = nn.Linear(NUM_STATE_FEATURES, width)
        self.state_words = nn.Linear(TEXT_WIDTH, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.apart = nn.Embedding(2 * MAX_APART + 1, num_heads)
        self.same_page = nn.Parameter(torch.zeros(num_heads))
        self.to_state = nn.Parameter(torch.zeros(num_heads))
        self.layers = nn.ModuleList(_Layer(width, num_heads, dropout) for _ in range(num_layers))
        self.last_norm = nn.LayerNorm(width)
        self.role = nn.Linear(width, len(ROLES))
        self.begins = nn.Linear(width, 2)
        self.flag = nn.Linear(width, len(FLAGS))
        nn.init.zeros_(self.apart.weight)

    @property
    def num_parameters(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, batch: dict[str, Tensor]) -> Judgement:
        """What is thought of each item.

        Args:
            batch: of datamodules.chunking.module.collate; labels are not looked at.
        """
        text_BNC = batch["text"]
        if self.training and self.text_dropout:
            kept = torch.rand(text_BNC.shape[:2], device=text_BNC.device) >= self.text_dropout
            text_BNC = text_BNC * kept[..., None]
        items_BND = self.numbers(torch.cat([batch["own"], batch["related"]], -1)) + self.words(text_BNC)
        items_BND = items_BND + self._pictures(batch["crops"])
        state_BSD = self.state(batch["state"]) + self.state_words(batch["state_text"])
        x_BLD = self.norm(torch.cat([state_BSD, items_BND], 1))
        bias_BALL = self._bias(batch["page"], batch["is_item"])
        for layer in self.layers:
            x_BLD = layer(x_BLD, bias_BALL)
        x_BND = self.last_norm(x_BLD[:, NUM_STATE:])
        return Judgement(self.role(x_BND), self.begins(x_BND), self.flag(x_BND))

    def _pictures(self, crops_BNHW: Tensor) -> Tensor:
        dark_BNHW = 1 - crops_BNHW.float() / 255
        found: Tensor = self.picture(dark_BNHW.flatten(0, 1)[:, None])
        return found.unflatten(0, crops_BNHW.shape[:2])

    def _bias(self, page_BN: Tensor, is_item_BN: Tensor) -> Tensor:
        place_N = torch.arange(page_BN.shape[1], device=page_BN.device)
        apart_NN = (place_N[None] - place_N[:, None]).clamp(-MAX_APART, MAX_APART) + MAX_APART
        same_BNN = (page_BN[:, None] == page_BN[:, :, None]).to(self.same_page.dtype)
        bias_BANN = self.apart(apart_NN).permute(2, 0, 1)[None] + same_BNN[:, None] * self.same_page[:, None, None]
        bias_BALL = functional.pad(bias_BANN, (NUM_STATE, 0, NUM_STATE, 0))
        is_state_L = torch.arange(bias_BALL.shape[-1], device=page_BN.device) < NUM_STATE
        bias_BALL = bias_BALL + is_state_L * self.to_state[:, None, None]
        is_key_BL = functional.pad(is_item_BN, (NUM_STATE, 0), value=True)
        return bias_BALL.masked_fill(~is_key_BL[:, None, None], float("-inf"))


class _Layer(nn.Module):
    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 3 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(3 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x_BLD: Tensor, bias_BALL: Tensor) -> Tensor:
        parts = self.qkv(self.first(x_BLD)).chunk(3, -1)
        q, k, v = (p.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for p in parts)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias_BALL, dropout_p=dropout)
        x_BLD = x_BLD + self.out(mixed.transpose(1, 2).flatten(2))
        found: Tensor = x_BLD + self.mlp(self.second(x_BLD))
        return found
