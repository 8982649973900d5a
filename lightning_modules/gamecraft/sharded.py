"""The teacher at a size that no GPU holds: FSDP2 through Lightning's ModelParallelStrategy (arXiv 2506.17201)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ...datamodules.files import write_json
from ...registry import MODELS, UserError
from .captions_encoder import CaptionEncoder
from .conditions import Conditions
from .module import GameCraftModule
from .release import SAMPLING, SCHEMA_VERSION
from .sampling import Captions
from .sharding import checkpoint_activations, is_sharded, load_shards, on_meta, save_shards, shard
from .vae import GameplayVAE


@MODELS.register("gamecraft_sharded", paper="2506.17201")
class ShardedGameCraftModule(GameCraftModule):
    """GameCraftModule whose network and moving average are sharded over all ranks of ModelParallelStrategy.

    Both are built without memory and filled from a folder, each rank with its part: HunyuanVideo's transformer, as in
    the paper, or a trained GameCraft's. Blocks keep their inputs alone for the backward pass. Captions are those of
    HunyuanVideo's own text encoders, if `text` names them.

    Deviations: as GameCraftModule's; no chunks are generated at the end. It has not been run at the published size; a
    test trains the tiny one on two processes and finds the losses of one.

    Args:
        init_from: folder of the weights to start from.
        transformer: name of a size, or arguments of `GameCraftTransformer`.
        vae: folder of the autoencoder; may be left out where the data hold latents.
        text: folder or Hugging Face id of a HunyuanVideo pipeline, for its text encoders; None = MiniLM, for a
            transformer with text of that width.
        shift: shift of the noise levels.
        drop: probability of losing caption and camera.
        camera_lr_factor: factor of the learning rate of the camera's branch.
        num_steps: steps of sampling, told to those who load the result.
        guidance_scale: guidance, likewise.
        ema_decay: decay of the weights' moving average.
        warmup_steps: steps of linear warm-up; a cosine to zero follows.
        attention, plan: as GameCraftModule's.
        optimizer: anything that makes an optimiser of parameter groups.
    """

    def __init__(
        self,
        init_from: str,
        transformer: str | dict[str, Any] = "published",
        vae: str | None = None,
        text: str | None = None,
        shift: float = 5.0,
        drop: float = 0.1,
        camera_lr_factor: float = 5.0,
        num_steps: int = 50,
        guidance_scale: float = 2.0,
        ema_decay: float = 0.999,
        warmup_steps: int = 500,
        attention: str | dict[str, Any] | None = None,
        plan: str | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-5, weight_decay=0.01, fused=True),
    ) -> None:
        with on_meta():
            super().__init__(
                transformer=transformer, shift=shift, drop=drop, camera_lr_factor=camera_lr_factor, num_samples=0,
                num_steps=num_steps, guidance_scale=guidance_scale, ema_decay=ema_decay, warmup_steps=warmup_steps,
                optimizer=optimizer,
            )  # fmt: skip
        checkpoint_activations(self.network)
        self.init_from, self._attention = init_from, (attention, plan)
        # made anew, with memory
        self._val = nn.ModuleDict({name: MeanMetric() for name in self._val})
        self.captions = CaptionEncoder()
        if vae is not None:
            self.frozen["vae"] = GameplayVAE.from_pretrained(vae)
        if text is not None:
            self.frozen["text"] = PublishedCaptions.from_pretrained(text)

    def configure_model(self) -> None:
        """Shard network and average, and read each rank's part of the weights.

        Raises:
            UserError: under another strategy, if the folder does not hold the weights, or as `set_attention`.
        """
        if is_sharded(self.network):
            return
        mesh = self.device_mesh
        if mesh is None:
            del self.network, self.ema  # Lightning's way out moves all to the CPU, which nothing on meta can do
            raise UserError(
                "model gamecraft_sharded is for many GPUs: set trainer.strategy to "
                "lightning.pytorch.strategies.ModelParallelStrategy\n"
                "For one GPU there is the model 'gamecraft'."
            )
        strategy = self.trainer.strategy
        for network in (self.network, self.ema.average):
            shard(network, mesh["data_parallel"], bf16=self.trainer.precision.startswith("bf16"))
            load_shards(network, Path(self.init_from), strategy.root_device)
        self.set_attention(*self._attention)  # now, since a plan is for weights, which were not there before

    def caption_states(self, captions: list[str]) -> Captions:
        """Token states, mask and pooled vectors on the device; those of long captions are too large to be kept."""
        text: PublishedCaptions | None = self.frozen.get("text")
        return super().caption_states(captions) if text is None else text(captions)

    def log_camera(self, given: Conditions) -> None:
        """Nothing: the parts that it looks at lie on several ranks."""

    def on_fit_end(self) -> None:
        """Write the average's weights, which all ranks gather, and how to sample."""
        self._kept |= self.measured()
        self.to(self.trainer.strategy.root_device)  # which Lightning has taken it off by now
        root = Path(self.trainer.default_root_dir)
        save_shards(self.ema.average, root / "transformer")
        if self.trainer.is_global_zero:
            write_json(root / SAMPLING, {"schema_version": SCHEMA_VERSION, **self.sampling()})


class PublishedCaptions(nn.Module):
    """Captions as the published size takes them: LLaVA-Llama's token states and CLIP's pooled vector, both frozen.

    Args:
        pipeline: a HunyuanVideoPipeline with its text encoders and tokenisers.
    """

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.llama, self.clip = pipeline.text_encoder, pipeline.text_encoder_2
        self._encode = pipeline.encode_prompt
        self._empty: Captions | None = None

    @classmethod
    def from_pretrained(cls, folder: str) -> PublishedCaptions:
        """The text encoders of a diffusers checkpoint of HunyuanVideo, in bfloat16.

        Raises:
            UserError: if they can't be had.
        """
        from diffusers import HunyuanVideoPipeline

        try:
            options: dict[str, Any] = {"transformer": None, "vae": None, "torch_dtype": torch.bfloat16}
            return cls(HunyuanVideoPipeline.from_pretrained(folder, **options))
        except (OSError, ValueError) as error:
            raise UserError(f"model.text: no HunyuanVideo pipeline at {folder}: {str(error).splitlines()[0]}") from None

    @torch.no_grad()
    def forward(self, captions: Sequence[str]) -> Captions:
        """Token states [B, 256, 4096], their mask [B, 256] (True = a token) and pooled vectors [B, 768], on the device.

        The empty caption comes at every step, so it is encoded once.
        """
        if list(captions) != [""]:
            return self._states(list(captions))
        if self._empty is None:
            self._empty = self._states([""])
        return self._empty

    def _states(self, captions: list[str]) -> Captions:
        device = next(self.llama.parameters()).device
        found: tuple[Tensor, Tensor, Tensor] = self._encode(captions, device=device)
        states_BLC, pooled_BC, mask_BL = found
        return states_BLC.float(), mask_BL.bool(), pooled_BC.float()
