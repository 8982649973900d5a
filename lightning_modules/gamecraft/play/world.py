"""The pipeline as a world to play: sampling settled, captions without padding, and, on a GPU, CUDA graphs.

Axis legend: B batch, L caption token, C channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ....datamodules.gamecraft.actions import Chord
from ....kernels.choice import Choice
from ....registry import ROOT, UserError
from ...device import pick_device
from ..pipeline import GameCraftPipeline, GameState

DEFAULT_WEIGHTS = ROOT / "weights" / "gamecraft-doom"
WARM_UP_CALLS = 3  # before a capture, as torch's own graphed callables


class PipelineWorld:
    """`GameCraftPipeline` behind the two calls that a session makes.

    Args:
        pipeline: on its device.
        num_inference_steps: Euler steps a chunk; None = what the weights came with.
        seed: every start frame begins with noise of this seed; None = other noise each time.
        compile: let torch compile network and decoder; the first chunk then takes a minute.
        graphs: replay network and decoder as CUDA graphs; needs a GPU.
    """

    def __init__(
        self,
        pipeline: GameCraftPipeline,
        *,
        num_inference_steps: int | None = None,
        seed: int | None = None,
        compile: bool = False,
        graphs: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self._num_steps, self._seed = num_inference_steps, seed
        modules: tuple[nn.Module, ...] = (pipeline.transformer, pipeline.vae.decoder)
        if compile:
            for module in modules:
                module.forward = torch.compile(module.forward, dynamic=False)
        if graphs:
            for module in modules:
                module.forward = GraphedCalls(module.forward)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.pipeline.config.height, self.pipeline.config.width

    @property
    def known_captions(self) -> tuple[str, ...]:
        """The captions that need no sentence encoder."""
        return self.pipeline.captions.known

    def start(self, image: Any, prompt: str = "") -> GameState:
        """The state of a game that begins with this picture."""
        generator = None if self._seed is None else torch.Generator().manual_seed(self._seed)
        state = self.pipeline.start(image, prompt, num_inference_steps=self._num_steps, generator=generator)
        states_BLC, mask_BL, pooled_BC = state.captions
        if len(mask_BL) > 1 or state.sampling.guidance_scale != 1.0 or self.pipeline.transformer.has_plan:
            return state  # a plan counts a caption's padding, too
        # attention without a mask takes the fast kernels
        bare: Any = (states_BLC[:, mask_BL[0]], None, pooled_BC)
        return replace(state, captions=bare)

    def next_chunk(self, state: GameState, chord: Chord) -> tuple[Tensor, GameState]:
        """Frames uint8 [1, 33, H, W, 3] on the CPU, and the state after them."""
        return self.pipeline.next_chunk(state, chord)

    def warm_up(self) -> None:
        """Make two chunks of nothing: what is slow only once (compiling, capturing, picking kernels) is then done."""
        height, width = self.size
        state = self.start(Image.new("RGB", (width, height)))
        for _ in range(2):
            _, state = self.next_chunk(state, Chord.of(w=1.0))


class GraphedCalls:
    """A function of tensors on a GPU, captured once for each kind of arguments and then replayed.

    Args:
        function: returns one tensor; must not look at the values of its arguments.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._captured: dict[Any, tuple[torch.cuda.CUDAGraph, dict[Any, Tensor], Tensor]] = {}

    def __call__(self, *positional: Any, **named: Any) -> Tensor:
        """What the function returns for these arguments; tensors among them are copied into the graph's own."""
        given: dict[Any, Any] = {**dict(enumerate(positional)), **named}
        tensors = {k: v for k, v in given.items() if isinstance(v, Tensor)}
        kind = tuple((k, (v.shape, v.dtype) if k in tensors else v) for k, v in given.items())
        if kind not in self._captured:
            self._captured[kind] = self._capture(given, tensors)
        graph, inputs, output = self._captured[kind]
        for key, tensor in tensors.items():
            inputs[key].copy_(tensor)
        graph.replay()
        return output.clone()

    def _capture(self, given: dict[Any, Any], tensors: dict[Any, Tensor]) -> Any:
        inputs = {k: v.clone() for k, v in tensors.items()}
        arguments = {**given, **inputs}
        positional = [v for k, v in arguments.items() if isinstance(k, int)]
        named = {k: v for k, v in arguments.items() if not isinstance(k, int)}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self._function(*positional, **named)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._function(*positional, **named)
        return graph, inputs, output


def load_world(
    weights: Path | None,
    device: str,
    *,
    num_inference_steps: int | None,
    seed: int | None,
    compile: bool,
    attention: Choice | None = None,
    plan: Path | None = None,
) -> PipelineWorld:
    """The world of a saved pipeline.

    Args:
        weights: folder of a pipeline; None = weights/gamecraft-doom.
        device: `cpu`, `cuda`, …; `auto` takes a GPU where there is one.
        num_inference_steps, seed, compile: see `PipelineWorld`.
        attention, plan: see `GameCraftPipeline.set_attention`.

    Raises:
        UserError: if there are no weights, no such device or backend, or a plan that is not for these weights.
    """
    folder = weights or DEFAULT_WEIGHTS
    if weights is None and not folder.is_dir():
        raise UserError(
            f"{folder}: the released weights are not here\n"
            "Give a folder with --weights, or train your own:\nfulgurite run gamecraft/tiny"
        )
    place = pick_device(device)
    pipeline = GameCraftPipeline.from_pretrained(folder).to(place)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.set_attention(attention, plan)
    return PipelineWorld(
        pipeline, num_inference_steps=num_inference_steps, seed=seed, compile=compile, graphs=place.type == "cuda"
    )
