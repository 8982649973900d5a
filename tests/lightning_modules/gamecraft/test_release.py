"""A released folder: small files, a card whose numbers are the results', and a pipeline that plays from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.pipeline import BANK, GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.release import LARGEST_BYTES, SAMPLING, export
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    widths = {"block_out_channels": (4, 4, 4, 4), "decoder_block_out_channels": (4, 4, 4, 4)}
    GameplayVAE(**widths, norm_num_groups=2).save_pretrained(tmp_path / "vae")
    GameCraftTransformer.of_size("tiny").save_pretrained(tmp_path / "fit" / "transformer")
    bank = CaptionEncoder()
    bank._states_PLC, bank._mask_PL = torch.randn(1, 16, 384).half(), torch.ones(1, 16, dtype=torch.bool)
    bank._rows = {"": 0}
    bank.save(tmp_path / "fit" / BANK)
    sampling = {"num_inference_steps": 2, "guidance_scale": 1.0, "guidance_w": 1.0, "shift": 3.0}
    (tmp_path / "fit" / SAMPLING).write_text(json.dumps({"schema_version": 1, **sampling}))
    table = {"title": "Accuracy", "columns": ["action", "share"], "rows": [["w", 0.625]], "note": "of 12"}
    found = {"schema_version": 1, "metrics": {"psnr": 27.1234}, "statements": ["It walks."], "tables": [table]}
    (tmp_path / "results.json").write_text(json.dumps(found))
    return tmp_path


def test_the_folder_plays_and_its_card_tells_what_the_results_say(trained: Path) -> None:
    out = trained / "weights"
    export(trained / "vae", trained / "fit" / "transformer", out, [trained / "results.json"], height=32, width=32)
    assert all(p.stat().st_size <= LARGEST_BYTES for p in out.rglob("*") if p.is_file())
    card = (out / "README.md").read_text()
    for said in ("It walks.", "| psnr | 27.12 |", "| w | 0.625 |", "of 12", "| num_inference_steps | 2 |"):
        assert said in card
    pipe = GameCraftPipeline.from_pretrained(out)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.config.guidance_w == 1.0 and pipe.config.height == 32
    start = torch.zeros(32, 32, 3, dtype=torch.uint8)
    frames = pipe(start, "w:33", generator=torch.Generator().manual_seed(0))
    assert frames.shape == (1, 33, 32, 32, 3)
    export(trained / "vae", trained / "fit" / "transformer", out, height=32, width=32, num_inference_steps=4)
    assert GameCraftPipeline.from_pretrained(out).config.num_inference_steps == 4


def test_nothing_foreign_is_replaced_and_missing_parts_are_told(trained: Path) -> None:
    foreign = trained / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        export(trained / "vae", trained / "fit" / "transformer", foreign)
    with pytest.raises(UserError, match="no trained weights"):
        export(trained / "nowhere", trained / "fit" / "transformer", trained / "out")
    (trained / "fit" / SAMPLING).unlink()
    with pytest.raises(UserError, match="can't be read"):
        export(trained / "vae", trained / "fit" / "transformer", trained / "out")
    assert (foreign / "thesis.txt").read_text() == "years of work"
