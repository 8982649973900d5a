"""Supervised finetuning: the policy learns demonstrations, and is judged by what it answers itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn

from ...datamodules.viki.module import VikiTrajectoryDataModule
from ...registry import MODELS, UserError
from .evaluation.report import NOTES
from .picture_words import PictureWords
from .policy.asked import Asked
from .policy.batch import PolicyBatch, prompts_of
from .policy.encoding import Encoder
from .policy.policy import VikiPolicy
from .policy.small import SIZES, small_policy
from .scoring import Score, by_family, score


@MODELS.register("viki_sft", paper="2506.09049")
class VikiSFTModule(LightningModule):
    """Learns answers to prompts with pictures; only the answers' tokens count (arXiv 2506.09049, section 4).

    Validation and test let the policy answer by itself, greedily, and log the reward's parts of each level. The trained
    policy is written to `policy/` in the run's folder, in the form that transformers, GRPO and `viki evaluate` read.

    Deviation: the paper starts from Qwen2.5-VL-Instruct; `tiny` and `small` start from nothing, so this stage is their
    pre-training as well, and `picture_words` teaches them to see.

    Args:
        policy: a size of small policies (`tiny`, `small`), a folder, or ORG/NAME of a released Qwen2.5-VL.
        freeze_vision: train the language model alone, as the paper does with released weights.
        gradient_checkpointing: trade time for memory.
        picture_words: weight of a second loss, in which picture tokens alone tell the words of the demonstration
            (picture_words.py): for policies that start from nothing.
        max_pixels: larger pictures are made smaller; as the policy says unless given.
        warmup_steps: steps over which the learning rate rises; a cosine to zero follows.
        max_new_tokens: limit of an answer in validation and test.
        optimizer: of the parameters that are trained.
        seed: of a small policy's weights.
    """

    def __init__(
        self,
        policy: str = "tiny",
        freeze_vision: bool = False,
        gradient_checkpointing: bool = False,
        max_pixels: int | None = None,
        picture_words: float = 0.0,
        warmup_steps: int = 50,
        max_new_tokens: int = 320,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["optimizer"])
        self.optimizer = optimizer
        self.policy: VikiPolicy | None = None
        self.words: PictureWords | None = None
        self._scores: dict[int, Score] = {}
        self._tables: list[dict[str, Any]] = []

    def setup(self, stage: str) -> None:
        """Make or read the policy; a small one's vocabulary is learned from the training records.

        Raises:
            UserError: if the data is not VIKI's, or the policy can't be read.
        """
        if self.policy is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, VikiTrajectoryDataModule):
            raise UserError("model viki_sft learns from data viki\nSet data.class_path to viki.")
        p = self.hparams
        if p["policy"] in SIZES:
            self.policy = small_policy(data.texts(), p["policy"], p["seed"])
        else:
            self.policy = VikiPolicy.load(p["policy"])
        if p["picture_words"] > 0 and not data.hparams["blind"]:
            shape = self.policy.model.config.get_text_config()
            self.words = PictureWords(shape.hidden_size, shape.vocab_size)
        before, told = self.policy.asked, data.hparams
        if p["policy"] not in SIZES:
            data.prompts = told["prompts"] or before.prompts
            data.views = told["views"] or before.views
        sizes = {} if told["blind"] else data.picture_sizes()
        self.policy.asked = Asked(data.prompts, data.views, told["blind"], sizes)
        self.policy.train()
        if p["max_pixels"] is not None:
            self.policy.pictures = replace(self.policy.pictures, max_pixels=p["max_pixels"])
        data.prepare = _Prepare(self.policy.encoder)
        if p["freeze_vision"]:
            self.policy.freeze_vision()
        if p["gradient_checkpointing"]:
            self.policy.model.gradient_checkpointing_enable()

    def training_step(self, batch: dict[str, list[Any]], batch_idx: int) -> Tensor:
        """Negative log-likelihood of the answers, mean over their tokens."""
        loss, words = self._losses(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["response"]))
        if words is None:
            return loss
        self.log("train/picture_words_loss", words, batch_size=len(batch["response"]))
        return loss + self.hparams["picture_words"] * words

    def _losses(self, batch: dict[str, list[Any]]) -> tuple[Tensor, Tensor | None]:
        """Loss of the answers' tokens, and of the words that pictures give away where that is learned."""
        policy = self._policy()
        if "prepared" in batch:
            encoded = batch["prepared"][0].to(policy.device)
        else:
            encoded = policy.encode(prompts_of(batch), batch["response"])
        tokens_GL, mask_GL = encoded.completion_tokens_GL, encoded.completion_mask_GL
        assert tokens_GL is not None and mask_GL is not None
        features_TD = policy.picture_features(encoded)
        loss = -policy.log_probs(encoded, tokens_GL, mask_GL, features_TD=features_TD).sum() / mask_GL.sum()
        if self.words is None or features_TD is None:
            return loss, None
        return loss, self.words(features_TD, encoded, policy.texts.image)

    def _policy(self) -> VikiPolicy:
        assert self.policy is not None, "setup was not called"
        return self.policy

    def validation_step(self, batch: dict[str, list[Any]], batch_idx: int) -> None:
        """Loss of the right answers, and the rewards of the policy's own."""
        if any(batch["response"]):
            self.log("val/loss", self._losses(batch)[0], batch_size=len(batch["record"]), sync_dist=True)
        self._answer(batch)

    def test_step(self, batch: dict[str, list[Any]], batch_idx: int) -> None:
        """Rewards of the policy's own answers."""
        self._answer(batch)

    def _answer(self, batch: dict[str, list[Any]]) -> None:
        policy = self._policy()
        encoded = policy.encode(prompts_of(batch))
        answers = policy.generate(encoded, greedy=True, max_new_tokens=self.hparams["max_new_tokens"]).texts
        scores = [score(record, answer) for record, answer in zip(batch["record"], answers, strict=True)]
        self._scores |= dict(zip(batch["number"], scores, strict=True))

    def on_validation_epoch_end(self) -> None:
        """Log the scores of all processes by level, and keep the last table by sub-family."""
        self._tell("val", "validation")

    def on_test_epoch_end(self) -> None:
        """Log the scores of all processes by level, and keep the table by sub-family."""
        self._tell("test", "test")

    def _tell(self, prefix: str, split: str) -> None:
        scores = self._of_all_processes()
        for level in sorted({one.level for one in scores}):
            of_level = [one for one in scores if one.level == level]
            for name in ("accuracy", "format"):
                mean = sum(getattr(one, name) for one in of_level) / len(of_level)
                self.log(f"{prefix}/{name}_l{level}", mean, sync_dist=True)
        self._keep_table(scores, split)

    def _of_all_processes(self) -> list[Score]:
        """Scores of the records that all processes answered, each once: every process may have answered them all, or a
        part.
        """
        found, self._scores = self._scores, {}
        if distributed.is_available() and distributed.is_initialized():
            told: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(told, found)
            found = {number: one for part in told for number, one in part.items()}
        return [found[number] for number in sorted(found)]

    def _keep_table(self, scores: list[Score], split: str) -> None:
        rows: list[list[Any]] = [
            [
                level,
                family,
                len(found),
                *(sum(getattr(s, n) for s in found) / len(found) for n in ("accuracy", "format")),
            ]
            for (level, family), found in by_family(scores).items()
        ]
        columns = ["level", "sub-family", "records", "accuracy", "format"]
        note = "Greedy answers. Beside controls and with intervals: fulgurite viki evaluate."
        if any(row[0] == 3 for row in rows):
            note += f" Level 3: {NOTES[3]}"
        table = {"title": f"Answers by sub-family, {split}", "columns": columns, "rows": rows, "note": note}
        self._tables = [t for t in self._tables if t["title"] != table["title"]] + ([table] if rows else [])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Warm-up, then a cosine to zero over the run's steps; norms, biases and embeddings do not decay."""
        optimizer = self.optimizer(_groups(self))
        total, warm = int(self.trainer.estimated_stepping_batches), max(1, self.hparams["warmup_steps"])
        first = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, total_iters=warm)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warm))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [first, cosine], [warm])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the tables: a fit that was cut off after its last step has nothing more to measure."""
        checkpoint["tables"] = self._tables

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the tables."""
        self._tables = checkpoint["tables"]

    def on_fit_end(self) -> None:
        """Write the trained policy beside the checkpoints."""
        if self.trainer.is_global_zero:
            self._policy().save(Path(self.trainer.default_root_dir) / "policy")

    def results(self) -> dict[str, Any]:
        """For the report: accuracy and format by level, and the tables by sub-family."""
        measured = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        metrics = {k: v for k, v in measured.items() if k.startswith(("val/", "test/"))}
        size = sum(p.numel() for p in self._policy().parameters())
        text = f"Policy of {size:,} parameters{', blind' if self._policy().asked.blind else ''}."
        return {"metrics": metrics, "statements": [text], "tables": self._tables}


def _groups(model: nn.Module) -> Iterator[dict[str, Any]]:
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim > 1 and "embed_tokens" not in name]
    yield {"params": matrices}
    yield {"params": [p for name, p in trained if p.ndim < 2 or "embed_tokens" in name], "weight_decay": 0.0}


@dataclass
class _Prepare:
    """Encodes training batches where they are loaded."""

    encoder: Encoder

    def __call__(self, batch: dict[str, list[Any]]) -> PolicyBatch:
        return self.encoder(prompts_of(batch), batch["response"])
