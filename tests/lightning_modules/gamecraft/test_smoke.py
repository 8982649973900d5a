"""gamecraft/smoke as a whole, on real gameplay: every stage leaves what the next one and the report need."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fulgurite.cli import main
from fulgurite.datamodules.sources.cache import source_folder
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline

pytest.importorskip("vizdoom")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def smoke_run(finished_run: Callable[[str], Any]) -> Path:
    """Run folder of `fulgurite run gamecraft/smoke`."""
    if not source_folder("minilm-l6").is_dir():
        pytest.skip("the source 'minilm-l6' is not cached: fulgurite fetch minilm-l6")
    path: Path = finished_run("gamecraft/smoke").path
    return path


def test_every_stage_ends_well_and_the_report_has_its_controls(smoke_run: Path) -> None:
    stages = json.loads((smoke_run / "run.json").read_text())["stages"]
    assert {name: stage["state"] for name, stage in stages.items()} == dict.fromkeys(
        ("record", "vae", "encode", "idm", "teacher", "student", "test"), "done"
    )
    metrics = json.loads((smoke_run / "test" / "results.json").read_text())["metrics"]
    for control in ("ceiling", "copy_history", "copy_previous", "mean_image"):
        assert f"test/{control}/psnr_1_33" in metrics
    report = (smoke_run / "report.md").read_text()
    assert "chance" in report and "confusion.png" in report


def test_what_was_trained_is_exported_and_plays(smoke_run: Path, tmp_path: Path) -> None:
    """The export opens as a diffusers pipeline, and a film is made from keys and one of the recorded starts."""
    weights, film = tmp_path / "weights", tmp_path / "film.mp4"
    vae, transformer = (smoke_run / stage for stage in ("vae/vae", "student/transformer"))
    export = ["--height", "32", "--width", "48", "--results", f"[{smoke_run / 'test' / 'results.json'}]"]
    for command in (
        ["gamecraft", "export", "--vae", str(vae), "--transformer", str(transformer), "--out", str(weights), *export],
        ["gamecraft", "starts", "--data", str(smoke_run / "record" / "test"), "--weights", str(weights)],
        ["gamecraft", "play", "--weights", str(weights), "--actions", "w@0.8:33 a@0.3+left@0.5:9", "--out", str(film)],
    ):
        assert main(command) == 0
    assert max(f.stat().st_size for f in weights.rglob("*") if f.is_file()) < 16e6
    import av

    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 1 + 42  # the start picture first
    assert GameCraftPipeline.from_pretrained(weights).vae.config.latents_mean is not None
