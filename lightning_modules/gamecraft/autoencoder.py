"""Training of the causal video autoencoder on single frames and on clips.

Axis legend: B batch, F frame, C channel, H height, W width, T latent frame.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import MeanMetric

from ...registry import MODELS, UserError
from .averaging import save_whole
from .fused_blocks import fuse_blocks
from .graphed import GraphedLoss
from .training import AveragedTraining, mean_square_error, psnr, trained
from .vae import SIZES, GameplayVAE

KINDS = ("clips", "frames")  # 33-frame inputs and single frames
STATISTICS_BATCHES = 16
SMALLEST_STD = 1e-3  # a channel that says nothing is not blown up


@MODELS.register("gamecraft_vae", paper="2506.17201")
class VAEModule(AveragedTraining):
    """Trains the autoencoder on 33-frame clips and single frames, as the batches bring them.

    The two are different inputs to it (its norms see all frames), and the model that uses it meets both: a start
    picture is one frame. On held-out maps it logs the PSNR of both, over the same clips. At the end it measures mean
    and standard deviation of each latent channel on training data, and saves them with the average's weights to `vae`
    in its folder.

    Deviations: small widths, trained from scratch (the paper takes HunyuanVideo's); no adversarial and no perceptual
    loss, which need weights that are not to be had.

    Args:
        vae: name of a size, or arguments of `GameplayVAE`.
        init_from: folder of a trained autoencoder to go on from; its sizes then take the place of `vae`.
        kl_weight: weight of the mean divergence of a latent from the standard normal.
        square_weight: weight of the square error, which PSNR measures, beside the absolute one.
        edge_weight: weight of the absolute error of differences between neighbouring pixels.
        ema_decay: decay of the weights' moving average.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        graphs: run steps as CUDA graphs (a GPU), which single frames gain most by.
        compile: compile what lies between the convolutions, with channels last (`fused_blocks`; a GPU, half a minute).
        optimizer: anything that makes an optimiser of parameters.
    """

    def __init__(
        self,
        vae: str | dict[str, Any] = "student",
        init_from: str | None = None,
        kl_weight: float = 1e-5,
        square_weight: float = 1.0,
        edge_weight: float = 0.0,
        ema_decay: float = 0.999,
        warmup_steps: int = 50,
        graphs: bool = False,
        compile: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.0),
    ) -> None:
        network = build_vae(vae, init_from)
        super().__init__(network, ema_decay, warmup_steps, optimizer)
        self.kl_weight, self.square_weight, self.edge_weight = kl_weight, square_weight, edge_weight
        self.graphs = graphs
        if compile:
            fuse_blocks(self.network)
        self._val: Any = torch.nn.ModuleDict({kind: MeanMetric() for kind in KINDS})

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Absolute and square error, edges, divergence of one batch {"frames": uint8 [B, F, C, H, W]}, F = 33 or 1."""
        x_BCFHW = normalised(batch["frames"])
        loss, l1, divergence = self._loss(x_BCFHW, torch.randn(self.network.latent_shape(x_BCFHW), device=self.device))
        self.log("train/loss", loss.detach().clone())
        kind = KINDS[x_BCFHW.shape[2] == 1]
        self.log(f"train/l1_{kind}", l1.detach().clone())
        self.log("train/kl", divergence.detach().clone())
        return loss

    @functools.cached_property
    def _loss(self) -> Callable[..., Any]:
        loss = functools.partial(autoencoder_loss, self.square_weight, self.edge_weight, self.kl_weight)
        graphs = self.graphs and self.device.type == "cuda" and self.trainer.world_size == 1
        return GraphedLoss(loss, self.network) if graphs else functools.partial(loss, self.network)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Reconstruct the clips, and the first frame of each alone."""
        x_BCFHW = normalised(batch["frames"])
        for kind, wanted in (("clips", x_BCFHW), ("frames", x_BCFHW[:, :, :1])):
            if kind == "frames" or x_BCFHW.shape[2] > 1:
                vae = self.ema.average
                made = vae.decode(vae.encode(wanted).latent_dist.mode()).sample
                self._val[kind].update(mean_square_error(made, wanted), weight=len(wanted))

    def on_validation_epoch_end(self) -> None:
        """Log the PSNR of either kind; the error is pooled over all pixels before the logarithm."""
        for kind, metric in self._val.items():
            if metric.update_called:
                self.log(f"val/psnr_{kind}", psnr(metric.compute()))
            metric.reset()

    def export(self, folder: Path) -> None:
        """Measure the latents' statistics and write the autoencoder."""
        self.ema.average.set_latent_statistics(*self.latent_statistics())
        save_whole(self.ema.average, folder / "vae")

    @torch.no_grad()
    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [C] of each latent channel on training data, clips and frames as mixed there."""
        loader = self.trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        count, sums_2C = 0, torch.zeros(2, self.network.config.latent_channels, dtype=torch.float64)
        for batch in islice(loader, STATISTICS_BATCHES):
            with self.trainer.precision_plugin.forward_context():
                raw = self.ema.average.encode(normalised(batch["frames"].to(self.device))).latent_dist.mode()
            raw = raw.double().cpu()
            count += raw[:, 0].numel()
            sums_2C += torch.stack([raw.sum((0, 2, 3, 4)), raw.square().sum((0, 2, 3, 4))])
        mean_C, square_C = sums_2C / count
        return mean_C, (square_C - mean_C.square()).clamp_min(SMALLEST_STD**2).sqrt()

    def results(self) -> dict[str, Any]:
        """For the report: quality of both kinds of input on held-out maps."""
        m = self.measured()
        parameters = sum(p.numel() for p in self.network.parameters())
        clips, frames = m.get("val/psnr_clips"), m.get("val/psnr_frames")
        if clips is None or frames is None:
            return {"statements": [f"Autoencoder of {parameters:,} parameters; no validation clip was seen."]}
        text = (
            f"Autoencoder of {parameters:,} parameters: PSNR on held-out maps {clips:.2f} dB for clips and "
            f"{frames:.2f} dB for their first frames alone (errors pooled over all pixels)."
        )
        return {"metrics": {"psnr_clips": clips, "psnr_frames": frames}, "statements": [text]}


def build_vae(vae: str | dict[str, Any], init_from: str | None) -> GameplayVAE:
    """An autoencoder with random weights, or the one in a folder.

    Raises:
        UserError: for a size that does not exist, or a folder without such weights.
    """
    if init_from is not None:
        found: GameplayVAE = trained(GameplayVAE, init_from, "model.init_from")
        return found
    if isinstance(vae, str):
        if vae not in SIZES:
            raise UserError(f"model.vae: no size '{vae}'\nThere are {', '.join(SIZES)}.")
        vae = SIZES[vae]
    return GameplayVAE(**vae)


def normalised(frames_BFCHW: Tensor) -> Tensor:
    """uint8 [B, F, C, H, W] to float [B, C, F, H, W] in [-1, 1]."""
    return frames_BFCHW.transpose(1, 2).float() / 127.5 - 1


def autoencoder_loss(
    square_weight: float,
    edge_weight: float,
    kl_weight: float,
    vae: GameplayVAE,
    x_BCFHW: Tensor,
    noise_BCThw: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and two of its parts: absolute error, and a latent's mean divergence from the standard normal."""
    posterior = vae.encode(x_BCFHW).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    latents_BCThw = mean + (0.5 * logvar).exp() * noise_BCThw
    difference = vae.decode(latents_BCThw.to(posterior.mean.dtype)).sample.float() - x_BCFHW
    l1, square = difference.abs().mean(), difference.square().mean()
    edges = (difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()) / 2
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss = l1 + square_weight * square + edge_weight * edges + kl_weight * divergence
    return loss, l1.detach(), divergence.detach()
