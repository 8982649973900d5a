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
from ..paro.backend import ParoAttention
from ..paro.model_hash import model_hash
from ..place import Place
from .follow import attention_layers, follow

NAME = "fulgurite"  # in diffusers' dispatcher


class serve:
    """Hand the layers that a plan counts to a backend, and follow the transformer if the backend has a `place`.

    Our own processors (GameCraft's, CogVideoX's) are given the backend; models that ask diffusers' dispatcher are
    given a name in it; a CogVideoX transformer gets our processor for the time. Other attention in the model, such as
    cross-attention or the text's own, stays as it is.

    Args:
        transformer: of one of `follow.KINDS`.
        backend: from `make_backend`.

    Raises:
        UserError: for a class of none of the kinds, or a plan that was made for other weights.
    """

    def __init__(self, transformer: nn.Module, backend: AttentionBackend) -> None:
        self._layers: dict[str, Any] = attention_layers(transformer)
        self._transformer, self._backend = transformer, backend
        self._followed: follow | None = None
        self._undo: list[tuple[Any, str, Any]] = []
        if isinstance(backend, ParoAttention) and backend.plan is not None and backend.plan.meta.model_hash:
            meta, found = backend.plan.meta, model_hash(transformer)
            if meta.model_hash != found:
                raise UserError(
                    f"the plan was made for other weights of {meta.model or 'a model'} ({meta.model_hash[:12]}) than "
                    f"these of {type(transformer).__name__} ({found[:12]})\nMake one: fulgurite paro calibrate."
                )

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
