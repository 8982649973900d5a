"""Collecting LoRA snapshots: ordinary fine-tuning of one adapter per task (arXiv 2506.16406)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from ...datamodules.dnd.finetune import TaskSequenceDataModule
from ...datamodules.dnd.snapshots import SnapshotStore
from ...registry import MODELS, UserError
from .adapted import AdaptedModel

SEVEN_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"]


@MODELS.register("dnd_lora", paper="2506.16406")
class LoRACollectorModule(LightningModule):
    """Trains one LoRA after another from one shared initialisation, and saves a snapshot at each of the last steps.

    Deviations: one process trains all tasks in turn, the adapter and the optimiser's state being set back in between;
    the paper resumes a finished fine-tuning at a lower rate to take its snapshots, here the same fit goes on at
    `snapshot_lr_factor` times the rate.

    Args:
        base_model: model name.
        store: folder for the snapshots.
        rank: LoRA rank r; even, which the weight tokens need.
        alpha: LoRA alpha; None is 2 r, the paper's ratio.
        target_modules: modules to adapt; null adapts PEFT's `all-linear`.
        layers: adapt only these layers; null adapts all.
        num_snapshots: snapshots per task, one a step.
        warmup_steps: steps of linear warm-up of each task.
        snapshot_lr_factor: learning rate while taking snapshots, relative.
        init_seed: seed of the shared initialisation.
        optimizer: anything that makes an optimiser of parameters.

    Raises:
        UserError: for an odd rank.
    """

    ONE_PROCESS = "its tasks are runs of steps, each with an adapter set back to the start"

    def __init__(
        self,
        base_model: str,
        store: str,
        rank: int = 8,
        alpha: int | None = None,
        target_modules: list[str] | None = SEVEN_LINEARS,
        layers: list[int] | None = None,
        num_snapshots: int = 20,
        warmup_steps: int = 5,
        snapshot_lr_factor: float = 0.2,
        init_seed: int = 0,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.0),
    ) -> None:
        super().__init__()
        if rank < 2 or rank % 2:
            raise UserError(f"model.rank is {rank}: the weight tokens need an even rank of at least 2")
        self.strict_loading = False
        self.base_model, self.num_snapshots, self.init_seed = base_model, num_snapshots, init_seed
        self.warmup_steps, self.snapshot_lr_factor, self.optimizer = warmup_steps, snapshot_lr_factor, optimizer
        self.store = SnapshotStore(store)
        self._config = {
            "r": rank,
            "lora_alpha": 2 * rank if alpha is None else alpha,
            "lora_dropout": 0.0,
            "target_modules": target_modules or "all-linear",
            "layers_to_transform": layers,
        }
        self.adapted: AdaptedModel | None = None

    @property
    def data(self) -> TaskSequenceDataModule:
        """The datamodule, which knows the tasks."""
        found = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(found, TaskSequenceDataModule)
        return found

    def configure_model(self) -> None:
        """Load the base model, once."""
        if self.adapted is None:
            self.adapted = AdaptedModel(self.base_model, self._config)

    def on_fit_start(self) -> None:
        """Write the store's manifest: it says which snapshots there will be.

        Raises:
            UserError: for trainer settings under which steps and tasks would not meet.
        """
        assert self.adapted is not None
        self._check_steps()
        p = self.data.hparams
        last = p["steps_per_task"]
        steps = list(range(max(1, last - self.num_snapshots + 1), last + 1))
        tasks = {
            task.name: {"spec": spec, "limit": p["limit"], "seed": p["seed"], "steps": steps}
            for task, spec in zip(self.data.tasks, p["tasks"], strict=True)
        }
        self.store.create(
            base_model=self.base_model, adapter_config=self.adapted.adapter_config(), text=self.data.text, tasks=tasks
        )

    def _check_steps(self) -> None:
        p, trainer = self.data.hparams, self.trainer
        wanted, got = len(p["tasks"]) * p["steps_per_task"], trainer.estimated_stepping_batches
        if trainer.world_size > 1 or trainer.accumulate_grad_batches > 1:
            raise UserError("collecting LoRAs takes one device and no gradient accumulation: a task is a run of steps")
        if got != wanted:
            raise UserError(
                f"the trainer does {got} steps, the tasks take {wanted}\nLeave trainer.max_steps unset, max_epochs 1."
            )
        if not 0 < self.num_snapshots <= p["steps_per_task"]:
            raise UserError(f"model.num_snapshots is {self.num_snapshots}, of {p['steps_per_task']} steps a task")
        if p["base_model"] != self.base_model:
            raise UserError(f"model.base_model is {self.base_model}, data.base_model {p['base_model']}: set both alike")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """At a task's first step: the shared initialisation, and an optimiser that remembers nothing."""
        assert self.adapted is not None
        if self._place(self.global_step) == 0:
            self.adapted.reset(self.init_seed)
            self.trainer.optimizers[0].state.clear()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Cross-entropy of the answers."""
        assert self.adapted is not None
        loss = self.adapted.loss(batch["input_ids"], batch["labels"])
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/task", float(batch["task"]))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: dict[str, Any], batch_idx: int) -> None:
        """Save a snapshot at each of the task's last steps."""
        assert self.adapted is not None
        done = self._place(self.global_step - 1) + 1
        if done > self.data.hparams["steps_per_task"] - self.num_snapshots:
            self.store.save(self.data.tasks[batch["task"]].name, done, self.adapted.state())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser of the adapter's weights, with the schedule that starts anew for each task."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the adapter only: the frozen base comes from its source."""
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if "lora_" in k}

    def results(self) -> dict[str, Any]:
        """For the report: what was collected, with the size of each task's last adapter."""
        rows = []
        for name in self.store.tasks:
            state = self.store.load(name)
            norms = [float(state[k].square().mean().sqrt()) for k in state if ".lora_B." in k]
            rows.append([name, len(self.store.steps(name)), sum(norms) / len(norms)])
        assert self.adapted is not None
        count = sum(p.numel() for p in self.adapted.state().values())
        return {
            "statements": [
                f"{len(rows)} LoRAs of {count:,} weights each on `{self.base_model}`, all from one initialisation."
            ],
            "tables": [{"title": "Snapshots", "columns": ["task", "snapshots", "rms of B (last)"], "rows": rows}],
        }

    def _place(self, step: int) -> int:
        return int(step % self.data.hparams["steps_per_task"])

    def _lr_factor(self, step: int) -> float:
        place = self._place(step)
        if place >= self.data.hparams["steps_per_task"] - self.num_snapshots:
            return self.snapshot_lr_factor
        return min(1.0, (place + 1) / max(1, self.warmup_steps))
