"""The test stage on a made-up world of which an oracle knows all: it wins, and a still picture loses."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from fulgurite.datamodules.gamecraft.actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS, Chord
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, trajectory
from fulgurite.datamodules.gamecraft.episode import Episode
from fulgurite.datamodules.gamecraft.shards import ShardWriter
from fulgurite.launch.command_line import call_command
from fulgurite.launch.config.experiment import resolve
from fulgurite.launch.config.settings import Leaf
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.compare import compare
from fulgurite.lightning_modules.gamecraft.evaluate import Sizes, evaluate, measure
from fulgurite.lightning_modules.gamecraft.evaluation.chunks import Cameras, Request, Trained, load_vae
from fulgurite.lightning_modules.gamecraft.evaluation.comparison import Variant, check_groups, compare_variants
from fulgurite.lightning_modules.gamecraft.evaluation.held_out import draw_chunks
from fulgurite.lightning_modules.gamecraft.evaluation.judges import Judges
from fulgurite.lightning_modules.gamecraft.inverse_dynamics import InverseDynamicsNet, local_flow
from fulgurite.lightning_modules.gamecraft.metrics.perceptual import EfficientNetLite0
from fulgurite.lightning_modules.gamecraft.motion import FULL_SPEED
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

HEIGHT, WIDTH = 32, 48
CAMERA = ShearPitchCamera(HEIGHT, WIDTH)
NUM_STARTS = 3


def render(world: int, k_T33: Tensor, c2w_T44: Tensor) -> Tensor:
    """Pictures uint8 [T, 3, H, W]: a texture that slides with turn and strafe, sinks with look, grows with a step."""
    g = torch.Generator().manual_seed(world)
    texture = torch.nn.functional.interpolate(torch.rand(1, 3, 20, 60, generator=g), (160, 480), mode="bicubic")
    turn = torch.atan2(c2w_T44[:, 0, 2], c2w_T44[:, 2, 2])
    zoom = torch.exp(-0.35 * c2w_T44[:, 2, 3])
    theta = torch.zeros(len(turn), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * WIDTH / 480, zoom * HEIGHT / 160
    theta[:, 0, 2] = (turn * 30 + c2w_T44[:, 0, 3] * 20) / 240
    theta[:, 1, 2] = -(k_T33[:, 1, 2] - HEIGHT / 2) / 80
    grid = torch.nn.functional.affine_grid(theta, [len(turn), 3, HEIGHT, WIDTH], False)
    seen = torch.nn.functional.grid_sample(texture.expand(len(turn), -1, -1, -1), grid, "bilinear", "reflection", False)
    return (seen.clamp(0, 1) * 255).to(torch.uint8)


def after_start(k_T33: Tensor, c2w_T44: Tensor) -> Tensor:
    """Poses of a chunk as seen from the frame before it, by carrying its first step back."""
    return c2w_T44[1] @ c2w_T44


def episode(key: str, world: int, chord: Chord, meta: dict[str, Any]) -> Episode:
    """A history that walks to the origin, then a chunk of the chord."""
    k, c2w, pitch = trajectory(Chord.of(w=0.5), CLIP_FRAMES, camera=CAMERA)
    history = torch.linalg.inv(torch.from_numpy(c2w)[-1]) @ torch.from_numpy(c2w)
    k2, c2w2, _ = trajectory(chord, CLIP_FRAMES, pitch_deg=pitch, camera=CAMERA)
    k_T33 = torch.from_numpy(numpy.concatenate([k, k2])).float()
    c2w_T44 = torch.cat([history, after_start(*map(torch.from_numpy, (k2, c2w2)))])
    frames = render(world, k_T33, c2w_T44.float()).permute(0, 2, 3, 1).numpy()
    actions = numpy.stack([Chord.of(w=0.5).vector(), chord.vector()])
    zeros = numpy.zeros(len(frames), numpy.float32)
    about = {"game": "made-up", "map": f"world {world}", "camera": "shear", "kind": "recorded", **meta}
    return Episode(key, frames, k_T33.numpy(), c2w_T44.numpy(), zeros, actions, f"world {world}", "", about)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders val, test and counterfactual of the made-up world."""
    root = tmp_path_factory.mktemp("made-up")
    rng = numpy.random.default_rng(0)
    for split, worlds in (("val", (90, 91)), ("test", range(6))):
        with ShardWriter(root / split) as writer:
            for world in worlds:
                chord = COUNTERFACTUAL_CHORDS[int(rng.integers(12))]
                writer.write(episode(f"{split}-{world}", world, chord, {}))
    with ShardWriter(root / "counterfactual") as writer:
        for world in range(NUM_STARTS):
            for index, chord in enumerate(COUNTERFACTUAL_CHORDS):
                meta = {"start": f"s{world}", "action_index": index, "kind": "counterfactual"}
                writer.write(episode(f"s{world}-{index}", world, chord, meta))
    return root


