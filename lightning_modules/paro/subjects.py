"""The pipelines whose attention is captured and replaced: our GameCraft, and diffusers' video and picture pipelines.

Axis legend: B batch, F frame, H W picture, C colour.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ...datamodules.paro.captures import SPLITS, Film
from ...registry import ROOT, UserError

# two films to make plans from, two to test them on: other pictures, other keys, other noise
KEYS = {
    "calibrate": ("w:66", "w@0.6+right@0.5:66"),
    "test": ("a@0.7+left@0.6:66", "s@0.5:33 w+left@0.3:33"),
}


class Subject(Protocol):
    """A sampler with a transformer in it."""

    @property
    def transformer(self) -> nn.Module:
        """The transformer, of one of `kernels.adapters.follow.KINDS`."""

    @property
    def grid(self) -> tuple[int, ...] | None:
        """The grid of picture tokens where the transformer's input does not tell it."""

    def run(self, film: Film) -> Any:
        """Sample one film."""


class GameCraftSubject:
    """Films of a `GameCraftPipeline`: a start picture, keys for at least two chunks; the first chunk makes the history.

    Only chunks that follow a whole chunk have the grid that plans are for: 18 latent frames.

    Args:
        folder: the weights, with pictures in starts/.
        device: where it runs.
        num_steps: steps a chunk; None = what the weights came with.

    Raises:
        UserError: if the folder holds no pipeline or no pictures.
    """

    grid = None

    def __init__(self, folder: Path, device: torch.device, num_steps: int | None = None) -> None:
        from ..gamecraft.pipeline import GameCraftPipeline
        from ..gamecraft.play.starts import bundled_starts

        self.pipe = GameCraftPipeline.from_pretrained(folder).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.num_steps = num_steps
        self.starts = {start.name: start for start in bundled_starts(folder)}
        if not self.starts:
            raise UserError(f"{folder}/starts: holds no picture (*.png) to begin a film with\n"
                            "fulgurite gamecraft starts makes them.")  # fmt: skip

    @property
    def transformer(self) -> nn.Module:
        """The pipeline's."""
        found: nn.Module = self.pipe.transformer
        return found

    def films(self) -> tuple[Film, ...]:
        """Two films for each split, on the weights' own start pictures."""
        names = sorted(self.starts)
        each = [(keys, split) for split in SPLITS for keys in KEYS[split]]
        return tuple(Film(keys, split, i, names[i % len(names)]) for i, (keys, split) in enumerate(each))

    def begin(self, film: Film) -> tuple[Any, list[Any]]:
        """The state after the first chunk, and the keys of the others.

        Raises:
            UserError: if the film's start does not exist, or it has fewer than two chunks.
        """
        from ...datamodules.gamecraft.actions import parse_actions
        from ..gamecraft.camera_path import chunks_of

        if film.start not in self.starts:
            raise UserError(f"no start picture '{film.start}'; there are {', '.join(sorted(self.starts))}")
        start = self.starts[film.start]
        first, *others = chunks_of(parse_actions(film.text))
        if not others:
            raise UserError(f"the film '{film.text}' has one chunk; a plan is for those after the first\n"
                            "Give keys for 66 frames or more, such as w:66.")  # fmt: skip
        generator = torch.Generator().manual_seed(film.seed)
        state = self.pipe.start(start.image, start.caption, num_inference_steps=self.num_steps, generator=generator)
        _, state = self.pipe.continue_film(state, [first])
        return state, others

    def go_on(self, state: Any, chunks: list[Any], seed: int) -> Tensor:
        """The frames of further chunks, uint8 [1, F, H, W, 3], with noise of a seed."""
        from dataclasses import replace

        state = replace(state, generator=torch.Generator().manual_seed(seed))
        made = []
        for chords in chunks:
            frames, state = self.pipe.continue_film(state, [chords])
            made.append(frames)
        return torch.cat(made, 1)

    def run(self, film: Film) -> Tensor:
        """All chunks after the first."""
        state, others = self.begin(film)
        return self.go_on(state, others, film.seed)


class DiffusersSubject:
    """A text-to-video or text-to-picture pipeline of diffusers.

    Args:
        pipe: the pipeline.
        options: of its call, such as height, width, num_frames, num_inference_steps, guidance_scale.
    """

    def __init__(self, pipe: Any, options: dict[str, Any]) -> None:
        self.pipe, self.options = pipe, options
        pipe.set_progress_bar_config(disable=True)
        known = inspect.signature(pipe.__call__).parameters
        wrong = [name for name in options if name not in known]
        if wrong:
            raise UserError(f"{type(pipe).__name__} takes no {', '.join(wrong)}")

    @property
    def transformer(self) -> nn.Module:
        """The pipeline's."""
        found: nn.Module = self.pipe.transformer
        return found

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Flux packs 2x2 latents into a token, and its transformer sees a list of tokens."""
        if type(self.transformer).__name__ != "FluxTransformer2DModel":
            return None
        side = 2 * self.pipe.vae_scale_factor
        usual = self.pipe.default_sample_size * self.pipe.vae_scale_factor
        return (self.options.get("height", usual) // side, self.options.get("width", usual) // side)

    def run(self, film: Film) -> Any:
        """The latents of one sample."""
        generator = torch.Generator().manual_seed(film.seed)
        return self.pipe(film.text, generator=generator, output_type="latent", **self.options)


def open_subject(
    model: Path, device: torch.device, num_steps: int | None = None, options: dict[str, Any] | None = None
) -> GameCraftSubject | DiffusersSubject:
    """The pipeline in a folder, by the class that its model_index.json names.

    A folder that is not there is looked for among the released weights, which lie with the package.

    Raises:
        UserError: if there is none.
    """
    model = model if model.exists() or not (ROOT / model).is_dir() else ROOT / model
    index = model / "model_index.json"
    if not index.is_file():
        raise UserError(f"{model}: holds no pipeline (model_index.json is missing)\n"
                        "Give the folder of released weights, or of a pipeline that diffusers saved.")  # fmt: skip
    if json.loads(index.read_text(encoding="utf-8")).get("_class_name") == "GameCraftPipeline":
        return GameCraftSubject(model, device, num_steps)
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(str(model), torch_dtype=torch.bfloat16).to(device)
    return DiffusersSubject(pipe, {**({"num_inference_steps": num_steps} if num_steps else {}), **(options or {})})


def read_films(path: Path) -> tuple[Film, ...]:
    """Films from a file: a line is a prompt (split `calibrate`), or JSON with text, split, seed, start.

    Raises:
        UserError: for a line that can't be read, or a file without any.
    """
    made: list[Film] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line) if line.lstrip().startswith("{") else {"text": line.strip()}
            film = Film(**{"split": "calibrate", "seed": len(made), **given})
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if film.split not in SPLITS:
            raise UserError(f"{path}, line {number}: the split is {' or '.join(SPLITS)}, not '{film.split}'")
        made.append(film)
    if not made:
        raise UserError(f"{path}: holds no prompt")
    return tuple(made)
