"""Inverse dynamics: motion out of poses has the right signs, and a network of it learns how a texture shifts."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader

from fulgurite.lightning_modules.gamecraft.inverse_dynamics import InverseDynamicsModule, InverseDynamicsNet
from fulgurite.lightning_modules.gamecraft.metrics.frechet import Directions, corruption_ladder, is_monotone
from fulgurite.lightning_modules.gamecraft.motion import binned, frame_motion
from fulgurite.registry import UserError

HEIGHT, WIDTH, FOCAL = 32, 48, 30.0


def k(cy: float = HEIGHT / 2) -> torch.Tensor:
    return torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, cy], [0, 0, 1.0]])


def pose(
    yaw_deg: float = 0.0, pitch_up_deg: float = 0.0, position: tuple[float, float, float] = (0, 0, 0)
) -> torch.Tensor:
    """Camera to world, OpenCV axes: yaw to the right about the axis that points down, then pitch up."""
    a, b = math.radians(yaw_deg), math.radians(pitch_up_deg)
    turn = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    tilt = torch.tensor([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    c2w = torch.eye(4)
    c2w[:3, :3], c2w[:3, 3] = turn @ tilt, torch.tensor(position)
    return c2w


def test_motion_is_measured_in_the_axes_of_the_earlier_camera() -> None:
    # looking right by 90 degrees, a step along the world's right is a step forward
    c2w = torch.stack([pose(90), pose(90, position=(0.05, 0, 0)), pose(93, position=(0.05, 0, -0.02))])
    motion = frame_motion(k().expand(3, 3, 3), c2w, HEIGHT)
    assert motion[0].tolist() == pytest.approx([0.05, 0, 0, 0], abs=1e-6)
    assert motion[1].tolist() == pytest.approx([0, 0.02, 3, 0], abs=1e-5)


def test_looking_up_counts_as_a_rotation_and_as_a_shear() -> None:
    rotated = frame_motion(k().expand(2, 3, 3), torch.stack([pose(40), pose(40, 2)]), HEIGHT)
    sheared = frame_motion(
        torch.stack([k(), k(HEIGHT / 2 + FOCAL * math.tan(math.radians(2)))]), pose().expand(2, 4, 4), HEIGHT
    )
    for motion in (rotated, sheared):
        assert motion[0].tolist() == pytest.approx([0, 0, 0, 2], abs=1e-4)


def test_bins_are_means_over_equal_spans() -> None:
    motion = torch.arange(33.0)[:, None].expand(33, 4)
    assert binned(motion)[:, 0].tolist() == [3.5, 11.5, 19.5, 27.5]


class ShiftingTextures(LightningDataModule):
    """A texture far away slides sideways and up or down as the camera turns and looks; it grows as it comes nearer."""

    def __init__(self, synthetic_ratio: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()

    @staticmethod
    def batch(number: int, size: int = 12, frames: int = 9) -> dict[str, torch.Tensor]:
        g = torch.Generator().manual_seed(number)
        picture = torch.nn.functional.interpolate(torch.rand(size, 3, 16, 24, generator=g), (128, 192), mode="bicubic")
        turn, look = 3 * (2 * torch.rand(size, generator=g) - 1), 1 * (2 * torch.rand(size, generator=g) - 1)
        t = torch.arange(frames)
        angle, tilt = turn[:, None] * t, look[:, None] * t
        theta = torch.zeros(size, frames, 2, 3)
        theta[..., 0, 0], theta[..., 1, 1] = WIDTH / 192, HEIGHT / 128
        theta[..., 0, 2] = torch.deg2rad(angle) * FOCAL / 96
        theta[..., 1, 2] = -torch.deg2rad(tilt) * FOCAL / 64
        grid = torch.nn.functional.affine_grid(theta.flatten(0, 1), [size * frames, 3, HEIGHT, WIDTH], False)
        seen = torch.nn.functional.grid_sample(picture.repeat_interleave(frames, 0), grid, align_corners=False)
        c2w = torch.stack([torch.stack([pose(float(a)) for a in row]) for row in angle])
        cy = HEIGHT / 2 + FOCAL * torch.tan(torch.deg2rad(tilt))
        intrinsics = torch.stack([torch.stack([k(float(c)) for c in row]) for row in cy])
        clips = (seen.clamp(0, 1) * 255).to(torch.uint8).unflatten(0, (size, frames))
        return {"frames": clips, "intrinsics": intrinsics, "c2w": c2w}

    def train_dataloader(self) -> DataLoader:
        return DataLoader([self.batch(i) for i in range(60)], batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([self.batch(1000 + i) for i in range(3)], batch_size=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[InverseDynamicsModule, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("idm")
    module = InverseDynamicsModule(width=8, height=HEIGHT, picture_width=WIDTH, num_pairs=8)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(default_root_dir=folder, max_epochs=4, accelerator="cpu", **quiet)
    trainer.fit(module, datamodule=ShiftingTextures())
    return module, folder / "idm"


def test_it_learns_how_pictures_shift_on_textures_that_it_never_saw(
    trained: tuple[InverseDynamicsModule, Path],
) -> None:
    module, _ = trained
    found = module.results()["metrics"]
    assert found["val/turn_correlation"] > 0.9
    assert found["val/turn_error"] < 0.5 * found["val/turn_error_no_motion"]
    assert found["val/look_error"] < 0.8 * found["val/look_error_no_motion"]


def test_the_exported_folder_gives_the_same_answers(trained: tuple[InverseDynamicsModule, Path]) -> None:
    module, folder = trained
    clips = ShiftingTextures.batch(7)["frames"]
    net, meta = InverseDynamicsNet.load(folder)
    motion, features = net.measure(clips, batch_size=5)
    wanted = module.network.measure(clips)
    assert torch.allclose(motion, wanted[0], atol=1e-5) and torch.allclose(features, wanted[1], atol=1e-5)
    assert features.shape == (12, 64) and meta["errors"]["val/turn_error"] > 0
    bigger = torch.nn.functional.interpolate(clips.flatten(0, 1), scale_factor=2).unflatten(0, clips.shape[:2])
    assert torch.allclose(net.measure(bigger)[0], motion, atol=1e-3)


def test_the_corruption_ladder_rises_with_its_features(trained: tuple[InverseDynamicsModule, Path]) -> None:
    net, _ = InverseDynamicsNet.load(trained[1])
    clips = torch.cat([ShiftingTextures.batch(i)["frames"] for i in range(4)])
    features = lambda x: net.measure(x)[1]  # noqa: E731
    ladder = corruption_ladder(clips, features, Directions(features(clips), len(clips)))
    assert is_monotone(ladder), ladder


def test_a_missing_folder_and_synthetic_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no inverse-dynamics network here"):
        InverseDynamicsNet.load(tmp_path)
    data = ShiftingTextures(synthetic_ratio=0.17)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    with pytest.raises(UserError, match="recorded clips only"):
        trainer.fit(InverseDynamicsModule(width=8), datamodule=data)
