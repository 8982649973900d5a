"""Films under plans beside dense ones, on small random weights and made-up play; what counts as lossless."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from fulgurite.datamodules.gamecraft.actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS, Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, trajectory
from fulgurite.datamodules.gamecraft.episode import Episode
from fulgurite.datamodules.gamecraft.shards import ShardWriter
from fulgurite.datamodules.paro.captures import CaptureStore
from fulgurite.datamodules.paro.module import AttentionCaptureDataModule
from fulgurite.kernels.paro.plan import Plan
from fulgurite.lightning_modules.gamecraft.evaluation import chunks
from fulgurite.lightning_modules.gamecraft.evaluation.held_out import CounterfactualSet
from fulgurite.lightning_modules.gamecraft.inverse_dynamics import InverseDynamicsNet
from fulgurite.lightning_modules.gamecraft.motion import frame_motion
from fulgurite.lightning_modules.paro.chunk_subject import capture_chunks
from fulgurite.lightning_modules.paro.fidelity import Fidelity, FilmJudge, mean_and_interval
from fulgurite.lightning_modules.paro.module import ParoModule
from fulgurite.lightning_modules.paro.quality import CellLog, Setting, quality
from fulgurite.lightning_modules.paro.quality_report import report
from fulgurite.registry import UserError

HEIGHT, WIDTH, STEPS = 32, 48, 2
ARMS = ["paro", "none"]


def episode(key: str, seed: int, chord: Chord, meta: dict[str, Any]) -> Episode:
    """Two clips of sliding pictures, the second with a chord's poses; episodes of equal seed share the first."""
    camera, rng = ShearPitchCamera(HEIGHT, WIDTH), np.random.default_rng(seed)
    clips = [trajectory(c, CLIP_FRAMES, camera=camera) for c in (Chord.of(w=0.5), chord)]
    intrinsics, c2w = (np.concatenate([clip[i] for clip in clips]).astype(np.float32) for i in (0, 1))
    moving = rng.integers(0, 256, (HEIGHT, WIDTH + CLIP_FRAMES, 3), dtype=np.uint8)
    after = np.random.default_rng(len(meta) + meta.get("action_index", 0)).permutation(moving.flatten())
    wide = (moving, after.reshape(moving.shape))
    frames = np.stack([picture[:, t : t + WIDTH] for picture in wide for t in range(CLIP_FRAMES)])
    about = {"game": "made-up", "map": f"world {seed}", "camera": "shear", "kind": "recorded", **meta}
    actions = np.stack([Chord.of(w=0.5).vector(), chord.vector()])
    return Episode(key, frames, intrinsics, c2w, np.zeros(len(frames), np.float32), actions, "a hall", "", about)


