"""Our backends in diffusers' attention dispatcher: `model.set_attention_backend("paro")` for Wan, Flux, HunyuanVideo.

diffusers has no public way to add a name: its enumeration gets a member here, which its registry then takes like its
own. tests/kernels/adapters hold this to the versions that pyproject.toml allows. CogVideoX does not ask the
dispatcher: `cogvideox.py`.
"""

from __future__ import annotations

from typing import Any

from diffusers.models import attention_dispatch
from torch import Tensor

from ...registry import UserError
from ..api import AttentionBackend, attention, make_backend

_made: dict[str, AttentionBackend] = {}


def register_in_diffusers(name: str, backend: AttentionBackend | None = None, **options: Any) -> AttentionBackend:
    """Make a backend selectable in diffusers under its name; called again, the new one takes the old one's place.

    Cross-attention, masked calls and calls that a plan does not fit go where `kernels.api.attention` sends them, with
    one warning. Setting the name on a model sets it for diffusers' whole process too: that is diffusers' doing.

    Args:
        name: what diffusers shall call it; a registered attention backend's name if `backend` is not given.
        backend: one made by `make_backend`.
        options: those of the named backend, such as `plan`.

    Returns:
        The backend, whose `place` a plan needs followed (`follow`).

    Raises:
        UserError: for an unknown name or option, or one that diffusers has itself.
    """
    backend = backend or make_backend(name, **options)
    names = attention_dispatch.AttentionBackendName
    if name not in _made:
        if name in names._value2member_map_:
            raise UserError(f"diffusers has an attention backend '{name}' of its own")
        member = str.__new__(names, name)
        key = name.upper()
        member._name_, member._value_ = key, name
        names._member_map_[key] = member
        names._value2member_map_[name] = member
        names._member_names_.append(key)
        attention_dispatch._AttentionBackendRegistry.register(member)(_Dispatched(name))
    _made[name] = backend
    return backend


class _Dispatched:
    """What diffusers' registry calls; layout [B, N, H, D]."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if dropout_p or is_causal or (attn_mask is not None and attn_mask.dtype.is_floating_point):
            raise UserError(f"attention '{self._name}' in diffusers takes no dropout, causal call or additive mask")
        if enable_gqa:
            repeats = query.shape[2] // key.shape[2]
            key, value = key.repeat_interleave(repeats, 2), value.repeat_interleave(repeats, 2)
        q_BHND, k_BHMD, v_BHMD = (t.transpose(1, 2) for t in (query, key, value))
        mask = attn_mask if attn_mask is None or attn_mask.ndim == 4 else attn_mask[:, None, None]
        out = attention(q_BHND, k_BHMD, v_BHMD, mask=mask, scale=scale, backend=_made[self._name])
        return out.transpose(1, 2)
