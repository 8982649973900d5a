"""Clips of several folders of shards as rows, and batches of rows with their history.

Axis legend: R rows (clips), B batch, N history clips, T frame, H height, W width, C channel.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import torch
from torch import Tensor

from ...registry import UserError
from .actions import CLIP_FRAMES
from .balance import invert_actions
from .camera import invert_time, relative_to_first
from .history import HISTORY_CLIPS
from .latents import LatentSplit, LatentStore, backwards
from .manifest import BrokenShard, Manifest


class ClipRows:
    """Clips as rows: those of an episode follow each other, episodes are in the order of their keys.

    This class reads from the shards at every batch; `MemoryClips` holds everything.

    Args:
        manifests: the folders.
        chosen: for each folder, bool by episode; broken episodes are left out anyway.

    Attributes:
        folder: [R], which manifest.
        episode: [R], index in it.
        place: [R], which clip of the episode.
        num_clips: [R], how many the episode has.
        static: bool [R], may be played backwards.
        moves: float32 [R, 2, 3], see `Episode.clip_moves`.
        usable: bool [R]; False for shards found broken while loading.
    """

    def __init__(self, manifests: Sequence[Manifest], chosen: Sequence[numpy.ndarray]) -> None:
        self.manifests = list(manifests)
        sizes = {m.size for m in manifests if len(m)}
        if len(sizes) > 1:
            raise UserError(f"folders of different frame sizes (H, W): {', '.join(str(m.folder) for m in manifests)}")
        self.size = sizes.pop() if sizes else (0, 0)
        columns: dict[str, list[numpy.ndarray]] = {n: [] for n in ("folder", "episode", "place", "num_clips", "static")}
        moves = [numpy.zeros((0, 2, 3), "f4")]
        for number, (manifest, mask) in enumerate(zip(manifests, chosen, strict=True)):
            e = manifest.episodes
            order = numpy.argsort(e["key"], kind="stable")
            order = order[(mask & manifest.usable)[order]]
            counts = e["num_clips"][order]
            place = numpy.arange(counts.sum()) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
            columns["folder"].append(numpy.full(len(place), number, "i4"))
            columns["episode"].append(numpy.repeat(order, counts))
            columns["place"].append(place)
            columns["num_clips"].append(numpy.repeat(counts, counts))
            columns["static"].append(numpy.repeat(e["static"][order], counts))
            moves.append(e["clip_move"][numpy.repeat(e["first_clip"][order], counts) + place])
        self.folder, self.episode, self.place, self.num_clips, self.static = (
            numpy.concatenate(c) if c else numpy.zeros(0, int) for c in columns.values()
        )
        self.moves = numpy.concatenate(moves)
        self.usable = numpy.ones(len(self), bool)

    def __len__(self) -> int:
        return len(self.place)

    @property
    def broken(self) -> dict[str, str]:
        """Shards found broken so far: path -> what is wrong."""
        return {str(m.folder / shard): reason for m in self.manifests for shard, reason in m.broken.items()}

    def eligible(self, num_history: int, inverted: bool) -> numpy.ndarray:
        """Bool [R]: whether a row has that many clips before it (after it, and is static, when played backwards)."""
        if inverted:
            return self.usable & self.static.astype(bool) & (self.place + num_history < self.num_clips)
        return self.usable & (self.place >= num_history)

    def chunks(
        self, rows: numpy.ndarray, inverted: numpy.ndarray, long_caption: numpy.ndarray | None = None
    ) -> dict[str, Any]:
        """Everything about the clips themselves but their pictures.

        Args:
            rows: [B].
            inverted: bool [B], which are played backwards.
            long_caption: bool [B], which get their long caption; None for none.

        Returns:
            intrinsics float32 [B, 33, 3, 3], c2w float32 [B, 33, 4, 4] (relative to the first frame), actions float32
            [B, 8], captions and keys (lists of B words).
        """
        intrinsics, c2w, actions = self._cameras(rows)
        back = torch.from_numpy(inverted)
        if inverted.any():
            intrinsics[back], c2w[back] = invert_time(intrinsics[back], c2w[back])
            actions[inverted] = invert_actions(actions[inverted])
        keys, captions = self._words(rows, numpy.zeros(len(rows), bool) if long_caption is None else long_caption)
        return {
            "intrinsics": intrinsics.float(),
            "c2w": c2w.float(),
            "actions": torch.from_numpy(actions),
            "captions": captions,
            "keys": keys,
        }

    def pictures(self, rows: numpy.ndarray, inverted: numpy.ndarray, times: slice = slice(None)) -> Tensor:
        """Frames of the clips, all or those at `times`, uint8 [B, 33, 3, H, W] (channels lie last in memory)."""
        return self._pictures(_frame_ids(rows, inverted)[:, times])

    def history(self, rows: numpy.ndarray, inverted: numpy.ndarray, head: str) -> Tensor:
        """Frames before the clips, uint8 [B, n, 3, H, W] with n = 33, 66 or 1 by `head`, the newest last."""
        before_BN = _before(rows, inverted, head)
        ids = _frame_ids(before_BN, inverted[:, None] & numpy.ones_like(before_BN, bool))
        ids = ids.reshape(len(rows), -1)
        return self._pictures(ids[:, -1:] if head == "frame" else ids)

    def _pictures(self, ids: numpy.ndarray) -> Tensor:
        frames = self._frames(ids.reshape(-1))
        return frames.view(*ids.shape, *frames.shape[1:]).permute(0, 1, 4, 2, 3)

    def _frames(self, ids: numpy.ndarray) -> Tensor:
        """Frames uint8 [n, H, W, 3] by number: row times 33 plus the frame of the clip."""
        frames = numpy.empty((len(ids), *self.size, 3), numpy.uint8)
        rows, within = numpy.divmod(ids, CLIP_FRAMES)
        for row in numpy.unique(rows).tolist():
            manifest = self.manifests[self.folder[row]]
            clip = manifest.read_clips(int(self.episode[row]), int(self.place[row]), 1)
            frames[rows == row] = clip[within[rows == row]]
        return torch.from_numpy(frames)

    def _cameras(self, rows: numpy.ndarray) -> tuple[Tensor, Tensor, numpy.ndarray]:
        parts = []
        for row in rows.tolist():
            camera = self.manifests[self.folder[row]].read_camera(int(self.episode[row]))
            clip = slice(self.place[row] * CLIP_FRAMES, (self.place[row] + 1) * CLIP_FRAMES)
            parts.append((camera["intrinsics"][clip], camera["c2w"][clip], camera["actions"][self.place[row]]))
        intrinsics, c2w, actions = (numpy.stack(p) for p in zip(*parts, strict=True))
        return torch.from_numpy(intrinsics), relative_to_first(torch.from_numpy(c2w)), actions

    def _words(self, rows: numpy.ndarray, long_caption: numpy.ndarray) -> tuple[list[str], list[str]]:
        about = [self.manifests[self.folder[r]].read_about(int(self.episode[r])) for r in rows.tolist()]
        names = ["captions_long" if long else "caption" for long in long_caption]
        return [a["key"] for a in about], [a[name] for a, name in zip(about, names, strict=True)]


class MemoryClips(ClipRows):
    """Clips held in memory: frames or latents, cameras, captions. Checks every checksum while loading.

    Args:
        manifests: as for `ClipRows`.
        chosen: as for `ClipRows`.
        latents: (store, split of each folder, whether the clips backwards are needed) to hold latents and no frames.

    Raises:
        UserError: if the store lacks an episode.
    """

    def __init__(
        self,
        manifests: Sequence[Manifest],
        chosen: Sequence[numpy.ndarray],
        latents: tuple[LatentStore, Sequence[str], bool] | None = None,
    ) -> None:
        super().__init__(manifests, chosen)
        rows = len(self)
        self._frames_R = None if latents else torch.empty((rows, CLIP_FRAMES, *self.size, 3), dtype=torch.uint8)
        self._intrinsics_R = torch.empty((rows, CLIP_FRAMES, 3, 3))
        self._c2w_R = torch.empty((rows, CLIP_FRAMES, 4, 4), dtype=torch.float64)
        self._actions_R = numpy.empty((rows, 8), numpy.float32)
        self._keys_R: list[str] = [""] * rows
        self._captions_R: list[tuple[str, str]] = [("", "")] * rows
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            failures = list(pool.map(self._load, numpy.flatnonzero(self.place == 0).tolist()))
        for folder, error in [f for f in failures if f]:
            self.manifests[folder].mark_broken(error.shard, error.reason)
        self._latents_R: Tensor | None = None
        self._lasts_R: Tensor | None = None
        if latents:
            self._latents_R, self._lasts_R = self._read_latents(*latents)
        for number, manifest in enumerate(self.manifests):
            mine = self.folder == number
            self.usable[mine] = manifest.usable[self.episode[mine]]

    def _load(self, row: int) -> tuple[int, BrokenShard] | None:
        folder, index = int(self.folder[row]), int(self.episode[row])
        manifest, rows = self.manifests[folder], slice(row, row + int(self.num_clips[row]))
        try:
            if self._frames_R is not None:
                frames = manifest.read_clips(index, 0, int(self.num_clips[row]))
                self._frames_R[rows] = torch.from_numpy(frames).view_as(self._frames_R[rows])
            camera, about = manifest.read_camera(index), manifest.read_about(index)
        except BrokenShard as error:
            return folder, error
        self._intrinsics_R[rows] = torch.from_numpy(camera["intrinsics"]).view(-1, CLIP_FRAMES, 3, 3)
        self._c2w_R[rows] = relative_to_first(torch.from_numpy(camera["c2w"]).view(-1, CLIP_FRAMES, 4, 4))
        self._actions_R[rows] = camera["actions"]
        for r in range(rows.start, rows.stop):
            self._keys_R[r], self._captions_R[r] = about["key"], (about["caption"], about["captions_long"])
        return None

    def _read_latents(self, store: LatentStore, splits: Sequence[str], both_ways: bool) -> tuple[Tensor, Tensor]:
        """Latents and lasts by row, [R or 2R, …]; the second R rows are the clips backwards."""
        clips: list[Tensor] = []
        lasts: list[Tensor] = []
        for name in [*splits, *(backwards(split) for split in splits if both_ways)]:
            held = store.read(name)
            number = len(clips) % len(splits)
            rows = numpy.flatnonzero(self.folder == number)
            missing = [r for r in rows[self.place[rows] == 0].tolist() if not self._encoded(r, held)]
            if missing:
                raise UserError(
                    f"{store.folder}: {len(missing)} episodes of '{name}' lack latents\n"
                    "The data grew since they were encoded. Go on: fulgurite gamecraft encode"
                )
            places = [held.first_row.get(self._keys_R[r], 0) + int(self.place[r]) for r in rows.tolist()]
            clips.append(held.clips[places])
            lasts.append(held.lasts[places])
        return torch.cat(clips), torch.cat(lasts)

    def _encoded(self, row: int, held: LatentSplit) -> bool:
        """Whether the episode that begins at a row has latents, or is in a broken shard and needs none."""
        manifest, index = self.manifests[self.folder[row]], int(self.episode[row])
        if held.num_clips.get(self._keys_R[row]) == self.num_clips[row] or not manifest.usable[index]:
            return True
        try:
            manifest.read_clips(index, 0, int(self.num_clips[row]))
        except BrokenShard as error:  # met here first, since with latents no frames are read
            manifest.mark_broken(error.shard, error.reason)
        return not manifest.usable[index]

    @property
    def has_latents(self) -> bool:
        """Whether it holds latents, and so no frames."""
        return self._latents_R is not None

    def latents(self, rows: numpy.ndarray, inverted: numpy.ndarray) -> Tensor:
        """Latents of the clips, float16 [B, 16, 9, h, w]."""
        assert self._latents_R is not None
        return self._latents_R[torch.from_numpy(rows + len(self) * inverted)]

    def latent_history(self, rows: numpy.ndarray, inverted: numpy.ndarray, head: str) -> Tensor:
        """Latents before the clips, float16 [B, 16, n, h, w] with n = 9, 18 or 1 by `head`, the newest last."""
        assert self._latents_R is not None and self._lasts_R is not None
        before_BN = torch.from_numpy(_before(rows, inverted, head) + len(self) * inverted[:, None])
        held = (self._lasts_R if head == "frame" else self._latents_R)[before_BN]
        return held.transpose(1, 2).flatten(2, 3)

    def _frames(self, ids: numpy.ndarray) -> Tensor:
        assert self._frames_R is not None
        return self._frames_R.flatten(0, 1)[torch.from_numpy(ids)]

    def _cameras(self, rows: numpy.ndarray) -> tuple[Tensor, Tensor, numpy.ndarray]:
        chosen = torch.from_numpy(rows)
        return self._intrinsics_R[chosen], self._c2w_R[chosen], self._actions_R[rows]

    def _words(self, rows: numpy.ndarray, long_caption: numpy.ndarray) -> tuple[list[str], list[str]]:
        captions = [self._captions_R[r][long] for r, long in zip(rows.tolist(), long_caption.tolist(), strict=True)]
        return [self._keys_R[r] for r in rows.tolist()], captions


def _before(rows: numpy.ndarray, inverted: numpy.ndarray, head: str) -> numpy.ndarray:
    """Rows [B, N] of the history clips, the newest last. Played backwards, history is what came after."""
    steps = numpy.arange(HISTORY_CLIPS[head], 0, -1)
    return rows[:, None] - steps * numpy.where(inverted, -1, 1)[:, None]


def _frame_ids(rows: numpy.ndarray, inverted: numpy.ndarray) -> numpy.ndarray:
    """Numbers [..., 33] of the frames of clips, in the order in which they are shown."""
    times = numpy.where(inverted[..., None], numpy.arange(CLIP_FRAMES)[::-1], numpy.arange(CLIP_FRAMES))
    return rows[..., None] * CLIP_FRAMES + times
