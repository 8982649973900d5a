"""Play: from a picture and keys to video, chunk after chunk, in diffusers' form.

    pipe = GameCraftPipeline.from_pretrained("weights/gamecraft-doom")
    frames = pipe(image, "w@0.8:66 left:33")                   # uint8 [1, 99, H, W, 3]
    state = pipe.start(image)
    frames, state = pipe.next_chunk(state, Chord.of(w=1.0))    # uint8 [1, 33, H, W, 3]

Axis legend: B batch, C latent channel, T latent frame, F video frame, H W picture, h w latent picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from ...datamodules.gamecraft.actions import CLIP_FRAMES, Chord, Segment, SpeedLimits, parse_actions
from ...datamodules.gamecraft.camera import CameraModel, PinholeCamera, ShearPitchCamera, plucker_rays, static_camera
from ...kernels.choice import AnyPlan, Choice
from ...kernels.paro.plan import Plan
from ...registry import UserError
from .attention import check_grid
from .camera_path import camera_path, chunks_of
from .captions_encoder import CaptionEncoder, Captions
from .conditions import encode_history
from .flow import sigmas
from .sampling import denoise
from .start_frames import start_frames
from .transformer import GameCraftTransformer
from .vae import CLIP_LATENTS, GameplayVAE, to_uint8

BANK = "captions.safetensors"
Generators = torch.Generator | list[torch.Generator] | None


@dataclass(frozen=True)
class Sampling:
    """How chunks are sampled.

    Attributes:
        num_inference_steps: Euler steps a chunk.
        guidance_scale: classifier-free guidance over text and camera together; 1 = off, and half the work.
        guidance_w: the w that a guidance-distilled model takes as an input; None = the model takes none.
        shift: shift of the noise levels.
    """

    num_inference_steps: int
    guidance_scale: float
    guidance_w: float | None
    shift: float


@dataclass(frozen=True)
class GameState:
    """A film so far, as the next chunk needs it. A state is not changed by playing on from it, but for its generator.

    Attributes:
        history_BCThw: latents of what came last, on the device: T = 1 (a picture), 9 (a clip), 18 (two clips).
        pitch_deg: pitch of each film's last frame, positive down.
        captions: the prompts' token states, mask and pooled vectors, on the device.
        sampling: how chunks are sampled.
        generator: source of the noise; None is the global one.
        num_chunks: chunks made.
    """

    history_BCThw: Tensor
    pitch_deg: tuple[float, ...]
    captions: Captions
    sampling: Sampling
    generator: Generators = None
    num_chunks: int = 0


class GameCraftPipeline(DiffusionPipeline):
    """Autoregressive video from a picture or clip and keys (arXiv 2506.17201, section 3.4).

    Each chunk of 33 frames follows from the latents before it, which stay on the device and clean; nothing older than
    the last chunk is remembered. The sampling that the weights were made for is part of the saved folder.

    Args:
        transformer: the network.
        vae: the autoencoder.
        captions: the prompts' encoder with its bank; None starts an empty one.
        height, width: the picture's size, multiples of 16.
        camera: `shear` (ViZDoom: pitch shifts the picture) or `pinhole` (pitch rotates the camera).
        vertical_fov_deg: field of view of a pinhole camera.
        limits: what full speed means (fields of `SpeedLimits`); None = its defaults.
        num_inference_steps, guidance_scale, guidance_w, shift: see `Sampling`.

    Raises:
        ValueError: for another camera, or a size that doesn't fit.
    """

    config: Any  # a dictionary with attributes
    model_cpu_offload_seq: Any = "transformer->vae"

    def __init__(
        self,
        transformer: GameCraftTransformer,
        vae: GameplayVAE,
        captions: CaptionEncoder | None = None,
        height: int = 64,
        width: int = 112,
        camera: str = "shear",
        vertical_fov_deg: float = 60.0,
        limits: dict[str, float] | None = None,
        num_inference_steps: int = 8,
        guidance_scale: float = 1.0,
        guidance_w: float | None = None,
        shift: float = 3.0,
    ) -> None:
        super().__init__()
        if camera not in ("shear", "pinhole"):
            raise ValueError(f"camera is shear or pinhole, not {camera!r}")
        if height % 16 or width % 16:
            raise ValueError(f"height and width are multiples of 16, not {height} x {width}")
        self.register_modules(transformer=transformer, vae=vae)
        self.register_to_config(
            height=height,
            width=width,
            camera=camera,
            vertical_fov_deg=vertical_fov_deg,
            limits=limits or asdict(SpeedLimits()),
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_w=guidance_w,
            shift=shift,
        )
        self.captions = captions or CaptionEncoder()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> GameCraftPipeline:
        """A pipeline that `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: a folder, or a Hugging Face id that was downloaded.
            kwargs: diffusers'; `dtype` defaults to `fast_dtype()`.

        Raises:
            UserError: if there is no such folder, or its weights are damaged.
        """
        folder = Path(pretrained_model_name_or_path)
        if not (folder / "model_index.json").is_file():
            raise UserError(f"{folder}: holds no pipeline (model_index.json is missing)")
        if "torch_dtype" not in kwargs:  # diffusers' older name of dtype
            kwargs.setdefault("dtype", fast_dtype())
        if "captions" not in kwargs and (folder / BANK).is_file():
            kwargs["captions"] = CaptionEncoder.load(folder / BANK)
        try:
            made: GameCraftPipeline = super().from_pretrained(str(folder), **kwargs)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{folder}: can't be opened: {str(error).splitlines()[0][:300]}") from None
        for model in (made.transformer, made.vae):
            for tensor in (*model.parameters(), *model.buffers()):
                # as loaded, weights lie where the file has them, and CPU kernels round differently at odd addresses
                tensor.data = tensor.data.clone()
        return made

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Write transformer/, vae/ (safetensors), the captions' bank and the settings.

        Args:
            save_directory: folder.
            kwargs: diffusers', such as `max_shard_size="15MB"`.

        Raises:
            UserError: if the bank is empty and the captions' encoder can't be had.
        """
        super().save_pretrained(save_directory, **kwargs)
        self.captions.save(Path(save_directory) / BANK)

    @property
    def limits(self) -> SpeedLimits:
        """What full speed means for these weights."""
        return SpeedLimits(**self.config.limits)

    @property
    def camera_model(self) -> CameraModel:
        """The camera of these weights, at their picture size."""
        height, width = self.config.height, self.config.width
        if self.config.camera == "shear":
            return ShearPitchCamera(height, width)
        return PinholeCamera(height, width, self.config.vertical_fov_deg)

    def set_attention(self, choice: Choice | None, plan: AnyPlan | None = None) -> None:
        """Pick the transformer's attention (`GameCraftTransformer.set_attention`).

        Raises:
            UserError: as there; also for a plan of another picture size than this pipeline's.
        """
        loaded = Plan.load(plan) if isinstance(plan, str | Path) else plan
        if loaded is not None:
            check_grid(loaded, self.config.height, self.config.width)
        self.transformer.set_attention(choice, loaded)

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        actions: str | Sequence[Any],
        prompt: str | Sequence[str] = "",
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_w: float | None = None,
        shift: float | None = None,
        generator: Generators = None,
        output_type: str = "uint8",
    ) -> Any:
        """A film that starts after `image` and follows `actions`.

        Args:
            image: see `start_frames`: a picture of any size, a clip of 33 frames, or a list of either.
            actions: the grammar of `parse_actions`, its segments, or a list with one of these for each film. Keys may
                change within a chunk; the last chunk is cut.
            prompt: what is seen; one for all films or one each.
            num_inference_steps, guidance_scale, guidance_w, shift: see `Sampling`; None = what the weights came with.
            generator: source of the noise; a list has one for each film.
            output_type: `uint8` or `pil`.

        Returns:
            uint8 tensor [B, F, H, W, 3] on the CPU, without the start; or B lists of PIL images.

        Raises:
            UserError: for a start, actions or a batch that don't fit.
        """
        if output_type not in ("uint8", "pil"):
            raise UserError(f"output_type is uint8 or pil, not '{output_type}'")
        state = self.start(
            image,
            prompt,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_w=guidance_w,
            shift=shift,
            generator=generator,
        )
        films = films_of(actions, len(state.history_BCThw))
        num_frames = sum(segment.num_frames for segment in films[0])
        chunks = []
        with self.progress_bar(total=-(-num_frames // CLIP_FRAMES)) as bar:
            for chords in zip(*(chunks_of(film) for film in films), strict=True):
                frames, state = self.continue_film(state, chords)
                chunks.append(frames)
                bar.update()
        film_BFHWC = torch.cat(chunks, 1)[:, :num_frames]
        if output_type == "uint8":
            return film_BFHWC
        return [[Image.fromarray(frame) for frame in film.numpy()] for film in film_BFHWC]

    @torch.no_grad()
    def start(
        self,
        image: Any,
        prompt: str | Sequence[str] = "",
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_w: float | None = None,
        shift: float | None = None,
        generator: Generators = None,
    ) -> GameState:
        """The state of a film of which only the start is there; arguments as for calling the pipeline.

        Raises:
            UserError: for a start or prompts that don't fit.
        """
        frames_BFCHW = start_frames(image, self.config.height, self.config.width)
        size, device = len(frames_BFCHW), self._execution_device
        prompts = [prompt] * size if isinstance(prompt, str) else list(prompt)
        if len(prompts) != size:
            raise UserError(f"{len(prompts)} prompts for {size} films\nGive one for all, or one each.")
        history_BCThw = encode_history(self.vae, frames_BFCHW.to(device)).float()
        given: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "guidance_w": guidance_w,
            "shift": shift,
        }
        chosen = {k: self.config[k] if v is None else v for k, v in given.items()}
        sampling = Sampling(**chosen)
        captions = self._on_device(self.captions(prompts))
        return GameState(history_BCThw, (0.0,) * size, captions, sampling, generator)

    def next_chunk(self, state: GameState, chord: Chord | Sequence[Chord]) -> tuple[Tensor, GameState]:
        """The 33 frames in which a chord is held, and the state after them.

        Args:
            state: from `start` or the last call.
            chord: the keys held; one for all films or one each.

        Returns:
            uint8 [B, 33, H, W, 3] on the CPU, and the state.

        Raises:
            UserError: if there are not as many chords as films.
        """
        size = len(state.pitch_deg)
        chords = [chord] * size if isinstance(chord, Chord) else list(chord)
        if len(chords) != size:
            raise UserError(f"{len(chords)} chords for {size} films\nGive one for all, or one each.")
        return self.continue_film(state, [[c] * CLIP_FRAMES for c in chords])

    @torch.no_grad()
    def continue_film(self, state: GameState, chords: Sequence[Sequence[Chord]]) -> tuple[Tensor, GameState]:
        """Like `next_chunk`, with a chord for each of the 33 frames of each film."""
        device, sampling = state.history_BCThw.device, state.sampling
        camera, limits = self.camera_model, self.limits
        paths = [
            camera_path(keys, limits, pitch_deg=pitch, camera=camera)
            for keys, pitch in zip(chords, state.pitch_deg, strict=True)
        ]
        intrinsics_BF33 = torch.from_numpy(np.stack([path[0] for path in paths])).to(device)
        c2w_BF44 = torch.from_numpy(np.stack([path[1] for path in paths])).to(device)
        size = (camera.height, camera.width)
        static, null = None, None
        if sampling.guidance_scale != 1.0:
            still_BF33 = intrinsics_BF33[:, :1].expand_as(intrinsics_BF33)
            static = plucker_rays(still_BF33, static_camera(still_BF33), *size)
            null = self._on_device(self.captions([""] * len(chords)))
        shape = (*state.history_BCThw.shape[:2], CLIP_LATENTS, *state.history_BCThw.shape[3:])
        noise_BCThw = randn_tensor(shape, state.generator, device, torch.float32)
        latents_BCThw = denoise(
            self.transformer,
            state.history_BCThw,
            noise_BCThw,
            plucker_rays(intrinsics_BF33, c2w_BF44, *size),
            static,
            state.captions,
            null,
            sigmas(sampling.num_inference_steps, sampling.shift),
            guidance_scale=sampling.guidance_scale,
            guidance_w=sampling.guidance_w,
        )
        frames_BFHWC = to_uint8(self.vae.decode_clips(latents_BCThw)).movedim(2, -1)
        pitch_deg = tuple(path[2] for path in paths)
        after = replace(state, history_BCThw=latents_BCThw, pitch_deg=pitch_deg, num_chunks=state.num_chunks + 1)
        return frames_BFHWC.contiguous().cpu(), after

    def _on_device(self, captions: Captions) -> Captions:
        states, mask, pooled = (part.to(self._execution_device) for part in captions)
        return states, mask, pooled


def films_of(actions: str | Sequence[Any], size: int) -> list[list[Segment]]:
    """The segments of each of `size` films, out of what a pipeline is called with.

    Raises:
        UserError: if it can't be read, or films differ in length or number.
    """
    one = isinstance(actions, str) or any(isinstance(entry, Segment) for entry in actions)
    given = [actions] * size if one else list(actions)
    films = [parse_actions(film) if isinstance(film, str) else list(film) for film in given]
    lengths = {sum(segment.num_frames for segment in film) for film in films}
    if len(films) != size or len(lengths) != 1 or lengths == {0}:
        raise UserError(f"{len(films)} lists of actions for {size} films\nGive one for all, or one each, equally long.")
    return films


def fast_dtype() -> torch.dtype:
    """bfloat16 where the machine computes in it (a GPU that does, a CPU with AVX512-BF16 or AMX), else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if any(ask is not None and ask() for ask in asks) else torch.float32
