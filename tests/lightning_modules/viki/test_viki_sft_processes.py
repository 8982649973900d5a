"""Validation in two processes (gloo): each evaluates all records, and counts none twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.datamodules.viki.module import VikiTrajectoryDataModule
from fulgurite.datamodules.viki.records import write_records
from fulgurite.lightning_modules.viki.scoring import Score
from fulgurite.lightning_modules.viki.sft import VikiSFTModule

pytestmark = pytest.mark.slow


class Scored(VikiSFTModule):
    """Every third record is right; the tables are noted by process."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def validation_step(self, batch, batch_idx):
        records = zip(batch["number"], batch["record"], strict=True)
        self._scores |= {n: Score(r.level, r.family, 1.0, float(n % 3 == 0)) for n, r in records}

    def on_validation_epoch_end(self):
        super().on_validation_epoch_end()
        told = self._tables[0]["rows"]
        (Path(self.folder) / f"{self.trainer.world_size}-{self.global_rank}.json").write_text(json.dumps(told))


def test_two_processes_tell_what_one_tells(tmp_path):
    for level, counts in ((1, {"train": 4, "val": 6}), (2, {"train": 1, "val": 1})):
        for split, count in counts.items():
            records = [draw_record(level, split, k, seed=0) for k in range(count)]
            write_records(tmp_path / f"l{level}" / f"{split}.parquet", records)
    found = {}
    for devices in (1, 2):
        data = VikiTrajectoryDataModule([str(tmp_path / f"l{level}") for level in (1, 2)], batch_size=2, blind=True)
        trainer = Trainer(
            accelerator="cpu", devices=devices, strategy="ddp_spawn" if devices == 2 else "auto", logger=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        (found[devices],) = trainer.validate(Scored(str(tmp_path)), data, verbose=False)
    assert found[1] == {
        "val/accuracy_l1": pytest.approx(1 / 3), "val/format_l1": 1.0, "val/accuracy_l2": 1.0, "val/format_l2": 1.0
    }  # fmt: skip
    assert found[2] == pytest.approx(found[1])
    tables = [json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")]
    assert tables[0] == tables[1] == tables[2]
    assert sum(row[2] for row in tables[0]) == 7, "seven records, which both processes had"
