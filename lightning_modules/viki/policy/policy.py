"""The policy: prompts with pictures in, answers out, and how likely it finds an answer.

Axis legend: P prompt, N place in a prompt, G completion (P x group, groups adjacent), L place in a completion,
D feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from ....datamodules.sources.hub import fetch_hub
from ....datamodules.sources.models import no_progress_bars
from ....registry import UserError
from ... import eight_bits
from .asked import Asked, local_folder
from .batch import Completions, PolicyBatch, Prompt
from .encoding import Encoder
from .folder import new_policy_folder
from .pictures import PictureSettings
from .positions import completion_positions
from .sampling import sample
from .text import Texts
from .vision import tower_features

_MOST_LOGITS = 1 << 28  # numbers, 1 GB in single precision


class VikiPolicy(nn.Module):
    """Qwen2.5-VL, small or released, as SFT, GRPO and evaluation use it.

    Prompts are padded on the left and completions on the right, so that a completion begins at the same place for all.
    Special: a picture's features are computed once a prompt, however many completions it has, and so are the prompt's
    keys and values.

    Args:
        model: transformers' model.
        texts: its tokenizer.
        pictures: how its pictures are cut.
        asked: how it was asked in training, and should be asked later.
    """

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        texts: Texts,
        pictures: PictureSettings,
        asked: Asked | None = None,
    ) -> None:
        super().__init__()
        self.model, self.texts, self.pictures, self.asked = model, texts, pictures, asked or Asked()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.lm_head.weight.device

    @classmethod
    def load(cls, folder_or_id: str | Path, *, dtype: torch.dtype = torch.float32, offline: bool = False) -> VikiPolicy:
        """Read a folder that `save` wrote or one of a released Qwen2.5-VL, or fetch one from the Hugging Face Hub.

        Args:
            folder_or_id: folder, ORG/NAME, or the name of one in this checkout's weights/, such as viki-small.
            dtype: of the weights.
            offline: take what the Hub's cache holds, and do not ask the network.

        Raises:
            UserError: if there is no such policy, or it is damaged.
        """
        folder = local_folder(folder_or_id)
        if not folder.exists() and str(folder_or_id).count("/") == 1 and not str(folder_or_id).startswith((".", "/")):
            try:
                folder = fetch_hub(f"hf:{folder_or_id}", offline=offline)
            except UserError as error:
                raise UserError(
                    f"{folder_or_id}: there is no such folder, and as a model of the Hub:\n{error}"
                ) from None
        if not (folder / "config.json").is_file():
            raise UserError(
                f"{folder}: there is no policy, config.json is missing\nfulgurite run viki/tiny   trains one"
            )
        texts, pictures = Texts.load(folder), PictureSettings.load(folder)
        try:
            with no_progress_bars():
                if (folder / eight_bits.FILE).is_file():
                    model = nn.Module.to(_expanded(folder), dtype)
                else:
                    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        except Exception as error:  # OSError, safetensors', transformers' and torch's own error types
            raise UserError(f"{folder}: is no Qwen2.5-VL: {str(error).splitlines()[0][:200]}") from None
        return cls(model, texts, pictures, Asked.load(folder))

    def save(self, folder: str | Path) -> None:
        """Write a folder that `load` and transformers read; it replaces an earlier one only once it is whole.

        Raises:
            UserError: if the folder holds something else than a policy.
        """
        with new_policy_folder(folder) as staging:
            with no_progress_bars():
                self.model.save_pretrained(staging)
            self._save_rest(staging)

    def save_eight_bits(self, folder: Path) -> None:
        """Write files that `load` reads, and transformers does not, into a folder: half of bfloat16's bytes."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(folder)
        tied = _tied(self.model)
        weights = {name: weight for name, weight in self.model.state_dict().items() if name not in tied}
        eight_bits.write(weights, folder / eight_bits.FILE)
        self._save_rest(folder)

    def _save_rest(self, folder: Path) -> None:
        self.texts.save(folder)
        self.pictures.save(folder)
        self.asked.save(folder)

    @property
    def encoder(self) -> Encoder:
        """What turns prompts into tensors, without the weights."""
        return Encoder(self.texts, self.pictures)

    def encode(self, prompts: Sequence[Prompt], completions: Sequence[str] | None = None) -> PolicyBatch:
        """Texts and pictures as tensors on the policy's device.

        Args:
            prompts: P of them.
            completions: P, or a multiple of it, groups adjacent.
        """
        return self.encoder(prompts, completions).to(self.device)

    def picture_features(self, batch: PolicyBatch) -> Tensor | None:
        """Features of all pictures' tokens in the order of the prompts, [T, D]; None without pictures."""
        if not len(batch.grids_I2):
            return None
        grids = [(int(rows), int(columns)) for rows, columns in batch.grids_I2.tolist()]
        visual = self.model.model.visual
        floats_MC = self.pictures.floats(batch.patches_MC).to(visual.patch_embed.proj.weight.dtype)
        return tower_features(visual, floats_MC, grids)

    def embed(self, batch: PolicyBatch, features_TD: Tensor | None = None) -> Tensor:
        """Embedded prompts with their pictures, [P, N, D].

        Args:
            batch: of `encode`.
            features_TD: of `picture_features`, where they are known already.
        """
        embeds_PND: Tensor = self._language.embed_tokens(batch.tokens_PN)
        features_TD = self.picture_features(batch) if features_TD is None else features_TD
        if features_TD is None:
            return embeds_PND
        seen_PN1 = (batch.tokens_PN == self.texts.image)[..., None]
        return embeds_PND.masked_scatter(seen_PN1, features_TD.to(embeds_PND.dtype))

    @torch.no_grad()
    def generate(
        self,
        batch: PolicyBatch,
        *,
        group_size: int = 1,
        temperature: float = 1.0,
        max_new_tokens: int = 256,
        generator: torch.Generator | None = None,
        greedy: bool = False,
    ) -> Completions:
        """Answers to encoded prompts.

        Args:
            batch: of `encode`.
            group_size: answers a prompt.
            temperature: of sampling.
            max_new_tokens: an answer that is longer is cut, and its mask has no end token.
            generator: of the draws, on the policy's device.
            greedy: take the likeliest token each time.
        """
        training = self.training
        self.eval()
        tokens_GL, mask_GL, log_probs_GL = sample(
            self._language, self.model.lm_head, self.embed(batch), batch.mask_PN, batch.positions_APN,
            batch.next_position_P, group_size=group_size, max_new_tokens=max_new_tokens, end=self.texts.end,
            pad=self.texts.pad, temperature=temperature, generator=generator, greedy=greedy,
        )  # fmt: skip
        self.train(training)
        rows = [row[kept].tolist() for row, kept in zip(tokens_GL.cpu(), mask_GL.cpu(), strict=True)]
        return Completions(tokens_GL, mask_GL, log_probs_GL, self.texts.decode(rows))

    def log_probs(
        self,
        batch: PolicyBatch,
        tokens_GL: Tensor,
        mask_GL: Tensor,
        temperature: float = 1.0,
        features_TD: Tensor | None = None,
    ) -> Tensor:
        """Log-probability of each token of completions given what stands before it, float32 [G, L], differentiable.

        Args:
            batch: P prompts.
            tokens_GL: completions, G a multiple of P, groups adjacent.
            mask_GL: True on their tokens; the result is 0 elsewhere.
            temperature: logits are divided by it, as in `generate`.
            features_TD: of `picture_features`, where they are known already.
        """
        hidden_GLD = self._hidden(batch, tokens_GL, mask_GL, features_TD)
        log_probs_GL: Tensor = self._by_parts(_token_log_probs, hidden_GLD, tokens_GL, temperature)
        return log_probs_GL.masked_fill(~mask_GL, 0.0)

    def log_probs_and_entropy(
        self, batch: PolicyBatch, tokens_GL: Tensor, mask_GL: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """As `log_probs`, and the entropy of each token's distribution in nats, float32 [G, L], without gradient."""
        hidden_GLD = self._hidden(batch, tokens_GL, mask_GL)
        log_probs_GL = self._by_parts(_token_log_probs, hidden_GLD, tokens_GL, temperature)
        with torch.no_grad():
            entropy_GL = self._by_parts(_token_entropy, hidden_GLD, tokens_GL, temperature)
        return log_probs_GL.masked_fill(~mask_GL, 0.0), entropy_GL.masked_fill(~mask_GL, 0.0)

    def _by_parts(
        self, measure: Callable[..., Tensor], hidden_GLD: Tensor, tokens_GL: Tensor, temperature: float
    ) -> Tensor:
        """`measure` of all tokens, [G, L]. With a large vocabulary all logits at once would be the largest tensor by
        far; then a part of the completions after the other, whose logits are computed again on the way back.
        """
        head = self.model.lm_head
        rows = max(1, _MOST_LOGITS // (tokens_GL.shape[1] * head.weight.shape[0]))
        if rows >= len(tokens_GL):
            return measure(head, hidden_GLD, tokens_GL, temperature)
        parts = zip(hidden_GLD.split(rows), tokens_GL.split(rows), strict=True)
        return torch.cat([checkpoint(measure, head, *part, temperature, use_reentrant=False) for part in parts])

    def _hidden(
        self, batch: PolicyBatch, tokens_GL: Tensor, mask_GL: Tensor, features_TD: Tensor | None = None
    ) -> Tensor:
        """Hidden states that predict the completions' tokens, [G, L, D].

        With one completion a prompt, or gradient checkpointing, which knows no cache, everything goes through in one
        piece; else each prompt is read once and its group continues from its keys and values.
        """
        group = len(tokens_GL) // len(batch)
        length = tokens_GL.shape[1]
        embeds_PND = self.embed(batch, features_TD)
        next_position_G = batch.next_position_P.repeat_interleave(group)
        prompt_mask_GN = batch.mask_PN.repeat_interleave(group, 0)
        written_GLD = self._language.embed_tokens(tokens_GL)
        mask = torch.cat([prompt_mask_GN, mask_GL], 1).long()
        if group == 1 or self._language.gradient_checkpointing:
            embeds = torch.cat([embeds_PND.repeat_interleave(group, 0), written_GLD], 1)
            positions = torch.cat(
                [batch.positions_APN.repeat_interleave(group, 1), completion_positions(next_position_G, length)], 2
            )
            seen = self._seen(torch.cat([prompt_mask_GN, mask_GL], 1))
            out = self._language(inputs_embeds=embeds, attention_mask=seen, position_ids=positions, use_cache=False)
            hidden: Tensor = out.last_hidden_state
            return hidden[:, -length - 1 : -1]
        cache = DynamicCache(config=self.model.config.get_text_config())
        read = self._language(
            inputs_embeds=embeds_PND, attention_mask=batch.mask_PN.long(), position_ids=batch.positions_APN,
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        first_G1D = read.last_hidden_state[:, -1:].repeat_interleave(group, 0)
        cache.batch_repeat_interleave(group)
        out = self._language(
            inputs_embeds=written_GLD[:, :-1], attention_mask=mask[:, :-1],
            position_ids=completion_positions(next_position_G, length - 1), past_key_values=cache, use_cache=True,
        )  # fmt: skip
        return torch.cat([first_G1D, out.last_hidden_state], 1)

    def _seen(self, mask_GN: Tensor) -> Tensor:
        """What each token of whole sequences may look at, bool [G, 1, N, N].

        Padding looks at itself: a row that sees nothing has no softmax, and in half precision its gradient can be NaN.
        Attention that wants the mask of padding alone is given that.
        """
        if self._language.config._attn_implementation != "sdpa":
            return mask_GN.long()
        itself_NN = torch.eye(mask_GN.shape[1], dtype=torch.bool, device=mask_GN.device)
        before_NN = torch.ones_like(itself_NN).tril()
        return ((before_NN & mask_GN[:, None]) | itself_NN)[:, None]

    @property
    def _language(self) -> Any:
        return self.model.model.language_model

    def freeze_vision(self) -> None:
        """Train the language model alone, as the paper's SFT does: the vision tower with its projector stands still."""
        self.model.model.visual.requires_grad_(False)


def _tied(model: Qwen2_5_VLForConditionalGeneration) -> set[str]:
    """Names of weights that are others' too, and are not kept apart."""
    return {"lm_head.weight"} if model.config.get_text_config().tie_word_embeddings else set()


def _expanded(folder: Path) -> Qwen2_5_VLForConditionalGeneration:
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_pretrained(folder))
    missing, unknown = model.load_state_dict(eight_bits.read(folder / eight_bits.FILE), strict=False)
    if wrong := (set(missing) - _tied(model)) | set(unknown):
        raise OSError(f"{folder / eight_bits.FILE}: weights that don't fit config.json: {', '.join(sorted(wrong)[:3])}")
    model.tie_weights()
    return model.eval()


def _token_log_probs(head: nn.Module, hidden_GLD: Tensor, tokens_GL: Tensor, temperature: float) -> Tensor:
    logits_GLV = head(hidden_GLD).float() / temperature
    return -F.cross_entropy(logits_GLV.flatten(0, 1), tokens_GL.flatten(), reduction="none").view_as(tokens_GL)


def _token_entropy(head: nn.Module, hidden_GLD: Tensor, tokens_GL: Tensor, temperature: float) -> Tensor:
    log_p_GLV = F.log_softmax(head(hidden_GLD).float() / temperature, -1)
    return -(log_p_GLV.exp() * log_p_GLV).sum(-1)
