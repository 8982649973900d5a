"""`fulgurite gamecraft ingest`: a gameplay video into shards, as the recorder's."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy

from ....registry import COMMANDS, UserError
from ...files import write_json
from ..actions import CLIP_FRAMES
from ..camera import PinholeCamera
from ..filters import luminance_fault
from ..shards import Episode, ShardWriter
from .action_cuts import find_action_cuts, flow_signature, place_clips
from .estimate import estimate_poses
from .poses import PoseTrack, pose_error, read_poses
from .scene_cuts import find_scenes
from .video import Crop, Video


@dataclass
class _Scene:
    """One scene's pictures and cameras. `first` is its first frame's number in the video."""

    number: int
    first: int
    frames: numpy.ndarray
    grey: numpy.ndarray


@COMMANDS.register("gamecraft ingest", paper="2506.17201")
def ingest(
    video: Path, out: Path, split: str = "train", size: str = "64x112", poses: Path | None = None,
    true_poses: Path | None = None, intrinsics: str | None = None, vertical_fov_deg: float = 60.0,
    unit_scale: float = 1.0, captions: Path | None = None, game: str = "", sharpness: float = 12.0,
    scene_threshold: float = 27.0,
) -> None:  # fmt: skip
    """Cut a video into scenes and clips, filter them, give them poses and captions, and add them to a data set.

    Args:
        video: the video file.
        out: folder of the data set; made if missing. Ingesting the same video again adds nothing twice.
        split: folder in it: train, val or test.
        size: height x width of the clips.
        poses: file of camera poses, one line a frame: TUM's form, or world-to-camera matrices after intrinsics (as of
            Monst3R). Without it they are estimated, up to scale, and marked so.
        true_poses: file of poses that an estimate is compared with.
        intrinsics: fx,fy,cx,cy in pixels of the video, for poses that come without.
        vertical_fov_deg: vertical field of view, where no intrinsics are given.
        unit_scale: camera units per unit of the pose file; a full-speed clip should move by about 2.
        captions: file of `seconds<TAB>text` lines; a caption holds until the next.
        game: game id for the manifest; the file's name by default.
        sharpness: clips with a lower variance of the Laplacian (median over frames) are refused as blurred.
        scene_threshold: of PySceneDetect's content detector.
    """
    film = Video.open(video)
    crop = Crop(film.size, _size(size))
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", video.stem)[:40] + "-" + _digest(video)
    camera_33 = _intrinsics(intrinsics, vertical_fov_deg, film)
    spoken = _captions(captions)
    for path in (poses, true_poses):
        if path and not path.is_file():
            raise UserError(f"{path}: no such file of poses")
    scenes = find_scenes(film, scene_threshold)
    film = replace(film, num_frames=scenes[-1][1])  # as decoded; the header may be wrong
    given = read_poses(poses, film) if poses else None
    truth = read_poses(true_poses, film) if true_poses else None
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    report: list[dict[str, Any]] = []
    with ShardWriter(out / split, name=name.replace("-", ""), unit_scale=unit_scale) as writer:
        done = writer.existing_keys()
        for scene in _read(film, crop, scenes):
            cuts = find_action_cuts(flow_signature(scene.grey)) if len(scene.frames) >= CLIP_FRAMES else []
            row: dict[str, Any] = {"scene": scene.number, "frames": len(scene.frames), "action_cuts": len(cuts)}
            track, about = _cameras(scene, given, truth, camera_33, film, unit_scale)
            report.append(row | about)
            for start, stop in _runs(scene, cuts, track, sharpness, rejected):
                span = slice(start, stop)
                first = scene.first + start
                assert track.intrinsics is not None
                k_N33 = crop.intrinsics(track.intrinsics[span])
                meta = {
                    "game": game or video.stem,
                    "map": f"scene{scene.number}",
                    "kind": "ingested",
                    "engine": "video",
                    "camera": "pinhole",
                    "static": False,
                    "fps": film.fps,
                    "first_frame": first,
                    "action_cuts": [c - start for c in cuts if start <= c < stop],
                    **about,
                }
                episode = Episode(
                    f"{name}-{first:07d}",
                    scene.frames[span],
                    k_N33.astype(numpy.float32),
                    track.c2w[span],
                    numpy.zeros(stop - start, numpy.float32),
                    numpy.full(((stop - start) // CLIP_FRAMES, 8), numpy.nan, numpy.float32),
                    spoken(first / film.fps),
                    "",
                    meta,
                )
                counts["episodes"] += 1
                counts["clips"] += episode.num_clips
                if episode.key not in done:
                    writer.write(episode)
        if rejected and not (out / split / f"rejected-{writer.name}.json").exists():
            writer.add_rejections(rejected)
    write_json(out / "ingest" / name / "results.json", _results(film, report, counts, rejected))
    print(
        f"{video.name}: {len(scenes)} scenes, {counts['episodes']} episodes, {counts['clips']} clips of {CLIP_FRAMES} "
        f"frames; refused: {dict(rejected) or 'none'}"
    )
    for row in report:
        print("  " + ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text)
    if not match or int(match[1]) % 16 or int(match[2]) % 16:
        raise UserError(f"size {text!r}: wanted height x width, both multiples of 16, such as 64x112")
    return int(match[1]), int(match[2])


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def _intrinsics(text: str | None, vertical_fov_deg: float, film: Video) -> numpy.ndarray:
    """K [3, 3] of the source pictures."""
    if text is None:
        if not 5 <= vertical_fov_deg <= 150:
            raise UserError(f"vertical_fov_deg {vertical_fov_deg:g}: wanted degrees from 5 to 150")
        return PinholeCamera(*film.size, vertical_fov_deg).intrinsics(numpy.zeros(()))
    try:
        fx, fy, cx, cy = (float(w) for w in text.split(","))
        if min(fx, fy) <= 0:
            raise ValueError(text)
    except ValueError as error:
        raise UserError(f"intrinsics {text!r}: wanted four numbers fx,fy,cx,cy in pixels of the video") from error
    return numpy.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _captions(path: Path | None) -> Any:
    """A function from seconds to the caption then."""
    times, texts = [], [""]
    if path:
        if not path.is_file():
            raise UserError(f"{path}: no such file of captions")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            second, tab, text = line.partition("\t")
            try:
                times.append(float(second))
            except ValueError:
                tab = ""
            if not tab or sorted(times) != times:
                raise UserError(f"{path}, line {number}: wanted seconds, a tab and the caption, in the order of time")
            texts.append(text.strip())
    return lambda second: texts[int(numpy.searchsorted(times, second, side="right"))]


def _read(film: Video, crop: Crop, scenes: list[tuple[int, int]]) -> Iterator[_Scene]:
    """The scenes, one after the other, so that memory holds one."""
    source = film.frames()
    for number, (first, end) in enumerate(scenes):
        frames, grey = [], []
        for _ in range(first, end):
            frame = next(source, None)
            if frame is None:  # a file cut short, or a header that promised more
                break
            frames.append(crop.picture(frame))
            grey.append(film.grey(frame))
        if frames:
            yield _Scene(number, first, numpy.array(frames), numpy.array(grey))


def _cameras(
    scene: _Scene, given: PoseTrack | None, truth: PoseTrack | None, camera_33: numpy.ndarray, film: Video, scale: float
) -> tuple[PoseTrack, dict[str, Any]]:
    """Poses of a scene's frames, in camera units, with intrinsics; and where they come from, for the records."""
    span = slice(scene.first, scene.first + len(scene.frames))
    frames = len(scene.frames)
    k_N33 = numpy.tile(camera_33, (frames, 1, 1))
    if given is not None:
        c2w = given.c2w[span].copy()
        c2w[:, :3, 3] *= scale
        return (
            PoseTrack(
                c2w, k_N33 if given.intrinsics is None else given.intrinsics[span], given.known[span], given.source
            ),
            {"pose_source": given.source},
        )
    shrink = numpy.diag([film.grey_size[1] / film.size[1], film.grey_size[0] / film.size[0], 1.0])
    found = estimate_poses(scene.grey, shrink @ camera_33)
    about = {"pose_source": "estimated", "pose_residual_px": found.residual_px, "pose_tracked": found.tracked}
    if truth is not None and truth.known[span].all() and frames > 8:
        about |= {f"pose_error_{k}": v for k, v in pose_error(found.c2w, truth.c2w[span]).as_dict().items()}
    return PoseTrack(found.c2w, k_N33, numpy.ones(frames, bool), "estimated"), about


