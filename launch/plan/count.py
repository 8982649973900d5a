"""Counting one step: parameters, floating-point operations, and the bytes that the backward pass needs.

All runs with tensors that have a shape and no memory (FakeTensorMode), so the largest model takes no space. Operations
are torch's own count (torch.utils.flop_counter: matrix products, convolutions, attention). The bytes kept for the
backward pass are those of every tensor that autograd saves, each storage once, without the weights themselves.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from ...lightning_modules.planned import Planned


@dataclass(frozen=True)
class Counted:
    """One micro-batch on one device, unsharded.

    Attributes:
        trained: parameters that are trained.
        frozen: parameters that are not, of the network and beside it.
        weight_bytes: of the trained parameters as they lie in memory.
        frozen_bytes: of the others.
        state_bytes: of the optimiser's state, after its first step.
        kept_bytes: saved for the backward pass; with checkpointed blocks, their inputs and the largest block.
        largest_block: bytes of the largest module that FSDP gathers at a time.
        forward_flops: of the forward pass.
        step_flops: of forward and backward pass and the optimiser; checkpointing repeats the forward pass.
    """

    trained: int
    frozen: int
    weight_bytes: int
    frozen_bytes: int
    state_bytes: int
    kept_bytes: int
    largest_block: int
    forward_flops: float
    step_flops: float


def count(
    make: Callable[[], Planned],
    optimizer: Callable[[list[nn.Parameter]], Any],
    precision: str,
    known: dict[Hashable, Counted] | None = None,
    what: Hashable = None,
) -> tuple[Planned, Counted]:
    """Count a planned step.

    Args:
        make: makes the networks and the loss; called where tensors have no memory.
        optimizer: makes an optimiser of parameters.
        precision: Lightning's, such as `bf16-mixed`.
        known: earlier counts; of a step like one among them nothing is counted again, and a new one is added.
        what: names the kind of step and optimiser: two steps are alike where this, the weights' shapes, samples and
            units are the same.

    Returns:
        What was made, and the count.
    """
    warnings.filterwarnings("ignore", message=".*data pointer of FakeTensor.*")
    with FakeTensorMode(allow_non_fake_inputs=True), _no_initialisation():
        planned = make()
        likeness = (what, precision, _shapes(planned))
        if known is not None and likeness in known:
            return planned, known[likeness]
        trained = [p for p in planned.network.parameters() if p.requires_grad] if planned.trains else []
        moving = {id(p) for p in trained}
        all_there = {id(p): p for n in (planned.network, *planned.frozen) for p in n.parameters()}
        still = [p for key, p in all_there.items() if key not in moving]
        forward = _counter()
        saved = _Saved(planned)
        with forward, saved, _autocast(precision), torch.set_grad_enabled(planned.trains):
            loss = planned.loss()
        forward_flops, backward_flops, state_bytes = float(forward.get_total_flops()), 0.0, 0
        if planned.trains:
            backward = _counter()
            with backward:
                loss.backward()
                made = optimizer(trained)
                made.step()
            backward_flops = float(backward.get_total_flops()) + (forward_flops if planned.blocks else 0.0)
            state_bytes = sum(
                _bytes(v) for state in made.state.values() for v in state.values() if isinstance(v, Tensor)
            )
    counted = Counted(
        sum(p.numel() for p in trained),
        sum(p.numel() for p in still),
        sum(_bytes(p) for p in trained),
        sum(_bytes(p) for p in still),
        state_bytes,
        saved.kept_bytes(),
        _largest_block(planned),
        forward_flops,
        forward_flops + backward_flops,
    )
    if known is not None:
        known[likeness] = counted
    return planned, counted


def _shapes(planned: Planned) -> Hashable:
    """What tells one planned step from another of the same kind."""
    networks = (planned.network, *planned.frozen)
    weights = tuple((n, tuple(p.shape), p.dtype, p.requires_grad) for m in networks for n, p in m.named_parameters())
    step = (planned.samples, planned.units_per_sample, planned.trains, len(planned.blocks), planned.assumptions)
    return (*step, weights)


class _Saved(contextlib.ExitStack):
    """While entered, notes what autograd saves, and in which checkpointed block."""

    def __init__(self, planned: Planned) -> None:
        super().__init__()
        self._weights = {_storage(p) for n in (planned.network, *planned.frozen) for p in n.parameters()}
        self._seen: set[int] = set()
        self._alive: list[Tensor] = []  # so that no storage's number is used twice
        self._blocks = planned.blocks
        self._inside: int | None = None
        self._outside, self._inputs = 0, 0
        self._of_block = dict.fromkeys(range(len(planned.blocks)), 0)

    def __enter__(self) -> _Saved:
        self.enter_context(saved_tensors_hooks(self._pack, lambda x: x))
        for number, block in enumerate(self._blocks):
            before = block.register_forward_pre_hook(lambda m, a, k, n=number: self._begin(n, a, k), with_kwargs=True)
            after = block.register_forward_hook(lambda m, a, out: self._end())
            self.callback(before.remove)
            self.callback(after.remove)
        return self

    def _begin(self, number: int, arguments: Any, keywords: Any) -> None:
        self._inside = number
        tensors = [t for t in (*arguments, *keywords.values()) if isinstance(t, Tensor) and t.requires_grad]
        self._inputs += sum(_bytes(t) for t in tensors)

    def _end(self) -> None:
        self._inside = None

    def _pack(self, tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in self._weights and key not in self._seen:
            self._seen.add(key)
            self._alive.append(tensor)
            size = tensor.untyped_storage().nbytes()
            if self._inside is None:
                self._outside += size
            else:
                self._of_block[self._inside] += size
        return tensor

    def kept_bytes(self) -> int:
        """What stands in memory when the backward pass begins; of checkpointed blocks one at a time is whole."""
        return self._outside + self._inputs + max(self._of_block.values(), default=0)


def _counter() -> FlopCounterMode:
    """Torch's counter, which knows the attention of GPUs, and that of processors beside it."""
    aten = torch.ops.aten

    def forward(q: Any, k: Any, v: Any, *rest: Any, **more: Any) -> int:
        return int(sdpa_flop_count(q, k, v))

    def backward(out: Any, q: Any, k: Any, v: Any, *rest: Any, **more: Any) -> int:
        return int(sdpa_backward_flop_count(out, q, k, v))

    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: forward,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        },
    )


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _largest_block(planned: Planned) -> int:
    """The largest direct child, or element of a list of children: FSDP's usual units."""
    units: list[nn.Module] = []
    for child in planned.network.children():
        units += list(child) if isinstance(child, nn.ModuleList) else [child]
    return max((sum(_bytes(p) for p in unit.parameters()) for unit in units), default=0)


def _autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision.startswith("bf16-mixed"):
        return torch.autocast("cpu", torch.bfloat16)
    if precision.startswith("16-mixed"):
        return torch.autocast("cpu", torch.float16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _no_initialisation() -> Iterator[None]:
    """Weights without memory need no random numbers."""
    from unittest import mock

    names = (
        "uniform_",
        "normal_",
        "trunc_normal_",
        "constant_",
        "ones_",
        "zeros_",
        "kaiming_uniform_",
        "xavier_uniform_",
    )
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(nn.init, name, lambda tensor, *a, **k: tensor))
        yield
