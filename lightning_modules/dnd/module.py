"""The generator as a LightningModule: prompts' token states in, weight tokens out (arXiv 2506.16406).

Axis legend: B batch, N prompts, L text token, C channel, T weight token, H rank + 2, W chunk + 2, K training task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from ...datamodules.dnd.module import PromptCheckpointDataModule
from ...registry import MODELS, UserError
from .generator import TrainedGenerator
from .hyperconv import HyperConvGenerator
from .losses import weighted_token_mse
from .product_norm import product_norm_ratio

COVERAGE_DRAWS = 20


@MODELS.register("dnd", paper="2506.16406")
class DnDModule(LightningModule):
    """Regresses tokenised LoRA snapshots onto prompts; no language model in the loop, no label in the condition.

    Beside the loss it logs what tells a generator that has learned from one that has not: the loss of the best constant
    (the mean of all training tokens), the mean square of its tokens against the targets', the norm of each module's B A
    against the target's, and, on prompts that training never saw, how often its tokens lie nearest to their own task's.

    Deviations: AdamW in fp32 instead of 8-bit AdamW in bf16; learning rate and warm-up are the experiment's.

    Args:
        shapes: the cascade: (N, L, C) of the condition first, (T, H, W) of the tokens last.
        kernel_size: side of every convolution's kernel; odd.
        condition_noise: std of Gaussian noise on the condition while training.
        target_noise: std of Gaussian noise on the targets while training.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        optimizer: anything that makes an optimiser of parameters.
    """

    def __init__(
        self,
        shapes: list[list[int]],
        kernel_size: int = 9,
        condition_noise: float = 1e-4,
        target_noise: float = 1e-5,
        warmup_steps: int = 1,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-5, weight_decay=0.1),
    ) -> None:
        super().__init__()
        self.shapes, self.kernel_size = shapes, kernel_size
        self.condition_noise, self.target_noise = condition_noise, target_noise
        self.warmup_steps, self.optimizer = warmup_steps, optimizer
        self.network = HyperConvGenerator(shapes, kernel_size)
        self.token_weight_T: Tensor
        self.constant_THW: Tensor
        self.task_mean_KTHW: Tensor
        for name in ("token_weight_T", "constant_THW", "task_mean_KTHW"):
            self.register_buffer(name, torch.ones(0), persistent=False)
        self._val = {k: MeanMetric() for k in ("loss", "loss_constant", "mean_square_ratio", "ba_norm_ratio")}
        self._val_metrics = torch.nn.ModuleList(self._val.values())  # so that they move to the module's device
        self._nearest: MulticlassAccuracy | None = None

    @property
    def data(self) -> PromptCheckpointDataModule:
        """The datamodule, which knows snapshots and layout."""
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(found, PromptCheckpointDataModule)
        return found

    def setup(self, stage: str) -> None:
        """Take token weights and the constants' tokens from the data; check that the cascade fits them.

        Raises:
            UserError: if first or last shape of the cascade is not the data's.
        """
        data = self.data
        assert data.tokenizer is not None
        first = list(data.tasks[0].train_DPLC.shape[2:])
        wanted_first, wanted_last = (
            [data.hparams["num_prompts"], *first],
            [data.tokenizer.num_tokens, *data.tokenizer.token_shape],
        )
        for wanted, got, end in ((wanted_first, self.shapes[0], "first"), (wanted_last, self.shapes[-1], "last")):
            if list(got) != wanted:
                raise UserError(f"model.shapes: the {end} shape is {list(got)}, this data needs {wanted}")
        self.token_weight_T = data.token_weight_T.to(self.device)
        self.task_mean_KTHW = torch.stack([t.tokens_STHW.mean(0) for t in data.tasks]).to(self.device)
        self.constant_THW = self.task_mean_KTHW.mean(0)
        self._nearest = (
            MulticlassAccuracy(len(data.tasks), average="micro").to(self.device) if len(data.tasks) > 1 else None
        )

    def forward(self, condition_BNLC: Tensor) -> Tensor:
        """Condition [B, N, L, C] to tokens [B, T, H, W]."""
        out: Tensor = self.network(condition_BNLC)
        return out

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        """Weighted MSE with noise on condition and target (the authors' `noise_enhance`)."""
        condition_BNLC, target_BTHW, _ = batch
        noisy_BTHW = target_BTHW + self.target_noise * torch.randn_like(target_BTHW)
        out_BTHW = self(condition_BNLC + self.condition_noise * torch.randn_like(condition_BNLC))
        loss = weighted_token_mse(out_BTHW, noisy_BTHW, self.token_weight_T)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/mean_square", out_BTHW.detach().square().mean())
        self.log("train/mean_square_target", target_BTHW.square().mean())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        """The same loss without noise on held-out prompts, beside the constant's; and the nearest task."""
        condition_BNLC, target_BTHW, task_B = batch
        out_BTHW = self(condition_BNLC)
        constant_BTHW = self.constant_THW.expand_as(target_BTHW)
        size = len(task_B)
        self._val["loss"].update(weighted_token_mse(out_BTHW, target_BTHW, self.token_weight_T), size)
        self._val["loss_constant"].update(weighted_token_mse(constant_BTHW, target_BTHW, self.token_weight_T), size)
        self._val["mean_square_ratio"].update(out_BTHW.square().mean() / target_BTHW.square().mean(), size)
        assert self.data.tokenizer is not None
        self._val["ba_norm_ratio"].update(product_norm_ratio(self.data.tokenizer, out_BTHW[0], target_BTHW[0]))
        if self._nearest is not None:
            self._nearest.update(self._distance(out_BTHW).argmin(1), task_B)

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation pairs."""
        for name, metric in self._val.items():
            self.log(f"val/{name}", metric.compute())
            metric.reset()
        if self._nearest is not None:
            self.log("val/nearest_task_accuracy", self._nearest.compute())
            self._nearest.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Warm-up, then a cosine to zero over the run's steps."""
        optimizer, total = self.optimizer(self.network.parameters()), int(self.trainer.estimated_stepping_batches)
        warm = torch.optim.lr_scheduler.LinearLR(
            optimizer, 1 / max(1, self.warmup_steps), total_iters=self.warmup_steps
        )
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - self.warmup_steps))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [self.warmup_steps])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_end(self) -> None:
        """Write the trained generator beside the checkpoints, unless this was a check on a single pair."""
        if self.trainer.is_global_zero and not self.data.hparams["single_pair"]:
            self.trained().save(Path(self.trainer.default_root_dir) / "generator")

    def trained(self) -> TrainedGenerator:
        """The generator with all that is needed to use it."""
        data, manifest = self.data, self.data.snapshots.manifest
        assert data.tokenizer is not None
        centroids_KC = torch.stack([t.centroid_C for t in data.tasks])
        rng = torch.Generator().manual_seed(0)
        own = []
        for t in data.tasks:
            for _ in range(COVERAGE_DRAWS):
                chosen = torch.randperm(len(t.held_out_embedding_PC), generator=rng)[: data.hparams["num_prompts"]]
                drawn_C = torch.nn.functional.normalize(t.held_out_embedding_PC[chosen].mean(0), dim=0)
                own.append(float(t.centroid_C @ drawn_C))
        meta = {
            "shapes": [list(s) for s in self.shapes],
            "kernel_size": self.kernel_size,
            "tasks": [t.name for t in data.tasks],
            "encoder": data.hparams["encoder"],
            "num_prompts": data.hparams["num_prompts"],
            "prompt_length": data.hparams["prompt_length"],
            "coverage_floor": min(own),
            **{k: manifest[k] for k in ("base_model", "adapter_config", "text")},
        }
        return TrainedGenerator(self.network, data.tokenizer, meta, centroids_KC.cpu())

    def results(self) -> dict[str, Any]:
        """For the report: what the generator has learned, in sentences."""
        m = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        size = f"{self.network.num_parameters:,} parameters, {self.network.num_macs / 1e9:.2f} GMAC a sample"
        if self.data.hparams["single_pair"]:
            reached = m["train/mean_square"] / m["train/mean_square_target"]
            verdict = "it can fit one pair" if reached >= 0.95 else "it can NOT fit one pair (95 % asked)"
            return {
                "metrics": {"mean_square_of_target": reached},
                "statements": [
                    f"Generator of {size}. On one (prompts, snapshot) pair its tokens reach "
                    f"{reached:.1%} of the target's mean square: {verdict}."
                ],
            }
        gain = 1 - m["val/loss"] / m["val/loss_constant"]
        nearest = m.get("val/nearest_task_accuracy")
        lines = [
            f"Generator of {size}. On held-out prompts of its training tasks: loss {m['val/loss']:.3g}, "
            f"the best constant's {m['val/loss_constant']:.3g} "
            f"({gain:.0%} of it explained); mean square {m['val/mean_square_ratio']:.2f} of the target's; "
            f"||BA|| {m['val/ba_norm_ratio']:.2f} of the target's (median over modules)."
        ]
        if nearest is not None:
            lines.append(
                f"Its tokens lie nearest to their own task in {nearest:.0%} of cases "
                f"(chance {1 / len(self.data.tasks):.0%})."
            )
        return {"statements": lines}

    def _distance(self, out_BTHW: Tensor) -> Tensor:
        """Squared distance [B, K] to each task's mean tokens."""
        return torch.stack([(out_BTHW - mean).square().mean((1, 2, 3)) for mean in self.task_mean_KTHW], 1)
