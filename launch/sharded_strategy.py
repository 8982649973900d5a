"""FSDP2 as the house uses it: all processes share the weights, and a checkpoint is one file that any run can read."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.strategies import ModelParallelStrategy


class FullyShardedStrategy(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with other defaults, under the short name `fsdp2`.

    Lightning's own default divides each layer over a machine's GPUs (tensor parallelism), which few models can; here
    weights, gradients and optimiser states are divided over all processes unless sizes are given.

    Args:
        data_parallel_size: processes that share the weights; `auto` is all, divided by the other size.
        tensor_parallel_size: processes that share each layer.
        save_distributed_checkpoint: a folder of parts instead of one file. Runs go on from a file alone.
    """

    def __init__(
        self,
        data_parallel_size: Literal["auto"] | int = "auto",
        tensor_parallel_size: int = 1,
        save_distributed_checkpoint: bool = False,
    ) -> None:
        super().__init__(data_parallel_size, tensor_parallel_size, save_distributed_checkpoint)

    def setup_environment(self) -> None:
        """Divide the processes, now that they are counted."""
        if self._tensor_parallel_size == "auto":
            self._tensor_parallel_size = 1
        if self._data_parallel_size == "auto":
            self._data_parallel_size = self.num_members() // self._tensor_parallel_size
        super().setup_environment()

    def num_members(self) -> int:
        """Processes of the fit; asked before Lightning tells its environment."""
        return self.num_nodes * self.num_processes
