"""A released folder: small files, a card whose numbers are the results', and a pipeline that plays from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fulgurite.lightning_modules.eight_bits import FILE, save_eight_bits
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
    found = {"schema_version": 1, "metrics": {"psnr": 27.1234}, "statements": ["It walks."]}
    (tmp_path / "results.json").write_text(json.dumps(found))
    (tmp_path / "control.json").write_text(json.dumps({"schema_version": 1, "metrics": {"w": 0.6}, "tables": [table]}))
    return tmp_path


def test_the_folder_plays_and_its_card_tells_what_the_results_say(trained: Path) -> None:
    out, both = trained / "weights", [trained / "results.json", trained / "control.json"]
    export(trained / "vae", trained / "fit" / "transformer", out, both, height=32, width=32)
    assert all(p.stat().st_size <= LARGEST_BYTES for p in out.rglob("*") if p.is_file())
    card = (out / "README.md").read_text()
    for said in (
        "It walks.",
        "| psnr | 27.12 |",
        "| w | 0.625 |",
        "of 12",
        "| num_inference_steps | 2 |",
    ):
        assert said in card
    assert "| w | 0.6 |" not in card, "a metric beside the table that holds it"
    for part in ("vae", "transformer"):
        assert not json.loads((out / part / "config.json").read_text())["_name_or_path"], "a folder of this machine"
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


def test_eight_bits_are_half_the_bytes_and_play_alike(trained: Path) -> None:
    folders = trained / "bfloat16", trained / "int8"
    for folder, eight in zip(folders, (False, True), strict=True):
        export(trained / "vae", trained / "fit" / "transformer", folder, height=32, width=32, eight_bits=eight)
    sizes = [sum(p.stat().st_size for p in (f / "transformer").glob("*.safetensors")) for f in folders]
    assert sizes[1] < 0.65 * sizes[0]
    given = GameCraftTransformer.from_pretrained(trained / "fit" / "transformer")
    opened = GameCraftTransformer.from_pretrained(folders[1], subfolder="transformer")
    for (name, a), b in zip(given.state_dict().items(), opened.state_dict().values(), strict=True):
        assert b.dtype == torch.float32
        noise = (a - b).square().mean() / a.square().mean().clamp_min(1e-12)
        assert noise < 1e-4, name
    pipes = [GameCraftPipeline.from_pretrained(f) for f in folders]
    assert pipes[0].transformer.dtype == pipes[1].transformer.dtype and not pipes[1].transformer.training
    start, films = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8), []
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        films.append(pipe(start, "w:33", generator=torch.Generator().manual_seed(0)).float())
    assert (films[0] - films[1]).abs().mean() < 2.0  # of 255
    again = GameCraftPipeline.from_pretrained(folders[1])
    again.set_progress_bar_config(disable=True)
    assert torch.equal(again(start, "w:33", generator=torch.Generator().manual_seed(0)).float(), films[1])


def test_a_damaged_eight_bit_file_is_told(trained: Path) -> None:
    save_eight_bits(GameCraftTransformer.of_size("tiny"), trained / "eight")
    (trained / "eight" / FILE).write_bytes(b"no weights")
    with pytest.raises(OSError, match="can't be read"):
        GameCraftTransformer.from_pretrained(trained / "eight")
