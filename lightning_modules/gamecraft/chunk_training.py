"""What the trainings of teacher and student share: their inputs, their validation and a look at what they generate.

Axis legend: B batch, F frame (33), C latent channel (16), N history latent, T chunk latent (9), H W latent size, P 6
Pluecker channels, Y X pixel size.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from ...datamodules.files import write_json
from ...datamodules.gamecraft.camera import plucker_rays
from ...kernels.choice import Choice
from ...kernels.paro.plan import Plan
from .averaging import save_whole
from .caption_states import CaptionStates
from .captions_encoder import CaptionEncoder
from .conditions import Conditions, encode_batch
from .flow import TIMESTEPS
from .graphed import GraphedLoss
from .pipeline import BANK
from .release import SAMPLING, SCHEMA_VERSION
from .sampling import Captions, denoise
from .training import AveragedTraining, compile_blocks, mean_square_error, psnr, trained, uncompiled
from .transformer import GameCraftTransformer
from .vae import CLIP_LATENTS, GameplayVAE

FIRST_FRAMES = 8


class ChunkTraining(AveragedTraining):
    """Trains a transformer on chunks of gameplay; the parent of teacher and student.

    Args:
        network: the transformer in training.
        vae: folder of the autoencoder, for batches of frames and for the look at generated chunks; may be None where
            the data hold latents.
        camera_lr_factor: factor of the learning rate of the camera's branch, whose end starts at zero.
        num_samples: validation chunks to generate at the end; 0 = none.
        ema_decay: decay of the weights' moving average.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        compile: compile the networks' blocks and run steps as CUDA graphs (a GPU).
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(
        self,
        network: GameCraftTransformer,
        vae: str | None,
        camera_lr_factor: float,
        num_samples: int,
        ema_decay: float,
        warmup_steps: int,
        compile: bool,
        optimizer: OptimizerCallable,
    ) -> None:
        super().__init__(network, ema_decay, warmup_steps, optimizer)
        self.camera_lr_factor, self.num_samples = camera_lr_factor, num_samples
        self._compile = compile
        self._rays: Callable[[Tensor, Tensor, int, int], Tensor] = plucker_rays
        if compile:
            compile_blocks(self.network)
            self._rays = torch.compile(plucker_rays, dynamic=False)
        # neither belongs to the checkpoint: both are read from their own folders
        self.frozen: dict[str, Any] = {} if vae is None else {"vae": trained(GameplayVAE, vae, "model.vae")}
        self.captions = CaptionEncoder()
        self._states = CaptionStates()

    def set_attention(
        self, attention: Choice | None, plan: str | None, made_for: GameCraftTransformer | None = None
    ) -> None:
        """Pick the attention of the network in training and of its average, each with a backend of its own.

        Args:
            attention, plan, made_for: see `GameCraftTransformer.set_attention`.

        Raises:
            UserError: likewise.
        """
        loaded = None if plan is None else Plan.load(plan)
        for network in (self.network, self.ema.average):
            network.set_attention(attention, loaded, made_for)

    @property
    def vae(self) -> GameplayVAE | None:
        """The autoencoder, or None."""
        found: GameplayVAE | None = self.frozen.get("vae")
        return found

    def on_fit_start(self) -> None:
        """Bring what is frozen to the device."""
        for network in self.frozen.values():
            network.requires_grad_(False).eval().to(self.device)

    def on_validation_start(self) -> None:
        """The same, where nothing is trained."""
        self.on_fit_start()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The camera's branch with a learning rate of its own, and the rest."""
        camera = list(self.network.camera_encoder.parameters())
        of_camera = {id(p) for p in camera}
        rest = [p for p in self.network.parameters() if id(p) not in of_camera]
        return [{"params": rest}, {"params": camera, "lr_factor": self.camera_lr_factor}]

    def conditions(self, batch: dict[str, Any]) -> Conditions:
        """A batch of the datamodule as the networks see it."""
        x0_BCTHW, history_BCNHW = encode_batch(batch, self.vae)
        return Conditions(
            x0_BCTHW, history_BCNHW, batch["intrinsics"], batch["c2w"], self.caption_states(batch["captions"])
        )

    def caption_states(self, captions: list[str]) -> Captions:
        """Token states, mask and pooled vectors on the device."""
        return self._states(self.captions, captions, self.device)

    def graphed(self, loss: Callable[..., Tensor], *networks: GameCraftTransformer) -> Callable[..., Tensor]:
        """`loss(*networks, *inputs)` as a function of the inputs: as CUDA graphs where compiling is asked for."""
        if self._compile and self.device.type == "cuda" and self.trainer.world_size == 1:
            return GraphedLoss(loss, *networks)
        return functools.partial(loss, *networks)

    def log_camera(self, given: Conditions) -> None:
        """Log the scale of the camera's tokens and their norm beside the video tokens': a dead branch shows here."""
        encoder, few = self.network.camera_encoder, given.first(4)
        self.log("camera/scale", encoder.scale.detach().mean())
        if encoder.patch_embed is not None:
            with torch.no_grad(), uncompiled():
                hidden = self.network.model_input(few.x0_BCTHW, few.history_BCNHW)
                video, camera = self.network.x_embedder(hidden), encoder(few.rays())
                self.log("camera/norm_ratio", camera.float().norm(dim=-1).mean() / video.float().norm(dim=-1).mean())

    @abstractmethod
    def generate(self, given: Conditions, noise_BCTHW: Tensor) -> Tensor:
        """Chunks of the average's weights; each training says with which steps and guidance."""

    @abstractmethod
    def sampling(self) -> dict[str, Any]:
        """How to sample these weights: arguments of `GameCraftPipeline`."""

    def export(self, folder: Path) -> None:
        """The average's weights, the captions that it knows and how to sample; only then a look at chunks."""
        save_whole(self.ema.average, folder / "transformer")
        self.captions.save(folder / BANK)
        write_json(folder / SAMPLING, {"schema_version": SCHEMA_VERSION, **self.sampling()})
        self._kept |= self.measured() | self.look()

    @torch.no_grad()
    def look(self) -> dict[str, float]:
        """PSNR of generated chunks against the decoded true ones, and of a copy of the history's last frame."""
        if self.vae is None or not self.num_samples:
            return {}
        loader = self.trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
        batch = self.transfer_batch_to_device(next(iter(loader)), self.device, 0)
        batch = {k: v[: self.num_samples] if k != "head" else v for k, v in batch.items()}
        with self.trainer.precision_plugin.forward_context(), uncompiled():
            given = self.conditions(batch)
            made = self.vae.decode_clips(self.generate(given, fixed_noise(given.x0_BCTHW, 0)))
            wanted = self.vae.decode_clips(given.x0_BCTHW)
            copied = self.vae.decode_clips(given.history_BCNHW[:, :, -CLIP_LATENTS:])[:, -1:].expand_as(wanted)
        found = {}
        for name, frames in (("generated", made), ("copy", copied)):
            for span, until in (("first", FIRST_FRAMES), ("all", wanted.shape[1])):
                found[f"psnr_{name}_{span}"] = psnr(mean_square_error(frames[:, :until], wanted[:, :until]))
        return found

    def report(self, statements: list[str]) -> dict[str, Any]:
        """The stage's results: a training's own statements, and what was seen by `look`, if it looked."""
        m = self._kept
        metrics = {k: v for k, v in m.items() if k.startswith("psnr_")}
        if metrics:
            statements = [
                *statements,
                f"{self.num_samples} validation chunks generated: PSNR {m['psnr_generated_first']:.2f} dB over the "
                f"first {FIRST_FRAMES} frames and {m['psnr_generated_all']:.2f} dB over all 33, a copy of the last "
                f"frame before them {m['psnr_copy_first']:.2f} and {m['psnr_copy_all']:.2f} dB (against the "
                "autoencoder's own pictures).",
            ]
        return {"metrics": metrics, "statements": statements}


