"""The DataModule of VIKI-R: records of any level for supervised finetuning, reinforcement learning and testing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ...registry import DATAMODULES, UserError
from ..draws import DrawLoader, Shuffled, whole
from .encoding import opened, picture_size
from .lengths import AlikeInLength
from .plans import one_at_a_time
from .prompts import short_prompt
from .records import Record, RecordError, read_records
from .scene_description import GLOBAL_VIEW
from .thoughts import thoughts

Batch = dict[str, list[Any]]


@DATAMODULES.register("viki", paper="2506.09049")
class VikiTrajectoryDataModule(LightningDataModule):
    """Records of one level or of several, ours or the released ones, as texts and pictures; a policy makes the tokens.

    A batch is a dict of lists, an entry a record: `system`, `instruction`, `images` (a list of uint8 [H, W, 3], empty
    where records are symbolic or the run is blind), `response` (the text that is to be learned; empty in the stage
    `rl`), `ground_truth`, `record` and `number` (its place in the split). Training batches are a function of (seed,
    batch number) alone, each record comes once a pass, and a run that resumes goes on where it was.

    Args:
        data: folder that `fulgurite viki generate` wrote, or one with train, val and test parquet of the released
            benchmark (`train.parquet` or a folder `train`); a list of such folders, for several levels at once.
        batch_size: records a batch.
        num_batches: batches an epoch, of each process.
        stage: `sft` gives responses to learn, `rl` only what rewards need.
        with_thoughts: responses think before they answer (generated records only); else they are answers alone.
        serial: plans to learn have one robot act at a time, for a look at whether cooperation comes by itself.
        blind: leave the pictures out, for the control that every result needs beside it.
        views: `all` pictures of a record, or its `global` one alone; unless given, as the policy was asked in earlier
            training, all for a new one.
        prompts: `full` system prompts, or `short` ones, which name the task and the team only: a policy that is
            trained from nothing learns the rest, and reads a tenth of the words. Unless given, as the policy was asked
            in earlier training, full for a new one.
        alike: training batches are made of records of like length, found among those of so many batches.
        limit: so many training records at most.
        test_split: split that is tested.
        val_batches: batches of validation, and of test; all unless given. Taken evenly from the whole split.
        num_workers: processes that read pictures.
        seed: seed of the order.
    """

    def __init__(
        self,
        data: str | list[str],
        batch_size: int = 16,
        num_batches: int = 100,
        stage: Literal["sft", "rl"] = "sft",
        with_thoughts: bool = True,
        serial: bool = False,
        blind: bool = False,
        views: Literal["all", "global"] | None = None,
        prompts: Literal["full", "short"] | None = None,
        alike: int = 1,
        limit: int | None = None,
        test_split: str = "test",
        val_batches: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if min(batch_size, num_batches, alike, 1 if limit is None else limit) < 1:
            raise UserError("data.batch_size, data.num_batches, data.alike and data.limit must be positive")
        self._splits: dict[str, list[Record]] = {}
        self.views: str = views or "all"
        self.prompts: str = prompts or "full"
        """How records are asked; a model whose policy was asked in another way before sets them in its setup."""
        self.prepare: Callable[[Batch], Any] | None = None
        """Makes a training batch's entry `prepared`, in the process that loads it: a policy's encoding."""

    def records(self, split: str) -> list[Record]:
        """The records of a split, read once; of several folders, those that have it, one after the other.

        Raises:
            UserError: if no folder has such a split, or one holds no record.
        """
        if split not in self._splits:
            data, limit = self.hparams["data"], self.hparams["limit"] if split == "train" else None
            paths = [split_path(Path(folder), split) for folder in ([data] if isinstance(data, str) else data)]
            held = [path for path in paths if path.exists()] or paths[:1]
            found: list[Record] = []
            for path in held:
                records = read_records(path, limit)
                if not records:
                    raise UserError(f"{path}: holds no record")
                found += records
            self._splits[split] = found
        return self._splits[split]

    def texts(self, limit: int = 2000) -> list[str]:
        """What a policy reads and writes in training, for a vocabulary: up to `limit` records, evenly from all."""
        found = []
        for record in spread(self.records("train"), limit):
            found += [self._system(record), record.instruction, self._response(record)]
        return found

    def picture_sizes(self, limit: int = 500) -> dict[str, tuple[int, int]]:
        """Width and height of the training records' global views, pixels, by level; none where a level's differ.

        Args:
            limit: looks at so many records, evenly from all.
        """
        found: dict[str, set[tuple[int, int]]] = {}
        for record in spread(self.records("train"), limit):
            for image in chosen_images(record, "global")[:1]:
                found.setdefault(str(record.level), set()).add(picture_size(image))
        return {level: next(iter(sizes)) for level, sizes in sorted(found.items()) if len(sizes) == 1}

    def setup(self, stage: str) -> None:
        """Read what the stage needs.

        Raises:
            UserError: if a split is missing, or asked-for thoughts can't be had.
        """
        if stage == "fit":
            self._example(self.records("train")[0])  # refuses at once what can't be made
        for split in {"fit": ["val"], "validate": ["val"], "test": [self.hparams["test_split"]]}.get(stage, []):
            self.records(split)

    def train_dataloader(self) -> DrawLoader:
        """Endless batches, `num_batches` an epoch."""
        p = self.hparams
        records = self.records("train")
        examples: Dataset[Any] = Shuffled(_Examples(self, records), p["seed"])
        if p["alike"] > 1:
            lengths = [len(self._system(r)) + len(r.instruction) + len(self._response(r)) for r in records]
            examples = AlikeInLength(examples, Shuffled(lengths, p["seed"]), p["batch_size"], p["alike"])
        return DrawLoader(examples, p["batch_size"], p["num_batches"], self._training_batch, p["num_workers"])

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation records in their order."""
        return self._fixed("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """The records of the tested split in their order."""
        return self._fixed(self.hparams["test_split"])

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave records and pictures where they are; a policy moves what it makes of them."""
        return batch

    def _training_batch(self, examples: list[dict[str, Any]]) -> Batch:
        batch = _collate(examples)
        if self.prepare is None:
            return batch
        # what was prepared stands for the rest, which would be much to send from one process to another
        return {"prepared": [self.prepare(batch)], "response": batch["response"]}

    def _fixed(self, split: str) -> DataLoader[Any]:
        p = self.hparams
        records = self.records(split)
        if p["val_batches"] is not None:
            records = spread(records, p["val_batches"] * p["batch_size"])
        examples = _Examples(self, records)
        return DataLoader(
            examples, p["batch_size"], sampler=whole(examples), collate_fn=_collate, num_workers=p["num_workers"]
        )

    def _example(self, record: Record) -> dict[str, Any]:
        p = self.hparams
        return {
            "system": self._system(record),
            "instruction": record.instruction,
            "images": [] if p["blind"] else [decode(image) for image in chosen_images(record, self.views)],
            "response": self._response(record) if p["stage"] == "sft" else "",
            "ground_truth": record.ground_truth,
            "record": record,
        }

    def _system(self, record: Record) -> str:
        return short_prompt(record) if self.prompts == "short" else record.system

    def _response(self, record: Record) -> str:
        if self.hparams["serial"] and isinstance(record.ground_truth, Mapping):
            plan = one_at_a_time(record.ground_truth["time_steps"])
            record = replace(record, ground_truth={**record.ground_truth, "time_steps": plan})
        if not self.hparams["with_thoughts"]:
            return f"<answer>{record.answer()}</answer>"
        try:
            return f"<think>\n{thoughts(record)}\n</think>\n\n<answer>{record.answer()}</answer>"
        except RecordError as error:
            raise UserError(
                f"data.with_thoughts: {record.key} has {error}\nTurn it off, or generate records."
            ) from None


class _Examples(Dataset[dict[str, Any]]):
    def __init__(self, module: VikiTrajectoryDataModule, records: list[Record]) -> None:
        self._module, self._records = module, records

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {**self._module._example(self._records[number]), "number": number}

    def __len__(self) -> int:
        return len(self._records)


def _collate(examples: list[dict[str, Any]]) -> Batch:
    return {name: [example[name] for example in examples] for name in examples[0]}


def split_path(folder: Path, split: str) -> Path:
    """Where a split lies in a folder of records: a parquet file, or a folder of them."""
    file = folder / f"{split}.parquet"
    return file if file.exists() else folder / split


def spread(records: list[Record], count: int) -> list[Record]:
    """At most `count` records, at even distances."""
    if count >= len(records):
        return records
    return [records[k * len(records) // count] for k in range(count)]


def chosen_images(record: Record, views: str) -> tuple[bytes, ...]:
    """A record's pictures, encoded: all, or the global one alone (the first, where views have no names)."""
    if views == "all" or len(record.images) < 2:
        return record.images
    first = record.views.index(GLOBAL_VIEW) if GLOBAL_VIEW in record.views else 0
    return record.images[first : first + 1]


def decode(image: bytes) -> numpy.ndarray:
    """A picture's bytes as uint8 [H, W, 3].

    Raises:
        UserError: if they are no picture.
    """
    return numpy.asarray(opened(image, lambda picture: picture.convert("RGB")))
