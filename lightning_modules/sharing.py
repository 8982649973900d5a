"""A network's weights shared out over the processes of a fit, for a module's `configure_model` (strategy `fsdp2`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def share_out(network: nn.Module, mesh: DeviceMesh | None, blocks: Iterable[nn.Module] = ()) -> None:
    """Divide parameters, gradients and optimiser states over the data-parallel processes of a mesh, in place.

    Args:
        network: what is called by its `forward` alone.
        mesh: `self.device_mesh` of the LightningModule; None (another strategy) leaves the network as it is.
        blocks: parts of it that are gathered one at a time, so that no process ever holds the whole.
    """
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if mesh is None or isinstance(network, FSDPModule):
        return
    for part in (*blocks, network):
        fully_shard(part, mesh=mesh["data_parallel"])


def gathered(network: nn.Module) -> dict[str, Tensor]:
    """The whole state of a network by name, on the CPU, in every process; all of them have to call it."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.tensor import DTensor

    if not any(isinstance(p, DTensor) for p in network.parameters()):
        return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    state: dict[str, Any] = dict(get_model_state_dict(network, options=StateDictOptions()))
    return {n: (t.full_tensor() if isinstance(t, DTensor) else t).cpu() for n, t in state.items()}
