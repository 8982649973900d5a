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
from ..sharing import gathered, share_out
from .generator import TrainedGenerator
from .hyperconv import HyperConvGenerator
from .losses import weighted_token_mse
from .product_norm import product_norm_ratios

# each beside the same of the best constant, which every generator has to leave behind
VAL_METRICS = tuple(f"{name}{of}" for name in ("loss", "mean_square_ratio", "ba_log_error") for of in ("", "_constant"))


@MODELS.register("dnd", paper="2506.16406")
class DnDModule(LightningModule):
    """Regresses tokenised LoRA snapshots onto prompts; no language model in the loop, no label in the condition.

    On prompts that training never saw it logs what tells a generator that has learned from one that has not, each
    beside the same for the best constant (the mean of all training tokens): the loss, the mean square of the tokens
    against the targets', how far the norm of each module's B A is from the target's (mean of |ln ratio|: 0.1 is 10 %
    off, in either direction); and how often its tokens lie nearest to their own task's.

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
        self._val = {name: MeanMetric() for name in VAL_METRICS}
        self._val_metrics = torch.nn.ModuleList(self._val.values())  # so that they move to the module's device
        self._by_kind: dict[str, list[float]] = {}
        self._kept: dict[str, Any] = {"metrics": {}, "by_kind": {}}
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

    def configure_model(self) -> None:
        """Under the strategy `fsdp2`, share the generator's weights out over the processes."""
        share_out(self.network, self.device_mesh)

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
        for name, tokens_BTHW in (("", out_BTHW), ("_constant", constant_BTHW)):
            loss = weighted_token_mse(tokens_BTHW, target_BTHW, self.token_weight_T)
            self._val[f"loss{name}"].update(loss, size)
            ratio = tokens_BTHW.square().mean() / target_BTHW.square().mean()
            self._val[f"mean_square_ratio{name}"].update(ratio, size)
            for made_THW, wanted_THW in zip(tokens_BTHW, target_BTHW, strict=True):
                self._compare_products(name, made_THW, wanted_THW)
        if self._nearest is not None:
            self._nearest.update(self._distance(out_BTHW).argmin(1), task_B)

    def _compare_products(self, name: str, made_THW: Tensor, wanted_THW: Tensor) -> None:
        assert self.data.tokenizer is not None
        for kind, ratio_I in product_norm_ratios(self.data.tokenizer, made_THW, wanted_THW).items():
            self._val[f"ba_log_error{name}"].update(ratio_I.clamp_min(1e-6).log().abs().mean())
            self._by_kind.setdefault(f"{kind}{name}", []).append(float(ratio_I.median()))

    def on_validation_epoch_start(self) -> None:
        """Forget the modules' norms of the validation before."""
        self._by_kind = {}

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the report says: a fit that was cut off after its last step has nothing more to measure."""
        checkpoint["report"] = self._measured()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what had been measured."""
        self._kept = checkpoint["report"]

    def _measured(self) -> dict[str, Any]:
        now = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        kinds = {k: sum(v) / len(v) for k, v in self._by_kind.items()}
        return {"metrics": {**self._kept["metrics"], **now}, "by_kind": kinds or self._kept["by_kind"]}

    def on_fit_end(self) -> None:
        """Write the trained generator beside the checkpoints, unless this was a check on a single pair."""
        if self.data.hparams["single_pair"]:
            return
        whole = self.network
        if self.device_mesh is not None:
            self.to(self.trainer.strategy.root_device)  # which Lightning has taken it off by now
            state = gathered(self.network)
            whole = HyperConvGenerator(self.shapes, self.kernel_size)
            whole.load_state_dict(state)
        if self.trainer.is_global_zero:
            self.trained(whole).save(Path(self.trainer.default_root_dir) / "generator")

    def trained(self, network: HyperConvGenerator | None = None) -> TrainedGenerator:
        """The generator with all that is needed to use it; `network` is the one whose weights lie in one process."""
        cascade = {"shapes": [list(s) for s in self.shapes], "kernel_size": self.kernel_size}
        return TrainedGenerator.of(network or self.network, self.data, cascade)

    def results(self) -> dict[str, Any]:
        """For the report: what the generator has learned, in sentences."""
        measured = self._measured()
        m: dict[str, float] = measured["metrics"]
        size = f"{self.network.num_parameters:,} parameters, {self.network.num_macs / 1e9:.2f} GMAC a sample"
        if self.data.hparams["single_pair"]:
            return self._single_pair(m, size)
        pairs = len(self.data.tasks) * self.data.hparams["val_conditions"]
        pools = ", ".join(f"{t.name} {len(t.held_out_PLC)}" for t in self.data.tasks)
        lines = [
            f"Generator of {size}. On {pairs} conditions of held-out prompts of its training tasks it explains "
            f"{1 - m['val/loss'] / m['val/loss_constant']:.0%} of what the best constant leaves: loss "
            f"{m['val/loss']:.3g} against {m['val/loss_constant']:.3g}."
        ]
        if "val/nearest_task_accuracy" in m:
            lines.append(
                f"Its tokens lie nearest to their own task in {m['val/nearest_task_accuracy']:.0%} of the {pairs} "
                f"cases (chance {1 / len(self.data.tasks):.0%}; held-out prompts to draw from: {pools})."
            )
        rows: list[list[Any]] = [
            ["mean square of the tokens", m["val/mean_square_ratio"], m["val/mean_square_ratio_constant"]],
            *([f"norm of B A, {k}", v, measured["by_kind"].get(f"{k}_constant")]
              for k, v in measured["by_kind"].items() if not k.endswith("_constant")),
        ]  # fmt: skip
        columns = ["relative to the target's (1 is right)", "generator", "best constant"]
        return {
            "statements": lines,
            "tables": [{"title": "Sizes on held-out prompts", "columns": columns, "rows": rows}],
        }

    def _single_pair(self, m: dict[str, float], size: str) -> dict[str, Any]:
        """The overfit check: the size of the tokens and the share explained, both at 95 % or more."""
        reached = m["train/mean_square"] / m["train/mean_square_target"]
        explained = 1 - m["train/loss"] / m["train/mean_square_target"]
        good = 0.95 <= reached <= 1.05 and explained >= 0.95
        verdict = "it can fit one pair" if good else "it can NOT fit one pair (95 % of both asked)"
        text = (
            f"Generator of {size}. On one (prompts, snapshot) pair its tokens reach {reached:.1%} of the target's mean "
            f"square and explain {explained:.1%} of it: {verdict}."
        )
        metrics = {"mean_square_of_target": reached, "explained_of_target": explained}
        return {"metrics": metrics, "statements": [text]}

    def _distance(self, out_BTHW: Tensor) -> Tensor:
        """Squared distance [B, K] to each task's mean tokens."""
        return torch.stack([(out_BTHW - mean).square().mean((1, 2, 3)) for mean in self.task_mean_KTHW], 1)