def _runs(
    scene: _Scene, cuts: list[int], track: PoseTrack, sharpness: float, rejected: Counter[str]
) -> Iterator[tuple[int, int]]:
    """Spans of consecutive clips that pass every filter, as (first frame, frame after the last) of the scene."""
    if len(scene.frames) < CLIP_FRAMES:
        rejected["short"] += 1
        return
    first = place_clips(len(scene.frames), cuts)
    start = None
    ends = range(first + CLIP_FRAMES, len(scene.frames) + 1, CLIP_FRAMES)
    for end in ends:
        clip = slice(end - CLIP_FRAMES, end)
        fault = luminance_fault(scene.frames[clip])
        sharp = numpy.median([cv2.Laplacian(g, cv2.CV_32F).var() for g in scene.grey[clip][::4]])
        if fault is None and sharp < sharpness:
            fault = "blurred"
        if fault is None and not track.known[clip].all():
            fault = "no pose"
        if fault is None:
            start = clip.start if start is None else start
        else:
            rejected[fault] += 1
        if start is not None and (fault is not None or end == ends[-1]):
            yield start, end if fault is None else clip.start
            start = None


def _results(film: Video, report: list[dict[str, Any]], counts: Counter[str], rejected: Counter[str]) -> dict[str, Any]:
    metrics: dict[str, float] = {"scenes": len(report), **counts, **{f"rejected_{k}": n for k, n in rejected.items()}}
    statements = []
    errors = [row for row in report if "pose_error_rotation_deg" in row]
    if errors:
        names = [f"pose_error_{name}" for name in ("rotation_deg", "direction_deg", "trajectory_pct")]
        rotation, direction, centres = (float(numpy.median([row[name] for row in errors])) for name in names)
        metrics |= dict(zip(names, (rotation, direction, centres), strict=True))
        statements.append(
            f"Estimated poses against the true ones, median over {len(errors)} scenes, over "
            f"{errors[0]['pose_error_gap']} frames: rotation off by {rotation:.2f} degrees, direction of motion by "
            f"{direction:.1f} degrees; camera centres off by {centres:.1f} % of the path's length after the best "
            "similarity."
        )
    columns = list(dict.fromkeys(name for row in report for name in row))
    rows = json.loads(json.dumps([[row.get(c, "") for c in columns] for row in report]))
    note = "Estimated poses have no scale of their own; each scene is scaled to the recorder's full speed."
    table = {"title": f"Scenes of {film.path.name}", "columns": columns, "rows": rows, "note": note}
    return {"schema_version": 1, "metrics": metrics, "tables": [table], "statements": statements, "figures": []}
