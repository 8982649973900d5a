"""The DataModule of VIKI-R: records of any level for supervised finetuning, reinforcement learning and testing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal

import numpy
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from ...registry import DATAMODULES, UserError
from ..draws import DrawLoader, Shuffled
from .records import Record, RecordError, read_records
from .thoughts import thoughts

Batch = dict[str, list[Any]]


@DATAMODULES.register("viki", paper="2506.09049")
class VikiTrajectoryDataModule(LightningDataModule):
    """Records of one level, ours or the released ones, as texts and pictures; a policy turns them into tokens itself.

    A batch is a dict of lists, an entry a record: `system`, `instruction`, `images` (a list of uint8 [H, W, 3], empty
    where records are symbolic or the run is blind), `response` (the text that is to be learned; empty in the stage
    `rl`), `ground_truth` and `record`. Training batches are a function of (seed, batch number) alone, each record comes
    once a pass, and a run that resumes goes on where it was.

    Args:
        data: folder that `fulgurite viki generate` wrote, or one with train, val and test parquet of the released
            benchmark (`train.parquet` or a folder `train`).
        batch_size: records a batch.
        num_batches: batches an epoch, of each process.
        stage: `sft` gives responses to learn, `rl` only what rewards need.
        with_thoughts: responses think before they answer (generated records only); else they are answers alone.
        blind: leave the pictures out, for the control that every result needs beside it.
        limit: so many training records at most.
        test_split: split that is tested.
        val_batches: batches of validation, and of test; all unless given.
        seed: seed of the order.
    """

    def __init__(
        self,
        data: str,
        batch_size: int = 16,
        num_batches: int = 100,
        stage: Literal["sft", "rl"] = "sft",
        with_thoughts: bool = True,
        blind: bool = False,
        limit: int | None = None,
        test_split: str = "test",
        val_batches: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if batch_size < 1 or num_batches < 1 or (limit is not None and limit < 1):
            raise UserError("data.batch_size, data.num_batches and data.limit must be positive")
        self._splits: dict[str, list[Record]] = {}

    def records(self, split: str) -> list[Record]:
        """The records of a split, read once.

        Raises:
            UserError: if the folder has no such split, or the split holds no record.
        """
        if split not in self._splits:
            folder = Path(self.hparams["data"])
            path = folder / f"{split}.parquet" if (folder / f"{split}.parquet").exists() else folder / split
            found = read_records(path, self.hparams["limit"] if split == "train" else None)
            if not found:
                raise UserError(f"{path}: holds no record")
            self._splits[split] = found
        return self._splits[split]

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
        examples = Shuffled(_Examples(self, self.records("train")), p["seed"])
        return DrawLoader(examples, p["batch_size"], p["num_batches"], _collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation records in their order."""
        return self._fixed("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """The records of the tested split in their order."""
        return self._fixed(self.hparams["test_split"])

    def _fixed(self, split: str) -> DataLoader[Any]:
        p = self.hparams
        most = None if p["val_batches"] is None else p["val_batches"] * p["batch_size"]
        return DataLoader(_Examples(self, self.records(split)[:most]), p["batch_size"], collate_fn=_collate)

    def _example(self, record: Record) -> dict[str, Any]:
        p = self.hparams
        return {
            "system": record.system,
            "instruction": record.instruction,
            "images": [] if p["blind"] else [_decode(image) for image in record.images],
            "response": self._response(record) if p["stage"] == "sft" else "",
            "ground_truth": record.ground_truth,
            "record": record,
        }

    def _response(self, record: Record) -> str:
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
        return self._module._example(self._records[number])

    def __len__(self) -> int:
        return len(self._records)


def _collate(examples: list[dict[str, Any]]) -> Batch:
    return {name: [example[name] for example in examples] for name in examples[0]}


def _decode(image: bytes) -> numpy.ndarray:
    """A picture's bytes as uint8 [H, W, 3].

    Raises:
        UserError: if they are no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return numpy.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"a record's picture can't be read: {error}\nGenerate or copy that file again.") from None
