"""What `fulgurite fetch --for EXPERIMENT` brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.cli import main
from fulgurite.datamodules.sources import download
from fulgurite.launch.config.experiment import resolve
from fulgurite.launch.config.needs import sources_of
from fulgurite.registry import UserError


def test_sources_of_the_stages_experiments_count_unless_they_were_replaced(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("sources: [countries]\nstages: [{name: collect, experiment: dnd/lora}]\n")
    assert sources_of(resolve(str(file))) == ["countries", "smollm2-135m-instruct", "inflections"]
    assert sources_of(resolve("dnd/smoke")) == ["tiny-random-llama", "tiny-random-encoder", "inflections"]


def test_fetch_for_takes_settings_and_files(tmp_path, monkeypatch):
    fetched: list[str] = []
    monkeypatch.setattr(download, "fetch", lambda name: fetched.append(name) or Path(name))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("collect: {data: {base_model: tiny-random-llama}}\n")
    (tmp_path / "mine.yaml").write_text("stages: [{name: collect, experiment: dnd/lora}]\n")
    base = "--collect.model.base_model"
    assert main(["fetch", "--for", "mine.yaml", base, "tiny-random-llama", "-c", "other.yaml"]) == 0
    assert fetched == ["inflections"]


def test_a_model_of_the_hub_is_fetched_by_its_client(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def snapshot_download(identity: str, **options: object) -> str:
        asked.append((identity, options["local_files_only"]))
        return str(tmp_path)

    monkeypatch.delenv("FULGURITE_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert download.fetch("hf:org/some-model") == tmp_path and download.is_cached("hf:org/some-model")
    assert asked == [("org/some-model", False), ("org/some-model", True)]


def test_without_a_network_a_model_of_the_hub_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^hf:org/absent can't be had from the Hugging Face Hub: [^\n]+$"):
        download.fetch("hf:org/absent", offline=True)
    with pytest.raises(UserError, match="is written hf:ORG/NAME"):
        download.fetch("hf:absent")
