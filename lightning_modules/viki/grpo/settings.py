"""Settings of GRPO that the Lightning loop and RLlib share."""

from __future__ import annotations

from dataclasses import dataclass

from ....registry import UserError
from .loss import Aggregation


@dataclass(frozen=True)
class GRPOSettings:
    """How completions are drawn and learned from; the defaults are the published ones (fact: verl's `grpo` with these).

    Attributes:
        group_size: completions drawn for each prompt.
        temperature: of the draws.
        max_new_tokens: a completion is cut off after so many tokens.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        grad_clip: largest norm of a minibatch's gradient.
        clip: how far the ratio may be from 1.
        dual_clip: bound for negative advantages.
        kl_coefficient: weight of the KL to the reference, which is the policy that training began with.
        minibatch_prompts: prompts of one optimiser step; the prompts of an iteration are a multiple of it.
        micro_prompts: prompts that go through the network at once; changes memory and time alone.
        draw_prompts: prompts whose completions are drawn at once, each group in whole: bounds the memory of drawing.
        epochs: passes over an iteration's completions.
        aggregation: whether every token counts the same in the loss, or every completion.
        length_counts: level 2: a plan longer than the record's own is worth nothing (the paper's step penalty).
        zero_advantages: a control: all completions are as good as any other, only the KL is left to learn from.
    """

    group_size: int = 5
    temperature: float = 1.0
    max_new_tokens: int = 256
    lr: float = 1e-6
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    clip: float = 0.2
    dual_clip: float = 3.0
    kl_coefficient: float = 0.01
    minibatch_prompts: int = 128
    micro_prompts: int = 8
    draw_prompts: int = 128
    epochs: int = 1
    aggregation: Aggregation = "token_mean"
    length_counts: bool = True
    zero_advantages: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be.

        Raises:
            UserError: for a number out of its range.
        """
        for name in ("group_size", "max_new_tokens", "minibatch_prompts", "micro_prompts", "draw_prompts", "epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is a whole number from 1 on, not {getattr(self, name)}")
        for name in ("temperature", "lr", "clip", "dual_clip", "grad_clip"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} is above 0, not {getattr(self, name)}")
        if self.aggregation not in ("token_mean", "sequence_mean"):
            raise UserError(f"aggregation is token_mean or sequence_mean, not {self.aggregation!r}")

    def check_prompts(self, prompts: int, num_learners: int = 1) -> None:
        """Refuse numbers of prompts that do not divide: a rest would be learned from twice, or by one learner alone.

        Args:
            prompts: prompts of an iteration.
            num_learners: learners that share a minibatch.

        Raises:
            UserError: if they do not divide.
        """
        if prompts % self.minibatch_prompts:
            raise UserError(
                f"{prompts} prompts an iteration (data.batch_size) are no multiple of minibatch_prompts "
                f"{self.minibatch_prompts}\nChange one of the two."
            )
        if self.minibatch_prompts % max(num_learners, 1):
            raise UserError(f"minibatch_prompts {self.minibatch_prompts} can't be dealt to {num_learners} learners")
