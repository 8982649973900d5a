"""Many LoRAs on one frozen model in one forward pass: the rows of a batch lie adapter after adapter.

Axis legend: K adapter, R LoRA rank, I width in, O width out, N rows and tokens of one adapter, B batch, T text token,
D hidden, V vocabulary, S selected token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from ...datamodules.dnd.text import IGNORED
from ...datamodules.sources.models import no_progress_bars, resolve_model
from ...registry import UserError

Stack = Mapping[str, Tensor]
_RESCALED = ("final_logit_softcapping", "logits_scaling", "logit_scale")
_OTHER_LORAS = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")  # PEFT's settings that change B A x


class BatchedLinear(nn.Module):
    """y = W x + scale B_k A_k x, with k the row's adapter; plain W x while no adapters are set.

    Args:
        base: the frozen layer.
        scale: lora_alpha / r.
    """

    def __init__(self, base: nn.Linear, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        self.a_KRI: Tensor | None = None
        self.b_KOR: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[K * b, T, I] to [K * b, T, O]."""
        y: Tensor = self.base(x)
        if self.a_KRI is None or self.b_KOR is None:
            return y
        num = len(self.a_KRI)
        a_KRI, b_KOR = self.a_KRI.to(x.dtype), self.b_KOR.to(x.dtype)
        low_KNR = torch.bmm(x.reshape(num, -1, x.shape[-1]), a_KRI.transpose(1, 2))
        y_KNO = y.reshape(num, -1, y.shape[-1])
        return torch.baddbmm(y_KNO, low_KNR, b_KOR.transpose(1, 2), alpha=self.scale).view(y.shape)


class BatchedLoRA(nn.Module):
    """A frozen causal language model that carries K adapters at once.

    Gradients flow to whatever tensors were set, be they leaves or a generator's output.

    Args:
        base_model: model name, as `resolve_model` takes it.
        adapter_config: PEFT LoRA settings: r, lora_alpha, target_modules (names), layers_to_transform.
        device: where to compute.

    Raises:
        UserError: if no layer is to be adapted, the adapters are no plain LoRAs, or the model rescales its logits
            (they are made here from hidden states).
    """

    def __init__(self, base_model: str, adapter_config: Mapping[str, Any], device: torch.device) -> None:
        super().__init__()
        if odd := [name for name in _OTHER_LORAS if adapter_config.get(name)]:
            raise UserError(f"{base_model}: its adapters have {odd[0]}, which many adapters in one pass do not know")
        place = resolve_model(base_model)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        with no_progress_bars():
            self.model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=dtype)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(place)
        self.requires_grad_(False).eval().to(device)
        for name in _RESCALED:
            if getattr(self.model.config, name, None) not in (None, 1, 1.0):
                raise UserError(f"{base_model}: rescales its logits ({name}), which training in bulk does not know")
        self.device = device
        self.layers: dict[str, BatchedLinear] = {}
        targets, layers = adapter_config["target_modules"], adapter_config.get("layers_to_transform")
        scale = adapter_config["lora_alpha"] / adapter_config["r"]
        for name, module in list(self.model.named_modules()):
            if isinstance(module, nn.Linear) and _adapted(name, targets, layers):
                parent = self.model.get_submodule(name.rpartition(".")[0])
                layer = BatchedLinear(module, scale)
                setattr(parent, name.rpartition(".")[2], layer)
                self.layers[f"base_model.model.{name}"] = layer
        if not self.layers:
            raise UserError(f"{base_model}: none of its linear layers is one of {targets}")

    @property
    def pad(self) -> int:
        """Id that fills rows up."""
        return int(self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0)

    def shapes(self, rank: int) -> dict[str, tuple[int, int]]:
        """PEFT key -> shape of one adapter's matrices, A before B, in the model's order."""
        found = {}
        for path, layer in self.layers.items():
            found[f"{path}.lora_A.weight"] = (rank, layer.base.in_features)
            found[f"{path}.lora_B.weight"] = (layer.base.out_features, rank)
        return found

    def initial(self, rank: int, seed: int) -> dict[str, Tensor]:
        """The shared initialisation of one adapter, fp32 on the CPU: the one that `AdaptedModel.reset` draws."""
        generator = torch.Generator().manual_seed(seed)
        state = {}
        for key, shape in self.shapes(rank).items():
            bound = 1 / math.sqrt(shape[1])
            drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator) if ".lora_A." in key else None
            state[key] = torch.zeros(shape) if drawn is None else drawn
        return state

    def set(self, stack: Stack | None) -> None:
        """Take K adapters, stacked key by key: A [K, R, I] and B [K, O, R]; None is the base model alone."""
        for path, layer in self.layers.items():
            layer.a_KRI = None if stack is None else stack[f"{path}.lora_A.weight"]
            layer.b_KOR = None if stack is None else stack[f"{path}.lora_B.weight"]

    def losses(self, ids_BT: Tensor, labels_BT: Tensor, num_adapters: int) -> Tensor:
        """Mean cross-entropy of the answers' tokens, adapter by adapter.

        Args:
            ids_BT: right-padded rows, adapter after adapter, as many for each.
            labels_BT: the answers' ids, -100 elsewhere.
            num_adapters: K.

        Returns:
            [K], fp32.
        """
        hidden_BTD = self.model.model(input_ids=ids_BT, use_cache=False).last_hidden_state
        wanted_BT = labels_BT[:, 1:]
        row_S, place_S = (wanted_BT != IGNORED).nonzero(as_tuple=True)
        logits_SV = self.model.lm_head(hidden_BTD[row_S, place_S]).float()
        loss_S = nn.functional.cross_entropy(logits_SV, wanted_BT[row_S, place_S], reduction="none")
        adapter_S = row_S // (len(ids_BT) // num_adapters)
        zero_K = torch.zeros(num_adapters, device=loss_S.device)
        return zero_K.index_add(0, adapter_S, loss_S) / zero_K.index_add(0, adapter_S, torch.ones_like(loss_S))


def _adapted(name: str, targets: Any, layers: list[int] | None) -> bool:
    parts = name.split(".")
    if parts[-1] not in targets:
        return False
    return layers is None or any(part.isdigit() and int(part) in layers for part in parts)
