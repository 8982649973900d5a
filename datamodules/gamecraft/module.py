"""Gameplay clips for training: with history for the video models, by themselves for the VAE (arXiv 2506.17201).

Axis legend: B batch, F frame, H height, W width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Subset

from ...registry import DATAMODULES, UserError
from ..draws import DrawLoader, whole
from .clips import ClipRows, MemoryClips
from .latents import LatentStore
from .manifest import Manifest
from .streams import FrameBatches, HistoryBatches


class _Folders:
    """Opens the split folders of a data set, each once, and picks episodes by game."""

    def __init__(self, data: str, holdout_games: Sequence[str] = ()) -> None:
        self._data, self._holdout = Path(data), tuple(holdout_games)
        self._opened: dict[str, Manifest] = {}

    def open(self, split: str) -> Manifest:
        if split not in self._opened:
            self._opened[split] = Manifest.open(self._data / split)
        return self._opened[split]

    @property
    def broken(self) -> dict[str, str]:
        return {str(m.folder / s): why for m in self._opened.values() for s, why in m.broken.items()}

    def mark_broken(self, found: Mapping[str, str]) -> None:
        """Take over what a loader's process found: path -> what is wrong with it."""
        for path, reason in found.items():
            for manifest in self._opened.values():
                if manifest.folder == Path(path).parent:
                    manifest.mark_broken(Path(path).name, reason)

    def training(self, splits: Sequence[str]) -> tuple[list[Manifest], list[numpy.ndarray]]:
        """Manifests, and bool by episode: every game but those held out."""
        manifests = [self.open(s) for s in splits]
        return manifests, [~m.of_games(self._holdout) for m in manifests]

    def evaluation(self, split: str) -> tuple[list[str], list[Manifest], list[numpy.ndarray]]:
        """Splits, manifests, and bool by episode: all of `split`, or where games are held out, all of those games."""
        if not self._holdout:
            return [split], [self.open(split)], [numpy.ones(len(self.open(split)), bool)]
        splits = [s for s in ("train", "synthetic", split) if (self._data / s).is_dir()]
        manifests = [self.open(s) for s in splits]
        chosen = [m.of_games(self._holdout) for m in manifests]
        if not any(c.any() for c in chosen):
            games = sorted({g for m in manifests for g in m.games})
            raise UserError(
                f"{self._data}: no episode of the held-out games {', '.join(self._holdout)}\n"
                f"There are: {', '.join(games)}"
            )
        return splits, manifests, chosen


class _Gameplay(LightningDataModule, ABC):
    """What both data modules share: the folders, which of their clips a stage sees, and the loaders."""

    def __init__(self, data: str, holdout_games: Sequence[str] = ()) -> None:
        super().__init__()
        self._folders = _Folders(data, holdout_games)
        self._batches: dict[str, HistoryBatches | FrameBatches] = {}

    @property
    def broken_shards(self) -> dict[str, str]:
        """Shards that were skipped so far: path -> what is wrong with it."""
        return self._folders.broken

    @abstractmethod
    def _rows(
        self, splits: list[str], manifests: list[Manifest], chosen: list[numpy.ndarray], training: bool
    ) -> ClipRows:
        """Clips of the chosen episodes."""

    @abstractmethod
    def _batches_of(self, rows: ClipRows, synthetic: numpy.ndarray, training: bool) -> HistoryBatches | FrameBatches:
        """Batches of clips; `synthetic` bool by row."""

    def setup(self, stage: str) -> None:
        """Open the folders that the stage needs and load them.

        Raises:
            UserError: if a folder is missing or empty, has too short episodes for the history asked for, or lacks
                latents.
        """
        p = self.hparams
        if stage == "fit" and "train" not in self._batches:
            splits = ["train"] * (p["synthetic_ratio"] < 1) + ["synthetic"] * (p["synthetic_ratio"] > 0)
            rows = self._rows(splits, *self._folders.training(splits), True)
            made = numpy.array([split == "synthetic" for split in splits])[rows.folder]
            self._batches["train"] = self._batches_of(rows, made, True)
        for split in {"fit": ["val"], "validate": ["val"], "test": ["test"]}.get(stage, []):
            if p["val_batches"] and split not in self._batches:
                rows = self._rows(*self._folders.evaluation(split), False)
                self._batches[split] = self._batches_of(rows, numpy.zeros(len(rows), bool), False)

    def train_dataloader(self) -> DrawLoader:
        """Endless batches, `num_batches` an epoch."""
        return DrawLoader(self._batches["train"], 1, self.hparams["num_batches"], _only, self.hparams["num_workers"])

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The same `val_batches` batches each time."""
        return self._fixed("val")

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The same `val_batches` batches of the test folder each time."""
        return self._fixed("test")

    def _fixed(self, split: str) -> DataLoader[Any] | list[Any]:
        if split not in self._batches:
            return []
        batches = Subset(self._batches[split], range(self.hparams["val_batches"]))
        return DataLoader(batches, sampler=whole(batches), collate_fn=_only)


