"""The trained chunker as a LightningModule. Axis legend: B batch, N item, R role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_f1_score

from ....datamodules.chunking.labels import FLAGS, IGNORED
from ....datamodules.chunking.module import PdfBatchDataModule
from ....datamodules.chunking.synthetic import code_digest
from ....datamodules.chunking.typeset.truth import ROLES
from ....registry import MODELS
from .controls import rules_flag, rules_roles
from .network import ChunkerNetwork, Judgement
from .trained import save_chunker

SETS = ("one_page", "four_pages")
MEASURES = {
    "role_f1": "roles, macro F1",
    "begins_f1": "begins a chunk or row, F1",
    "flag_accuracy": "flag at page breaks, accuracy",
}


@MODELS.register("chunking", paper="2506.16035")
class ChunkerModule(LightningModule):
    """Learns what each item of a batch of pages is, where a chunk begins, and how a batch goes on from the one before.

    The paper has a large vision-language model write the chunks; this is a network of under a million parameters that
    sees each item's picture, place, type and words, and the carried state, and decides: the text is the page's own.

    Logged on documents that training never saw, in batches of one page and of four: macro F1 of the roles, F1 of
    "begins a chunk or row", accuracy of the flag at the batches' pages; beside them the same of the majority's answer
    (`_majority`) and of the reader `rules` (`_rules`, roles and flags).

    Args:
        width: of the network.
        num_layers: of the transformer.
        num_heads: of its attention.
        dropout: of the transformer.
        text_dropout: share of items whose words are withheld while training.
        flag_weight: of the flag's loss beside the two others'.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        optimizer: anything that makes an optimiser of parameters.
    """

    def __init__(
        self,
        width: int = 128,
        num_layers: int = 3,
        num_heads: int = 4,
        dropout: float = 0.1,
        text_dropout: float = 0.3,
        flag_weight: float = 0.5,
        warmup_steps: int = 40,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1.5e-3, weight_decay=0.02),
    ) -> None:
        super().__init__()
        self.flag_weight, self.warmup_steps, self.optimizer = flag_weight, warmup_steps, optimizer
        self._settings = {"width": width, "num_layers": num_layers, "num_heads": num_heads, "dropout": dropout}
        self.network = ChunkerNetwork(width, num_layers, num_heads, dropout, text_dropout)
        self._answers: dict[str, list[tuple[Tensor, ...]]] = {}
        self._kept: dict[str, float] = {}

    def forward(self, batch: dict[str, Tensor]) -> Judgement:
        """What the network thinks of each item of a batch."""
        found: Judgement = self.network(batch)
        return found

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Sum of three cross entropies over what has a label."""
        told = self(batch)
        parts = {
            "role": _entropy(told.role, batch["role"]),
            "begins": _entropy(told.begins, batch["begins"]),
            "flag": _entropy(told.flag, batch["flag"]),
        }
        loss = parts["role"] + parts["begins"] + self.flag_weight * parts["flag"]
        self.log("train/loss", loss, prog_bar=True)
        for name, part in parts.items():
            self.log(f"train/{name}", part)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep answers and labels, those of the controls too."""
        told = self(batch)
        flat = [x.flatten(0, 1) for x in (told.role.argmax(-1), told.begins.argmax(-1), told.flag.argmax(-1))]
        controls = [rules_roles(batch).flatten(), rules_flag(batch).flatten()]
        labels = [batch[k].flatten() for k in ("role", "begins", "flag")]
        self._answers.setdefault(SETS[dataloader_idx], []).append((*flat, *controls, *labels))

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all held-out batches."""
        for name, parts in self._answers.items():
            for key, value in _metrics(*(torch.cat(p) for p in zip(*parts, strict=True))):
                self.log(f"val/{name}/{key}", value)
        self._answers = {}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Warm-up, then a cosine to zero over the run's steps."""
        optimizer, total = self.optimizer(self.network.parameters()), int(self.trainer.estimated_stepping_batches)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, total_iters=self.warmup_steps)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - self.warmup_steps))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [self.warmup_steps])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the report says: a fit that was cut off after its last step has nothing more to measure."""
        checkpoint["report"] = self._measured()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what had been measured."""
        self._kept = checkpoint["report"]

    def _measured(self) -> dict[str, float]:
        return {**self._kept, **{k: float(v) for k, v in self.trainer.callback_metrics.items()}}

    def on_fit_end(self) -> None:
        """Write the trained chunker beside the checkpoints."""
        if self.trainer.is_global_zero:
            told = {"code": code_digest(), "paper": "2506.16035"}
            save_chunker(self.network, self._settings, told, Path(self.trainer.default_root_dir) / "chunker")

    def results(self) -> dict[str, Any]:
        """For the report: what was learned, beside the controls."""
        m, data = self._measured(), self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PdfBatchDataModule)
        missed, items = data.num_unmatched
        rows = [
            [f"{what}, {pages}", *(m.get(f"val/{key}/{metric}{of}") for of in ("", "_rules", "_majority"))]
            for metric, what in MEASURES.items()
            for key, pages in zip(SETS, ("a page at a time", "four pages"), strict=True)
        ]
        statement = (
            f"Trained chunker of {self.network.num_parameters:,} parameters on {data.hparams['num_documents']} typeset "
            f"documents ({items:,} items, {missed} of them without a label). On {data.hparams['num_val_documents']} "
            f"documents of other seeds: roles {m['val/one_page/role_f1']:.3f} macro F1 (rules "
            f"{m['val/one_page/role_f1_rules']:.3f}), flags {m['val/one_page/flag_accuracy']:.1%} (rules "
            f"{m['val/one_page/flag_accuracy_rules']:.1%}), a page at a time."
        )
        columns = ["on held-out typeset documents", "trained", "rules", "majority"]
        return {"statements": [statement], "tables": [{"title": "Held-out items", "columns": columns, "rows": rows}]}


def _entropy(logits_BNK: Tensor, labels_BN: Tensor) -> Tensor:
    """Mean cross entropy over what has a label; 0 where nothing has."""
    total = functional.cross_entropy(
        logits_BNK.flatten(0, 1), labels_BN.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / (labels_BN != IGNORED).sum().clamp_min(1)


def _metrics(
    role: Tensor, begins: Tensor, flag: Tensor, by_rules: Tensor, flag_by_rules: Tensor, *labels: Tensor
) -> Iterator[tuple[str, Tensor]]:
    truth, starts, flags = labels
    has = truth != IGNORED
    most = torch.full_like(truth, int(truth[has].mode().values))
    for name, told in (("", role), ("_rules", by_rules), ("_majority", most)):
        yield f"role_f1{name}", multiclass_f1_score(told[has], truth[has], len(ROLES), average="macro")
    has = starts != IGNORED
    for name, told in (("", begins), ("_majority", torch.ones_like(begins))):
        right = ((told == 1) & (starts == 1) & has).sum()
        yield f"begins_f1{name}", 2 * right / (((told == 1) & has).sum() + ((starts == 1) & has).sum()).clamp_min(1)
    has = (flags != IGNORED) & (flag_by_rules != IGNORED)
    if has.any():
        most = torch.full_like(flags, int(flags[has].mode().values))
        for name, told in (("", flag), ("_rules", flag_by_rules), ("_majority", most)):
            yield f"flag_accuracy{name}", (told[has] == flags[has]).float().mean()
    for k, value in enumerate(FLAGS):
        here = flags == k
        if here.any():
            yield f"flag_accuracy_{value}", (flag[here] == k).float().mean()
