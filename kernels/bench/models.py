"""Published transformers at their published sizes, with random weights: one denoising step, attention by name.

Axis legend: B batch, H head, N token, D channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..masks import Mask
from ..paro.orders import Layout
from ..sdpa import SdpaAttention

SIGMA, NEXT_SIGMA = 0.7, 0.65  # of the one step; which ones, no time depends on


@dataclass(frozen=True)
class ModelSpec:
    """A model and one step of its sampler.

    Attributes:
        kind: class in diffusers.
        config: arguments of that class that are not its defaults, and those that fix the size.
        layout: grid and text of its self-attention.
        latents: shape of one sample's hidden_states.
        text: tokens and channels of the prompt's states.
        guidance: how a step is guided, as the model's own pipeline in diffusers does it: `batch` (with and without
            prompt in one pass), `passes` (in two) or `embedded` (one pass, the scale as an input).
    """

    kind: str
    config: Mapping[str, Any]
    layout: Layout
    latents: tuple[int, ...]
    text: tuple[int, int]
    guidance: str

    @property
    def layers(self) -> int:
        """Attention layers that a plan counts."""
        return int(self.config["num_layers"]) + int(self.config.get("num_single_layers", 0))

    @property
    def heads(self) -> int:
        """Heads of each."""
        return int(self.config["num_attention_heads"])

    @property
    def width(self) -> int:
        """Channels of a head."""
        return int(self.config["attention_head_dim"])

    @property
    def batch(self) -> int:
        """Samples a pass."""
        return 2 if self.guidance == "batch" else 1

    @property
    def passes(self) -> int:
        """Passes a step."""
        return 2 if self.guidance == "passes" else 1


WAN_14B = {
    "num_attention_heads": 40, "attention_head_dim": 128, "num_layers": 40, "ffn_dim": 13824, "text_dim": 4096,
    "freq_dim": 256, "patch_size": (1, 2, 2), "qk_norm": "rms_norm_across_heads", "cross_attn_norm": True,
}  # fmt: skip
SPECS: Mapping[str, ModelSpec] = {
    # 49 frames of 480x720; the 5B's config.json, whose sizes aren't the class's defaults
    "cogvideox": ModelSpec(
        "CogVideoXTransformer3DModel",
        {
            "num_attention_heads": 48, "attention_head_dim": 64, "num_layers": 42, "text_embed_dim": 4096,
            "time_embed_dim": 512, "use_rotary_positional_embeddings": True,
        },
        Layout((13, 30, 45), 226), (13, 16, 60, 90), (226, 4096), "batch",
    ),
    # 81 frames of 480x832 and of 720x1280
    "wan480": ModelSpec(
        "WanTransformer3DModel", WAN_14B, Layout((21, 30, 52)), (16, 21, 60, 104), (512, 4096), "passes"
    ),
    "wan720": ModelSpec(
        "WanTransformer3DModel", WAN_14B, Layout((21, 45, 80)), (16, 21, 90, 160), (512, 4096), "passes"
    ),
    # 1024x1024; Flux.1-dev is distilled from guidance: one pass, with the scale as an input
    "flux": ModelSpec(
        "FluxTransformer2DModel",
        {
            "num_attention_heads": 24, "attention_head_dim": 128, "num_layers": 19, "num_single_layers": 38,
            "joint_attention_dim": 4096, "pooled_projection_dim": 768, "in_channels": 64, "guidance_embeds": True,
        },
        Layout((64, 64), 512), (4096, 64), (512, 4096), "embedded",
    ),
}  # fmt: skip


class DenseAttention(SdpaAttention):
    """PyTorch's dense attention by one of its kernels alone.

    Args:
        kernel: `cudnn` or `flash`; any other name leaves the choice to PyTorch.
    """

    def __init__(self, kernel: str) -> None:
        known = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
        self._kernel, self.name = known.get(kernel), kernel

    def __call__(self, q_BHND: Tensor, k_BHMD: Tensor, v_BHME: Tensor, *, mask: Mask, scale: float) -> Tensor:
        """The attention output [B, H, N, E] in q's dtype."""
        if self._kernel is None:
            return super().__call__(q_BHND, k_BHMD, v_BHME, mask=mask, scale=scale)
        with sdpa_kernel(self._kernel):
            return super().__call__(q_BHND, k_BHMD, v_BHME, mask=mask, scale=scale)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The transformer with random weights, drawn on the device in this dtype: no copy in float32 is ever held."""
    import diffusers

    with device, _default(dtype):
        model: nn.Module = getattr(diffusers, spec.kind)(**spec.config)
    return model.to(dtype).eval().requires_grad_(False)


def make_step(spec: ModelSpec, model: nn.Module, seed: int) -> Callable[[], Tensor]:
    """One guided denoising step on random latents and prompt states: a call gives the next latents of one sample."""
    weight = next(model.parameters())
    device, dtype = weight.device, weight.dtype
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    latents = draw(1, *spec.latents)
    prompt, null = draw(1, *spec.text), draw(1, *spec.text)
    given = _others(spec, model, draw)

    @torch.no_grad()
    def call(states: Tensor) -> Tensor:
        hidden = latents.expand(len(states), *spec.latents)
        out: Tensor = model(hidden_states=hidden, encoder_hidden_states=states, **given, return_dict=False)[0]
        return out

    def step() -> Tensor:
        if spec.guidance == "embedded":
            velocity = call(prompt)
        else:
            with_prompt, without = (
                call(torch.cat([prompt, null])).chunk(2) if spec.guidance == "batch" else (call(prompt), call(null))
            )
            velocity = without + 5.0 * (with_prompt - without)
        return latents + (NEXT_SIGMA - SIGMA) * velocity

    return step


def _others(spec: ModelSpec, model: nn.Module, draw: Callable[..., Tensor]) -> dict[str, Any]:
    """What a pass takes beside latents and prompt."""
    device = next(model.parameters()).device
    if spec.kind == "FluxTransformer2DModel":
        rows, columns = torch.meshgrid(*(torch.arange(n, device=device) for n in spec.layout.grid), indexing="ij")
        return {
            "timestep": draw(1) * 0 + SIGMA,
            "guidance": torch.full((1,), 3.5, device=device),
            "pooled_projections": draw(1, int(spec.config["pooled_projection_dim"])),
            "img_ids": torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1).float(),
            "txt_ids": torch.zeros(spec.layout.text, 3, device=device),
        }
    timestep = torch.full((spec.batch,), int(1000 * SIGMA), device=device)
    if spec.kind == "WanTransformer3DModel":
        return {"timestep": timestep}
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    frames, *sides = spec.layout.grid
    rope = get_3d_rotary_pos_embed(spec.width, ((0, 0), tuple(sides)), tuple(sides), frames, device=device)
    return {"timestep": timestep, "image_rotary_emb": rope}


def attention_flops(spec: ModelSpec, density: float) -> float:
    """Operations of a step's self-attention (two for a multiply-add)."""
    tokens = spec.layout.num_tokens
    return 4.0 * spec.layers * spec.passes * spec.batch * spec.heads * tokens**2 * spec.width * density


def attention_inputs(spec: ModelSpec, device: torch.device, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """Queries, keys and values [B, H, N, D] of one layer's call, random, as a model hands them: heads beside tokens."""
    generator = torch.Generator(device=device).manual_seed(seed)
    shape = (spec.batch, spec.layout.num_tokens, spec.heads, spec.width)
    draws = (torch.randn(shape, generator=generator, device=device, dtype=dtype) for _ in range(3))
    return [t.transpose(1, 2) for t in draws]
