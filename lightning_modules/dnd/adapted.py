"""A frozen base model with one exchangeable LoRA adapter.

Axis legend: B batch, T text token, V vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from ...datamodules.dnd.text import IGNORED, TextFormat
from ...datamodules.files import atomic_write
from ...datamodules.sources.models import no_progress_bars, resolve_model
from ...registry import UserError


class AdaptedModel(nn.Module):
    """Any Hugging Face causal language model with a PEFT LoRA on it.

    Args:
        base_model: model name, as `resolve_model` takes it.
        adapter_config: PEFT LoRA settings: r, lora_alpha, target_modules, ….

    Raises:
        UserError: if PEFT finds no module to adapt.
    """

    def __init__(self, base_model: str, adapter_config: Mapping[str, Any]) -> None:
        super().__init__()
        self.base_model_name = base_model
        place = resolve_model(base_model)
        with no_progress_bars():
            base = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(place)
        known = {k: v for k, v in adapter_config.items() if k in LoraConfig.__dataclass_fields__ and k != "peft_type"}
        self.config = LoraConfig(**{**known, "task_type": "CAUSAL_LM", "base_model_name_or_path": None})
        try:
            with warnings.catch_warnings():  # PEFT still asks by a name that transformers has given up
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
                self.peft: PeftModel = get_peft_model(base, self.config)
        except ValueError as error:
            raise UserError(f"{base_model}: the LoRA does not fit this model: {str(error)[:200]}") from None
        self.train()
        self._matrices = {
            name.replace(".default.weight", ".weight"): parameter
            for name, parameter in self.peft.named_parameters()
            if ".lora_A." in name or ".lora_B." in name
        }

    def state(self) -> dict[str, Tensor]:
        """The adapter's weights by PEFT key, not copied."""
        return {k: p.data for k, p in self._matrices.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put another adapter's weights in.

        Raises:
            UserError: if its keys or shapes are not this adapter's.
        """
        if state.keys() != self._matrices.keys():
            odd = sorted(state.keys() ^ self._matrices.keys())
            raise UserError(f"this adapter has other modules than the model's: {odd[0]}, … ({len(odd)} differ)")
        with torch.no_grad():
            for key, parameter in self._matrices.items():
                if state[key].shape != parameter.shape:
                    raise UserError(
                        f"{key}: {list(state[key].shape)}, the adapter here has {list(parameter.shape)}: "
                        "another rank or base model"
                    )
                parameter.copy_(state[key])

    def reset(self, seed: int) -> None:
        """The shared initialisation: A uniform as PEFT's, drawn from `seed` in the order of the modules; B zero."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in self._matrices.items():
                if ".lora_B." in key:
                    parameter.zero_()
                else:
                    bound = 1 / math.sqrt(parameter.shape[1])  # kaiming_uniform with a = sqrt(5)
                    parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))

    @contextlib.contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The base model alone, inside the block."""
        with self.peft.disable_adapter():
            yield

    @torch.no_grad()
    def answer(self, form: TextFormat, prompt: str, max_new_tokens: int) -> str:
        """The likeliest answer to a prompt, as text.

        Args:
            form: how prompts and answers are written.
            prompt: the question.
            max_new_tokens: of the answer at most.
        """
        ids_1T = torch.tensor([form.prompt_ids(self.tokenizer, prompt)])
        end = form.end_id(self.tokenizer)
        out_1T = self.peft.eval().generate(
            input_ids=ids_1T, attention_mask=torch.ones_like(ids_1T), max_new_tokens=max_new_tokens, do_sample=False,
            eos_token_id=end, pad_token_id=end, temperature=None, top_p=None, top_k=None,
        )  # fmt: skip
        return str(self.tokenizer.decode(out_1T[0, ids_1T.shape[1] :], skip_special_tokens=True)).strip()

    def loss(self, input_ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Mean cross-entropy over the answers' tokens.

        Logits are made only at places where some row has an answer: at 135 M parameters the vocabulary's projection is
        a fifth of all operations, and prompts need none of it.
        """
        following_BT = labels_BT[:, 1:]
        places = (following_BT != IGNORED).any(0).nonzero()[:, 0]
        logits_BTV = self.peft(input_ids=input_ids_BT, logits_to_keep=places, use_cache=False).logits
        return nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1), following_BT[:, places].flatten(), ignore_index=IGNORED
        )

    def adapter_config(self) -> dict[str, Any]:
        """PEFT's adapter_config.json as a dict."""
        values = self.config.to_dict()
        plain = {k: sorted(v) if isinstance(v, set) else getattr(v, "value", v) for k, v in values.items()}
        return {**plain, "base_model_name_or_path": self.base_model_name}


def write_adapter(folder: Path, state: Mapping[str, Tensor], adapter_config: Mapping[str, Any], card: str) -> None:
    """A standard PEFT folder: adapter_model.safetensors, adapter_config.json and README.md; the config comes last, so a
    folder that PEFT can open is whole.

    Raises:
        UserError: if the folder can't be written.
    """
    try:
        with atomic_write(folder / "adapter_model.safetensors") as temporary:
            save_file({k: v.contiguous() for k, v in state.items()}, temporary, metadata={"format": "pt"})
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(card, encoding="utf-8")
        with atomic_write(folder / "adapter_config.json") as temporary:
            temporary.write_text(
                json.dumps({**adapter_config, "inference_mode": True}, indent=1) + "\n", encoding="utf-8"
            )
    except OSError as error:
        raise UserError(
            f"{folder}: can't be written: {error.strerror or error}\nChoose another folder with --out."
        ) from None
    except Exception as error:  # safetensors' own error type for a full disk
        raise UserError(f"{folder}: can't be written: {error}\nChoose another folder with --out.") from None
