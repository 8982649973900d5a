"""Held-out material: real chunks after their history, and starts with the real answers to twelve actions.

Axis legend: N chunk, A action, T frame, C channel, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from ....datamodules.gamecraft.actions import CLIP_FRAMES, COUNTERFACTUAL_CHORDS, Chord
from ....datamodules.gamecraft.camera import (
    CameraModel,
    PinholeCamera,
    ShearPitchCamera,
    relative_to_first,
    trajectory,
)
from ....datamodules.gamecraft.manifest import BrokenShard, Manifest
from ....registry import UserError
from .chunks import Request


@dataclass(frozen=True)
class RealChunks:
    """Real chunks of held-out maps, as a request and its true answer.

    Attributes:
        request: history of one clip, poses and captions as recorded.
        real_NTCHW: uint8, what truly came.
        maps: one a chunk.
    """

    request: Request
    real_NTCHW: Tensor
    maps: list[str]


@dataclass(frozen=True)
class Start:
    """One start and the real answers to all actions.

    Attributes:
        name: of the start.
        history_TCHW: uint8, common to all.
        answers_ATCHW: uint8, what the engine answered.
        intrinsics_AT33: float32, of the answers as recorded.
        c2w_AT44: float32, likewise, relative to each answer's first frame.
        pitch_deg: pitch at the end of the history, positive down.
        camera: how the engine shows a pitch.
        caption: of the history.
        map: where it is.
    """

    name: str
    history_TCHW: Tensor
    answers_ATCHW: Tensor
    intrinsics_AT33: Tensor
    c2w_AT44: Tensor
    pitch_deg: float
    camera: CameraModel
    caption: str
    map: str

    def request(self, chords: list[Chord], seed: int) -> Request:
        """Ask for one chunk a chord, from the poses that the keys command in free space: as played.

        All chunks of a start share their noise, so that they differ by their action alone.
        """
        cameras = [trajectory(c, CLIP_FRAMES, pitch_deg=self.pitch_deg, camera=self.camera)[:2] for c in chords]
        k_AT33, c2w_AT44 = (torch.from_numpy(numpy.stack(x)).float() for x in zip(*cameras, strict=True))
        history = self.history_TCHW.expand(len(chords), *self.history_TCHW.shape)
        return Request(history, k_AT33, c2w_AT44, [self.caption] * len(chords), [seed] * len(chords))


def draw_chunks(folder: Path, count: int, seed: int) -> RealChunks:
    """Chunks that follow a clip of the same episode, drawn by seed: from as many episodes as there are, then again.

    Raises:
        UserError: if the folder holds no shards, or no episode of two clips.
    """
    manifest = Manifest.open(folder)
    num_clips = manifest.episodes["num_clips"]
    generator = numpy.random.default_rng(seed)
    pairs = [
        (float(turn) + float(generator.random()), index, int(clip))
        for index in numpy.flatnonzero(manifest.usable & (num_clips > 1)).tolist()
        for turn, clip in enumerate(generator.permutation(num_clips[index] - 1) + 1)
    ]
    found: list[tuple[Any, ...]] = []
    for _, index, clip in sorted(pairs):
        if len(found) == count:
            break
        if not manifest.usable[index]:  # its shard was found broken since
            continue
        try:
            frames = manifest.read_clips(index, clip - 1, 2)
            camera, about = manifest.read_camera(index), manifest.read_about(index)
        except BrokenShard as error:
            manifest.mark_broken(error.shard, error.reason)
            continue
        span = slice(clip * CLIP_FRAMES, (clip + 1) * CLIP_FRAMES)
        both = _pictures(frames)
        found.append(
            (
                both[:CLIP_FRAMES], both[CLIP_FRAMES:], torch.from_numpy(camera["intrinsics"][span]).float(),
                torch.from_numpy(relative_to_first(camera["c2w"][span])).float(), about["caption"],
                str(about["meta"].get("map", "")),
            )
        )  # fmt: skip
    if not found:
        raise UserError(f"{folder}: no episode of at least two clips\nRecord some: fulgurite gamecraft record")
    history, real, intrinsics, c2w, captions, maps = (list(x) for x in zip(*found, strict=True))
    seeds = [seed * 1_000_003 + i for i in range(len(found))]
    request = Request(torch.stack(history), torch.stack(intrinsics), torch.stack(c2w), captions, seeds)
    return RealChunks(request, torch.stack(real), maps)


class CounterfactualSet:
    """The starts of a recorded counterfactual set, read one at a time.

    Args:
        folder: of the set: one episode for each (start, action), history clip first, answer after it.
        count: starts to take, drawn by seed.
        seed: of the draw.

    Raises:
        UserError: if the folder holds no start with all twelve answers.
    """

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self.manifest = Manifest.open(folder)
        rows: dict[str, dict[int, int]] = {}
        for index in numpy.flatnonzero(self.manifest.usable).tolist():
            meta = self._about(index).get("meta", {})
            if "start" in meta:
                rows.setdefault(str(meta["start"]), {})[int(meta["action_index"])] = index
        whole = sorted(name for name, found in rows.items() if len(found) == len(COUNTERFACTUAL_CHORDS))
        if not whole:
            raise UserError(
                f"{folder}: no start with the answers to all {len(COUNTERFACTUAL_CHORDS)} actions\n"
                "Record the set: fulgurite gamecraft record"
            )
        order = numpy.random.default_rng(seed).permutation(len(whole))[:count]
        self._rows = [(whole[i], [rows[whole[i]][a] for a in range(len(COUNTERFACTUAL_CHORDS))]) for i in order]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Start]:
        """The starts; one in a broken shard is left out, with a warning."""
        for name, indices in self._rows:
            if not self.manifest.usable[indices].all():
                continue
            try:
                episodes = [self.manifest.read(i) for i in indices]
            except BrokenShard as error:
                self.manifest.mark_broken(error.shard, error.reason)
                continue
            first, answer = episodes[0], slice(CLIP_FRAMES, 2 * CLIP_FRAMES)
            yield Start(
                name,
                _pictures(first.frames[:CLIP_FRAMES]),
                torch.stack([_pictures(e.frames[answer]) for e in episodes]),
                torch.stack([torch.from_numpy(e.intrinsics[answer]).float() for e in episodes]),
                torch.stack([torch.from_numpy(relative_to_first(e.c2w[answer])).float() for e in episodes]),
                float(first.pitch_deg[CLIP_FRAMES - 1]),
                camera_of(first.meta, first.intrinsics[0], *first.frames.shape[1:3]),
                first.caption,
                str(first.meta.get("map", "")),
            )

    def _about(self, index: int) -> dict[str, Any]:
        try:
            return self.manifest.read_about(index)
        except BrokenShard as error:
            self.manifest.mark_broken(error.shard, error.reason)
            return {}


def camera_of(meta: dict[str, Any], intrinsics_33: numpy.ndarray, height: int, width: int) -> CameraModel:
    """The camera model of an episode: ViZDoom's, or a true pinhole with the field of view of its intrinsics."""
    if meta.get("camera") == "pinhole":
        return PinholeCamera(height, width, math.degrees(2 * math.atan(height / 2 / float(intrinsics_33[1, 1]))))
    return ShearPitchCamera(height, width)


def mean_picture(folder: Path, count: int, seed: int) -> Tensor:
    """Mean of one frame of each of up to `count` episodes, float32 [3, H, W]: of other maps than the test's."""
    manifest = Manifest.open(folder)
    order = numpy.random.default_rng(seed).permutation(numpy.flatnonzero(manifest.usable))[:count]
    frames = [torch.from_numpy(numpy.array(e.frames[0])).float() for _, e in manifest.read_all(order.tolist())]
    if not frames:
        raise UserError(f"{folder}: no episode\nRecord some: fulgurite gamecraft record")
    return torch.stack(frames).mean(0).permute(2, 0, 1)


def _pictures(frames_THWC: numpy.ndarray) -> Tensor:
    return torch.from_numpy(numpy.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2).contiguous()