@DATAMODULES.register("gamecraft")
class GameplayClipDataModule(_Gameplay):
    """Clips with their history, cameras, actions and captions; a batch has one kind of history.

    A batch is a dict: `head` (clip, clips or frame), `intrinsics` float32 [B, 33, 3, 3], `c2w` float32 [B, 33, 4, 4]
    (relative to the clip's first frame, camera units), `actions` float32 [B, 8], `captions`, `keys`; and either
    `frames` uint8 [B, 33, 3, H, W] with `history` uint8 [B, n, 3, H, W] (n = 33, 66 or 1), or, float16 from the loader
    and made float32 on the device, `latents` [B, 16, 9, h, w] with `history_latents` [B, 16, n, h, w] (n = 9, 18 or 1).
    Training batches are a function of (seed, batch number) alone, each clip comes once a pass over all ranks, and a run
    that resumes goes on where it was.

    Deviation: the paper draws the kind of history at random; here every 20 batches hold each in its exact share.

    Args:
        data: folder of the data set, with folders train, synthetic, val, test.
        batch_size: clips a batch.
        num_batches: batches an epoch, of each process.
        synthetic_ratio: share of synthetic clips; the paper's 1:5 with recorded play is 1/6.
        history: shares of one clip, several clips, one frame.
        balanced: even over directions of motion (the paper's second phase).
        inversion: share of clips played backwards, of those where nothing but the camera moves.
        long_captions: share of the clips that come with their long caption; the paper draws between both.
        latents: folder of encoded latents to give instead of frames.
        in_memory: hold everything in memory, which is fast; otherwise clips are read from the shards when needed.
        holdout_games: game ids that training never sees; validation and test then hold these games alone.
        val_batches: batches of validation, and of test.
        num_workers: worker processes of the loader; batches do not depend on it.
        seed: seed of everything drawn.
    """

    def __init__(
        self,
        data: str,
        batch_size: int = 16,
        num_batches: int = 1000,
        synthetic_ratio: float = 1 / 6,
        history: tuple[float, float, float] = (0.70, 0.05, 0.25),
        balanced: bool = False,
        inversion: float = 0.0,
        long_captions: float = 0.0,
        latents: str | None = None,
        in_memory: bool = True,
        holdout_games: tuple[str, ...] = (),
        val_batches: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(data, holdout_games)
        self.save_hyperparameters()
        if not all(0 <= share <= 1 for share in (synthetic_ratio, inversion, long_captions)):
            raise UserError("data.synthetic_ratio, data.inversion and data.long_captions are shares from 0 to 1")
        if min(history) < 0 or abs(sum(history) - 1) > 1e-6:
            raise UserError(f"data.history: three shares that add up to 1 (clip, clips, frame), not {list(history)}")
        if latents and not in_memory:
            raise UserError("data.latents are held in memory: leave data.in_memory on with them")

    @property
    def latent_meta(self) -> dict[str, Any] | None:
        """What the latents' meta.json says (vae_sha256, scaling_factor); None without latents."""
        return LatentStore(self.hparams["latents"]).meta if self.hparams["latents"] else None

    def _rows(
        self, splits: list[str], manifests: list[Manifest], chosen: list[numpy.ndarray], training: bool
    ) -> ClipRows:
        p = self.hparams
        if not p["in_memory"]:
            return ClipRows(manifests, chosen)
        backwards = training and p["inversion"] > 0
        return MemoryClips(manifests, chosen, (LatentStore(p["latents"]), splits, backwards) if p["latents"] else None)

    def _batches_of(self, rows: ClipRows, synthetic: numpy.ndarray, training: bool) -> HistoryBatches:
        p = self.hparams
        names = ("synthetic_ratio", "inversion", "balanced", "long_captions") if training else ()
        shares = {name: p[name] for name in names}
        return HistoryBatches(rows, synthetic, p["batch_size"], p["history"], p["seed"], **shares)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Learn of the shards that a loader's process found broken."""
        self._folders.mark_broken(batch.pop("broken_shards", {}))
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make latents float32 once they are on the device: it is quicker there, and half as much travels."""
        latents = {name: value.float() for name, value in batch.items() if name in ("latents", "history_latents")}
        return {**batch, **latents}


@DATAMODULES.register("gamecraft_clips")
class GameplayFramesDataModule(_Gameplay):
    """Clips and single frames by themselves: for the VAE and for what is measured on clips.

    A batch is a dict: `frames` uint8 [B, F, 3, H, W] with F = 33 or 1, `intrinsics` [B, F, 3, 3], `c2w` [B, F, 4, 4]
    (relative to the clip's first frame), `actions` [B, 8] (float32) and `keys`.

    Args:
        data: folder of the data set, with folders train, synthetic, val, test.
        batch_size: clips a batch; of single frames as many.
        num_batches: batches an epoch, of each process.
        single_frame: share of the batches that hold single frames.
        synthetic_ratio: share of synthetic clips.
        val_batches: batches of validation, and of test.
        num_workers: worker processes of the loader.
        seed: seed of everything drawn.
    """

    def __init__(
        self,
        data: str,
        batch_size: int = 16,
        num_batches: int = 1000,
        single_frame: float = 0.25,
        synthetic_ratio: float = 1 / 6,
        val_batches: int = 8,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(data)
        self.save_hyperparameters()
        if not (0 <= synthetic_ratio <= 1 and 0 <= single_frame <= 1):
            raise UserError("data.synthetic_ratio and data.single_frame are shares from 0 to 1")

    def _rows(
        self, splits: list[str], manifests: list[Manifest], chosen: list[numpy.ndarray], training: bool
    ) -> MemoryClips:
        return MemoryClips(manifests, chosen)

    def _batches_of(self, rows: ClipRows, synthetic: numpy.ndarray, training: bool) -> FrameBatches:
        assert isinstance(rows, MemoryClips)  # as `_rows` gives them
        p = self.hparams
        ratio = p["synthetic_ratio"] if training else 0.0
        return FrameBatches(rows, synthetic, p["batch_size"], p["single_frame"], p["seed"], ratio)


def _only(items: list[Any]) -> Any:
    """A dataset's item is a whole batch already."""
    return items[0]