def fixed_noise(like: Tensor, number: int) -> Tensor:
    """Standard normal noise of `like`'s shape that depends on `number` alone."""
    generator = torch.Generator().manual_seed(number)
    return torch.randn(like.shape, generator=generator).to(like.device)


def guided_samples(
    network: GameCraftTransformer,
    given: Conditions,
    null: Captions,
    noise_BCTHW: Tensor,
    sigmas: Tensor,
    guidance_scale: float = 1.0,
    guidance_w: float | None = None,
) -> Tensor:
    """`sampling.denoise` for a batch of conditions."""
    still = given.without(null)
    return denoise(
        network, given.history_BCNHW, noise_BCTHW, given.rays(), still.rays(), given.captions, still.captions,
        sigmas, guidance_scale, guidance_w,
    )  # fmt: skip


def predict(
    network: GameCraftTransformer,
    noisy_BCTHW: Tensor,
    sigma_B: Tensor,
    history_BCNHW: Tensor,
    rays_BFPYX: Tensor,
    captions: tuple[Tensor, ...],
    w_B: Tensor | None = None,
) -> Tensor:
    """Velocity [B, C, T, H, W] float32 of the chunk alone: what stands at the history's positions is left out.

    Args:
        network: the transformer.
        noisy_BCTHW: the chunk at noise level `sigma_B`.
        sigma_B: noise levels.
        history_BCNHW: clean history.
        rays_BFPYX: the camera.
        captions: token states, mask and pooled vectors.
        w_B: guidance weight of a distilled network, or None.
    """
    num_history = history_BCNHW.shape[2]
    tokens = network.camera_tokens(rays_BFPYX, num_history)
    hidden = network.model_input(noisy_BCTHW, history_BCNHW)
    guidance = None if w_B is None else w_B * TIMESTEPS
    out = network(hidden, sigma_B * TIMESTEPS, *captions, camera_tokens=tokens, guidance=guidance)
    return out[:, :, num_history:].float()
