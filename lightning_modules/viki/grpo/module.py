"""GRPO as a LightningModule: the same policy, rollouts and loss as RLlib's; and what RLlib needs of it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from ....datamodules.viki.module import VikiTrajectoryDataModule
from ....datamodules.viki.records import Record
from ....registry import MODELS, UserError
from ..policy.policy import VikiPolicy
from ..rewards import POOLED_LEVELS, Reward
from .loss import Aggregation
from .rollout import answer, load_policy, roll_out, rollout_seed
from .settings import GRPOSettings
from .update import add_gradients


@MODELS.register("viki_grpo", paper="2506.09049")
class VikiGRPOModule(LightningModule):
    """Reinforcement learning of a policy with the released rewards (arXiv 2506.09049, section 4; defaults are its
    settings). With `runner: rllib` RLlib trains the policy, on any number of env runners and learners; without, this
    module does, in Lightning's own loop. Both draw the same prompts and take the same steps.

    Batches of the datamodule (`viki`, stage `rl`) are iterations: `data.batch_size` prompts, of which each optimiser
    step takes `minibatch_prompts`. It leaves the policy in the stage's folder `policy`.

    Deviations: the loss is averaged over the tokens of a minibatch, the released code averages micro-batches; the
    reference is the policy that training began with, as there.

    Args:
        policy: folder of the policy to begin with, such as a finetuned one's.
        group_size: completions drawn for each prompt.
        temperature: of the draws.
        max_new_tokens: a completion is cut off after so many tokens.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        grad_clip: largest norm of an optimiser step's gradient.
        clip: how far the ratio of new and old probability may be from 1.
        dual_clip: bound of the loss for negative advantages.
        kl_coefficient: weight of the KL to the reference; 0 needs no reference.
        minibatch_prompts: prompts of one optimiser step.
        micro_prompts: prompts that go through the network at once; changes memory and time alone.
        draw_prompts: prompts whose completions are drawn at once: bounds the memory of drawing.
        epochs: passes over an iteration's completions.
        aggregation: `token_mean`, every token counts the same, or `sequence_mean`, every completion.
        length_counts: level 2: a plan longer than the record's own is worth nothing (the paper's step penalty).
        zero_advantages: a control: nothing is learned from rewards.
    """

    def __init__(
        self,
        policy: str,
        group_size: int = 5,
        temperature: float = 1.0,
        max_new_tokens: int = 256,
        lr: float = 1e-6,
        weight_decay: float = 0.01,
        grad_clip: float = 1.0,
        clip: float = 0.2,
        dual_clip: float = 3.0,
        kl_coefficient: float = 0.01,
        minibatch_prompts: int = 128,
        micro_prompts: int = 8,
        draw_prompts: int = 128,
        epochs: int = 1,
        aggregation: Aggregation = "token_mean",
        length_counts: bool = True,
        zero_advantages: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.settings = GRPOSettings(**{f.name: self.hparams[f.name] for f in fields(GRPOSettings)})
        self.automatic_optimization = False
        self.policy: VikiPolicy | None = None
        self._reference: list[VikiPolicy] = []  # in a list, so that it is in no checkpoint

    def configure_model(self) -> None:
        """Load the policy, and the reference where the KL counts."""
        if self.policy is None:
            self.policy = load_policy(self.hparams["policy"], self._data())
            if self.settings.kl_coefficient > 0:
                self._reference = [VikiPolicy.load(self.hparams["policy"]).eval().requires_grad_(False)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(parameters, lr=self.settings.lr, weight_decay=self.settings.weight_decay)

    def on_fit_start(self) -> None:
        """Refuse numbers of prompts that do not divide; put the reference where the policy is."""
        self.settings.check_prompts(self._data()["batch_size"])
        self._reference = [reference.to(self.device) for reference in self._reference]

    def training_step(self, batch: dict[str, list[Any]], batch_idx: int) -> None:
        """One iteration: completions, then a step for each minibatch."""
        assert self.policy is not None
        s, records = self.settings, batch["record"]
        iteration = self.global_step // (s.epochs * len(records) // s.minibatch_prompts)
        seed = rollout_seed(self._data()["seed"], iteration * len(records))
        found = roll_out(self.policy, self._reference[0] if self._reference else None, records, s, seed)
        prompts, optimizer = [self.policy.asked.prompt(r) for r in records], self.optimizers()
        assert not isinstance(optimizer, list)
        figures: dict[str, Tensor] = {}
        for start in s.epochs * list(range(0, len(prompts), s.minibatch_prompts)):
            optimizer.zero_grad()
            part = prompts[start : start + s.minibatch_prompts]
            figures = add_gradients(self.policy, part, found, start * s.group_size, s, self.manual_backward)
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), s.grad_clip)
            optimizer.step()
        self.log_dict({f"train/{k}": v for k, v in figures.items()}, batch_size=len(records))
        asked = [record for record in records for _ in range(s.group_size)]
        self._log_rewards("train", asked, found.rewards)

    def validation_step(self, batch: dict[str, list[Any]], batch_idx: int) -> None:
        """Rewards of greedy answers."""
        assert self.policy is not None
        self._log_rewards("val", batch["record"], answer(self.policy, batch["record"], self.settings)[1])

    def _log_rewards(self, split: str, records: list[Record], rewards: list[Reward]) -> None:
        pooled = [r.accuracy for record, r in zip(records, rewards, strict=True) if record.level in POOLED_LEVELS]
        parts = {"reward": [r.total for r in rewards], "format": [r.format for r in rewards], "accuracy": pooled}
        for name, values in parts.items():
            if values:
                mean = float(numpy.mean(values))
                self.log(f"{split}/{name}", mean, batch_size=len(values), prog_bar=name == "reward")

    def _data(self) -> Any:
        return self.trainer.datamodule.hparams  # type: ignore[attr-defined]  # Lightning sets it

    def on_fit_end(self) -> None:
        """Leave the policy."""
        if self.policy is not None and self.trainer.is_global_zero:
            self.policy.save(Path(self.trainer.default_root_dir) / "policy")

    def rllib_config(self, data: LightningDataModule | None) -> Any:
        """RLlib's configuration of the same training.

        Raises:
            UserError: without a datamodule of records, or with settings of it that would count for nothing.
        """
        from .algorithm import GRPOConfig
        from .record_bank import spec_of

        if not isinstance(data, VikiTrajectoryDataModule):
            raise UserError("viki_grpo needs records: `data: {class_path: viki, init_args: {data: FOLDER, stage: rl}}`")
        _refuse_lightning_s(data)
        self.settings.check_prompts(data.hparams["batch_size"])
        config = GRPOConfig().training(policy=str(self.hparams["policy"]), data=spec_of(data), **vars(self.settings))
        return config.debugging(seed=int(data.hparams["seed"]))

    def rllib_metrics(self, result: dict[str, Any]) -> dict[str, float]:
        """What an iteration of RLlib's showed, under the names that metrics.csv has."""
        from .reports import iteration_metrics

        return iteration_metrics(result)

    def rllib_end(self, algorithm: Any, folder: Path) -> dict[str, Any]:
        """Leave the policy in `folder/policy`; returns what results.json is to hold."""
        from .checkpoints import save_policy

        save_policy(algorithm, folder / "policy")
        return {}


_LIGHTNING_S = {
    "num_batches": "rllib.iterations says how long it trains",
    "val_batches": "rllib.evaluation_size says how many records are evaluated",
    "alike": "completions are of any length",
    "num_workers": "rllib.num_env_runners says how many processes read pictures",
}


def _refuse_lightning_s(data: VikiTrajectoryDataModule) -> None:
    """Refuse settings of the data that only Lightning's loop reads.

    Raises:
        UserError: if one is not as it is by default.
    """
    defaults = inspect.signature(VikiTrajectoryDataModule.__init__).parameters
    for name, instead in _LIGHTNING_S.items():
        if data.hparams[name] != defaults[name].default:
            raise UserError(
                f"data.{name}: counts for nothing under `runner: rllib`, {instead}\nLeave it out of `data:`."
            )
