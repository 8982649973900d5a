"""A last phase of the autoencoder's decoder: sharp pictures of real latents and of those that the student makes.

Axis legend: B batch, F frame (33), C channel, H W picture, c latent channel, T latent frame (9), h w latent picture.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import MeanMetric

from ...registry import MODELS
from .autoencoder import normalised
from .averaging import save_whole
from .caption_states import CaptionStates
from .captions_encoder import CaptionEncoder
from .chunk_training import FIRST_FRAMES, fixed_noise, guided_samples
from .conditions import Conditions, encode_history
from .discriminators import FrameDiscriminator, frozen, hinge, map_distance, measured
from .flow import sigmas
from .fused_blocks import fuse_blocks
from .graphed import GraphedLoss
from .training import AveragedTraining, compile_blocks, mean_square_error, psnr, trained, uncompiled
from .transformer import GameCraftTransformer
from .vae import GameplayVAE

DISCRIMINATOR_LR = 2.0  # times the decoder's
RAMP_STEPS = 200  # in which the discriminator's say rises from 0, since it starts knowing nothing
VAL_CHUNKS = 32  # of each validation batch, since sampling takes long
PSNRS = ("clips", "frames", "predicted_first", "predicted_all")


@MODELS.register("gamecraft_decoder", paper="2506.17201")
class DecoderModule(AveragedTraining):
    """Trains the autoencoder's decoder alone, on latents of real chunks and on the student's chunks after real history.

    The encoder is frozen, so every latent, and every network trained on them, stays valid. Real latents have the
    autoencoder's losses on clips and on first frames alone; the student's chunks have the absolute error against what
    truly came. A discriminator that looks at patches of clips sharpens both: its layers' distance between made and real
    chunk counts (the same place seen alike), and its score (looks real).

    On held-out maps it logs the PSNR of clips and of first frames alone, as the autoencoder's training does, of the
    student's chunks over the first frames and over all, and `val/edges_...`: mean difference of neighbouring pixels
    over the real chunks', 1 = as sharp, for real latents and for the student's.

    Not in the paper, which takes HunyuanVideo's autoencoder.

    Args:
        vae: folder of the trained autoencoder.
        student: folder of the trained student.
        num_steps: the student's steps a chunk.
        shift: shift of its noise levels.
        guidance_w: its guidance weight.
        noise_scale: factor of the noise that its sampling starts with.
        square_weight: weight of the square error of real latents' pictures beside the absolute one.
        feature_weight: size of the gradient of the discriminator's layers at the pictures, beside the absolute error's.
        adversarial_weight: the same of its score.
        ema_decay: decay of the weights' moving average.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        compile: compile the networks' blocks and run steps as CUDA graphs (a GPU; a minute).
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(
        self,
        vae: str,
        student: str,
        num_steps: int = 8,
        shift: float = 3.0,
        guidance_w: float = 1.0,
        noise_scale: float = 1.0,
        square_weight: float = 60.0,
        feature_weight: float = 1.0,
        adversarial_weight: float = 0.25,
        ema_decay: float = 0.995,
        warmup_steps: int = 50,
        compile: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-4, betas=(0.5, 0.95), weight_decay=0.0),
    ) -> None:
        network: GameplayVAE = trained(GameplayVAE, vae, "model.vae")
        for part in (network.encoder, network.quant_conv):
            part.requires_grad_(False)
        super().__init__(network, ema_decay, warmup_steps, optimizer)
        self.student_steps, self.shift, self.guidance_w = num_steps, shift, guidance_w
        self.noise_scale = noise_scale
        self.square_weight, self.feature_weight = square_weight, feature_weight
        self.adversarial_weight = adversarial_weight
        self.discriminator = FrameDiscriminator()
        self.frozen = {"student": trained(GameCraftTransformer, student, "model.student")}  # not in the checkpoint
        self._compile = compile
        if compile:
            fuse_blocks(self.network)
            compile_blocks(self.frozen["student"])
        self.captions, self._states = CaptionEncoder(), CaptionStates()
        edges = ("edges_clips", "edges_predicted", "edges_real")
        self._val: Any = torch.nn.ModuleDict({name: MeanMetric() for name in (*PSNRS, *edges)})

    def on_fit_start(self) -> None:
        """Bring what is frozen to the device."""
        self.frozen["student"].requires_grad_(False).eval().to(self.device)

    def on_validation_start(self) -> None:
        """The same, where nothing is trained."""
        self.on_fit_start()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The decoder's, and the discriminator's at its own rate."""
        theirs = {"params": list(self.discriminator.parameters()), "lr_factor": DISCRIMINATOR_LR}
        return [*super().parameter_groups(), theirs]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Real and predicted latents of one batch, and both sides of the discriminator."""
        x_BCFHW = normalised(batch["frames"])
        predicted_BcThw = self.predicted(batch, None)
        ramp = min(1.0, self.trainer.global_step / RAMP_STEPS)
        weights = (torch.full((), ramp * w, device=self.device) for w in (self.feature_weight, self.adversarial_weight))
        loss, *parts = self._loss(x_BCFHW, predicted_BcThw, *weights)
        for name, value in zip(("l1_clips", "l1_predicted", "features", "discriminator"), parts, strict=True):
            self.log(f"train/{name}", value.detach().clone())
        return loss

    @functools.cached_property
    def _loss(self) -> Callable[..., Any]:
        loss = functools.partial(decoder_loss, self.square_weight)
        networks = (self.network, self.discriminator)
        if self._compile and self.device.type == "cuda" and self.trainer.world_size == 1:
            return GraphedLoss(loss, *networks)
        return functools.partial(loss, *networks)

    @torch.no_grad()
    def predicted(self, batch: dict[str, Any], number: int | None) -> Tensor:
        """The student's chunks [B, c, T, h, w] after the batch's history; `number` fixes the noise, None draws it."""
        vae, states = self.network, functools.partial(self._states, self.captions)
        history = encode_history(vae, batch["history"]).float()
        size, frames = len(history), batch["frames"]
        raw_shape = vae.latent_shape(frames.transpose(1, 2))
        noise = torch.randn(raw_shape, device=self.device)
        noise = self.noise_scale * (noise if number is None else fixed_noise(noise, number))
        given = Conditions(noise, history, batch["intrinsics"], batch["c2w"], states(batch["captions"], self.device))
        null, levels = states([""] * size, self.device), sigmas(self.student_steps, self.shift)
        return guided_samples(self.frozen["student"], given, null, noise, levels, guidance_w=self.guidance_w)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Pictures of real latents, of first frames alone and of the student's chunks, against what truly came."""
        few = {k: v[:VAL_CHUNKS] if k != "head" else v for k, v in batch.items()}
        real_BFCHW, vae, count = few["frames"].float() / 127.5 - 1, self.ema.average, len(few["frames"])
        with uncompiled():
            made = {
                "clips": vae.decode_clips(vae.encode_clips(few["frames"])),
                "frames": vae.decode_clips(vae.encode_clips(few["frames"][:, :1])),
                "predicted": vae.decode_clips(self.predicted(few, batch_idx)),
            }
        first = slice(0, FIRST_FRAMES)
        errors = {k: mean_square_error(made[k], real_BFCHW[:, : made[k].shape[1]]) for k in ("clips", "frames")}
        errors["predicted_first"] = mean_square_error(made["predicted"][:, first], real_BFCHW[:, first])
        errors["predicted_all"] = mean_square_error(made["predicted"], real_BFCHW)
        sharp = {"clips": made["clips"], "predicted": made["predicted"], "real": real_BFCHW}
        for name, value in {**errors, **{f"edges_{k}": edges(v) for k, v in sharp.items()}}.items():
            self._val[name].update(value, weight=count)

    def on_validation_epoch_end(self) -> None:
        """Log PSNR over errors pooled over all pixels, and sharpness as a share of the real."""
        found = {name: metric.compute() for name, metric in self._val.items()}
        for name in PSNRS:
            self.log(f"val/psnr_{name}", psnr(found[name]))
        for name in ("clips", "predicted"):
            self.log(f"val/edges_{name}", found[f"edges_{name}"] / found["edges_real"])
        for metric in self._val.values():
            metric.reset()

    def export(self, folder: Path) -> None:
        """Write the autoencoder; the latents' statistics are as they were, since the encoder is."""
        save_whole(self.ema.average, folder / "vae")

    def results(self) -> dict[str, Any]:
        """For the report: what sharpness costs and brings on held-out maps."""
        m = {k.removeprefix("val/"): v for k, v in self.measured().items() if k.startswith("val/")}
        if "psnr_clips" not in m:
            return {"statements": ["Decoder trained further; no validation clip was seen."]}
        text = (
            f"Decoder trained further: PSNR on held-out maps {m['psnr_clips']:.2f} dB for clips, "
            f"{m['psnr_frames']:.2f} dB for their first frames alone; the student's chunks "
            f"{m['psnr_predicted_first']:.2f} dB over the first {FIRST_FRAMES} frames and "
            f"{m['psnr_predicted_all']:.2f} dB over all 33. Differences of neighbouring pixels are "
            f"{m['edges_clips']:.0%} of the real for clips and {m['edges_predicted']:.0%} for the student's chunks."
        )
        return {"metrics": m, "statements": [text]}