@pytest.fixture(scope="module")
def made(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Made-up play, a judge, captures of its chunks and plans from them; arguments of the command."""
    root = tmp_path_factory.mktemp("quality")
    for split, count in (("val", 2), ("test", 1)):
        with ShardWriter(root / "data" / split) as writer:
            for number in range(count):
                writer.write(episode(f"{split}-{number}", 10 * count + number, Chord.of(w=0.8), {}))
    with ShardWriter(root / "data" / "counterfactual") as writer:
        for index, chord in enumerate(COUNTERFACTUAL_CHORDS):
            writer.write(episode(f"s-{index}", 1, chord, {"start": "s", "action_index": index}))
    torch.manual_seed(0)
    InverseDynamicsNet(8, HEIGHT, WIDTH).save(root / "idm", {})
    shutil.copytree(weights, root / "weights")
    sampling = {"num_inference_steps": 4, "guidance_scale": 2.0, "guidance_w": None, "shift": 3.0}
    (root / "weights" / "sampling.json").write_text(json.dumps({"schema_version": 1, **sampling}))
    given = {"transformer": root / "weights" / "transformer", "vae": root / "weights" / "vae", "data": root / "data"}
    capture_chunks(**given, out=root / "captures", num_calibrate=2, num_test=1, num_bins=2, num_steps=STEPS)
    predict(root, ParoModule(str(root / "plans"), densities=[0.8], arms=ARMS))
    return {**given, "idm": root / "idm", "plans": root / "plans", "captures": root / "captures"}


def predict(root: Path, model: ParoModule) -> None:
    """Make plans from the captures in a folder."""
    trainer = Trainer(default_root_dir=root, logger=False, accelerator="cpu", enable_progress_bar=False,
                      enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    trainer.predict(model, datamodule=AttentionCaptureDataModule(str(root / "captures")))


def run(made: dict[str, Path], out: Path) -> dict[str, Any]:
    quality(**made, out=out, densities=[0.8], arms=ARMS, precisions=["int4"], num_starts=1, num_seeds=1,
            num_steps=STEPS, batch_size=12)  # fmt: skip
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_chunks_that_make_plans_are_of_val_and_those_that_test_them_of_test(made: dict[str, Path]) -> None:
    store = CaptureStore(made["captures"])
    assert [(f.split, f.text) for f in store.meta.films] == [
        ("calibrate", "val 0: a hall"),
        ("calibrate", "val 1: a hall"),
        ("test", "test 0: a hall"),
    ]
    assert store.meta.grid == (18, 2, 3) and len(store.meta.timesteps) == STEPS
    assert len(store.handles) == 3 * 2 * store.meta.num_layers


def test_a_table_of_all_rows_that_goes_on_where_it_stopped(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled: list[int] = []
    answer = chunks.answer
    monkeypatch.setattr(chunks, "answer", lambda m, r, size: sampled.append(len(r)) or answer(m, r, size))
    found = run(made, tmp_path)
    rows, metrics = found["tables"][0]["rows"], found["metrics"]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("real answers", "", ""), ("dense", "", ""), ("dense, other kernel", "all", "bf16"),
        ("dense, other noise", "", "1"), ("paro", "all", "int4"), ("paro", "d0.8", "int4"), ("none", "d0.8", "int4"),
    ]  # fmt: skip
    assert sampled == [12] * 6  # all but the real answers
    assert metrics["test/psnr/floor_all_bf16"] > metrics["test/psnr/paro_all_int4"] > metrics["test/psnr/seed_1"]
    assert metrics["test/frechet/dense"] == pytest.approx(0, abs=1e-6)
    assert metrics["test/frechet_real/real"] == pytest.approx(0, abs=1e-6)
    assert 0 < metrics["test/recall/paro_d0.8"] < 1
    assert {row[3] for row in rows[4:]} == {"plain PyTorch"}
    assert (tmp_path / "quality.png").stat().st_size > 1000
    assert "7 of 7, none_d0.8_int4: " in capsys.readouterr().err

    again = run(made, tmp_path)  # only the dense films, which the others are compared with
    assert sampled == [12] * 7 and again == found
    plan = made["plans"] / "none-d0.8.safetensors"
    before, kept = plan.read_bytes(), Plan.load(plan)
    kept.orders.fill_(1)
    kept.save(plan)
    run(made, tmp_path)
    plan.write_bytes(before)
    assert sampled == [12] * 9  # and the row of the plan that changed


def test_captures_of_other_weights_are_refused(made: dict[str, Path], captures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "captures"
    shutil.copytree(made["captures"], copy)
    manifest = copy / "captures.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(CaptureStore(copy).meta.model_hash, "0" * 64))
    with pytest.raises(UserError, match=r"captures of other weights than the plans'"):
        run({**made, "captures": copy}, tmp_path / "out")


def test_a_judge_that_sees_the_true_motion_recognises_every_action(made: dict[str, Path]) -> None:
    (start,) = CounterfactualSet(made["data"] / "counterfactual", 1, 0)
    truth = frame_motion(start.intrinsics_AT33, start.c2w_AT44, HEIGHT)

    class Seer(InverseDynamicsNet):
        def measure(self, frames_BTCHW: torch.Tensor, batch_size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
            features = frames_BTCHW.float().mean((1, 3, 4)) + torch.arange(len(truth))[:, None]
            return truth * (1 if bool((frames_BTCHW == start.answers_ATCHW).all()) else 0), features

    dense = start.answers_ATCHW
    judge = FilmJudge([start], dense, Seer(4, HEIGHT, WIDTH))
    same, other = judge(dense), judge(255 - dense)
    assert same.accuracy_S == (1.0,) and other.accuracy_S[0] == pytest.approx(1 / 12)
    assert same.psnr_S == (60.0,) and other.psnr_S[0] < 10 and other.frechet_dense > same.frechet_dense


def test_rows_of_another_judge_or_autoencoder_begin_anew_with_a_sentence(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sampled: list[int] = []

    def play(model: object, request: chunks.Request, batch_size: int) -> torch.Tensor:
        sampled.append(len(request))
        size = (len(request), CLIP_FRAMES, 3, HEIGHT, WIDTH)
        return torch.randint(256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(request.seeds[0]))

    monkeypatch.setattr(chunks, "answer", play)
    run(made, tmp_path)
    config = tmp_path / "vae" / "config.json"
    shutil.copytree(made["vae"], config.parent)
    config.write_text(config.read_text() + "\n")
    torch.manual_seed(1)
    InverseDynamicsNet(8, HEIGHT, WIDTH).save(tmp_path / "idm", {})
    assert "measured again" not in capsys.readouterr().err
    run({**made, "vae": config.parent, "idm": tmp_path / "idm"}, tmp_path)
    assert sampled == [12] * 12
    assert "cells.json: its rows are of other vae, idm; all are measured again\n" in capsys.readouterr().err


def test_cells_of_other_dense_films_begin_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def opened(**given: Any) -> CellLog:
        log = CellLog(tmp_path / "cells.json")
        log.require(schema_version=2, **given)
        return log

    log = opened(vae="a", films=["s"])
    log.put("recall/paro", "p", 0.5)  # before any film is made
    log.require(dense_films="x")
    log.put("row", "p", 1)
    log = opened(vae="a", films=["s"])
    log.require(dense_films="x")
    assert (log.get("recall/paro", "p"), log.get("row", "p"), log.get("row", "q")) == (0.5, 1, None)
    assert not capsys.readouterr().err

    log = opened(vae="a", films=["s"])
    log.require(dense_films="y")
    assert log.get("row", "p") is None
    assert "its rows are of other dense films; all" in capsys.readouterr().err
    log.put("row", "p", 2)
    log = opened(vae="b", films=["s"])
    log.require(dense_films="x")
    assert log.get("row", "p") is None
    assert capsys.readouterr().err.count("measured again") == 1


def fidelity(accuracy: float, frechet_real: float, psnr: tuple[float, ...] = (20.0, 30.0)) -> Fidelity:
    """Nearer to the dense films than those of other noise, as every row under a plan is."""
    return Fidelity(psnr, (0.5, 0.5), (accuracy, accuracy), 0.1, frechet_real)


def test_lossless_is_inside_the_range_of_dense_films_of_this_and_other_noise(made: dict[str, Path]) -> None:
    plan = Plan.load(made["plans"] / "paro-d0.8.safetensors")
    cells = {"good": (0.7, 0.4), "bad_control": (0.5, 0.4), "far": (0.9, 0.6), "near": (0.9, 0.2)}
    settings = [Setting("real"), Setting("dense"), Setting("floor", "all", "bf16", plan)]
    settings += [Setting("seed", numbers="1"), Setting("seed", numbers="2")]
    settings += [Setting(name, "d0.8", "bf16", plan) for name in cells]
    values = [(1.0, 0.0), (0.8, 0.3), (0.8, 0.3), (0.7, 0.4), (0.9, 0.5), *cells.values()]
    measured = {s.key: fidelity(*v) for s, v in zip(settings, values, strict=True)}
    measured["good_d0.8_bf16"] = fidelity(0.7, 0.4, (25.0, 31.0))
    found = report(
        settings, measured, {"good_d0.8": 0.9}, {s.key: "pytorch" for s in settings}, "test", "title", "About."
    )
    assert [row[-1] for row in found["tables"][0]["rows"]] == [None] * 5 + ["yes", "no", "no", "no"]
    assert "FVD-IDM to dense, paired" in found["tables"][0]["columns"]
    assert found["statements"] == [
        "At d0.8, bf16, the orders of good give +3.00 dB [+1.00, +5.00] against bad_control, +3.00 dB [+1.00, +5.00] "
        "against far, +3.00 dB [+1.00, +5.00] against near.",
        "Inside the range of dense films of this and of other noise: 1 of 4 rows (good_d0.8_bf16).",
        "Computed by: bf16 plain PyTorch.",
    ]


def test_the_interval_is_of_the_mean_over_starts() -> None:
    assert mean_and_interval([3.0, 3.0]) == (3.0, 3.0, 3.0)
    x = torch.randn(400, generator=torch.Generator().manual_seed(0)).tolist()
    mean, low, high = mean_and_interval(x)
    assert low < mean < high and high - low == pytest.approx(2 * 1.96 / 400**0.5, rel=0.15)
    assert mean_and_interval(x) == (mean, low, high)


def test_single_pictures_have_two_orders_and_no_actions(made: dict[str, Path], tmp_path: Path) -> None:
    """6 tokens and 16 of text are one block, which every plan keeps."""
    given = {name: made[name] for name in ("transformer", "vae", "data")}
    capture_chunks(**given, out=tmp_path / "captures", num_calibrate=2, num_test=1, num_bins=2, num_steps=STEPS,
                   pictures=True)  # fmt: skip
    meta = CaptureStore(tmp_path / "captures").meta
    assert meta.grid == (2, 3) and meta.text == 16 and len(meta.layout.orders) == 2
    predict(tmp_path, ParoModule(str(tmp_path / "plans"), densities=[1.0], arms=ARMS))
    plan = Plan.load(tmp_path / "plans" / "paro-d1.safetensors")
    assert plan.sparse.shape[-1] == 2
    quality(**given, plans=tmp_path / "plans", captures=tmp_path / "captures", out=tmp_path / "out", densities=[1.0],
            arms=ARMS, precisions=["bf16", "int4"], num_pictures=3, num_seeds=1, num_steps=STEPS)  # fmt: skip
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (table,) = found["tables"]
    assert table["title"].startswith("1 single pictures") and table["columns"][-3:] == ["SSIM", "from", "to"]
    assert not [name for name in found["metrics"] if "accuracy" in name or "frechet" in name]
    assert found["metrics"]["test/pictures/psnr/none_d1_bf16"] > 50 > found["metrics"]["test/pictures/psnr/seed_1"]


def test_films_want_a_judge(made: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"need a judge\nName the inverse-dynamics network: --idm FOLDER"):
        quality(**{name: made[name] for name in made if name != "idm"}, out=tmp_path)
