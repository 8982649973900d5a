"""The trainings at tiny size: what they write, that they resume bit for bit, and that the camera counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from fulgurite.datamodules.draws import DrawLoader
from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, trajectory
from fulgurite.launch.callbacks import ResumePoint
from fulgurite.launch.callbacks.random_state import RandomState
from fulgurite.lightning_modules.gamecraft import chunk_training
from fulgurite.lightning_modules.gamecraft.autoencoder import VAEModule
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.distillation import GameCraftStudentModule, student_of
from fulgurite.lightning_modules.gamecraft.module import GameCraftModule
from fulgurite.lightning_modules.gamecraft.pipeline import BANK
from fulgurite.lightning_modules.gamecraft.release import read_sampling
from fulgurite.lightning_modules.gamecraft.training import warmup_cosine
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

HEIGHT = WIDTH = 32
CHORDS = (Chord.of(w=1.0), Chord.of(s=1.0), Chord.of(left=1.0), Chord.of(right=1.0))
TINY_VAE = {"block_out_channels": [8, 8, 8, 8], "decoder_block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class ToyCaptions(CaptionEncoder):
    """Token states without a language model."""

    def _add(self, captions: list[str]) -> None:
        states_PLC = torch.stack([torch.full((16, 384), len(c) / 10) for c in captions]).half()
        self._states_PLC = torch.cat([self._states_PLC, states_PLC]) if self._rows else states_PLC
        self._mask_PL = torch.cat([self._mask_PL, torch.ones(len(captions), 16, dtype=torch.bool)])
        self._rows |= {caption: len(self._rows) + i for i, caption in enumerate(captions)}


@pytest.fixture(autouse=True)
def toy_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_training, "CaptionEncoder", ToyCaptions)


class ToyPlay(torch.utils.data.Dataset):
    """Chunks whose latents are wholly decided by the camera's movement: one constant a chord, after a blank history."""

    def __getitem__(self, draw: int) -> dict[str, Any]:
        rng = numpy.random.default_rng((3, draw))
        which = int(rng.integers(len(CHORDS)))
        k, c2w, _ = trajectory(CHORDS[which], 33, camera=ShearPitchCamera(HEIGHT, WIDTH))
        target = torch.zeros(16, 9, HEIGHT // 8, WIDTH // 8)
        target[4 * which : 4 * which + 4] = 2.0
        return {
            "latents": target,
            "history_latents": torch.zeros(16, 1, HEIGHT // 8, WIDTH // 8),
            "intrinsics": torch.tensor(k, dtype=torch.float32),
            "c2w": torch.tensor(c2w, dtype=torch.float32),
            "captions": "a hall",
        }


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {
        k: [i[k] for i in items] if k == "captions" else torch.stack([i[k] for i in items]) for k in items[0]
    }
    return {"head": "frame", **batch}


def as_loader(batches: list[dict[str, Any]]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class ToyData(LightningDataModule):
    def __init__(self, num_batches: int, batch_size: int = 8) -> None:
        super().__init__()
        self.num_batches, self.batch_size = num_batches, batch_size

    def train_dataloader(self) -> DrawLoader:
        return DrawLoader(ToyPlay(), self.batch_size, self.num_batches, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return as_loader([collate([ToyPlay()[1000 + 16 * b + i] for i in range(16)]) for b in range(2)])


class ToyFrames(LightningDataModule):
    def train_dataloader(self) -> DrawLoader:
        class Frames(torch.utils.data.Dataset):
            def __getitem__(self, draw: int) -> Tensor:
                generator = torch.Generator().manual_seed(draw)
                return torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=generator)

        return DrawLoader(Frames(), 2, 6, collate_fn=lambda items: {"frames": torch.stack(items)})

    def val_dataloader(self) -> DataLoader:
        return as_loader([{"frames": torch.full((2, 5, 3, 16, 16), 60, dtype=torch.uint8)}])


def fit(
    model: Any,
    data: LightningDataModule,
    folder: Path,
    steps: int,
    checkpoint: Path | None = None,
    **trainer_changes: Any,
) -> Trainer:
    resume_point = ResumePoint(every_n_steps=3)
    resume_point.folder = folder / "checkpoints"
    settings: dict[str, Any] = {"accelerator": "cpu", **trainer_changes}
    trainer = Trainer(
        devices=1, max_steps=steps, logger=False, enable_progress_bar=False, log_every_n_steps=5,
        enable_model_summary=False, default_root_dir=folder, callbacks=[RandomState(), resume_point],
        num_sanity_val_steps=0, gradient_clip_val=1.0, **settings,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return trainer


def make_teacher(**changes: Any) -> GameCraftModule:
    torch.manual_seed(0)
    settings = {"transformer": "tiny", "num_samples": 0, "warmup_steps": 5, **changes}
    return GameCraftModule(**settings)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Killed(Exception):
    pass


def resumes_bit_for_bit(make: Any, data: Any, folder: Path) -> None:
    """Killed after six steps, with a checkpoint of the third and the sixth; then taken up from the third."""
    whole = make()
    fit(whole, data(), folder / "whole", 6)
    cut = make()

    def stop(batch: Any, batch_idx: int) -> Tensor:
        if cut.trainer.global_step == 4:
            raise Killed
        return type(cut).training_step(cut, batch, batch_idx)

    cut.training_step = stop
    with pytest.raises(Killed):
        fit(cut, data(), folder / "cut", 6)
    again = make()
    fit(again, data(), folder / "cut", 6, folder / "cut" / "checkpoints" / "last.ckpt")
    assert again.trainer.global_step == 6
    assert same(whole.state_dict(), again.state_dict())
    assert not same(whole.network.state_dict(), whole.ema.average.state_dict())


def test_teacher_resumes_with_its_average_bit_for_bit(tmp_path: Path) -> None:
    resumes_bit_for_bit(make_teacher, lambda: ToyData(20), tmp_path)


def test_autoencoder_resumes_bit_for_bit_and_writes_normalised_latents(tmp_path: Path) -> None:
    def make() -> VAEModule:
        torch.manual_seed(0)
        return VAEModule(TINY_VAE, warmup_steps=2)

    resumes_bit_for_bit(make, ToyFrames, tmp_path)
    vae = GameplayVAE.from_pretrained(tmp_path / "whole" / "vae")
    frames = torch.cat([b["frames"] for b in ToyFrames().train_dataloader()])
    latents = vae.encode_clips(frames)
    torch.testing.assert_close(latents.std((0, 2, 3, 4), correction=0), torch.ones(16), atol=2e-3, rtol=0)
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(16), atol=2e-3, rtol=0)


def test_a_trained_teacher_obeys_the_camera_and_a_students_resumes(tmp_path: Path) -> None:
    model = make_teacher(
        ema_decay=0.9, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3), vae=None, camera_lr_factor=5.0
    )
    before = model.network.camera_encoder.conv_out.weight.detach().clone()
    assert (before == 0).all()
    trainer = fit(model, ToyData(60, 16), tmp_path / "teacher", 60)
    measured = {k: float(v) for k, v in trainer.callback_metrics.items()}
    print(measured)
    assert measured["camera/norm_ratio"] > 0
    assert measured["val/loss_other_camera"] > 1.1 * measured["val/loss"]
    folder = tmp_path / "teacher" / "transformer"
    saved = GameCraftTransformer.from_pretrained(folder)
    assert same(saved.state_dict(), model.ema.average.state_dict())

    def make() -> GameCraftStudentModule:
        torch.manual_seed(0)
        return GameCraftStudentModule(str(folder), num_samples=0, warmup_steps=2)

    resumes_bit_for_bit(make, lambda: ToyData(6), tmp_path / "student")
    written = tmp_path / "student" / "whole"
    assert CaptionEncoder.load(written / BANK).known == ("a hall", "")
    assert read_sampling(written) == {
        "num_inference_steps": 8, "guidance_scale": 1.0, "guidance_w": 1.0, "shift": 3.0,
    }  # fmt: skip
    student = GameCraftTransformer.from_pretrained(written / "transformer")
    assert student.config.guidance_embeds
    assert student.time_text_embed.guidance_embedder.linear_2.weight.abs().max() > 0


def test_generated_chunks_are_looked_at_beside_a_copy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    GameplayVAE(**TINY_VAE).save_pretrained(tmp_path / "vae")
    model = make_teacher(vae=str(tmp_path / "vae"), num_samples=2, num_steps=2)
    fit(model, ToyData(2), tmp_path, 2)
    found = model.results()
    assert {f"psnr_{a}_{b}" for a in ("generated", "copy") for b in ("first", "all")} <= found["metrics"].keys()
    assert "val/loss" in model.measured() and "with another sample's camera" in found["statements"][0]
    assert "2 validation chunks generated" in found["statements"][1]


def test_what_is_written_at_the_end_is_made_on_the_trainers_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning has moved the module to the CPU when a fit ends, and weights are written before they are looked at."""
    model = make_teacher(num_samples=2)
    went: list[Any] = []
    monkeypatch.setattr(model, "to", lambda device: went.append(device))

    def fail() -> dict[str, float]:
        went.append((tmp_path / "transformer" / "config.json").is_file() and (tmp_path / BANK).is_file())
        raise Killed

    monkeypatch.setattr(model, "look", fail)
    with pytest.raises(Killed):
        fit(model, ToyData(2), tmp_path, 2)
    device = model.trainer.strategy.root_device
    assert went == [device, device, True]  # for the fit, and again at its end


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_every_training_ends_with_its_weights_and_pictures(tmp_path: Path) -> None:
    gpu = {"accelerator": "gpu", "precision": "bf16-mixed"}
    vae = VAEModule({**TINY_VAE, "spatial_padding": "zeros"}, warmup_steps=2, graphs=True, compile=True)
    fit(vae, ToyFrames(), tmp_path / "vae", 6, **gpu)
    folder = str(tmp_path / "vae" / "vae")
    GameplayVAE.from_pretrained(folder)
    looked_at = {"vae": folder, "num_samples": 2, "compile": True}
    fit(make_teacher(num_steps=2, **looked_at), ToyData(20), tmp_path / "teacher", 6, **gpu)
    student = GameCraftStudentModule(str(tmp_path / "teacher" / "transformer"), warmup_steps=2, **looked_at)
    fit(student, ToyData(20), tmp_path / "student", 6, **gpu)
    assert student.measured()["psnr_generated_all"] > 0
    assert GameCraftTransformer.from_pretrained(tmp_path / "student" / "transformer").config.guidance_embeds


def test_losing_the_conditions_takes_caption_and_camera_together() -> None:
    model = make_teacher()
    given = model.conditions(collate([ToyPlay()[i] for i in range(4)]))
    dropped = given.without(model.caption_states([""]), torch.tensor([True, False, True, False]))
    kept = [1, 3]
    assert torch.equal(dropped.c2w_BF44[kept], given.c2w_BF44[kept])
    assert torch.equal(dropped.captions[0][kept], given.captions[0][kept])
    assert torch.equal(dropped.c2w_BF44[[0, 2]], torch.eye(4).expand(2, 33, 4, 4))
    assert (dropped.captions[0][[0, 2]] == 0).all() and (given.captions[0] > 0).all()
    assert torch.equal(dropped.history_BCNHW, given.history_BCNHW)
    assert (dropped.rays()[[0, 2], :, :3] == 0).all()
    assert torch.equal(given.rays()[:, 0], given.without(model.caption_states([""])).rays()[:, 5])


def test_loss_and_gradient_come_from_the_chunk_alone_and_history_is_clean() -> None:
    model = make_teacher()
    seen = []
    network = model.network
    forward = network.forward

    def record(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(hidden)
        out = forward(hidden, *args, **kwargs).detach().requires_grad_()
        seen.append(out)
        return out

    network.forward = record
    model.log = lambda *args, **kwargs: None
    model.due = lambda: False
    batch = collate([ToyPlay()[i] for i in range(2)])
    batch["history_latents"] = torch.randn(2, 16, 9, 4, 4)
    batch["head"] = "clip"
    model.training_step(batch, 0).backward()
    hidden, out = seen
    assert torch.equal(hidden[:, :16, :9], batch["history_latents"])
    assert torch.equal(hidden[:, 16:32, :9], batch["history_latents"])
    assert (hidden[:, 16:32, 9:] == 0).all()
    assert (hidden[:, 32, :9] == 1).all() and (hidden[:, 32, 9:] == 0).all()
    assert (out.grad[:, :, :9] == 0).all() and (out.grad[:, :, 9:] != 0).any()


def test_camera_branch_has_its_own_rate_under_the_schedule() -> None:
    model = make_teacher(camera_lr_factor=5.0)
    model._trainer = type("T", (), {"estimated_stepping_batches": 100})()
    made = model.configure_optimizers()
    rest, camera = made["optimizer"].param_groups
    assert camera["lr"] == pytest.approx(5 * rest["lr"])
    assert sum(p.numel() for p in camera["params"]) == sum(p.numel() for p in model.network.camera_encoder.parameters())


def test_warm_up_and_cosine() -> None:
    factor = warmup_cosine(10, 110)
    assert factor(0) == pytest.approx(0.1) and factor(9) == 1 and factor(60) == pytest.approx(0.5)
    assert factor(110) == pytest.approx(0)


def test_a_fresh_student_is_its_teacher_whatever_w_is() -> None:
    torch.manual_seed(0)
    teacher = GameCraftTransformer.of_size("tiny", guidance_embeds=False)
    student = student_of(teacher)
    inputs = (torch.randn(2, 33, 3, 4, 4), torch.tensor([300.0, 700.0]), torch.randn(2, 16, 384), None)
    pooled = torch.randn(2, 384)
    wanted = teacher(*inputs, pooled)
    assert torch.equal(student(*inputs, pooled, guidance=torch.tensor([500.0, 1500.0])), wanted)


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no size 'huge'"):
        make_teacher(transformer="huge")
    with pytest.raises(UserError, match=r"model\.init_from: no folder nowhere here"):
        make_teacher(init_from="nowhere")
    with pytest.raises(UserError, match=rf"model\.init_from: {tmp_path} holds no weights of GameCraftTransformer"):
        make_teacher(init_from=str(tmp_path))
    with pytest.raises(UserError, match="multiple of num_phases"):
        GameCraftStudentModule("nowhere", num_levels=50)
    with pytest.raises(UserError, match=r"model\.teacher: no folder nowhere here"):
        GameCraftStudentModule("nowhere")
