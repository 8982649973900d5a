"""A loss and its gradients as CUDA graphs: a step is then one launch, however many kernels it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class GraphedLoss:
    """Calls `loss(*networks, *inputs)` through CUDA graphs, forward and backward, one for each shape of the inputs.

    A graph is captured the first time that a shape comes (which compiles what is to be compiled) and lives as long as
    this object; all share one pool of memory, since a step's backward follows its forward. The loss has to be made of
    tensors alone: no random numbers, nothing that waits for the device. Networks may change their weights in place
    between steps, as optimisers and moving averages do.

    Args:
        loss: the function; returns a scalar, or several of which the first is the loss.
        networks: modules that it is called with; those with gradients are trained.
    """

    def __init__(self, loss: Callable[..., Any], *networks: nn.Module) -> None:
        self._loss, self._networks = loss, networks
        self._graphs: dict[Any, Callable[..., Any]] = {}
        self._pool: Any = None

    def __call__(self, *inputs: Tensor) -> Any:
        """The loss, with gradients to the networks' parameters."""
        shapes = tuple(x.shape for x in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(inputs)
        return self._graphs[shapes](*inputs)

    def _capture(self, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
        quiet = getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", None)
        if quiet is not None:  # capturing has a stream of its own, for which torch would warn at every run
            quiet(False)
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        module = _Module(self._loss, self._networks)
        dtype, on = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
        # weights cast to bfloat16 must be cast anew at each replay, not kept from the capture
        with torch.autocast("cuda", dtype, on, cache_enabled=False):
            copies = tuple(x.clone() for x in inputs)
            graphed: Any = torch.cuda.make_graphed_callables(module, copies, allow_unused_input=True, pool=self._pool)
        made: Callable[..., Any] = graphed
        return made


class _Module(nn.Module):
    def __init__(self, loss: Callable[..., Any], networks: tuple[nn.Module, ...]) -> None:
        super().__init__()
        self.loss, self.networks = loss, nn.ModuleList(networks)

    def forward(self, *inputs: Tensor) -> Any:
        return self.loss(*self.networks, *inputs)
