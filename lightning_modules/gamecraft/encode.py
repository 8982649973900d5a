"""`fulgurite gamecraft encode`: every clip of a data set as latents, once, for the trainings that need no pixels.

Axis legend: E episodes, N clips of each, F frame, C channel, H W picture.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch import Tensor

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from ...datamodules.gamecraft.episode import Episode
    from ...datamodules.gamecraft.manifest import Manifest
    from .vae import GameplayVAE

EPISODES_PER_FILE = 256  # what a killed run has to do again, at most


@COMMANDS.register("gamecraft encode", paper="2506.17201")
def encode(
    vae: Path, data: Path, out: Path, batch_size: int = 32, splits: list[str] | None = None, backwards: bool = False
) -> None:
    """Encode every clip of a data set, and every clip's last frame as a single picture, with a trained autoencoder.

    Go on with a run that was cut off, or with data that have grown, by the same command: episodes that are encoded
    already are left out.

    Args:
        vae: folder of the autoencoder.
        data: folder with a folder of shards for each split.
        out: folder of the latents, which `data.latents` names in training.
        batch_size: clips encoded at once.
        splits: which splits; default: all that `data` has.
        backwards: encode the training splits played backwards too, for `data.inversion`.
    """
    from ...datamodules.gamecraft.latents import LatentStore
    from ...datamodules.gamecraft.latents import backwards as backwards_of
    from ...datamodules.gamecraft.manifest import Manifest

    network = load_vae(vae)
    named = splits or [p.name for p in sorted(data.glob("*")) if (p / "manifest.json").is_file()]
    if not named:
        raise UserError(f"{data}: no folder of gameplay shards in there\nRecord one: fulgurite gamecraft record")
    manifests = {split: Manifest.open(data / split) for split in named}
    store = LatentStore.create(out, vae_sha256=folder_sha256(vae), scaling_factor=network.config.scaling_factor)
    jobs = [(split, False) for split in named]
    jobs += [(split, True) for split in named if backwards and split in ("train", "synthetic")]
    console, start, done, rows = Console(stderr=True, highlight=False, soft_wrap=True), time.monotonic(), 0, []
    for split, reverse in jobs:
        name = backwards_of(split) if reverse else split
        for keys, clips, lasts in encoded(network, manifests[split], store.keys(name), batch_size, reverse=reverse):
            store.write(name, keys, clips, lasts)
            done += clips.shape[0] * clips.shape[1]
            rate = done / max(1e-9, time.monotonic() - start)
            console.print(f"{name}: {len(store.keys(name))} of {len(manifests[split])} episodes, {rate:.0f} clips/s")
        rows.append([name, len(store.keys(name)), "; ".join(manifests[split].broken) or "none"])
    seconds = time.monotonic() - start
    text = f"{done} clips encoded in {seconds:.1f} s ({done / max(seconds, 1e-9):.0f} clips/s) into {out}"
    console.print(text)
    table = {"title": "Latents", "columns": ["split", "episodes", "broken shards, skipped"], "rows": rows}
    metrics = {"clips_encoded": done, "seconds": seconds}
    write_json(out / "results.json", {"schema_version": 1, "metrics": metrics, "tables": [table], "statements": [text]})


def load_vae(folder: Path) -> GameplayVAE:
    """A trained autoencoder on the GPU, if there is one, in the number format that the machine is quick in.

    Raises:
        UserError: if the folder holds none.
    """
    from .pipeline import fast_dtype
    from .vae import GameplayVAE

    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no autoencoder here (a folder with config.json and diffusion_pytorch_model.*)")
    network: GameplayVAE = GameplayVAE.from_pretrained(folder)
    network.requires_grad_(False).eval()
    torch.nn.Module.to(network, "cuda" if torch.cuda.is_available() else "cpu", fast_dtype())
    return network


def folder_sha256(folder: Path) -> str:
    """One digest of an autoencoder's configuration and weights."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def encoded(
    network: GameplayVAE, manifest: Manifest, finished: set[str], batch_size: int, *, reverse: bool = False
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """What is left of a split, in portions of episodes that have the same number of clips.

    Yields:
        (E keys, clips [E, N, 16, 9, h, w], last frames [E, N, 16, 1, h, w]); float16, on the CPU. With `reverse` each
        clip is played backwards, and its last frame is its first. Shards found broken are skipped with a warning.
    """
    left = [i for i, key in enumerate(manifest.keys) if key not in finished and manifest.usable[i]]
    episodes = (episode for _, episode in manifest.read_all(left))
    for _, alike in groupby(episodes, lambda episode: episode.num_clips):
        while portion := list(islice(alike, EPISODES_PER_FILE)):
            clips, lasts = encode_episodes(network, portion, batch_size, reverse=reverse)
            yield [episode.key for episode in portion], clips, lasts


@torch.no_grad()
def encode_episodes(
    network: GameplayVAE, episodes: list[Episode], batch_size: int, *, reverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Latents of episodes of one length: clips [E, N, 16, 9, h, w] and last frames [E, N, 16, 1, h, w], float16."""
    from .vae import CLIP_FRAMES

    num_clips, device = episodes[0].num_clips, next(network.parameters()).device
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    clips = (torch.from_numpy(e.frames).unflatten(0, (-1, CLIP_FRAMES)) for e in episodes)
    waiting = (clip for of_episode in clips for clip in of_episode)
    while batch := list(islice(waiting, batch_size)):
        frames_BFCHW = torch.stack(batch).to(device).movedim(-1, 2)
        frames_BFCHW = frames_BFCHW.flip(1) if reverse else frames_BFCHW
        for part, frames in zip(parts, (frames_BFCHW, frames_BFCHW[:, -1:]), strict=True):
            part.append(network.encode_clips(frames).half().cpu())
    whole, lasts = (torch.cat(part).unflatten(0, (-1, num_clips)) for part in parts)
    return whole, lasts