def decoder_loss(
    square_weight: float,
    vae: GameplayVAE,
    discriminator: FrameDiscriminator,
    x_BCFHW: Tensor,
    predicted_BcThw: Tensor,
    feature_weight: Tensor,
    adversarial_weight: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses of decoder and discriminator as one, since their gradients go to different weights.

    Args:
        square_weight: weight of the square error of real latents' pictures.
        vae: its decoder is trained.
        discriminator: is trained.
        x_BCFHW: real chunks in -1..1.
        predicted_BcThw: the student's chunks at the same places, as `encode_clips` scales latents.
        feature_weight: scalar; size of the gradient of `map_distance` at the pictures (`measured`).
        adversarial_weight: scalar; the same of the discriminator's score.

    Returns:
        The sum that is trained on; absolute errors of real latents' pictures and of predicted ones; distance of the
        discriminator's maps; the discriminator's loss.
    """
    one_BCFHW = x_BCFHW[:, :, :1]
    with torch.no_grad():
        clips, singles = (vae.encode(x).latent_dist.mode() for x in (x_BCFHW, one_BCFHW))
    predicted = vae.denormalise(predicted_BcThw.to(clips.dtype))
    made_BCFHW = vae.decode(torch.cat([clips, predicted])).sample.float()
    one_off = vae.decode(singles).sample.float() - one_BCFHW
    off, off_predicted = (made_BCFHW - torch.cat([x_BCFHW, x_BCFHW])).chunk(2)
    l1, l1_predicted = off.abs().mean(), off_predicted.abs().mean()
    share = 1 / x_BCFHW.shape[2]  # of the first frames among all
    ours = l1 + square_weight * off.square().mean() + l1_predicted
    ours = ours + share * (one_off.abs().mean() + square_weight * one_off.square().mean())

    score_real, maps_real = discriminator(x_BCFHW)
    score_made, _ = discriminator(made_BCFHW.detach())
    theirs = hinge(score_real, score_made)
    wanted = [torch.cat([m, m]).detach() for m in maps_real]
    # twice, since each absolute error is a mean over half of the pictures
    features = map_distance(frozen(discriminator, measured(made_BCFHW, 2 * feature_weight))[1], wanted)
    realism = frozen(discriminator, measured(made_BCFHW, 2 * adversarial_weight))[0].mean()
    total = ours + theirs + features - realism
    return total, l1.detach(), l1_predicted.detach(), features.detach(), theirs.detach()


def edges(clips: Tensor) -> Tensor:
    """Mean absolute difference of pixels side by side and one below the other, of pictures [..., H, W]."""
    clips = clips.float().clamp(-1, 1)
    return (clips.diff(dim=-1).abs().mean() + clips.diff(dim=-2).abs().mean()) / 2
