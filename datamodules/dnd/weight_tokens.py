"""LoRA weights as a sequence of equal tokens, and back without loss (arXiv 2506.16406, its tokenizer.py).

Axis legend: T weight token, R LoRA rank, C chunk, H rank + 2, W chunk + 2, S snapshot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...registry import UserError
from .lora_layout import Shape, check_same, check_shapes, file_key, matrix_side, matrix_width

SCHEMA_VERSION = 1


class WeightTokenizer:
    """Cuts the LoRA matrices of one adapter into tokens of one shape, and puts them together again.

    Layers come in numerical order; inside a layer q, k, v, o, up, gate, down, then other modules by name; modules
    outside of the layers come last; A comes before B. A [rank, d_in] is cut along d_in, B [d_out, rank] is transposed
    and cut along d_out. Each piece is standardised (unbiased std) and gets two more rows and two more columns that
    hold its scale code m' = 8 mean, s' = ln(0.9 std + 0.1) + 1.6: the rows repeat m', s', m', s', ...; of the columns
    the first holds m', the second s'.

    Deviation: the authors standardise with the exact mean and std, and decode with what fp32 left of them in the
    code, which makes B off by 2e-5 at a std of 1e-4. Here the code is rounded to fp32 first and the piece is
    standardised with the mean and std that this code decodes to, so that the round trip is exact to fp32 rounding at
    every scale. A std below 7e-9 is coded as the smallest positive std that a code can hold; a constant piece becomes
    zeros. A negative decoded std, which only a generator's error gives, counts as zero.

    Args:
        rank: LoRA rank of every matrix; even, so that the scale rows and columns agree in their corner.
        chunk: width of a piece; even, and a divisor of every d_in and d_out.

    Raises:
        UserError: if rank or chunk is odd or not positive.
    """

    def __init__(self, rank: int, chunk: int) -> None:
        for name, value in (("rank", rank), ("chunk", chunk)):
            if value < 2 or value % 2:
                remedy = "Train LoRAs of an even rank." if name == "rank" else "Take an even divisor of all widths."
                raise UserError(
                    f"weight tokens need an even {name} of at least 2, got {name}={value}\n"
                    f"The scale code is written in pairs along both axes of a token. {remedy}"
                )
        self.rank = rank
        self.chunk = chunk
        self._shapes: dict[str, Shape] = {}

    @classmethod
    def from_shapes(cls, shapes: Mapping[str, tuple[int, ...]], *, rank: int, chunk: int) -> WeightTokenizer:
        """A tokenizer that knows its layout from shapes alone.

        Args:
            shapes: PEFT key -> shape, A [rank, d_in] and B [d_out, rank].
            rank: LoRA rank.
            chunk: width of a piece.

        Raises:
            UserError: if a key is no LoRA matrix, one of a pair is missing, or a shape doesn't fit rank or chunk.
        """
        tokenizer = cls(rank, chunk)
        tokenizer._shapes = check_shapes({file_key(k): tuple(s) for k, s in shapes.items()}, rank, chunk)
        return tokenizer

    @classmethod
    def from_adapter(cls, state: Mapping[str, Tensor], chunk: int | None = None) -> WeightTokenizer:
        """A tokenizer for one adapter: its rank, and the widest chunk that divides every d_in and d_out.

        Args:
            state: PEFT's adapter weights.
            chunk: narrower width to take instead of the widest.

        Raises:
            UserError: if the state holds no LoRA, several ranks, or sizes without a common even divisor.
        """
        shapes = {file_key(k): tuple(v.shape) for k, v in state.items()}
        ranks = sorted({s[0] if matrix_side(k) == "A" else s[-1] for k, s in shapes.items() if len(s) == 2})
        if len(ranks) != 1:
            raise UserError(
                "weight tokens need one LoRA rank in all matrices, "
                + (f"this adapter has {', '.join(map(str, ranks))}" if ranks else "this adapter has no LoRA matrix")
            )
        if chunk is None:
            widest = math.gcd(*(matrix_width(k, s) for k, s in shapes.items() if len(s) == 2))
            chunk = widest if widest % 2 == 0 else 0
            if not chunk:
                raise UserError(
                    f"the sizes of this adapter's layers have no even common divisor (their greatest is {widest}),\n"
                    "so no chunk cuts them all. Adapt only layers with even sizes."
                )
        return cls.from_shapes(shapes, rank=ranks[0], chunk=chunk)

    @classmethod
    def from_layout(cls, layout: Mapping[str, Any]) -> WeightTokenizer:
        """The tokenizer that `layout()` described.

        Raises:
            UserError: if the layout is of another schema version or isn't one.
        """
        version = layout.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"weight-token layout has schema_version {version!r}, this version of fulgurite reads {SCHEMA_VERSION}"
            )
        try:
            shapes = {key: tuple(shape) for key, shape in layout["shapes"].items()}
            return cls.from_shapes(shapes, rank=int(layout["rank"]), chunk=int(layout["chunk"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"weight-token layout is incomplete: {type(error).__name__}: {error}") from error

    def layout(self) -> dict[str, Any]:
        """What `from_layout` needs, as plain JSON: schema_version, rank, chunk, and shapes in token order.

        Raises:
            UserError: if no layout has been learned yet.
        """
        shapes = {key: list(shape) for key, shape in self.shapes.items()}
        return {"schema_version": SCHEMA_VERSION, "rank": self.rank, "chunk": self.chunk, "shapes": shapes}

    def fit(self, state: Mapping[str, Tensor]) -> WeightTokenizer:
        """Learn keys and shapes from one adapter, replacing what was known; returns itself.

        Raises:
            UserError: as `from_shapes`; also if two adapters are in `state`.
        """
        self._shapes = check_shapes({k: tuple(v.shape) for k, v in _by_file_key(state).items()}, self.rank, self.chunk)
        return self

    @property
    def shapes(self) -> dict[str, Shape]:
        """Key in PEFT's file form (no adapter name) -> shape, in token order.

        Raises:
            UserError: if no layout has been learned yet.
        """
        if not self._shapes:
            raise UserError("this WeightTokenizer knows no layout yet: call fit(state), or use from_shapes(...)")
        return self._shapes

    @property
    def num_tokens(self) -> int:
        """Number of tokens of an adapter.

        Raises:
            UserError: if no layout has been learned yet.
        """
        return sum(matrix_width(key, shape) // self.chunk for key, shape in self.shapes.items())

    @property
    def token_shape(self) -> Shape:
        """(rank + 2, chunk + 2)."""
        return (self.rank + 2, self.chunk + 2)

    @property
    def mask(self) -> Tensor:
        """Bool [num_tokens, rank + 2, chunk + 2], True where a cell is used: everywhere, since chunks divide all sizes.

        Raises:
            UserError: if no layout has been learned yet.
        """
        return torch.ones(self.num_tokens, *self.token_shape, dtype=torch.bool)

    def tokenize(self, state: Mapping[str, Tensor]) -> Tensor:
        """Adapter to tokens. The first call learns the layout, unless it is known already.

        Args:
            state: PEFT's adapter weights, any floating dtype, with or without the adapter's name in the keys.

        Returns:
            [num_tokens, rank + 2, chunk + 2], fp32, on the state's device.

        Raises:
            UserError: if the state doesn't fit the layout, or holds NaN or infinities.
        """
        weights = _by_file_key(state)
        if not self._shapes:
            self.fit(state)
        check_same({key: tuple(value.shape) for key, value in weights.items()}, self._shapes)
        pieces = []
        for key in self._shapes:
            matrix_RD = weights[key].detach() if matrix_side(key) == "A" else weights[key].detach().T
            pieces.append(matrix_RD.float().reshape(self.rank, -1, self.chunk).transpose(0, 1))
        piece_TRC = torch.cat(pieces).to(_wide_device(pieces[0])).double()
        if not piece_TRC.isfinite().all():  # asked once: on a GPU each question waits for all that was begun
            key = next(k for k in self._shapes if not weights[k].isfinite().all())
            raise UserError(f"{key} holds NaN or infinities: its fine-tuning diverged. Take an earlier snapshot.")
        code_T2 = _encode_scale(piece_TRC)
        mean_T, std_T = _decode_scale(code_T2[:, 0].double(), code_T2[:, 1].double())
        token_THW = code_T2.new_empty(len(piece_TRC), *self.token_shape)
        token_THW[:, : self.rank, : self.chunk] = (piece_TRC - mean_T[:, None, None]) / std_T[:, None, None]
        token_THW[:, self.rank :] = code_T2.repeat(1, self.token_shape[1] // 2)[:, None]
        token_THW[:, :, self.chunk :] = code_T2[:, None]
        return token_THW.to(pieces[0].device)

    def detokenize(self, tokens: Tensor) -> dict[str, Tensor]:
        """Tokens to adapter.

        The scale is read from the rows (mean of their copies) and from the columns, each decoded, and the two are
        averaged. A decoded std below zero, which only a generator's error gives, counts as zero.

        Args:
            tokens: [num_tokens, rank + 2, chunk + 2], any floating dtype; keep the generator's last layer in fp32.

        Returns:
            Key in PEFT's file form (no adapter name) -> fp32 tensor, A [rank, d_in] and B [d_out, rank], contiguous.

        Raises:
            UserError: if no layout is known, or the tokens don't have its shape.
        """
        expected = (self.num_tokens, *self.token_shape)
        if tuple(tokens.shape) != expected:
            raise UserError(f"tokens must be {list(expected)} for this layout, got {list(tokens.shape)}")
        token_THW = tokens.detach().to(_wide_device(tokens)).double()
        row_TW, column_THX = token_THW[:, self.rank :].mean(1), token_THW[:, :, self.chunk :]
        by_rows = _decode_scale(row_TW[:, 0::2].mean(1), row_TW[:, 1::2].mean(1))
        by_columns = _decode_scale(column_THX[:, :, 0].mean(1), column_THX[:, :, 1].mean(1))
        mean_T = (by_rows[0] + by_columns[0]) / 2
        std_T = ((by_rows[1] + by_columns[1]) / 2).clamp_min(0)
        piece_TRC = token_THW[:, : self.rank, : self.chunk] * std_T[:, None, None] + mean_T[:, None, None]
        piece_TRC = piece_TRC.float().to(tokens.device)
        state, start = {}, 0
        for key, shape in self.shapes.items():
            stop = start + matrix_width(key, shape) // self.chunk
            matrix_RD = piece_TRC[start:stop].transpose(0, 1).reshape(self.rank, -1)
            state[key] = (matrix_RD if matrix_side(key) == "A" else matrix_RD.T).contiguous()
            start = stop
        return state


def token_weights(token_stacks: Iterable[Tensor]) -> Tensor:
    """Loss weight of every token, from how much it varies over the snapshots of a task.

    Per task: the std of each cell over the snapshots, divided by the sum over all cells, averaged inside a token,
    times the number of cells, so that the mean weight is 1. Then the mean over tasks. A task with one snapshot, or
    whose snapshots are all equal, weighs all tokens alike. The paper says plain MSE; this is the authors' code.

    Args:
        token_stacks: for each task, [snapshots, T, H, W], as `WeightTokenizer.tokenize` gives them, stacked. An
            iterator is read once, so that one task at a time has to be in memory.

    Returns:
        [T], fp32, mean 1.

    Raises:
        ValueError: if there is no task, or one has no snapshots or another number of tokens.
    """
    weights: list[Tensor] = []
    for stack_STHW in token_stacks:
        if stack_STHW.ndim != 4 or len(stack_STHW) == 0:
            raise ValueError(f"a task's tokens must be [snapshots >= 1, T, H, W], got {list(stack_STHW.shape)}")
        std_T = stack_STHW.float().var(dim=0, correction=0).sqrt().mean(dim=(1, 2), dtype=torch.float64)
        mean = std_T.mean()
        weights.append(std_T / mean if mean > 0 else torch.ones_like(std_T))
        if len(weights[-1]) != len(weights[0]):
            raise ValueError(f"tasks differ in their number of tokens: {len(weights[0])} and {len(weights[-1])}")
    if not weights:
        raise ValueError("token weights need the snapshots of at least one task")
    return torch.stack(weights).mean(0).float()


def _encode_scale(piece_TRC: Tensor) -> Tensor:
    """Scale code [T, 2] in fp32 of pieces in float64; s' is raised until it decodes to a std above zero."""
    mean_T = piece_TRC.mean(dim=(1, 2))
    std_T = piece_TRC.std(dim=(1, 2))
    mean_code_T = (8 * mean_T).float()
    std_code_T = ((0.9 * std_T + 0.1).log() + 1.6).float()
    while not (positive_T := _decode_scale(mean_code_T.double(), std_code_T.double())[1] > 0).all():
        std_code_T = torch.where(positive_T, std_code_T, torch.nextafter(std_code_T, torch.zeros_like(std_code_T)))
    return torch.stack([mean_code_T, std_code_T], dim=-1)


def _decode_scale(mean_code_T: Tensor, std_code_T: Tensor) -> tuple[Tensor, Tensor]:
    return mean_code_T / 8, ((std_code_T - 1.6).exp() - 0.1) / 0.9


def _wide_device(tensor: Tensor) -> torch.device:
    """Where float64 works: Apple's GPUs have none."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device


def _by_file_key(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for key, value in state.items():
        name = file_key(key)
        if name in weights:
            raise UserError(f"the state holds {name} of two adapters. Give the weights of one.")
        weights[name] = value
    return weights
