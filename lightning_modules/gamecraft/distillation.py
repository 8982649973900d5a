"""The student as a LightningModule: phased consistency and guidance distillation (arXiv 2506.17201, section 3.5).

With `adversarial_weight` a discriminator by the frozen teacher's eyes compares where the student's jump leads with real
chunks, noised to that level (arXiv 2405.18407).

Axis legend: B batch, C latent channel (16), N history latent, T chunk latent (9), H W latent size, P 6 Pluecker
channels, Y X pixel size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import MeanMetric

from ...registry import MODELS, UserError
from .chunk_training import ChunkTraining, fixed_noise, guided_samples, predict
from .conditions import PIXELS, Conditions
from .consistency import PhaseGrid, consistency_pair, guided_step, pseudo_huber
from .discriminators import TokenDiscriminator, frozen, hinge, measured
from .flow import interpolate, sigmas
from .training import compile_blocks, trained, uncompiled
from .transformer import GameCraftTransformer

VAL_STEPS = 48  # of the teacher's solution that validation compares with
VAL_CHUNKS = 32  # of each validation batch, since that takes long
DISCRIMINATOR_LR = 4.0  # times the student's
RAMP_STEPS = 200  # in which the adversarial weight rises from 0, since the discriminator starts knowing nothing


@MODELS.register("gamecraft_student", paper="2506.17201")
class GameCraftStudentModule(ChunkTraining):
    """Distils a teacher into a network of its own class that needs `num_phases` steps and no guidance.

    Starts from the teacher's weights; the guidance weight w = scale - 1 enters through the guidance embedding, which
    adds nothing at first. The teacher's guidance is over caption and camera together. On held-out maps (the first 32
    chunks of each batch) it logs the distance of the student's chunk (the average's weights, `num_phases` steps) from
    the guided teacher's own solution (48 steps, the same noise), and beside it that of the teacher's `num_phases` Euler
    steps, which it has to beat.

    Deviations from the PCM authors (arXiv 2405.18407): the adversarial term is off by default; with it, "real" is real
    play at the jump's noise level and not the teacher's step, so that a student may get sharper than its teacher, both
    sides step at once, and the term's gradient is kept at a fixed size; see `consistency` for the grid.

    Args:
        teacher: folder of the trained teacher.
        vae: folder of the autoencoder; may be left out where the data hold latents.
        num_phases: phases, and the student's steps.
        num_levels: noise levels of the teacher's steps; a multiple of `num_phases`.
        shift: shift of the noise levels, the teacher's.
        max_w: guidance weights are drawn uniformly from 0 to this.
        sample_w: guidance weight of validation and of the generated chunks.
        huber_c: where the loss turns from square to absolute.
        adversarial_weight: size of the adversarial gradient at the student's jump, beside the consistency loss's; 0 =
            none.
        noise_scale: factor of the noise that sampling starts with, in generated chunks and in play: below 1
            chunks lie nearer to their mean, with less of their own invention.
        camera_lr_factor: factor of the learning rate of the camera's branch, which is trained already.
        num_samples: validation chunks to generate at the end; 0 = none.
        ema_decay: decay of the weights' moving average, which also makes the targets.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        compile: compile the networks' blocks and run steps as CUDA graphs (a GPU; about 30 s for each kind of history).
        attention: backend of the student's attention and its average's (the teacher's stays), such as `sdpa` or
            `paro`; or a mapping of layer patterns (`single_transformer_blocks.*`, the last that fits counts) to
            backends.
        plan: file of the plan for `paro` or `int4`, made for the teacher's weights.
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(
        self,
        teacher: str,
        vae: str | None = None,
        num_phases: int = 8,
        num_levels: int = 48,
        shift: float = 3.0,
        max_w: float = 2.0,
        sample_w: float = 1.0,
        huber_c: float = 1e-3,
        adversarial_weight: float = 0.0,
        noise_scale: float = 1.0,
        camera_lr_factor: float = 1.0,
        num_samples: int = 8,
        ema_decay: float = 0.95,
        warmup_steps: int = 20,
        compile: bool = False,
        attention: str | dict[str, Any] | None = None,
        plan: str | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=5e-5, weight_decay=0.0, fused=True),
    ) -> None:
        try:
            grid = PhaseGrid(num_levels, num_phases, shift)
        except ValueError as error:
            raise UserError(f"model: {error}") from None
        guide = trained(GameCraftTransformer, teacher, "model.teacher")
        super().__init__(
            student_of(guide), vae, camera_lr_factor, num_samples, ema_decay, warmup_steps, compile, optimizer
        )
        self.set_attention(attention, plan, made_for=guide)
        self.grid, self.shift, self.num_phases = grid, shift, num_phases
        self.max_w, self.sample_w, self.huber_c = max_w, sample_w, huber_c
        self.frozen["teacher"] = guide
        self.adversarial_weight, self.noise_scale = adversarial_weight, noise_scale
        self.discriminator: Any = None
        if adversarial_weight:
            blocks = len(guide.transformer_blocks) + len(guide.single_transformer_blocks)
            self.discriminator = TokenDiscriminator(
                guide.config.num_attention_heads * guide.config.attention_head_dim, blocks
            )
        if compile:
            compile_blocks(guide, self.ema.average)
        self._val: Any = torch.nn.ModuleDict({name: MeanMetric() for name in ("student", "teacher", "w_matters")})

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step of phased consistency on one batch, whose samples share the kind of history."""
        given = self.conditions(batch)
        size = len(given.x0_BCTHW)
        w_B = self.max_w * torch.rand(size, device=self.device)
        levels = self.grid.draw(size, self.device)
        noise_BCTHW, cameras = torch.randn_like(given.x0_BCTHW), (given.intrinsics_BF33, given.c2w_BF44)
        null = given.without(self.caption_states([""])).captions
        inputs = (given.x0_BCTHW, noise_BCTHW, *levels, w_B, given.history_BCNHW, *cameras, *given.captions, *null)
        if self.discriminator is None:
            loss: Tensor = self._loss(*inputs)
            self.log("train/loss", loss.detach().clone())
        else:
            weight = self.adversarial_weight * min(1.0, self.trainer.global_step / RAMP_STEPS)
            loss, *parts = self._loss(torch.full((), weight, device=self.device), *inputs)
            for name, value in zip(("loss", "discriminator", "score_real", "score_made"), parts, strict=True):
                self.log(f"train/{name}", value.detach().clone())
        if self.due():
            self.log_camera(given)
        return loss

    @functools.cached_property
    def _loss(self) -> Callable[..., Any]:
        networks = (self.network, self.ema.average, self.frozen["teacher"])
        if self.discriminator is None:
            return self.graphed(functools.partial(distillation_loss, self._rays, self.huber_c), *networks)
        loss = functools.partial(adversarial_loss, self._rays, self.huber_c)
        return self.graphed(loss, *networks, self.discriminator)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The network's, and where there is a discriminator its own, at its own rate."""
        groups = super().parameter_groups()
        if self.discriminator is not None:
            groups.append({"params": list(self.discriminator.parameters()), "lr_factor": DISCRIMINATOR_LR})
        return groups

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Distances of the student's chunk and of as many Euler steps of the teacher from the teacher's solution."""
        given = self.conditions(batch).first(VAL_CHUNKS)
        noise = fixed_noise(given.x0_BCTHW, batch_idx)
        with uncompiled():
            truth = self._taught(given, noise, VAL_STEPS)
            student = self._sampled(given, noise, self.sample_w)
            found = {
                "student": (student - truth).abs().mean(),
                "teacher": (self._taught(given, noise, self.num_phases) - truth).abs().mean(),
                "w_matters": (student - self._sampled(given, noise, 0.0)).abs().mean(),
            }
        for name, value in found.items():
            self._val[name].update(value, weight=len(noise))

    def on_validation_epoch_end(self) -> None:
        """Log mean distances: `val/loss` is the student's, `val/w_matters` how far w alone moves its chunk."""
        found = {name: metric.compute() for name, metric in self._val.items()}
        self.log("val/loss", found["student"])
        self.log("val/loss_teacher_same_steps", found["teacher"])
        self.log("val/w_matters", found["w_matters"])
        for metric in self._val.values():
            metric.reset()

    def _taught(self, given: Conditions, noise_BCTHW: Tensor, num_steps: int) -> Tensor:
        null, grid = self.caption_states([""]), sigmas(num_steps, self.shift)
        return guided_samples(self.frozen["teacher"], given, null, noise_BCTHW, grid, 1 + self.sample_w)

    def _sampled(self, given: Conditions, noise_BCTHW: Tensor, w: float) -> Tensor:
        null, grid = self.caption_states([""]), sigmas(self.num_phases, self.shift)
        return guided_samples(self.ema.average, given, null, noise_BCTHW, grid, guidance_w=w)

    def generate(self, given: Conditions, noise_BCTHW: Tensor) -> Tensor:
        """The student's chunks: a step a phase, no guidance."""
        return self._sampled(given, self.noise_scale * noise_BCTHW, self.sample_w)

    def sampling(self) -> dict[str, Any]:
        """The student's: a step a phase, the guidance weight as an input."""
        steps, w = self.num_phases, self.sample_w
        return {
            "num_inference_steps": steps, "guidance_scale": 1.0, "guidance_w": w, "shift": self.shift,
            "noise_scale": self.noise_scale,
        }  # fmt: skip

    def results(self) -> dict[str, Any]:
        """For the report: how near the student comes to its teacher, beside the teacher's own few steps."""
        m = self.measured()
        lines = []
        if "val/loss" in m:
            lines.append(
                f"Student of {self.num_phases} steps: its chunks on held-out maps lie {m['val/loss']:.4f} from the "
                f"guided teacher's {VAL_STEPS}-step solution (mean absolute difference of latents), the teacher's own "
                f"{self.num_phases} steps {m['val/loss_teacher_same_steps']:.4f}; w from 0 to {self.sample_w:g} moves "
                f"them by {m['val/w_matters']:.4f}."
            )
        return self.report(lines)


