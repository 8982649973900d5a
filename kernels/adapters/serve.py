"""One way for all transformers: within a block, their attention layers are computed by a backend that knows its place.

backend = make_backend("paro", plan="plan.safetensors")
with serve(pipe.transformer, backend):
    pipe(...)
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import nn

from ...registry import UserError
from ..api import AttentionBackend
from ..paro.model_hash import model_hash
from ..paro.plan import Plan
from ..place import Place
from .follow import attention_layers, follow, kind_of

NAME = "fulgurite"  # in diffusers' dispatcher


def check_plan(transformer: nn.Module, backend: AttentionBackend, weights: nn.Module | None = None) -> None:
    """See that a backend's plan, if it has one, is for this transformer.

    What only a call can tell (its grid, its number of tokens) is looked at then, and sends it to `sdpa`.

    Args:
        transformer: of one of `follow.KINDS`.
        backend: from `make_backend`.
        weights: the model that the plan has to be made for; None = the transformer itself.

    Raises:
        UserError: for a plan of other numbers of layers or heads, with text elsewhere, or made for other weights.
    """
    plan = getattr(backend, "plan", None)
    if not isinstance(plan, Plan):
        return
    meta, layers, kind = plan.meta, list(attention_layers(transformer).values()), type(transformer).__name__
    heads: Any = layers[0].heads
    if tuple(plan.orders.shape) != (len(layers), heads):
        raise UserError(
            f"the plan has {plan.orders.shape[0]} layers of {plan.orders.shape[1]} heads, this {kind} has "
            f"{len(layers)} of {heads}\nMake one: fulgurite paro calibrate."
        )
    side = kind_of(transformer).side
    if meta.text and meta.side != side:
        raise UserError(f"the plan has text as {meta.side}; this {kind} has " + (f"it as {side}" if side else "none"))
    found = model_hash(transformer if weights is None else weights) if meta.model_hash else ""
    if meta.model_hash != found:
        raise UserError(
            f"the plan was made for other weights of {meta.model or 'a model'} ({meta.model_hash[:12]}) than "
            f"these of {kind} ({found[:12]})\nMake one: fulgurite paro calibrate."
        )


class serve:
    """Hand the layers that a plan counts to a backend, and follow the transformer if the backend has a `place`.

    Our own processors (GameCraft's, CogVideoX's) are given the backend; models that ask diffusers' dispatcher are
    given a name in it; a CogVideoX transformer gets our processor for the time. Other attention in the model, such as
    cross-attention or the text's own, stays as it is.

    Args:
        transformer: of one of `follow.KINDS`.
        backend: from `make_backend`.

    Raises:
        UserError: for a class of none of the kinds, or a plan that `check_plan` refuses.
    """

    def __init__(self, transformer: nn.Module, backend: AttentionBackend) -> None:
        self._layers: dict[str, Any] = attention_layers(transformer)
        self._transformer, self._backend = transformer, backend
        self._followed: follow | None = None
        self._undo: list[tuple[Any, str, Any]] = []
        check_plan(transformer, backend)

    def __enter__(self) -> AttentionBackend:
        """Switch, and give the backend."""
        place = getattr(self._backend, "place", None)
        if isinstance(place, Place):
            self._followed = follow(self._transformer, place)
        for layer in self._layers.values():
            processor = layer.processor
            if hasattr(processor, "backend"):
                self._set(processor, "backend", self._backend)
            elif hasattr(processor, "_attention_backend"):
                from .dispatcher import register_in_diffusers

                register_in_diffusers(NAME, self._backend)
                self._set(processor, "_attention_backend", NAME)
            else:
                from .cogvideox import CogVideoXProcessor

                self._set(layer, "processor", CogVideoXProcessor(self._backend))
        return self._backend

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Everything as it was."""
        for owner, name, value in reversed(self._undo):
            setattr(owner, name, value)
        self._undo.clear()
        if self._followed is not None:
            self._followed.remove()

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)
