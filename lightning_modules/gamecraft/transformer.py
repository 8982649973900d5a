"""The MM-DiT that continues a clip: HunyuanVideo's transformer with a history, a mask and a camera.

Axis legend: B batch, C channel, F video frame, T latent frame, H W picture, h w latent picture, N video token, L text
token, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  (pipelines look for this name beside a component)
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from ...kernels.adapters.follow import follow
from ...kernels.choice import AnyPlan, Choice
from ..eight_bits import EightBitWeights
from .attention import set_attention
from .camera_encoder import CameraEncoder

Injection = Literal["add", "token_concat", "channel_concat"]

# the student's size follows from real time on two CPU cores; "published" is HunyuanVideo's, with the camera
SIZES: Mapping[str, Mapping[str, Any]] = {
    "tiny": {
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "num_layers": 1,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": 384,
        "pooled_projection_dim": 384,
        "rope_axes_dim": (8, 12, 12),
    },
    "student": {
        "num_attention_heads": 4,
        "attention_head_dim": 64,
        "num_layers": 2,
        "num_single_layers": 5,
        "num_refiner_layers": 1,
        "text_embed_dim": 384,
        "pooled_projection_dim": 384,
        "rope_axes_dim": (16, 24, 24),
    },
    "published": {},
}


class GameCraftTransformer(EightBitWeights, HunyuanVideoTransformer3DModel):  # type: ignore[misc]
    """HunyuanVideo's MM-DiT over 33 channels: 16 noisy, 16 condition (the history, clean) and 1 mask (1 = history).

    The camera enters once, before the first block (`camera_injection`):

    - `add`: tokens of `CameraEncoder` are added to the video tokens; the paper's choice.
    - `token_concat`: they stand beside the video tokens in the sequence, at the same rotary positions.
    - `channel_concat`: the encoder's 16 feature channels stand beside the 33; the patch embedding is linear, so this is
      an addition too, through a kernel that the latents' learning rate trains and without a bias of its own.

    Deviations from the base's forward: returns the tensor itself; text may come without a mask; `guidance` may be left
    out of a model that has the embedding, whose last layer starts at zero, so that a teacher is a student at w = 0.

    Args:
        in_channels, out_channels, num_attention_heads, attention_head_dim, num_layers, num_single_layers,
            num_refiner_layers, mlp_ratio, patch_size, patch_size_t, qk_norm, guidance_embeds, text_embed_dim,
            pooled_projection_dim, rope_theta, rope_axes_dim, image_condition_type: the base's.
        camera_injection: `add`, `token_concat` or `channel_concat`.
    """

    config: Any  # a dictionary with attributes
    _no_split_modules = [*HunyuanVideoTransformer3DModel._no_split_modules, "CameraEncoder"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        in_channels: int = 33,
        out_channels: int = 16,
        num_attention_heads: int = 24,
        attention_head_dim: int = 128,
        num_layers: int = 20,
        num_single_layers: int = 40,
        num_refiner_layers: int = 2,
        mlp_ratio: float = 4.0,
        patch_size: int = 2,
        patch_size_t: int = 1,
        qk_norm: str = "rms_norm",
        guidance_embeds: bool = True,
        text_embed_dim: int = 4096,
        pooled_projection_dim: int = 768,
        rope_theta: float = 256.0,
        rope_axes_dim: tuple[int, ...] = (16, 56, 56),
        image_condition_type: str | None = None,
        camera_injection: Injection = "add",
    ) -> None:
        channels = camera_injection == "channel_concat"
        super().__init__(
            in_channels=in_channels + 16 * channels,
            out_channels=out_channels,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            num_layers=num_layers,
            num_single_layers=num_single_layers,
            num_refiner_layers=num_refiner_layers,
            mlp_ratio=mlp_ratio,
            patch_size=patch_size,
            patch_size_t=patch_size_t,
            qk_norm=qk_norm,
            guidance_embeds=guidance_embeds,
            text_embed_dim=text_embed_dim,
            pooled_projection_dim=pooled_projection_dim,
            rope_theta=rope_theta,
            rope_axes_dim=rope_axes_dim,
            image_condition_type=image_condition_type,
        )
        self.register_to_config(in_channels=in_channels)
        if image_condition_type is not None or camera_injection not in ("add", "token_concat", "channel_concat"):
            raise ValueError(
                f"image_condition_type is None, not {image_condition_type!r}, and camera_injection one of add, "
                f"token_concat, channel_concat, not {camera_injection!r}"
            )
        self.camera_encoder = CameraEncoder(num_attention_heads * attention_head_dim, patch_size, as_channels=channels)
        if self.time_text_embed.guidance_embedder is not None:
            nn.init.zeros_(self.time_text_embed.guidance_embedder.linear_2.weight)
            nn.init.zeros_(self.time_text_embed.guidance_embedder.linear_2.bias)
        self._followed: list[follow] = []
        self.set_attention(None)

    @classmethod
    def of_size(cls, size: str, **changes: Any) -> GameCraftTransformer:
        """A model with random weights of a named size (`tiny`, `student`, `published`), with changes.

        Raises:
            KeyError: for a size that does not exist.
        """
        return cls(**{**SIZES[size], **changes})

    def set_attention(
        self, choice: Choice | None, plan: AnyPlan | None = None, made_for: nn.Module | None = None
    ) -> None:
        """Pick the attention backend of every layer; what was picked before is forgotten.

        Args:
            choice: a backend's name; or patterns of layer names (`transformer_blocks.*`, the last that fits counts) ->
                name; None follows `use_attention`, else the default.
            plan: a plan or its file, for `paro` and `int4`, which serve the layers that it counts.
            made_for: the model whose weights the plan was made for, where it is not this one.

        Raises:
            UserError: for a backend or layer that does not exist, or a plan that can't be read or isn't for this model.
        """
        followed = set_attention(self, choice, plan, made_for)
        for followed_before in self._followed:
            followed_before.remove()
        self._followed = followed

    @property
    def has_plan(self) -> bool:
        """Whether some layer's attention has a plan, which is for one grid and one number of caption tokens."""
        return bool(self._followed)

    @staticmethod
    def model_input(noisy_BCThw: Tensor, history_BCThw: Tensor) -> Tensor:
        """The 33 channels [B, 33, n + T, h, w]: history and noisy chunk, the history again (zeros in the chunk), mask.

        The history is clean in both, at every step.

        Args:
            noisy_BCThw: the chunk's noisy latents [B, 16, T, h, w].
            history_BCThw: the history's latents [B, 16, n, h, w]; n = 1 (a frame), 9 (a clip), 18 (two clips).
        """
        mask_B1Thw = torch.cat([torch.ones_like(history_BCThw[:, :1]), torch.zeros_like(noisy_BCThw[:, :1])], 2)
        noise_level = torch.cat([history_BCThw, noisy_BCThw], 2)
        condition = torch.cat([history_BCThw, torch.zeros_like(noisy_BCThw)], 2)
        return torch.cat([noise_level, condition, mask_B1Thw], 1)

    def camera_tokens(self, plucker_BFCHW: Tensor, num_history: int) -> Tensor:
        """What `forward` takes as `camera_tokens`, for history and chunk; the same at every step of a sampler.

        Args:
            plucker_BFCHW: the chunk's rays [B, 33, 6, H, W].
            num_history: latent frames of the history, which get the response to rays that are all zero.

        Returns:
            [B, N, D] with N = (num_history + 9) * h * w / 4; for `channel_concat` [B, 16, num_history + 9, h, w].
        """
        chunk = self.camera_encoder(plucker_BFCHW)
        history = self.camera_encoder.history(plucker_BFCHW, num_history)
        return torch.cat([history, chunk], 2 if self.config.camera_injection == "channel_concat" else 1)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None,
        pooled_projections: Tensor,
        camera_tokens: Tensor | None = None,
        guidance: Tensor | None = None,
        return_dict: bool = False,
    ) -> Tensor | Transformer2DModelOutput:
        """The velocity (noise minus clean) of every latent frame; that of the history means nothing.

        Args:
            hidden_states: `model_input`'s [B, 33, T, h, w]; h and w even.
            timestep: [B], 1000 times sigma.
            encoder_hidden_states: text token states [B, L, Ct].
            encoder_attention_mask: bool [B, L], True = a real token; None = all are.
            pooled_projections: text as one vector [B, Cp].
            camera_tokens: from the method of that name; None = no camera, as if the encoder answered zero.
            guidance: [B], 1000 times w = (guidance scale - 1); None leaves the embedding out.
            return_dict: wrap the result as diffusers does.

        Returns:
            [B, 16, T, h, w] in the weights' dtype.
        """
        dtype = self.proj_out.weight.dtype
        x_BCThw, text_BLC = hidden_states.to(dtype), encoder_hidden_states.to(dtype)
        injection = self.config.camera_injection
        rope = self.rope(x_BCThw)
        if injection == "channel_concat":
            camera = x_BCThw.new_zeros(x_BCThw.shape[0], 16, *x_BCThw.shape[2:])
            x_BCThw = torch.cat([x_BCThw, camera if camera_tokens is None else camera_tokens.to(dtype)], 1)
        x_BND = self.x_embedder(x_BCThw)
        num_tokens = x_BND.shape[1]
        if injection == "add" and camera_tokens is not None:
            x_BND = x_BND + camera_tokens.to(dtype)
        if injection == "token_concat" and camera_tokens is not None:
            x_BND = torch.cat([x_BND, camera_tokens.to(dtype)], 1)
            rope = (torch.cat([rope[0], rope[0]]), torch.cat([rope[1], rope[1]]))

        condition_BD = self._condition(timestep, pooled_projections.to(dtype), guidance)
        text_BLD = self.context_embedder(text_BLC, timestep, encoder_attention_mask)
        keep_B11K: Tensor | None = None
        if encoder_attention_mask is not None:
            keep_B11K = torch.cat([encoder_attention_mask.new_ones(x_BND.shape[:2]), encoder_attention_mask], 1)
            keep_B11K = keep_B11K.bool()[:, None, None, :]

        checkpointing = torch.is_grad_enabled() and self.gradient_checkpointing
        for block in (*self.transformer_blocks, *self.single_transformer_blocks):
            inputs = (x_BND, text_BLD, condition_BD, keep_B11K, rope)
            call: Any = self._gradient_checkpointing_func
            x_BND, text_BLD = call(block, *inputs) if checkpointing else block(*inputs)

        out_BNC = self.proj_out(self.norm_out(x_BND[:, :num_tokens], condition_BD))
        out_BCThw = self._unpatch(out_BNC, hidden_states.shape)
        return Transformer2DModelOutput(sample=out_BCThw) if return_dict else out_BCThw

    def _condition(self, timestep_B: Tensor, pooled_BC: Tensor, guidance_B: Tensor | None) -> Tensor:
        """Modulation vector [B, D] from time, text and, where given, guidance."""
        embed, dtype = self.time_text_embed, pooled_BC.dtype
        condition_BD = embed.timestep_embedder(embed.time_proj(timestep_B).to(dtype)) + embed.text_embedder(pooled_BC)
        if embed.guidance_embedder is not None and guidance_B is not None:
            condition_BD = condition_BD + embed.guidance_embedder(embed.time_proj(guidance_B).to(dtype))
        return condition_BD

    def _unpatch(self, out_BNC: Tensor, shape: torch.Size) -> Tensor:
        """Tokens back to latent frames [B, 16, T, h, w]."""
        side, side_t = self.config.patch_size, self.config.patch_size_t
        grid = (shape[2] // side_t, shape[3] // side, shape[4] // side)
        cells = out_BNC.unflatten(2, (-1, side_t, side, side)).unflatten(1, grid)  # [B, T, h, w, C, pt, ph, pw]
        return cells.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)