def distillation_loss(
    rays: Callable[[Tensor, Tensor, int, int], Tensor],
    huber_c: float,
    student: GameCraftTransformer,
    average: GameCraftTransformer,
    teacher: GameCraftTransformer,
    *inputs: Tensor,
) -> Tensor:
    """Pseudo-Huber distance of the student's jump from its target; `inputs` as for `jump`."""
    prediction, target, _ = jump(rays, student, average, teacher, *inputs)
    return pseudo_huber(prediction, target, huber_c)


def adversarial_loss(
    rays: Callable[[Tensor, Tensor, int, int], Tensor],
    huber_c: float,
    student: GameCraftTransformer,
    average: GameCraftTransformer,
    teacher: GameCraftTransformer,
    discriminator: TokenDiscriminator,
    weight: Tensor,
    *inputs: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same with a discriminator: both sides' losses as one, since their gradients go to different weights.

    Args:
        rays, huber_c, student, average, teacher: as in `distillation_loss`.
        discriminator: heads on the teacher's blocks.
        weight: scalar; size of the adversarial gradient at the jump, beside the consistency loss's.
        inputs: as for `jump`.

    Returns:
        The sum that is trained on, the consistency loss, the discriminator's loss, its mean scores of real and made.
    """
    prediction, target, rays_BFPYX = jump(rays, student, average, teacher, *inputs)
    x0, noise, boundary_B, history, seen = inputs[0], inputs[1], inputs[4], inputs[6], inputs[9:12]
    made: list[Tensor] = []
    real: list[Tensor] = []
    predict(teacher, measured(prediction, weight), boundary_B, history, rays_BFPYX, seen, taps=made)
    with torch.no_grad():
        predict(teacher, interpolate(x0, noise, boundary_B), boundary_B, history, rays_BFPYX, seen, taps=real)
    consistency = pseudo_huber(prediction, target, huber_c)
    score_real, score_made = discriminator(real), discriminator([x.detach() for x in made])
    theirs = hinge(score_real, score_made)
    total = consistency - frozen(discriminator, made).mean() + theirs
    return total, consistency.detach(), theirs.detach(), score_real.mean().detach(), score_made.mean().detach()


def jump(
    rays: Callable[[Tensor, Tensor, int, int], Tensor],
    student: GameCraftTransformer,
    average: GameCraftTransformer,
    teacher: GameCraftTransformer,
    x0_BCTHW: Tensor,
    noise_BCTHW: Tensor,
    sigma_B: Tensor,
    lower_B: Tensor,
    boundary_B: Tensor,
    w_B: Tensor,
    history_BCNHW: Tensor,
    intrinsics_BF33: Tensor,
    c2w_BF44: Tensor,
    *captions: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The student's jump, its target (`consistency`) and the camera's rays; only the student gets gradients.

    The teacher runs twice, with and without caption and camera: two passes of one shape compile once, together with the
    average's, and cost what one of twice the batch does. The last three of `captions` are the empty caption's.
    """
    seen, none = captions[:3], captions[3:]
    rays_BFPYX = rays(intrinsics_BF33, c2w_BF44, *(PIXELS * side for side in x0_BCTHW.shape[-2:]))
    x_BCTHW = interpolate(x0_BCTHW, noise_BCTHW, sigma_B)
    with torch.no_grad():
        still_BFPYX = rays_BFPYX[:, :1].expand_as(rays_BFPYX)  # frame 0 is where the camera stands, by definition
        conditional = predict(teacher, x_BCTHW, sigma_B, history_BCNHW, rays_BFPYX, seen)
        unconditional = predict(teacher, x_BCTHW, sigma_B, history_BCNHW, still_BFPYX, none)
        stepped_BCTHW = guided_step(conditional, unconditional, w_B, x_BCTHW, sigma_B, lower_B)
    prediction, target = consistency_pair(
        lambda x, s: predict(student, x, s, history_BCNHW, rays_BFPYX, seen, w_B),
        lambda x, s: predict(average, x, s, history_BCNHW, rays_BFPYX, seen, w_B),
        x_BCTHW,
        stepped_BCTHW,
        (sigma_B, lower_B, boundary_B),
    )
    return prediction, target, rays_BFPYX


def student_of(teacher: GameCraftTransformer) -> GameCraftTransformer:
    """A copy with a guidance embedding, which adds nothing until it is trained.

    Raises:
        UserError: if the teacher's weights leave anything else of the student open.
    """
    student = GameCraftTransformer(**{**_arguments(teacher), "guidance_embeds": True})
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    if unexpected or any("guidance_embedder" not in name for name in missing):
        raise UserError(f"model.teacher: weights that do not fit a student: {[*missing, *unexpected][:3]}")
    last = student.time_text_embed.guidance_embedder.linear_2
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return student


def _arguments(teacher: GameCraftTransformer) -> dict[str, Any]:
    return {k: v for k, v in teacher.config.items() if not k.startswith("_")}
