"""What the three trainings of GameCraft share: schedule, moving average, and a report that outlives a restart."""

from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from ...registry import UserError
from .averaging import MovingAverage

RECOMPILES = 48  # shapes of three heads, with and without gradients, at one and at two copies of the batch


class AveragedTraining(LightningModule):
    """Trains `network` and keeps its moving average, which validates and is exported.

    Args:
        network: the network in training.
        ema_decay: largest decay of the average.
        warmup_steps: steps of linear warm-up; a cosine to zero over the run's steps follows.
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(self, network: nn.Module, ema_decay: float, warmup_steps: int, optimizer: OptimizerCallable) -> None:
        super().__init__()
        self.network: Any = network
        self.ema = MovingAverage(network, ema_decay)
        self.warmup_steps, self.optimizer = warmup_steps, optimizer
        self._kept: dict[str, float] = {}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser; `lr_factor` multiplies the learning rate of a group."""
        return [{"params": [p for p in self.network.parameters() if p.requires_grad]}]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Warm-up, then a cosine to zero over the run's steps.

        Raises:
            UserError: if the run has no end.
        """
        groups = self.parameter_groups()
        factors = [group.pop("lr_factor", 1.0) for group in groups]
        optimizer = self.optimizer(groups)
        for group, factor in zip(optimizer.param_groups, factors, strict=True):
            group["lr"] *= factor
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total):
            raise UserError("the schedule needs the number of steps\nSet trainer.max_steps or trainer.max_epochs.")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(self.warmup_steps, int(total)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and let the average follow: here and not at the batch's end, where a checkpoint may come before."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.network, self.trainer.global_step + 1)

    def configure_gradient_clipping(self, optimizer: Any, gradient_clip_val: Any = None, *_: Any, **__: Any) -> None:
        """Clip by norm here, since Lightning does not clip for a fused optimiser (which minds a scaler, not a clip)."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    def due(self) -> bool:
        """Whether this step's extra measurements are wanted: they cost time that most steps don't spend."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return self.trainer.global_step % every == 0

    def on_fit_end(self) -> None:
        """Write what the training made; the module is on its device again, which Lightning has taken it off by now."""
        if self.trainer.is_global_zero:
            self.to(self.trainer.strategy.root_device)
            self.export(Path(self.trainer.default_root_dir))

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the average's weights, and what else is measured at the end, into the stage's folder."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the report says: a fit that was cut off after its last step has nothing more to measure."""
        checkpoint["report"] = self.measured()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what had been measured."""
        self._kept = checkpoint["report"]

    def measured(self) -> dict[str, float]:
        """The last value of every metric."""
        return {**self._kept, **{k: float(v) for k, v in self.trainer.callback_metrics.items()}}


def trained(kind: Any, folder: str, key: str) -> Any:
    """A diffusers model from a folder, in training mode.

    Args:
        kind: its class.
        folder: what `save_pretrained` or `save_eight_bits` wrote.
        key: the setting that names the folder, for the error.

    Raises:
        UserError: if the folder holds no such weights.
    """
    if not Path(folder).is_dir():  # else diffusers asks the Hub for it
        raise UserError(f"{key}: no folder {folder} here ({Path.cwd()})")
    try:
        return kind.from_pretrained(folder).train()
    except (OSError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{key}: {folder} holds no weights of {kind.__name__}: {reason}") from None


def warmup_cosine(warmup_steps: int, total_steps: int) -> Any:
    """Factor of the learning rate by step: a line from 1 / warmup_steps to 1, then a half cosine to 0."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))))

    return factor


def compile_blocks(*networks: Any) -> None:
    """Compile the blocks of transformers in place: a short compilation for each shape serves every block of a kind."""
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, RECOMPILES)
    for network in networks:
        network.compile_repeated_blocks(dynamic=False)
        network.camera_encoder.compile(dynamic=False)


def uncompiled() -> Any:
    """Context in which compiled parts run as they are: for shapes that come too seldom to be worth a compilation."""
    return torch.compiler.set_stance("force_eager")


def psnr(mean_square_error: Tensor | float) -> float:
    """Peak signal-to-noise ratio in dB of values in 0..1."""
    return -10 * math.log10(max(float(mean_square_error), 1e-12))


def mean_square_error(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean square error of pictures in [-1, 1], cut to that range, on the scale of 0..1."""
    return ((made.float().clamp(-1, 1) - wanted.float().clamp(-1, 1)) / 2).square().mean()
