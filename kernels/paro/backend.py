"""The attention backends `paro` and `int4`: orders and masks from a plan, products in integers.

Axis legend: B batch, H head, N token, D channel, O order.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...registry import ATTENTION, UserError
from ..backend import AttentionBackend, Capability
from ..int4.op import has_units, paro_int4
from ..masks import BlockMask, Mask
from ..place import NO_LAYER, Place
from .numerics import PRECISIONS, paro_attention
from .op import has_control, kernels_for, paro_bf16, paro_int8
from .orders import inverse, reorder
from .plan import Plan


@ATTENTION.register("paro")
class ParoAttention(AttentionBackend):
    """PARO (arXiv 2506.16054): a plan's axis orders and 64x64 masks, products in 8 bits.

    Serves the self-attention that its plan was made for, with a mask of padding at most; every other call goes to
    `sdpa`, with the reason. The place of a call comes from `kernels.adapters.follow`. Gradients are those of the same
    attention without rounding.

    Calls on a GPU at `int8` that want no gradient are computed by the kernels for Hopper (native.py), by those in
    Triton (portable.py) where these cannot be, and by plain PyTorch (numerics.py) where neither can, with one warning
    that says why. At `int4` GPUs with 4-bit matrix units (compute capability 8.x) have a kernel (kernels/int4), at
    `bf16` Hopper GPUs. All other calls are plain PyTorch's.

    Args:
        plan: a plan, or its file.
        precision: `int8`, `int4`, `int8_qk`, `int4_qk` (P and V unrounded), `bf16` (nothing rounded to integers; on a
            CPU the same as `float`) or `float` (plain PyTorch, in float32).

    Raises:
        UserError: for a plan that can't be read, or another precision.
    """

    capability: ClassVar[Capability] = Capability(masks=("keys",))
    fallback: ClassVar[str] = "sdpa"

    def __init__(self, plan: Plan | str | Path | None = None, precision: str = "int8") -> None:
        if precision not in PRECISIONS:
            raise UserError(f"precision '{precision}' is none of {', '.join(PRECISIONS)}")
        self.plan = Plan.load(plan) if isinstance(plan, str | Path) else plan
        self.precision = PRECISIONS[precision]
        self._numbers = precision
        self.place = Place()
        self._table_ON = torch.empty(0, 0, dtype=torch.int64)
        self._edges_T = torch.empty(0)
        if self.plan is not None:
            device = self.plan.masks.device
            self._table_ON = self.plan.meta.layout.table(device)
            self._edges_T = torch.tensor(self.plan.meta.edges, dtype=torch.float32, device=device)

    def why_not(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, mask: Mask = None) -> str:
        """Why this call is not the plan's, as words that follow the backend's name; empty if it is."""
        if self.plan is None:
            return "has no plan: give one as option 'plan'"
        if q_BHND.shape[2] != k_BHMD.shape[2]:
            return "is for self-attention: this call has other keys than queries"
        layer, layout = self.place.layer, self.plan.meta.layout
        if layer == NO_LAYER:
            return "serves the layers of its plan: this call is in none, or `follow` was not called on the model"
        num_layers, num_heads = self.plan.orders.shape
        if layer >= num_layers or q_BHND.shape[1] != num_heads:
            return (
                f"has a plan of {num_layers} layers and {num_heads} heads, not for layer {layer} of {q_BHND.shape[1]}"
            )
        grid = self.place.grid
        if (grid is not None and grid != layout.grid) or q_BHND.shape[2] != layout.num_tokens:
            got = f"{q_BHND.shape[2]} tokens" + ("" if grid is None else f" of grid {'x'.join(map(str, grid))}")
            return f"has a plan for grid {'x'.join(map(str, layout.grid))} and {layout.text} text tokens, not {got}"
        if layout.text and self.place.side not in (None, layout.side):
            return f"has a plan with text as {layout.side}, and this model's text is its {self.place.side}"
        if self.place.timestep is None and self.plan.meta.edges:
            return "has a plan with several timestep bins, and the call's timestep is not known"
        return super().why_not(q_BHND, k_BHMD, v_BHME, mask)

    def move(self, device: torch.device) -> None:
        """Bring the plan to a device; a call does so itself, which torch.compile had rather not see."""
        if self.plan is not None:
            self.plan = self.plan.to(device)
        self._table_ON, self._edges_T = self._table_ON.to(device), self._edges_T.to(device)

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E] in q's dtype and in the tokens' own order."""
        assert self.plan is not None and not isinstance(mask, BlockMask)
        if self.plan.masks.device != q_BHND.device:
            self.move(q_BHND.device)
        layer, timestep = self.place.layer, self.place.timestep
        time_bin: Tensor | int = 0
        if timestep is not None and self.plan.meta.edges:
            time_bin = (timestep.flatten()[0].to(self._edges_T.device, torch.float32) < self._edges_T).sum()
        permutation_HN = self._table_ON[self.plan.orders[layer].long()]
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (q_BHND, k_BHMD, v_BHME))
        if not wanted and self.computed_by(q_BHND.device, q_BHND.dtype, q_BHND.shape[3]) != "pytorch":
            seen = None if mask is None else mask[:, 0, 0].expand(q_BHND.shape[0], -1)
            made: Tensor = OPERATORS[self._numbers](
                q_BHND, k_BHMD, v_BHME, self.plan.bits(time_bin, layer), permutation_HN.int(), seen, scale
            )
            return made
        q, k, v = (reorder(t, permutation_HN) for t in (q_BHND, k_BHMD, v_BHME))
        keys = None if mask is None else mask[:, 0, 0][:, permutation_HN].unsqueeze(2)  # [B, H, 1, N]
        out = paro_attention(
            q, k, v, self.plan.keep(time_bin, layer), key_mask_B11M=keys, scale=scale, precision=self.precision
        )
        return reorder(out, inverse(permutation_HN))

    def computed_by(self, device: torch.device, dtype: torch.dtype, width: int) -> str:
        """What computes calls that want no gradient: `hopper`, `triton`, `cutlass` or `pytorch`.

        Args:
            device, dtype: of q, k and v.
            width: channels of a head.
        """
        if device.type != "cuda" or self._numbers not in OPERATORS:
            return "pytorch"
        if self._numbers == "int4":
            return "cutlass" if has_units(device, width) else "pytorch"
        if self._numbers == "bf16":
            return "hopper" if has_control(device, dtype, width) else "pytorch"
        found, reason = kernels_for(device, dtype, width)
        if reason:
            tell(f"attention 'paro' is computed by {'Triton' if found else 'plain PyTorch'}: {reason}")
        return found or "pytorch"


OPERATORS: dict[str, Any] = {"int8": paro_int8, "int4": paro_int4, "bf16": paro_bf16}
_told: set[str] = set()


@torch.compiler.assume_constant_result
def tell(text: str) -> None:
    """Warn once."""
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=4)


@ATTENTION.register("int4")
class Int4Attention(ParoAttention):
    """PARO with all products in 4 bits: an accuracy study, emulated on GPUs without 4-bit matrix units.

    Args:
        plan: a plan, or its file.
        precision: as for `paro`.

    Raises:
        UserError: as `paro`.
    """

    def __init__(self, plan: Plan | str | Path | None = None, precision: str = "int4") -> None:
        super().__init__(plan, precision)
