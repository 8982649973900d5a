"""Single pictures from captions: the transformer with a grid of one frame, no history and no camera.

The paper makes none; they are here for what depends on a grid [height, width], such as orders of attention.

Axis legend: B batch, C latent channel (16), T latent frame (1), H W latent size, L caption token, D caption width.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import MeanMetric

from ...registry import MODELS
from .chunk_training import ChunkTraining, fixed_noise
from .conditions import Conditions
from .evaluation.chunks import Cameras, DiffusionModel
from .flow import TIMESTEPS, draw_sigmas, fixed_sigmas, interpolate, sigmas, velocity
from .module import build_transformer
from .sampling import Captions
from .training import AveragedTraining
from .transformer import GameCraftTransformer


def picture_velocity(network: GameCraftTransformer, noisy_BC1HW: Tensor, sigma_B: Tensor, captions: Captions) -> Tensor:
    """The velocity of single frames [B, C, 1, H, W], float32, without history and camera.

    Args:
        network: the transformer.
        noisy_BC1HW: latents at noise level `sigma_B`.
        sigma_B: noise levels.
        captions: token states, mask and pooled vectors.
    """
    hidden = network.model_input(noisy_BC1HW, noisy_BC1HW[:, :, :0])
    out: Tensor = network(hidden, sigma_B * TIMESTEPS, *captions)
    return out.float()


@torch.no_grad()
def denoise_pictures(network: GameCraftTransformer, noise_BC1HW: Tensor, captions: Captions, levels: Tensor) -> Tensor:
    """From noise to latents of single frames [B, C, 1, H, W], float32, by Euler steps down the noise levels."""
    x_BC1HW = noise_BC1HW.float()
    for level, lower in pairwise(levels.tolist()):
        sigma_B = torch.full((len(x_BC1HW),), level, device=x_BC1HW.device)
        x_BC1HW = x_BC1HW + (lower - level) * picture_velocity(network, x_BC1HW, sigma_B, captions)
    return x_BC1HW


@dataclass
class PictureModel(DiffusionModel):
    """Answers with one picture from the request's caption and seed; history and camera are not looked at."""

    def _sample(self, history: Tensor, cameras: Cameras, captions: list[str], seeds: list[int]) -> Tensor:
        shape = (history.shape[1], 1, *history.shape[3:])
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        known = self._caption_states(captions, history.device)
        return denoise_pictures(self.transformer, noise.to(history.device), known, sigmas(self.num_steps, self.shift))


@MODELS.register("gamecraft_picture", paper="2506.17201")
class GameCraftPictureModule(ChunkTraining):
    """Trains the transformer to make the first frame of a clip from its caption, by flow matching.

    On held-out maps it logs the loss of the average's weights at fixed noise, and the same with each sample's caption
    taken from its neighbour (`val/loss_other_caption`).

    Deviation: the paper trains no pictures.

    Args:
        transformer: name of a size, or arguments of `GameCraftTransformer`.
        vae: folder of the autoencoder; may be left out where the data hold latents.
        init_from: folder of a trained transformer to start from, in place of `transformer`'s random weights.
        shift: shift of the noise levels.
        num_steps: steps of the sampler that the weights are saved with.
        ema_decay: decay of the weights' moving average.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(
        self,
        transformer: str | dict[str, Any] = "student",
        vae: str | None = None,
        init_from: str | None = None,
        shift: float = 3.0,
        num_steps: int = 8,
        ema_decay: float = 0.999,
        warmup_steps: int = 100,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-4, weight_decay=0.01, fused=True),
    ) -> None:
        network = build_transformer(transformer, init_from, "add")
        super().__init__(network, vae, 1.0, 0, ema_decay, warmup_steps, False, optimizer)
        self.network.camera_encoder.requires_grad_(False)
        self.shift, self.num_steps = shift, num_steps
        self._val: Any = torch.nn.ModuleDict({name: MeanMetric() for name in ("loss", "loss_other_caption")})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All that is trained: the camera's branch is not."""
        return AveragedTraining.parameter_groups(self)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Flow matching on the first frames of a batch."""
        given = self.conditions(batch)
        noise = torch.randn_like(given.x0_BCTHW[:, :, :1])
        sigma_B = draw_sigmas(len(noise), self.shift, device=self.device)
        loss = self._loss(self.network, given.x0_BCTHW, noise, sigma_B, given.captions)
        self.log("train/loss", loss.detach().clone())
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The average's loss at the batch's own fixed noise and noise levels, with its captions and with others."""
        given = self.conditions(batch)
        noise = fixed_noise(given.x0_BCTHW[:, :, :1], batch_idx)
        sigma_B = fixed_sigmas(len(noise), self.shift).to(self.device)
        states, mask, pooled = (part.roll(1, 0) for part in given.captions)
        for name, captions in (("loss", given.captions), ("loss_other_caption", (states, mask, pooled))):
            loss = self._loss(self.ema.average, given.x0_BCTHW, noise, sigma_B, captions)
            self._val[name].update(loss, weight=len(noise))

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation pictures."""
        for name, metric in self._val.items():
            self.log(f"val/{name}", metric.compute())
            metric.reset()

    @staticmethod
    def _loss(
        network: GameCraftTransformer, x0_BCTHW: Tensor, noise_BC1HW: Tensor, sigma_B: Tensor, captions: Captions
    ) -> Tensor:
        first_BC1HW = x0_BCTHW[:, :, :1]
        out = picture_velocity(network, interpolate(first_BC1HW, noise_BC1HW, sigma_B), sigma_B, captions)
        return torch.nn.functional.mse_loss(out, velocity(first_BC1HW, noise_BC1HW))

    def generate(self, given: Conditions, noise_BCTHW: Tensor) -> Tensor:
        """Pictures of the average's weights."""
        levels = sigmas(self.num_steps, self.shift)
        return denoise_pictures(self.ema.average, noise_BCTHW[:, :, :1], given.captions, levels)

    def sampling(self) -> dict[str, Any]:
        """Few steps without guidance."""
        steps = self.num_steps
        return {"num_inference_steps": steps, "guidance_scale": 1.0, "guidance_w": None, "shift": self.shift}

    def results(self) -> dict[str, Any]:
        """For the report: what is left of the loss, and whether the caption counts."""
        m = self.measured()
        line = f"Transformer of {sum(p.numel() for p in self.network.parameters()):,} parameters, for single pictures."
        if "val/loss" in m:
            worse = m["val/loss_other_caption"] / m["val/loss"] - 1
            line += f" Loss on held-out maps {m['val/loss']:.4f}; with another picture's caption {worse:+.1%}."
        return self.report([line])
