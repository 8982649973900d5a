"""Attention by name: one signature, [B, H, N, D], for every backend.

    out_BHND = attention(q_BHND, k_BHND, v_BHND, mask=mask)
    with use_attention("reference"):
        model(x)

The backend is chosen by the argument `backend`, else by the `use_attention` block around the call, else it is `sdpa`.
One that cannot compute what is asked is replaced by another (`reference`, if it names none), with one warning that
says why.

Axis legend: B batch, H head, N query, M key, D head channel, E value channel.
"""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..registry import ATTENTION, UserError
from .backend import AttentionBackend, Capability
from .masks import BlockMask, Mask, check_mask
from .reference import ReferenceAttention
from .sdpa import SdpaAttention

__all__ = ["AttentionBackend", "BlockMask", "Capability", "attention", "capability", "make_backend", "use_attention"]

# read while torch.compile traces, which guards on them: a compiled model follows use_attention by compiling again
_ready: dict[str, AttentionBackend] = {"reference": ReferenceAttention(), "sdpa": SdpaAttention()}
_current: AttentionBackend = _ready["sdpa"]
_told: set[str] = set()


def attention(
    q_BHND: Tensor,
    k_BHMD: Tensor,
    v_BHME: Tensor,
    *,
    mask: Mask = None,
    scale: float | None = None,
    backend: str | AttentionBackend | None = None,
) -> Tensor:
    """softmax(q k^T * scale) v over the keys that the mask keeps; a row that keeps none gives zeros.

    Args:
        q_BHND: queries [B, H, N, D], any floating dtype and strides.
        k_BHMD: keys [B, H, M, D].
        v_BHME: values [B, H, M, E].
        mask: bool [B or 1, H or 1, N or 1, M] with True = keep, or a `BlockMask`.
        scale: factor of the scores; None is D ** -0.5.
        backend: name in the registry of attention backends, or one made by `make_backend`; None follows
            `use_attention`.

    Returns:
        [B, H, N, E] in q's dtype.

    Raises:
        UserError: for a name that does not exist.
        ValueError, TypeError: for shapes or a mask that do not fit.
    """
    if k_BHMD.shape != (*q_BHND.shape[:2], v_BHME.shape[2], q_BHND.shape[3]) or v_BHME.shape[:2] != q_BHND.shape[:2]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (q_BHND, k_BHMD, v_BHME))
        raise ValueError(f"q, k, v of shapes {shapes} are no [B,H,N,D], [B,H,M,D], [B,H,M,E]")
    check_mask(mask, q_BHND, k_BHMD)
    chosen = _current if backend is None else _find(backend) if isinstance(backend, str) else backend
    reason = chosen.why_not(q_BHND, k_BHMD, v_BHME, mask)
    if reason:
        _tell(f"attention '{_name(chosen)}' {reason}; '{chosen.fallback}' takes its place")
        chosen = _find(chosen.fallback)
    return chosen(q_BHND, k_BHMD, v_BHME, mask=mask, scale=q_BHND.shape[-1] ** -0.5 if scale is None else scale)


class use_attention:
    """Within this block `attention` uses the named backend wherever no other is named.

    It holds for the whole process, not for one thread. torch.compile sees it: a compiled model compiles once more for
    each backend.

    Args:
        name: name in the registry of attention backends, or a backend made by `make_backend`.
        options: the backend's own, such as a plan.

    Raises:
        UserError: for an unknown name or option.
    """

    def __init__(self, name: str | AttentionBackend, **options: Any) -> None:
        self._backend = make_backend(name, **options) if isinstance(name, str) else name

    def __enter__(self) -> AttentionBackend:
        """Switch, and give the backend."""
        global _current
        self._before, _current = _current, self._backend
        return self._backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Switch back."""
        global _current
        _current = self._before


def make_backend(name: str, **options: Any) -> AttentionBackend:
    """The backend of that name, made once if it has no options.

    Raises:
        UserError: for an unknown name or option.
    """
    if not options and name in _ready:
        return _ready[name]
    try:
        made: AttentionBackend = ATTENTION[name](**options)
    except TypeError as error:
        raise UserError(f"attention '{name}' can't be made with {', '.join(options)}: {error}") from None
    made.name = name
    if not options:
        _ready[name] = made
    return made


def capability(name: str, **options: Any) -> Capability:
    """What the backend of that name can compute.

    Raises:
        UserError: for an unknown name or option.
    """
    return make_backend(name, **options).capability


def _name(backend: AttentionBackend) -> str:
    return next((name for name, made in _ready.items() if made is backend), backend.name or type(backend).__name__)


@torch.compiler.assume_constant_result
def _tell(text: str) -> None:
    """Warn once; while torch.compile traces, this runs in the tracing and leaves nothing in the graph."""
    if text not in _told:
        _told.add(text)
        warnings.warn(text, stacklevel=3)


def _find(name: str) -> AttentionBackend:
    """The backend made for this name; a new one is looked up, which torch.compile cannot trace."""
    return _ready[name] if name in _ready else make_backend(name)
