"""The transformer over many GPUs: built without memory, sharded by FSDP2, filled from files, saved whole.

For the published size (arXiv 2506.17201; 13 billion parameters, 51 GB in float32), which no process holds as a whole.
The order is `on_meta`, `shard`, `load_shards`; `save_shards` at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...registry import UserError
from .camera_encoder import CameraEncoder
from .transformer import GameCraftTransformer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

WEIGHTS = "diffusion_pytorch_model"
_GROUP_SEED = 17  # the camera's branch, which no published weights have, starts alike on every rank
_MAX_FILE = "5GB"


@contextmanager
def on_meta() -> Iterator[None]:
    """While entered, tensors that are made have shapes and no memory."""
    with torch.device("meta"):
        yield


def checkpoint_activations(network: GameCraftTransformer) -> None:
    """Keep the inputs of blocks alone for the backward pass, and compute the rest again: some 30 % more time."""
    network.enable_gradient_checkpointing()


def shard(network: GameCraftTransformer, mesh: DeviceMesh, bf16: bool = True) -> GameCraftTransformer:
    """Shard parameters, gradients and optimiser states over a mesh, in place; every rank then holds its part alone.

    Each block is a unit of its own, gathered for its forward and backward pass and given back after; what is left
    (patch embedding, time, camera, output) is the root's. `camera_tokens` gathers as `forward` does, so it may be
    called first. Parameters stay float32.

    Args:
        network: on the meta device, or with its weights.
        mesh: one dimension, the ranks that share the weights (`device_mesh["data_parallel"]` of Lightning's).
        bf16: compute in bfloat16; gradients are summed up in float32 all the same.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # inputs stay as they are: in bfloat16 a timestep between 512 and 1000 would be off by up to two
    param_dtype, reduce_dtype = (torch.bfloat16, torch.float32) if bf16 else (None, None)
    policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=reduce_dtype, cast_forward_inputs=False)
    for block in (*network.transformer_blocks, *network.single_transformer_blocks):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # without this a root stays whole after a pass with no backward one, and the average can't follow it
    fully_shard(network, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    register_fsdp_forward_method(network, "camera_tokens")
    return network


def load_shards(network: GameCraftTransformer, folder: Path, device: torch.device) -> None:
    """Give a sharded network that is still on the meta device its memory, and fill it from a folder of weights.

    The folder is a trained `GameCraftTransformer`'s, or HunyuanVideo's (`transformer` of the diffusers checkpoint). To
    the latter the 17 new input channels are added as zeros, and a fresh camera branch, so that at first it is the model
    that it was. Every rank reads one tensor at a time and keeps its part.

    Args:
        network: sharded, on meta.
        folder: with the safetensors files of `save_pretrained`.
        device: where the parts shall lie.

    Raises:
        UserError: if the folder holds no such weights, lacks some, or has some of other shapes.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    width = network.config.num_attention_heads * network.config.attention_head_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_GROUP_SEED)
        as_channels = network.config.camera_injection == "channel_concat"
        camera = CameraEncoder(width, network.config.patch_size, as_channels=as_channels)
    fresh = {f"camera_encoder.{name}": tensor for name, tensor in camera.state_dict().items()}
    buffers = [name for name, _ in network.named_buffers()]
    if buffers:
        raise ValueError(f"buffers would lose their values on the way from the meta device: {', '.join(buffers)}")
    network.to_empty(device=device)
    with _Weights(folder) as weights, torch.no_grad():
        for name, parameter in network.named_parameters():
            found = weights.get(name) if name in weights else fresh.get(name)
            if found is None:
                raise UserError(f"{folder}: these weights lack {name}\nName the folder of HunyuanVideo's transformer.")
            whole = _as_wide_as(found, parameter).to(parameter.dtype)
            if whole.shape != parameter.shape:
                raise UserError(f"{folder}: {name} is {list(whole.shape)}, the network's {list(parameter.shape)}")
            if isinstance(parameter, DTensor):
                mesh, places = parameter.device_mesh, parameter.placements
                part = distribute_tensor(whole.to(device), mesh, places, src_data_rank=None).to_local()
                parameter.to_local().copy_(part)
            else:
                parameter.copy_(whole)


def _as_wide_as(found: Tensor, parameter: Tensor) -> Tensor:
    """A patch embedding of fewer input channels than ours, with zeros for those it lacks."""
    if found.ndim == 5 and found.shape[1] < parameter.shape[1]:
        lacking = found.new_zeros(found.shape[0], parameter.shape[1] - found.shape[1], *found.shape[2:])
        return torch.cat([found, lacking], 1)
    return found


class _Weights:
    """A folder's tensors by name, read when asked for: one file, or several with an index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Weights:
        from safetensors import SafetensorError, safe_open

        try:
            index = self._folder / f"{WEIGHTS}.safetensors.index.json"
            names = {f"{WEIGHTS}.safetensors"}
            if index.is_file():
                names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            for name in sorted(names):
                file = self._stack.enter_context(safe_open(str(self._folder / name), framework="pt"))
                self._files |= dict.fromkeys(file.keys(), file)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            self._stack.close()
            raise UserError(f"{self._folder}: no weights of a transformer can be read here: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def get(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor


def save_shards(network: GameCraftTransformer, folder: Path) -> None:
    """Write a sharded network as `save_pretrained` would; every rank must call this, and the first one writes.

    The folder is whole or absent, and takes the place of an older one. The first rank needs memory for all weights.
    """
    from huggingface_hub import save_torch_state_dict
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole: dict[str, Any] = dict(get_model_state_dict(network, options=options))
    if torch.distributed.get_rank() == 0:
        # a small tensor that lies in a larger buffer is refused by safetensors
        whole = {n: t if t.untyped_storage().nbytes() == t.nbytes else t.clone() for n, t in whole.items()}
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_torch_state_dict(
            whole, temporary, filename_pattern=f"{WEIGHTS}{{suffix}}.safetensors", max_shard_size=_MAX_FILE
        )
        network.save_config(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    torch.distributed.barrier()


def is_sharded(network: nn.Module) -> bool:
    """Whether a network's parameters lie on several ranks."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(p, DTensor) for p in network.parameters())
