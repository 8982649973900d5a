"""Batches of pages with what a perfect reader would carry to them, for training the chunker (arXiv 2506.16035).

Axis legend: B batch, N item, S state token, F number, C text channel, H pixels down, W pixels across.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...registry import DATAMODULES, UserError
from ..draws import DrawLoader, whole
from ..files import atomic_write
from ..sources.cache import cache_dir
from .context import ChunkContext
from .labels import IGNORED
from .layout.features import related_features
from .layout.items import Item
from .layout.state import corrupted, state_features, state_texts
from .layout.text_states import TextStates
from .synthetic import LabelledDocument, label_documents, load_document
from .typeset.wording import LANGUAGES

VAL_SEED = 1_000_000  # seeds from here on are held out
MAX_ITEMS = 400  # of one batch; what follows is cut off
BATCH_PAGES = (1, 2, 4)
STATE_ROWS = (3, 1, 1, 1)  # of the state's tokens: headings, last chunks, table, procedure


@DATAMODULES.register("chunking")
class PdfBatchDataModule(LightningDataModule):
    """Typesets documents from seeds, and draws batches of one, two or four of their pages.

    To a batch belongs the carried state of the truth before its first page; it is sometimes dropped, and sometimes
    has parts of another's, so that the model does not lean on it blindly. Validation goes through documents of other
    seeds, styles and (in part) of a language that training never saw, in batches of one and of four pages.

    Args:
        num_documents: to train on, seeds 0, 1, …
        num_val_documents: to validate on.
        languages: of the documents to train on, dealt out in turn.
        val_languages: of the others.
        folder: where typeset documents are kept; None takes the cache.
        batch_size: batches of pages a step.
        num_batches: steps an epoch.
        dropped: share of batches whose state is dropped.
        corrupted: share of batches whose state is another's in parts.
        num_workers: processes that typeset.
        seed: seed of the draws.
    """

    def __init__(
        self,
        num_documents: int = 240,
        num_val_documents: int = 40,
        languages: list[str] = ["en", "de", "fr"],  # noqa: B006 (read only; a tuple would not come from YAML)
        val_languages: list[str] = ["es", "en", "de", "fr"],  # noqa: B006
        folder: str | None = None,
        batch_size: int = 8,
        num_batches: int = 600,
        dropped: float = 0.12,
        corrupted: float = 0.12,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= num_documents <= VAL_SEED:
            raise UserError(f"data.num_documents: from 1 to {VAL_SEED}, not {num_documents}")
        if wrong := sorted({*languages, *val_languages} - {*LANGUAGES}):
            raise UserError(f"no lexicon for the language '{wrong[0]}'\nthere are: {', '.join(LANGUAGES)}")
        self.save_hyperparameters()
        self.train: list[EncodedDocument] = []
        self.val: list[EncodedDocument] = []

    def setup(self, stage: str) -> None:
        """Typeset what is missing, and encode its texts."""
        if self.val:
            return
        p = self.hparams
        folder = Path(p["folder"]) if p["folder"] else cache_dir() / "chunking"
        seeds = range(VAL_SEED, VAL_SEED + p["num_val_documents"])
        val = label_documents(seeds, p["val_languages"], folder, p["num_workers"])
        train = label_documents(range(p["num_documents"]), p["languages"], folder, p["num_workers"])
        encoder = TextStates()
        self.val = [EncodedDocument.of(file, encoder) for file in val]
        self.train = [EncodedDocument.of(file, encoder) for file in train]

    @property
    def num_unmatched(self) -> tuple[int, int]:
        """Items to train on without a label, and all of them."""
        documents = [d.document for d in self.train]
        return sum(d.num_unmatched for d in documents), sum(len(d.pages) for d in documents)

    def train_dataloader(self) -> DrawLoader:
        """Batches of `collate`."""
        p = self.hparams
        draws = _Draws(self.train, p["dropped"], p["corrupted"], p["seed"])
        return DrawLoader(draws, p["batch_size"], p["num_batches"], collate)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Held-out documents in batches of one page, and again in batches of four."""
        size, kinds = self.hparams["batch_size"], [_InOrder(self.val, pages) for pages in (1, 4)]
        return [DataLoader(items, size, sampler=whole(items), collate_fn=collate) for items in kinds]


