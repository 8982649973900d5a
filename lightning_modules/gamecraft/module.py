"""The teacher as a LightningModule: flow matching on chunks that follow their history (arXiv 2506.17201).

Axis legend: B batch, F frame (33), C latent channel (16), N history latent, T chunk latent (9), H W latent size, P 6
Pluecker channels, Y X pixel size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import MeanMetric

from ...datamodules.gamecraft.camera import plucker_rays
from ...registry import MODELS, UserError
from .chunk_training import ChunkTraining, fixed_noise, guided_samples, predict
from .conditions import PIXELS, Conditions
from .flow import draw_sigmas, fixed_sigmas, interpolate, sigmas, velocity
from .training import trained
from .transformer import SIZES, GameCraftTransformer


@MODELS.register("gamecraft", paper="2506.17201")
class GameCraftModule(ChunkTraining):
    """Trains the MM-DiT to continue gameplay by a chunk of 33 frames, given history, camera and caption.

    The loss is the velocity's mean square error at the chunk's positions alone. The history is clean, in the noise
    channels as in the condition channels, and one noise level modulates all tokens. With probability `drop` a sample
    loses caption and camera together (empty caption, a camera that stands still), for the guidance of both. A second
    phase (the paper's balanced data at a lower rate) is the same module with `init_from`.

    On held-out maps it logs the loss of the average's weights at fixed noise, and the same with each sample's camera
    taken from its neighbour (`val/loss_other_camera`): a model that ignores the camera shows no difference.

    Deviations: trained from scratch at a small size; moving average, dropping rate, noise levels (uniform before the
    shift) and the mask in the loss are ours, the paper states none of them.

    Args:
        transformer: name of a size, or arguments of `GameCraftTransformer`.
        vae: folder of the autoencoder; may be left out where the data hold latents.
        init_from: folder of a trained transformer to start from, in place of `transformer`'s random weights.
        camera_injection: where the camera enters: `add`, `token_concat` or `channel_concat` (the ablation).
        shift: shift of the noise levels.
        drop: probability of losing caption and camera.
        history_noise: largest standard deviation of noise on the history, drawn uniformly (arXiv 2408.14837); the
            paper's is 0.
        camera_lr_factor: factor of the learning rate of the camera's branch.
        num_samples: validation chunks to generate at the end; 0 = none.
        num_steps: steps of those.
        guidance_scale: guidance of those.
        ema_decay: decay of the weights' moving average.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        compile: compile the blocks and run steps as CUDA graphs (a GPU; about 30 s for each kind of history).
        attention: backend of the network's attention and its average's, such as `sdpa` or `paro`; or a mapping of
            layer patterns (`single_transformer_blocks.*`, the last that fits counts) to backends.
        plan: file of the plan for `paro` or `int4`, made for `init_from`'s weights.
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(
        self,
        transformer: str | dict[str, Any] = "student",
        vae: str | None = None,
        init_from: str | None = None,
        camera_injection: str = "add",
        shift: float = 3.0,
        drop: float = 0.1,
        history_noise: float = 0.0,
        camera_lr_factor: float = 5.0,
        num_samples: int = 8,
        num_steps: int = 50,
        guidance_scale: float = 2.0,
        ema_decay: float = 0.999,
        warmup_steps: int = 100,
        compile: bool = False,
        attention: str | dict[str, Any] | None = None,
        plan: str | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-4, weight_decay=0.01, fused=True),
    ) -> None:
        network = build_transformer(transformer, init_from, camera_injection)
        super().__init__(network, vae, camera_lr_factor, num_samples, ema_decay, warmup_steps, compile, optimizer)
        self.set_attention(attention, plan)
        self.shift, self.drop, self.history_noise = shift, drop, history_noise
        self.num_steps, self.guidance_scale = num_steps, guidance_scale
        self._val: Any = torch.nn.ModuleDict({name: MeanMetric() for name in ("loss", "loss_other_camera")})

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Flow matching on one batch, whose samples share the kind of history."""
        given = self.conditions(batch)
        size = len(given.x0_BCTHW)
        dropped_B = torch.rand(size, device=self.device) < self.drop
        given = given.without(self.caption_states([""]), dropped_B)
        sigma_B = draw_sigmas(size, self.shift, device=self.device)
        history_BCNHW = given.history_BCNHW
        if self.history_noise:
            level_B1111 = self.history_noise * torch.rand(size, 1, 1, 1, 1, device=self.device)
            history_BCNHW = history_BCNHW + level_B1111 * torch.randn_like(history_BCNHW)
        noise_BCTHW, cameras = torch.randn_like(given.x0_BCTHW), (given.intrinsics_BF33, given.c2w_BF44)
        loss = self._flow_loss(given.x0_BCTHW, noise_BCTHW, sigma_B, history_BCNHW, *cameras, *given.captions)
        self.log("train/loss", loss.detach().clone())
        self.log(f"train/loss_{batch['head']}", loss.detach().clone())
        if self.due():
            self.log_camera(given)
        return loss

    @functools.cached_property
    def _flow_loss(self) -> Callable[..., Tensor]:
        return self.graphed(functools.partial(flow_loss, self._rays), self.network)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The average's loss at the batch's own fixed noise and noise levels, with its cameras and with others."""
        given = self.conditions(batch)
        for name, seen in (("loss", given), ("loss_other_camera", given.with_other_cameras())):
            self._val[name].update(self._fixed_loss(seen, batch_idx), weight=len(given.x0_BCTHW))

    def _fixed_loss(self, given: Conditions, number: int) -> Tensor:
        noise_BCTHW = fixed_noise(given.x0_BCTHW, number)
        sigma_B = fixed_sigmas(len(noise_BCTHW), self.shift).to(self.device)
        cameras = (given.intrinsics_BF33, given.c2w_BF44)
        return flow_loss(
            plucker_rays,
            self.ema.average,
            given.x0_BCTHW,
            noise_BCTHW,
            sigma_B,
            given.history_BCNHW,
            *cameras,
            *given.captions,
        )

    def on_validation_epoch_end(self) -> None:
        """Log the means over all validation chunks."""
        for name, metric in self._val.items():
            self.log(f"val/{name}", metric.compute())
            metric.reset()

    def generate(self, given: Conditions, noise_BCTHW: Tensor) -> Tensor:
        """Guided samples of the average's weights."""
        steps = sigmas(self.num_steps, self.shift)
        null = self.caption_states([""])
        return guided_samples(self.ema.average, given, null, noise_BCTHW, steps, self.guidance_scale)

    def sampling(self) -> dict[str, Any]:
        """The teacher's: many steps, guided."""
        steps, scale = self.num_steps, self.guidance_scale
        return {"num_inference_steps": steps, "guidance_scale": scale, "guidance_w": None, "shift": self.shift}

    def results(self) -> dict[str, Any]:
        """For the report: what is left of the loss, whether the camera counts, and how generated chunks look."""
        m = self.measured()
        parameters = sum(p.numel() for p in self.network.parameters())
        lines = [f"Transformer of {parameters:,} parameters."]
        if "val/loss" in m:
            worse = m["val/loss_other_camera"] / m["val/loss"] - 1
            lines[0] += f" Loss on held-out maps {m['val/loss']:.4f}; with another sample's camera {worse:+.1%}."
        return self.report(lines)


