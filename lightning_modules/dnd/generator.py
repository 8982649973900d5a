"""A trained generator as a folder: what `dnd adapt` and `dnd evaluate` need, and nothing of training.

generator.safetensors holds weights and task centroids; generator.json all the rest: cascade, token layout, encoder, the
adapter's configuration, the base model, the chat format, and what the training prompts' range was.

Axis legend: N prompts of a condition, P prompt, D draw, L text token, C channel, T weight token, H rank + 2,
W chunk + 2, K training task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...datamodules.dnd.conditions import PromptEncoder
from ...datamodules.dnd.module import PromptCheckpointDataModule
from ...datamodules.dnd.text import TextFormat
from ...datamodules.dnd.weight_tokens import WeightTokenizer
from ...datamodules.files import atomic_write, write_json
from ...registry import UserError
from .hyperconv import HyperConvGenerator
from .retrieval import RetrievalGenerator, SharedGenerator

SCHEMA_VERSION = 1
COVERAGE_DRAWS = 20


def draw_centroids(embedding_PC: Tensor, num_prompts: int) -> Tensor:
    """Normalised centroids [D, C] of draws of `num_prompts` of the P prompts (all of them, where there are fewer)."""
    rng = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(embedding_PC), generator=rng)[:num_prompts] for _ in range(COVERAGE_DRAWS)]
    means = torch.stack([embedding_PC[order.to(embedding_PC.device)].mean(0) for order in orders])
    return nn.functional.normalize(means, dim=-1)


def build_network(cascade: Mapping[str, Any], num_tasks: int) -> nn.Module:
    """An untrained network of `shapes` and `kernel_size`, with `retrieval` nearest tasks or on a `shared` adapter."""
    made_of = (cascade["shapes"], cascade["kernel_size"])
    if nearest := cascade.get("retrieval", 0):
        return RetrievalGenerator(*made_of, num_tasks, nearest)
    return SharedGenerator(*made_of) if cascade.get("shared") else HyperConvGenerator(*made_of)


@dataclass
class TrainedGenerator:
    """Everything between prompts and an adapter.

    Attributes:
        network: the hyper-convolution cascade, alone or with what it retrieves.
        tokenizer: weight tokens' layout.
        meta: generator.json's content.
        centroids_KC: normalised mean prompt embedding of each training task.
    """

    network: nn.Module
    tokenizer: WeightTokenizer
    meta: dict[str, Any]
    centroids_KC: Tensor

    @classmethod
    def of(cls, network: nn.Module, data: PromptCheckpointDataModule, cascade: Mapping[str, Any]) -> TrainedGenerator:
        """A network with all that is needed to use it.

        Args:
            network: the trained cascade.
            data: what it was trained on.
            cascade: what the network is made of: as `build_network` takes it.
        """
        assert data.tokenizer is not None
        centroids_KC = torch.stack([t.centroid_C for t in data.tasks])
        draws = [draw_centroids(t.held_out_embedding_PC, data.hparams["num_prompts"]) for t in data.tasks]
        own = [float((drawn_DC @ t.centroid_C).min()) for drawn_DC, t in zip(draws, data.tasks, strict=True)]
        meta = {
            **cascade,
            "tasks": [t.name for t in data.tasks],
            "encoder": data.hparams["encoder"],
            "num_prompts": data.hparams["num_prompts"],
            "prompt_length": data.hparams["prompt_length"],
            "coverage_floor": min(own),
            **{k: data.snapshots.manifest[k] for k in ("base_model", "adapter_config", "text")},
        }
        return cls(network, data.tokenizer, meta, centroids_KC.cpu())

    @property
    def tasks(self) -> list[str]:
        """Names of the training tasks."""
        return list(self.meta["tasks"])

    @property
    def text(self) -> TextFormat:
        """The chat format that the adapters expect."""
        return TextFormat(**self.meta["text"])

    def encoder(self) -> PromptEncoder:
        """The frozen sentence encoder of the conditions, on the network's device."""
        return PromptEncoder(self.meta["encoder"], self.meta["prompt_length"], device=self.centroids_KC.device)

    def to(self, device: torch.device) -> TrainedGenerator:
        """Move network and centroids to a device."""
        self.network.to(device)
        self.centroids_KC = self.centroids_KC.to(device)
        return self

    def choose(self, prompts: Sequence[str], seed: int) -> list[str]:
        """N different prompts drawn at random; where there are fewer, all of them, repeated in turn."""
        n, prompts = int(self.meta["num_prompts"]), list(dict.fromkeys(prompts))
        order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed)).tolist()
        return [prompts[order[i % len(order)]] for i in range(n)]

    @torch.no_grad()
    def generate(self, condition_NLC: Tensor) -> Tensor:
        """Weight tokens [T, H, W], on the CPU, for one condition [N, L, C], in one forward pass in fp32."""
        out: Tensor = self.network.eval()(condition_NLC.unsqueeze(0).float().to(self.centroids_KC.device))[0]
        return out.cpu()

    def adapter(self, tokens_THW: Tensor) -> dict[str, Tensor]:
        """Tokens as an adapter: PEFT key -> weights."""
        return self.tokenizer.detokenize(tokens_THW)

    def coverage(self, embedding_PC: Tensor) -> tuple[str, float, float]:
        """How near prompts lie to the training tasks.

        Both sides are centroids of N prompts, averaged over draws: a mean over more prompts lies nearer to everything.

        Args:
            embedding_PC: normalised prompt embeddings.

        Returns:
            The nearest training task, the mean cosine between its centroid and those of draws of N of the prompts, and
            the lowest such cosine of a draw of the training tasks' own held-out prompts: below it, the prompts are
            outside of what was seen.
        """
        drawn_DC = draw_centroids(embedding_PC.to(self.centroids_KC.device), int(self.meta["num_prompts"]))
        cosine_K = (drawn_DC @ self.centroids_KC.T).mean(0)
        best = int(cosine_K.argmax())
        return self.tasks[best], float(cosine_K[best]), float(self.meta["coverage_floor"])

    def save(self, folder: Path) -> None:
        """Write the folder; generator.json comes last, so a folder that has it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {f"network.{k}": v.detach().float().cpu().contiguous() for k, v in self.network.state_dict().items()}
        with atomic_write(folder / "generator.safetensors") as temporary:
            save_file({**weights, "centroids_KC": self.centroids_KC.contiguous()}, temporary)
        write_json(
            folder / "generator.json",
            {"schema_version": SCHEMA_VERSION, "layout": self.tokenizer.layout(), **self.meta},
        )

    @classmethod
    def load(cls, folder: Path) -> TrainedGenerator:
        """Read a folder that `save` wrote.

        Raises:
            UserError: if it is no generator, of another schema, or damaged.
        """
        try:
            meta = json.loads((folder / "generator.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "generator.safetensors")
        except Exception as error:  # OSError, JSON's and safetensors' own error types
            raise UserError(
                f"{folder}: no generator here: {error}\n"
                "fulgurite run dnd/tiny   trains one, in <run>/generator/generator"
            ) from None
        if meta.pop("schema_version", None) != SCHEMA_VERSION:
            raise UserError(f"{folder}: a generator of another schema; this fulgurite reads {SCHEMA_VERSION}")
        network = build_network(meta, len(meta["tasks"]))
        network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
        return cls(network, WeightTokenizer.from_layout(meta.pop("layout")), meta, tensors["centroids_KC"])
