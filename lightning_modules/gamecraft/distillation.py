"""The student as a LightningModule: phased consistency and guidance distillation (arXiv 2506.17201, section 3.5).

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
from .flow import interpolate, sigmas
from .training import compile_blocks, trained, uncompiled
from .transformer import GameCraftTransformer

VAL_STEPS = 48  # of the teacher's solution that validation compares with
VAL_CHUNKS = 32  # of each validation batch, since that takes long


@MODELS.register("gamecraft_student", paper="2506.17201")
class GameCraftStudentModule(ChunkTraining):
    """Distils a teacher into a network of its own class that needs `num_phases` steps and no guidance.

    Starts from the teacher's weights; the guidance weight w = scale - 1 enters through the guidance embedding, which
    adds nothing at first. The teacher's guidance is over caption and camera together. On held-out maps (the first 32
    chunks of each batch) it logs the distance of the student's chunk (the average's weights, `num_phases` steps) from
    the guided teacher's own solution (48 steps, the same noise), and beside it that of the teacher's `num_phases` Euler
    steps, which it has to beat.

    Deviation from the PCM authors (arXiv 2405.18407): no adversarial term; see `consistency` for the grid.

    Args:
        teacher: folder of the trained teacher.
        vae: folder of the autoencoder; may be left out where the data hold latents.
        num_phases: phases, and the student's steps.
        num_levels: noise levels of the teacher's steps; a multiple of `num_phases`.
        shift: shift of the noise levels, the teacher's.
        max_w: guidance weights are drawn uniformly from 0 to this.
        sample_w: guidance weight of validation and of the generated chunks.
        huber_c: where the loss turns from square to absolute.
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
        loss: Tensor = self._loss(*inputs)
        self.log("train/loss", loss.detach().clone())
        if self.due():
            self.log_camera(given)
        return loss

    @functools.cached_property
    def _loss(self) -> Callable[..., Tensor]:
        networks = (self.network, self.ema.average, self.frozen["teacher"])
        return self.graphed(functools.partial(distillation_loss, self._rays, self.huber_c), *networks)

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
        return self._sampled(given, noise_BCTHW, self.sample_w)

    def sampling(self) -> dict[str, Any]:
        """The student's: a step a phase, the guidance weight as an input."""
        steps, w = self.num_phases, self.sample_w
        return {"num_inference_steps": steps, "guidance_scale": 1.0, "guidance_w": w, "shift": self.shift}

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
    prediction, target = jump(rays, student, average, teacher, *inputs)
    return pseudo_huber(prediction, target, huber_c)


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
) -> tuple[Tensor, Tensor]:
    """The student's jump and its target (`consistency`); only the student gets gradients.

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
    return prediction, target


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