def flow_loss(
    rays: Callable[[Tensor, Tensor, int, int], Tensor],
    network: GameCraftTransformer,
    x0_BCTHW: Tensor,
    noise_BCTHW: Tensor,
    sigma_B: Tensor,
    history_BCNHW: Tensor,
    intrinsics_BF33: Tensor,
    c2w_BF44: Tensor,
    *captions: Tensor,
) -> Tensor:
    """Mean square error of the chunk's velocity; `rays` makes Pluecker rays of cameras, as `plucker_rays` does."""
    rays_BFPYX = rays(intrinsics_BF33, c2w_BF44, *(PIXELS * side for side in x0_BCTHW.shape[-2:]))
    noisy_BCTHW = interpolate(x0_BCTHW, noise_BCTHW, sigma_B)
    out_BCTHW = predict(network, noisy_BCTHW, sigma_B, history_BCNHW, rays_BFPYX, captions)
    return torch.nn.functional.mse_loss(out_BCTHW, velocity(x0_BCTHW, noise_BCTHW))


def build_transformer(
    transformer: str | dict[str, Any], init_from: str | None, camera_injection: str
) -> GameCraftTransformer:
    """A transformer with random weights, or the one in a folder.

    Raises:
        UserError: for a size that does not exist, a folder without such weights, or one whose camera enters elsewhere.
    """
    if init_from is not None:
        found: GameCraftTransformer = trained(GameCraftTransformer, init_from, "model.init_from")
        if found.config.camera_injection != camera_injection:
            raise UserError(
                f"model.init_from: the camera of {init_from} enters by {found.config.camera_injection}\n"
                f"Set model.camera_injection to that; it is {camera_injection}."
            )
        return found
    if isinstance(transformer, str):
        if transformer not in SIZES:
            raise UserError(f"model.transformer: no size '{transformer}'\nThere are {', '.join(SIZES)}.")
        transformer = dict(SIZES[transformer])
    return GameCraftTransformer(**{"camera_injection": camera_injection, **transformer})
