"""The inverse-dynamics network: which motion lies between two frames of real play. It judges what a model generates.

Axis legend: B batch, T frame, P pair of neighbouring frames, C channel, H height, W width, A motion axis, D feature,
G thumbnail value.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, PearsonCorrCoef

from ...datamodules.files import atomic_write, write_json
from ...registry import MODELS, UserError
from .motion import AXES, FULL_SPEED, UNITS, frame_motion, in_full_speeds

SCHEMA_VERSION = 1
FEATURE_DIM = 64
_THUMBNAIL = (4, 7)
_FLOW_LEVELS = 3
_THUMBNAIL_MAPS = 5  # red, green, blue, fine detail, change to the next frame


class InverseDynamicsNet(nn.Module):
    """Pairs of neighbouring frames in; camera motion and one feature vector a clip out.

    It is given the local flow that least squares find. The feature vector has to tell the clip's mean motion and,
    coarsely, what it shows, how sharp it is and how much it changes: a distance of such features answers to noise,
    blur, wrong colours, stutter and standstill alike.

    Args:
        width: channels of the first convolution.
        height: of the pictures it works on, a multiple of 8; others are resized to it.
        picture_width: likewise.

    Raises:
        ValueError: if height or picture_width is no multiple of 8.
    """

    def __init__(self, width: int = 32, height: int = 64, picture_width: int = 112) -> None:
        super().__init__()
        if height % 8 or picture_width % 8:
            raise ValueError(f"height and picture_width must be multiples of 8, not {height} and {picture_width}")
        self.width, self.size = width, (height, picture_width)
        self.trunk = nn.Sequential(
            *_conv(6, width, 5), *_conv(width, 2 * width, 3), *_conv(2 * width, 2 * width, 3)
        )  # to an eighth, where the flow lies
        self.joined = nn.Sequential(*_conv(2 * width + 3 * _FLOW_LEVELS, 4 * width, 3))
        dim = 4 * width
        # a motion's flow differs from place to place, so the places are kept: 2 rows of 4
        self.pair = nn.Sequential(nn.Linear(dim * 8, dim), nn.GELU())
        self.motion = nn.Linear(dim, len(AXES))
        self.feature = nn.Linear(dim, FEATURE_DIM)
        self.clip_motion = nn.Linear(FEATURE_DIM, len(AXES))
        self.thumbnail = nn.Linear(FEATURE_DIM, _THUMBNAIL_MAPS * _THUMBNAIL[0] * _THUMBNAIL[1])

    def prepare(self, frames_BTCHW: Tensor) -> Tensor:
        """Frames uint8 [B, T, 3, H, W] as floats in -1..1 of the network's size."""
        flat = frames_BTCHW.flatten(0, 1).float() / 127.5 - 1
        if flat.shape[-2:] != self.size:
            flat = F.interpolate(flat, self.size, mode="area")
        return flat.unflatten(0, frames_BTCHW.shape[:2])

    def pairs(self, earlier_BPCHW: Tensor, later_BPCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Prepared frames and their successors to motion in full speeds [B, P, 4] and clip features [B, 64]."""
        earlier, later = earlier_BPCHW.flatten(0, 1), later_BPCHW.flatten(0, 1)
        seen = self.trunk(torch.cat([earlier, later], 1))
        x = self.joined(torch.cat([seen, local_flow(earlier, later)], 1))
        grid = F.adaptive_avg_pool2d(x, (2, 4)).flatten(1)
        pair_BPD = self.pair(grid).unflatten(0, earlier_BPCHW.shape[:2])
        return self.motion(pair_BPD), self.feature(pair_BPD.mean(1))  # a mean: more frozen pairs, more change

    def forward(self, frames_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Whole clips.

        Args:
            frames_BTCHW: uint8 [B, T, 3, H, W], T >= 2.

        Returns:
            Motion [B, T - 1, 4] in the units of `motion.frame_motion`, and features [B, 64].
        """
        x_BTCHW = self.prepare(frames_BTCHW)
        motion_BPA, feature_BD = self.pairs(x_BTCHW[:, :-1], x_BTCHW[:, 1:])
        return motion_BPA.float() * motion_BPA.new_tensor(FULL_SPEED).float(), feature_BD.float()

    @torch.no_grad()
    def measure(self, frames_BTCHW: Tensor, batch_size: int = 32) -> tuple[Tensor, Tensor]:
        """As `forward`, in fp32 and in batches, on the network's device; returns both on the CPU."""
        device = self.motion.weight.device
        found = [self.eval()(part.to(device)) for part in frames_BTCHW.split(batch_size)]
        return torch.cat([m.cpu() for m, _ in found]), torch.cat([f.cpu() for _, f in found])

    def save(self, folder: Path, errors: dict[str, float]) -> None:
        """Write idm.safetensors and, last, idm.json with the errors on clips of maps that were never trained on."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().float().cpu().contiguous() for k, v in self.state_dict().items()}
        with atomic_write(folder / "idm.safetensors") as temporary:
            save_file(weights, temporary)
        digest = hashlib.sha256((folder / "idm.safetensors").read_bytes()).hexdigest()
        shape = {"width": self.width, "height": self.size[0], "picture_width": self.size[1]}
        write_json(folder / "idm.json", {"schema_version": SCHEMA_VERSION, **shape, "sha256": digest, "errors": errors})

    @classmethod
    def load(cls, folder: Path) -> tuple[InverseDynamicsNet, dict[str, Any]]:
        """Read a folder that `save` wrote: the network in eval mode, and idm.json.

        Raises:
            UserError: if there is none, it is of another schema, or damaged.
        """
        try:
            meta = json.loads((folder / "idm.json").read_text(encoding="utf-8"))
            if meta["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema {meta['schema_version']}, this fulgurite reads {SCHEMA_VERSION}")
            net = cls(meta["width"], meta["height"], meta["picture_width"])
            net.load_state_dict(load_file(folder / "idm.safetensors"))
        except Exception as error:  # OSError, JSON's, safetensors' and torch's own error types
            raise UserError(
                f"{folder}: no inverse-dynamics network here: {error}\n"
                "fulgurite run gamecraft/tiny   trains one, in <run>/idm/idm"
            ) from None
        return net.eval(), meta


def _conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2), nn.GroupNorm(4, outputs), nn.GELU()]


def local_flow(earlier_NCHW: Tensor, later_NCHW: Tensor) -> Tensor:
    """Optical flow by least squares in windows (Lucas and Kanade, 1981), at full, half and quarter size.

    Given to the network, so that it does not spend its training on rediscovering it.

    Args:
        earlier_NCHW: pictures in -1..1.
        later_NCHW: those that follow.

    Returns:
        [N, 9, H / 8, W / 8]: for each level, flow to the right and down in pixels of the full size, halved, and the log
        of how much texture there is to tell it by.
    """
    found = []
    grey = [z.mean(1, keepdim=True) for z in (earlier_NCHW, later_NCHW)]
    for level in range(_FLOW_LEVELS):
        x, y = (F.avg_pool2d(z, 2**level) if level else z for z in grey)
        middle, change = F.pad((x + y) / 2, (1, 1, 1, 1), mode="replicate"), y - x
        dx = (middle[..., 1:-1, 2:] - middle[..., 1:-1, :-2]) / 2
        dy = (middle[..., 2:, 1:-1] - middle[..., :-2, 1:-1]) / 2
        products = torch.cat([dx * dx, dy * dy, dx * dy, dx * change, dy * change], 1)
        step = 8 // 2**level
        xx, yy, xy, xt, yt = F.avg_pool2d(products, 2 * step, step, step // 2, count_include_pad=False).unbind(1)
        xx, yy = xx + 1e-4, yy + 1e-4
        determinant = xx * yy - xy * xy
        u, v = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
        found += [u * 2**level / 2, v * 2**level / 2, (xx + yy).log() / 2 + 2]
    return torch.stack(found, 1)


def thumbnails(earlier_BPCHW: Tensor, later_BPCHW: Tensor) -> Tensor:
    """What a clip looks like, coarsely: [B, 140] means over pairs of 4x7 maps of colour, fine detail and change."""
    x, y = earlier_BPCHW.flatten(0, 1), later_BPCHW.flatten(0, 1)
    detail = (x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)).abs().mean(1, keepdim=True)
    change = (y - x).abs().mean(1, keepdim=True)
    maps = F.adaptive_avg_pool2d(torch.cat([x, 8 * detail, 4 * change], 1), _THUMBNAIL)
    return maps.flatten(1).unflatten(0, earlier_BPCHW.shape[:2]).mean(1)


@MODELS.register("gamecraft_idm", paper="2506.17201")
class InverseDynamicsModule(LightningModule):
    """Learns motion from real clips with the engine's own poses; no generated or synthetic picture is ever seen.

    Clips are mirrored at random, which turns strafe and turn around. Logs the error of each axis a frame, beside that
    of always answering "no motion", on maps that were not trained on.

    Deviation: the paper measures with I3D features and a reconstructed trajectory; neither exists offline, so this
    network stands in for both and its own error on real clips is printed with every number that it gives.

    Args:
        width: channels of the network's first convolution.
        height: of the pictures in pixels.
        picture_width: likewise.
        num_pairs: pairs of frames drawn of each clip in training.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        optimizer: anything that makes an optimiser of parameters.
    """

    def __init__(
        self,
        width: int = 32,
        height: int = 64,
        picture_width: int = 112,
        num_pairs: int = 8,
        warmup_steps: int = 20,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=1e-2),
    ) -> None:
        super().__init__()
        self.num_pairs, self.warmup_steps, self.optimizer = num_pairs, warmup_steps, optimizer
        self.network = InverseDynamicsNet(width, height, picture_width)
        self._errors = [MeanAbsoluteError() for _ in AXES]
        self._errors_still = [MeanAbsoluteError() for _ in AXES]
        self._correlations = [PearsonCorrCoef() for _ in AXES]
        # so that they move to the module's device
        self._metrics = nn.ModuleList([*self._errors, *self._errors_still, *self._correlations])
        self._kept: dict[str, float] = {}

    def setup(self, stage: str) -> None:
        """Refuse synthetic clips: the judge has to know real play only.

        Raises:
            UserError: if the data mixes synthetic clips in.
        """
        ratio = getattr(self.trainer, "datamodule").hparams.get("synthetic_ratio", 0)  # noqa: B009  (set by fit)
        if ratio:
            raise UserError(
                f"data.synthetic_ratio is {ratio}: the inverse-dynamics network learns from recorded clips only\n"
                "Set data.synthetic_ratio to 0 in its stage."
            )

    def forward(self, frames_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Clips uint8 [B, T, 3, H, W] to motion [B, T - 1, 4] and features [B, 64]."""
        found: tuple[Tensor, Tensor] = self.network(frames_BTCHW)
        return found

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Motion of random pairs, and of the clip by its feature vector, which also tells the thumbnails."""
        frames_BTCHW = batch["frames"]
        count = frames_BTCHW.shape[1] - 1
        chosen_P = torch.randperm(count, device=self.device)[: self.num_pairs].sort().values
        target_BPA = frame_motion(batch["intrinsics"], batch["c2w"], frames_BTCHW.shape[-2])[:, chosen_P]
        target_BPA = in_full_speeds(target_BPA)
        earlier = self.network.prepare(frames_BTCHW[:, chosen_P])
        later = self.network.prepare(frames_BTCHW[:, chosen_P + 1])
        mirrored_B = torch.rand(len(frames_BTCHW), device=self.device) < 0.5
        earlier, later = (torch.where(mirrored_B[:, None, None, None, None], x.flip(-1), x) for x in (earlier, later))
        sign_A = target_BPA.new_tensor([1, -1, -1, 1])
        target_BPA = torch.where(mirrored_B[:, None, None], target_BPA * sign_A, target_BPA)
        motion_BPA, feature_BD = self.network.pairs(earlier, later)
        pair_loss = F.smooth_l1_loss(motion_BPA.float(), target_BPA, beta=0.1)
        clip_loss = F.smooth_l1_loss(self.network.clip_motion(feature_BD).float(), target_BPA.mean(1), beta=0.1)
        seen_loss = F.mse_loss(self.network.thumbnail(feature_BD).float(), thumbnails(earlier, later))
        loss = pair_loss + clip_loss + seen_loss
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/motion_loss", pair_loss)
        self.log("train/thumbnail_loss", seen_loss)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Error of every pair of whole clips."""
        self._compare(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The same on the test maps."""
        self._compare(batch)

    def _compare(self, batch: dict[str, Any]) -> None:
        target_BPA = frame_motion(batch["intrinsics"], batch["c2w"], batch["frames"].shape[-2])
        motion_BPA, _ = self(batch["frames"])
        for i in range(len(AXES)):
            made, wanted = motion_BPA[..., i].flatten(), target_BPA[..., i].flatten()
            self._errors[i].update(made, wanted)
            self._errors_still[i].update(torch.zeros_like(wanted), wanted)
            self._correlations[i].update(made / FULL_SPEED[i], wanted / FULL_SPEED[i])

    def on_validation_epoch_end(self) -> None:
        """Log the errors over all validation pairs."""
        self._log_errors("val")

    def on_test_epoch_end(self) -> None:
        """Log the errors over all test pairs."""
        self._log_errors("test")

    def _log_errors(self, split: str) -> None:
        for i, axis in enumerate(AXES):
            of_axis = (self._errors[i], self._errors_still[i], self._correlations[i])
            for name, metric in zip(("error", "error_no_motion", "correlation"), of_axis, strict=True):
                self.log(f"{split}/{axis}_{name}", metric.compute())
                metric.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Warm-up, then a cosine to zero over the run's steps."""
        optimizer, total = self.optimizer(self.network.parameters()), int(self.trainer.estimated_stepping_batches)
        warm = max(1, self.warmup_steps)
        first = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm, total_iters=warm)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warm))
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [first, cosine], [warm])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the report says: a fit that was cut off after its last step has nothing more to measure."""
        checkpoint["report"] = self._measured()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up what had been measured."""
        self._kept = checkpoint["report"]

    def _measured(self) -> dict[str, float]:
        now = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        return {**self._kept, **{k: v for k, v in now.items() if k.startswith(("val/", "test/"))}}

    def on_fit_end(self) -> None:
        """Write the trained network beside the checkpoints."""
        if self.trainer.is_global_zero:
            self.network.save(Path(self.trainer.default_root_dir) / "idm", self._measured())

    def results(self) -> dict[str, Any]:
        """For the report: the judge's own error, in a sentence and a table."""
        m = self._measured()
        split = "test" if "test/forward_error" in m else "val"
        if f"{split}/forward_error" not in m:
            return {"metrics": {}, "statements": []}
        rows: list[list[Any]] = [
            [a, u, *(m[f"{split}/{a}_{n}"] for n in ("error", "error_no_motion", "correlation"))]
            for a, u in zip(AXES, UNITS, strict=True)
        ]
        weakest = min(rows, key=lambda row: row[4])
        text = (
            f"Inverse dynamics: {sum(p.numel() for p in self.network.parameters()):,} parameters, trained on recorded "
            f"clips only. On unseen maps, frame by frame, its correlation with the true motion is at least "
            f"{weakest[4]:.2f} ({weakest[0]})."
        )
        columns = ["axis", "unit", "mean absolute error", "of answering 'no motion'", "correlation"]
        table = {"title": "Inverse-dynamics network on unseen maps", "columns": columns, "rows": rows, "note": ""}
        return {"metrics": m, "statements": [text], "tables": [table]}