class EncodedDocument:
    """A labelled document with its texts' embeddings.

    Args:
        document: the items and labels.
        text_NC: of the items.
        state_PSC: of the state's tokens before each page P.
    """

    def __init__(self, document: LabelledDocument, text_NC: np.ndarray, state_PSC: np.ndarray) -> None:
        self.document, self.text_NC, self.state_PSC = document, text_NC, state_PSC

    @classmethod
    def of(cls, file: Path, encoder: TextStates) -> EncodedDocument:
        """Read a document; embeddings are kept in a file beside it."""
        document = load_document(file)
        kept = file.with_suffix(".text.npz")
        if not kept.is_file():
            items = encoder.embed([_item(i).encoded_text for i in document.items])
            states = [encoder.embed(state_texts(c)) for c in document.contexts]
            with atomic_write(kept) as temporary, open(temporary, "wb") as out:
                np.savez(out, items=items.astype(np.float16), states=np.stack(states).astype(np.float16))
        with np.load(kept, allow_pickle=False) as held:
            return cls(document, held["items"], held["states"])

    def batch(
        self, first: int, pages: int, context: ChunkContext, state_SC: np.ndarray
    ) -> dict[str, np.ndarray] | None:
        """Items of the pages `first`, … with a context; None where there is no item."""
        d = self.document
        at = np.flatnonzero((d.pages >= first) & (d.pages < first + pages))[:MAX_ITEMS]
        if not len(at):
            return None
        items = [_item(d.items[k]) for k in at]
        return {
            "own": d.own_NF[at],
            "related": related_features(items, d.own_NF[at], context),
            "crops": d.crops_NHW[at],
            "text": self.text_NC[at].astype(np.float32),
            "page": d.pages[at] - first,
            "state": state_features(context),
            "state_text": state_SC.astype(np.float32),
            "role": d.role[at],
            "begins": d.begins[at],
            "flag": d.flag[at],
        }

    def true_batch(self, first: int, pages: int) -> dict[str, np.ndarray] | None:
        """Items of the pages `first`, … with the true context."""
        return self.batch(first, pages, self.document.contexts[first - 1], self.state_PSC[first - 1])


def _item(told: dict[str, Any]) -> Item:
    from .layout.text_lines import Region

    nowhere = Region(0.0, 0.0, 0.0, 0.0)  # places went into the numbers already
    cells = tuple(told["cells"])
    return Item(0, told["part"], told["kind"], told["page"], nowhere, nowhere, told["text"], cells)


class _Draws(Dataset[dict[str, np.ndarray]]):
    """Draw -> batch of pages, a function of (seed, draw) alone."""

    def __init__(self, documents: list[EncodedDocument], dropped: float, corrupted: float, seed: int) -> None:
        self._documents, self._dropped, self._corrupted, self._seed = documents, dropped, corrupted, seed

    def __getitem__(self, draw: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self._seed, draw))
        while True:
            held = self._any(rng)
            pages = int(rng.choice(BATCH_PAGES))
            first = int(rng.integers(1, held.document.num_pages + 1))
            context, state_SC = held.document.contexts[first - 1], held.state_PSC[first - 1]
            fate = rng.random()
            if fate < self._dropped:
                context, state_SC = ChunkContext(), np.zeros_like(state_SC)
            elif fate < self._dropped + self._corrupted:
                other = self._any(rng)
                page = int(rng.integers(other.document.num_pages))
                kept = rng.random(len(STATE_ROWS)) < 0.5
                context = corrupted(context, other.document.contexts[page], [bool(k) for k in kept])
                state_SC = np.where(np.repeat(kept, STATE_ROWS)[:, None], state_SC, other.state_PSC[page])
            found = held.batch(first, pages, context, state_SC)
            if found is not None:
                return found

    def _any(self, rng: np.random.Generator) -> EncodedDocument:
        return self._documents[int(rng.integers(len(self._documents)))]


class _InOrder(Dataset[dict[str, np.ndarray]]):
    """All batches of `pages` pages of the documents, with their true contexts."""

    def __init__(self, documents: list[EncodedDocument], pages: int) -> None:
        firsts = ((d, first) for d in documents for first in range(1, d.document.num_pages + 1, pages))
        found = (d.true_batch(first, pages) for d, first in firsts)
        self._batches = [batch for batch in found if batch is not None]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return self._batches[index]


def collate(batches: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Batches padded to the longest: [B, N, …] each, `is_item` [B, N] bool, labels `IGNORED` where there is no item."""
    longest = max(len(b["own"]) for b in batches)
    found: dict[str, Tensor] = {}
    for name in batches[0]:
        parts = []
        for b in batches:
            value = torch.from_numpy(np.ascontiguousarray(b[name]))
            if name not in ("state", "state_text"):
                fill = IGNORED if name in ("role", "begins", "flag") else 0
                pad = value.new_full((longest - len(value), *value.shape[1:]), fill)
                value = torch.cat([value, pad])
            parts.append(value)
        found[name] = torch.stack(parts)
    lengths_B = torch.tensor([len(b["own"]) for b in batches])
    found["is_item"] = torch.arange(longest)[None] < lengths_B[:, None]
    return found
