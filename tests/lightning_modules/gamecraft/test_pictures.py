"""Single pictures: a training at tiny size learns what captions say, and leaves history and camera out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from fulgurite.lightning_modules.gamecraft import chunk_training
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.evaluation.chunks import Trained
from fulgurite.lightning_modules.gamecraft.flow import sigmas
from fulgurite.lightning_modules.gamecraft.pictures import GameCraftPictureModule, denoise_pictures

VALUES = {"dark": -1.0, "a light hall": 1.0}


class ToyCaptions(CaptionEncoder):
    """Token states without a language model."""

    def _add(self, captions: list[str]) -> None:
        states_PLC = torch.stack([torch.full((16, 384), len(c) / 6 - 1) for c in captions]).half()
        self._states_PLC = torch.cat([self._states_PLC, states_PLC]) if self._rows else states_PLC
        self._mask_PL = torch.cat([self._mask_PL, torch.ones(len(captions), 16, dtype=torch.bool)])
        self._rows |= {caption: len(self._rows) + i for i, caption in enumerate(captions)}


class ToyPlay(LightningDataModule):
    """Clips of which the first latent frame is as light as their caption, and the others are noise."""

    def _batches(self, count: int) -> DataLoader[Any]:
        batches = []
        for number in range(count):
            captions = [list(VALUES)[i % 2] for i in range(8)]
            latents = torch.randn(8, 16, 9, 4, 4, generator=torch.Generator().manual_seed(number))
            latents[:, :, 0] = torch.tensor([VALUES[c] for c in captions]).view(8, 1, 1, 1)
            other = {"history_latents": torch.full((8, 16, 9, 4, 4), float("nan")), "head": "clip"}
            cameras = {"intrinsics": torch.eye(3).expand(8, 33, 3, 3), "c2w": torch.eye(4).expand(8, 33, 4, 4)}
            batches.append({"latents": latents, "captions": captions, **other, **cameras})
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader[Any]:
        return self._batches(60)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._batches(2)


def test_pictures_follow_their_caption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_training, "CaptionEncoder", ToyCaptions)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = GameCraftPictureModule(
        "tiny", ema_decay=0.9, warmup_steps=5, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3)
    )
    camera = [p.clone() for p in module.network.camera_encoder.parameters()]
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu", enable_progress_bar=False,
                      enable_checkpointing=False, enable_model_summary=False, max_epochs=1)  # fmt: skip
    trainer.fit(module, datamodule=ToyPlay())
    (statement,) = module.results()["statements"]
    assert "with another picture's caption +" in statement
    measured = module.measured()
    assert measured["val/loss_other_caption"] > 1.3 * measured["val/loss"]
    assert all(torch.equal(a, b) for a, b in zip(camera, module.network.camera_encoder.parameters(), strict=True))

    trained = Trained.load(tmp_path / "transformer", torch.device("cpu"))
    assert trained.sampling == {"num_inference_steps": 8, "guidance_scale": 1.0, "guidance_w": None, "shift": 3.0}
    noise = torch.randn(2, 16, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    made = denoise_pictures(trained.transformer, noise, trained.captions(list(VALUES)), sigmas(8, 3.0))
    assert made.shape == noise.shape and made[0].mean() < -0.5 and made[1].mean() > 0.5