class Oracle:
    """Knows the world's texture, and draws what the camera sees."""

    def __init__(self, name: str = "oracle, 1 step") -> None:
        self.name, self.seconds, self.num_chunks = name, 2.0, 4

    def __call__(self, request: Request) -> Tensor:
        worlds = [int(c.split()[1]) for c in request.captions]
        cameras = zip(worlds, request.intrinsics_BT33, request.c2w_BT44, strict=True)
        return torch.stack([render(w, k, after_start(k, c)) for w, k, c in cameras])

    def roll_out(self, request: Request, cameras: Sequence[Cameras]) -> Iterator[Tensor]:
        pose_B44 = torch.eye(4).expand(len(request), 4, 4)
        for k_BT33, c2w_BT44 in cameras:
            whole = pose_B44[:, None] @ torch.stack([after_start(*x) for x in zip(k_BT33, c2w_BT44, strict=True)])
            pose_B44 = whole[:, -1]
            worlds = [int(c.split()[1]) for c in request.captions]
            yield torch.stack([render(*x) for x in zip(worlds, k_BT33, whole, strict=True)])


class Still(Oracle):
    """Shows the last frame that it was given, whatever the keys."""

    def __call__(self, request: Request) -> Tensor:
        return request.history_BTCHW[:, -1:].expand(-1, CLIP_FRAMES, -1, -1, -1).contiguous()

    def roll_out(self, request: Request, cameras: Sequence[Cameras]) -> Iterator[Tensor]:
        for _ in cameras:
            yield self(request)


class FlowJudge:
    """Reads motion off the local flow: the world's rule, inverted."""

    def measure(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        x = clips.float() / 127.5 - 1
        flow = local_flow(x[:, :-1].flatten(0, 1), x[:, 1:].flatten(0, 1))[:, :2] * 2
        u, v = flow.unbind(1)
        across = torch.linspace(-1, 1, u.shape[-1]) * WIDTH / 2
        grow = (u * across).mean((1, 2)) / across.square().mean()
        turn = torch.rad2deg(-u.mean((1, 2)) / 30)
        motion = torch.stack(
            [grow / 0.35, torch.zeros_like(turn), turn, torch.rad2deg(v.mean((1, 2)) / (0.8 * HEIGHT))], 1
        )
        motion = motion.unflatten(0, (len(clips), -1))
        thumbnail = torch.nn.functional.adaptive_avg_pool2d(x.mean(2), (2, 2)).mean(1).flatten(1)
        return motion, torch.cat([(motion / torch.tensor(FULL_SPEED)).mean(1), thumbnail], 1)


@pytest.fixture(scope="module")
def measured(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("out")
    models = [("oracle", Oracle()), ("still_model", Still("still, 1 step"))]
    sizes = Sizes(num_chunks=6, num_starts=NUM_STARTS, num_speed=2, num_drift=3, drift_chunks=3, batch_size=5)
    keys = ("oracle", "still_model", "oracle")
    torch.manual_seed(0)
    judges = Judges(FlowJudge(), EfficientNetLite0().eval(), frame_stride=8)
    found = measure(data, models, None, judges, sizes, out, seed=0, distilled=keys)
    return found, out


def test_an_oracle_predicts_everything_and_shuffled_actions_cost_it(measured: tuple[dict[str, Any], Path]) -> None:
    m = measured[0]["metrics"]
    assert m["test/oracle/psnr_1_33"] > 45 and m["test/oracle/ssim_1_33"] > 0.99
    assert m["test/oracle_shuffled/psnr_1_16"] < m["test/oracle/psnr_1_16"] - 10
    assert m["test/copy_history/psnr_1_33"] < m["test/copy_previous/psnr_1_33"] < m["test/oracle/psnr_1_33"]
    assert m["test/oracle/feature_distance"] < 0.1 * m["test/copy_history/feature_distance"]
    assert m["test/oracle_one_frame/psnr_1_8"] == m["test/oracle/psnr_1_8"]


def test_the_judge_knows_an_oracle_from_a_still_picture(measured: tuple[dict[str, Any], Path]) -> None:
    m = measured[0]["metrics"]
    assert m["test/oracle/frechet"] == pytest.approx(0, abs=1e-4) and m["test/still_model/frechet"] > 1
    assert m["test/oracle/accuracy_feature"] == 1 and m["test/still_model/accuracy_feature"] == pytest.approx(1 / 12)
    assert m["test/oracle/accuracy_motion"] == m["test/real/accuracy_motion"]
    assert m["test/real/accuracy_motion"] > 0.5 > m["test/still_model/accuracy_motion"]
    assert m["test/still_model/dynamics"] < 0.05 < m["test/oracle/dynamics"]
    assert m["test/oracle/seconds_per_chunk"] == 0.5
    assert m["test/still/accuracy_motion"] == m["test/still_model/accuracy_motion"]


def test_speed_drift_and_turn_of_an_oracle(measured: tuple[dict[str, Any], Path]) -> None:
    m = measured[0]["metrics"]
    assert m["test/response/worst_correlation"] > 0.97
    assert m["test/turn/psnr_360"] > 40 > m["test/turn/psnr_180"]
    assert m["test/drift/luminance_ratio"] == pytest.approx(1, abs=0.3)


def test_what_is_said_and_shown(measured: tuple[dict[str, Any], Path]) -> None:
    found, out = measured
    json.dumps(found)
    text = "\n".join(found["statements"])
    assert "With another chunk's actions oracle, 1 step loses" in text
    assert "better on both of Fréchet distance" in text and "chance is 8.3%" in text
    assert json.loads((out / "unfinished.json").read_text())["metrics"] == found["metrics"]
    for name in found["figures"]:
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    for table in found["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_the_draw_is_a_function_of_the_seed(data: Path) -> None:
    from fulgurite.lightning_modules.gamecraft.evaluation.held_out import CounterfactualSet, draw_chunks

    a, b, c = (draw_chunks(data / "test", 4, seed) for seed in (1, 1, 2))
    assert a.maps == b.maps and torch.equal(a.real_NTCHW, b.real_NTCHW) and a.maps != c.maps
    assert len(set(a.maps)) == 4
    starts = [s.name for s in CounterfactualSet(data / "counterfactual", 2, 1)]
    assert starts == [s.name for s in CounterfactualSet(data / "counterfactual", 2, 1)] and len(set(starts)) == 2
    with pytest.raises(UserError, match="no start with the answers to all 12 actions"):
        CounterfactualSet(data / "test", 2, 1)


def test_recorded_and_commanded_poses_agree_in_free_space(data: Path) -> None:
    from fulgurite.lightning_modules.gamecraft.evaluation.held_out import CounterfactualSet

    start = next(iter(CounterfactualSet(data / "counterfactual", 1, 0)))
    asked = start.request(list(COUNTERFACTUAL_CHORDS), 0)
    assert torch.allclose(asked.c2w_BT44, start.c2w_AT44, atol=1e-5)
    assert torch.allclose(asked.intrinsics_BT33, start.intrinsics_AT33, atol=1e-4)


def save_judges(folder: Path) -> dict[str, Path]:
    """A random autoencoder and a random inverse-dynamics network."""
    torch.manual_seed(0)
    narrow = {"block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8)}
    GameplayVAE(**narrow, norm_num_groups=4).save_pretrained(folder / "vae")
    InverseDynamicsNet(width=4, height=HEIGHT, picture_width=WIDTH).save(folder / "idm", {})
    return {"vae": folder / "vae", "idm": folder / "idm"}


def save_transformer(folder: Path, w: float | None = None, **changes: Any) -> Path:
    """A random transformer with its captions and its way of sampling."""
    captions = CaptionEncoder("tiny-random-encoder")
    captions([f"world {i}" for i in range(6)])
    net = GameCraftTransformer.of_size("tiny", text_embed_dim=32, pooled_projection_dim=32, **changes)
    net.save_pretrained(folder / "transformer")
    captions.save(folder / "captions.safetensors")
    sampling = {"num_inference_steps": 2, "guidance_scale": 2.0 if w is None else 1.0, "guidance_w": w, "shift": 3.0}
    (folder / "sampling.json").write_text(json.dumps({"schema_version": 1, **sampling}))
    return folder / "transformer"


def test_the_command_runs_on_folders_of_weights(data: Path, tmp_path: Path) -> None:
    folders = {**save_judges(tmp_path), "out": tmp_path / "out"}
    trained = {role: save_transformer(tmp_path / role, w) for role, w in (("teacher", None), ("student", 1.0))}
    few = {"num_chunks": 2, "num_starts": 2, "num_speed": 1, "num_drift": 2, "drift_chunks": 2, "batch_size": 12}
    steps = {"teacher_steps": 2, "student_steps": 1, "few_steps": 1}
    evaluate(data=data, **folders, **trained, **few, **steps, feature_distance=False)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not (tmp_path / "out" / "unfinished.json").exists()
    assert found["schema_version"] == 1 and found["metrics"]["test/student_1/seconds_per_chunk"] > 0
    assert all(math.isfinite(v) for v in found["metrics"].values())
    assert any("student, 1 steps beside teacher, 2 steps" in s for s in found["statements"])
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate(data=data, **folders)
    with pytest.raises(UserError, match="no trained transformer"):
        evaluate(data=data, **folders, student=tmp_path / "vae")


def test_the_attention_asked_for_is_the_student_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}

    def measure(data: Path, models: list[tuple[str, Any]], *others: Any) -> dict[str, Any]:
        found.update(models)
        return {}

    monkeypatch.setattr(sys.modules[evaluate.__module__], "measure", measure)
    given: dict[str, Any] = {"data": tmp_path, **save_judges(tmp_path), "out": tmp_path, "feature_distance": False}
    teacher, student = (save_transformer(tmp_path / role, 1.0) for role in ("teacher", "student"))
    switch: dict[str, Any] = {"attention": {"single_transformer_blocks.*": "reference"}}
    evaluate(**given, teacher=teacher, student=student, **switch)

    def backends(key: str) -> list[str]:
        layers = found[key].transformer.single_transformer_blocks
        return [type(block.attn.processor.backend).__name__ for block in layers]

    assert backends("student_8") == ["ReferenceAttention"] * 2 and backends("teacher_8") == ["NoneType"] * 2
    found.clear()
    evaluate(**given, teacher=teacher, **switch)
    assert backends("teacher_50") == ["ReferenceAttention"] * 2
    with pytest.raises(UserError, match="attention 'paro' needs a plan"):
        evaluate(**given, student=student, attention="paro")


def test_an_ablation_tells_an_oracle_from_a_still_picture_in_tables_by_group(data: Path) -> None:
    torch.manual_seed(0)
    judges = Judges(FlowJudge(), EfficientNetLite0().eval(), frame_stride=16, flow_stride=8)
    still, half = Still("still, from a clip"), Oracle("half, from a clip")
    variants = [
        Variant("oracle", Oracle("oracle, from a clip"), Oracle("oracle, from one frame")),
        Variant("half", half, Still("half, from one frame")),  # knows what to do with a clip alone
        Variant("still_one", still, still),
    ]
    groups = {"camera": {"all knowing": "oracle", "still": "still_one"}, "history": {"both": "oracle", "clip": "half"}}
    found = compare_variants(data, variants, groups, None, judges, num_chunks=4, num_starts=2, batch_size=24, seed=0)
    json.dumps(found)
    m = found["metrics"]
    assert m["test/oracle/accuracy_feature"] == m["test/half/accuracy_feature"] == 1
    assert m["test/half_one_frame/accuracy_feature"] == pytest.approx(1 / 12)
    assert m["test/half_one_frame/frechet"] > 1 > m["test/half/frechet"]
    assert m["test/still_one/dynamics"] < 0.05 < m["test/oracle_one_frame/dynamics"]
    assert m["test/half/psnr_1_33"] > m["test/copy_history/psnr_1_33"] == m["test/half_one_frame/psnr_1_33"]
    from_clip, from_frame = found["tables"][:2]
    assert [row[:2] for row in from_clip["rows"]][:4] == [
        ["camera", "all knowing"], ["camera", "still"], ["history", "both"], ["history", "clip"],
    ]  # fmt: skip
    assert [row[1] for row in from_clip["rows"]][4:] == ["real answers", "copy the last history frame"]
    assert from_frame["rows"][3][2] == m["test/half_one_frame/frechet"]
    for table in found["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    clip, frame = next(s for s in found["statements"] if s.startswith("history: clip against both")).split("; ")
    assert "recognised actions +0.0 ± 0.0 points" in clip and "recognised actions -91.7 ± 0.0 points" in frame


def test_a_group_that_names_no_model_is_refused_and_none_means_all() -> None:
    with pytest.raises(UserError, match="'camera' has 'token: tokn'"):
        check_groups({"camera": {"token": "tokn"}}, ["add", "token"])
    assert check_groups({}, ["a", "b"]) == {"all": {"a": "a", "b": "b"}}


def test_compare_runs_as_a_stage_of_an_experiment_file(data: Path, tmp_path: Path) -> None:
    """Mappings of names reach the command from YAML, and models of all three ways of the camera are asked."""
    models = {way: str(save_transformer(tmp_path / way, camera_injection=way)) for way in ("add", "token_concat")}
    judges = {name: str(folder) for name, folder in save_judges(tmp_path).items()}
    few = {"num_chunks": 1, "num_starts": 1, "num_steps": 1, "batch_size": 12, "feature_distance": False}
    groups = {"camera": {"token addition": "add", "token concatenation": "token_concat"}}
    given = {"data": str(data), **judges, "models": models, "groups": groups, "out": str(tmp_path / "out"), **few}
    call_command("gamecraft compare", given)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    keys = [f"test/{way}{shown}" for way in models for shown in ("", "_one_frame")]
    assert all(math.isfinite(found["metrics"][f"{k}/{n}"]) for k in keys for n in ("psnr_1_8", "accuracy_motion"))
    with pytest.raises(UserError, match="nothing to compare"):
        compare(data=data, **{k: Path(v) for k, v in judges.items()}, models={}, out=tmp_path)


def test_a_model_asked_from_one_frame_sees_no_older_history(data: Path, tmp_path: Path) -> None:
    trained = Trained.load(save_transformer(tmp_path / "net"), torch.device("cpu"))
    vae = load_vae(save_judges(tmp_path)["vae"], torch.device("cpu"))
    request = draw_chunks(data / "test", 1, 0).request
    from_frame, from_clip = (trained.model("net", vae, 1, one_frame=alone) for alone in (True, False))
    assert torch.equal(from_frame(request), from_clip(request.from_one_frame()))
    cameras = [(request.intrinsics_BT33, request.c2w_BT44)]
    rolled, expected = (
        next(m.roll_out(r, cameras)) for m, r in ((from_frame, request), (from_clip, request.from_one_frame()))
    )
    assert torch.equal(rolled, expected)


def test_the_ablation_takes_the_recording_from_the_gpu_run_and_all_seeds_share_what_lies_before_the_trainings() -> None:
    gpu, zero = resolve("gamecraft/gpu"), resolve("gamecraft/ablation")
    one = resolve("gamecraft/ablation", [(("seed_everything",), Leaf(1, "--seeds"))])
    assert gpu.stages[0].digest(gpu.seed) == zero.stages[0].digest(0)
    assert [s.name for s in zero.stages][:3] == ["record", "encode", "idm"]
    assert [s.digest(1) for s in one.stages[:3]] == [s.digest(0) for s in zero.stages[:3]]
    trainings = slice(3, 11)
    assert not {s.digest(1) for s in one.stages[trainings]} & {s.digest(0) for s in zero.stages[trainings]}
    assert len({s.digest(0) for s in zero.stages[trainings]}) == 8
    compared = zero.stages[-1].settings.to_dict()
    assert list(compared["models"]) == [s.name for s in zero.stages[trainings]]
    assert check_groups(compared["groups"], list(compared["models"])) == compared["groups"]
