"""`fulgurite doctor`, and the sentence for a package that is missing."""

from __future__ import annotations

import importlib.metadata

import pytest
from packaging.requirements import Requirement

from fulgurite.cli import main
from fulgurite.launch import doctor
from fulgurite.registry import PLUGIN_GROUP

RELEASED = doctor.requirements
NEEDS = {
    "": ("torch>=2.6", "scikit-learn>=1.5"),
    "viki": ("mujoco>=3.3,<3.11", "gymnasium>=1.2"),
    "gamecraft": ("gymnasium>=1.2", "no-such-package-xyz>=2"),
}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The requirements of a small made-up release."""
    needs = {extra: tuple(Requirement(line) for line in lines) for extra, lines in NEEDS.items()}
    monkeypatch.setattr(doctor, "requirements", lambda: needs)
    monkeypatch.setattr("fulgurite.registry.IN_CLONE", False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("mujoco.viewer", "pip install 'fulgurite[viki]'"),
        ("gymnasium", "pip install 'fulgurite[viki]'"),
        ("no_such_package_xyz", "pip install 'fulgurite[gamecraft]'"),
        ("sklearn.datasets", "pip install 'scikit-learn'"),
        ("cv2", "pip install opencv-python-headless"),
        ("some_other", "pip install some-other"),
    ],
)
def test_a_missing_module_is_told_with_the_pip_command_that_brings_it(module, command):
    assert command in doctor.missing_package(module)


def test_of_several_extras_that_of_the_command_s_paper_is_told():
    assert "[viki]" in doctor.missing_package("gymnasium")
    for asked in (["gamecraft", "play"], ["run", "gamecraft/tiny"], ["fit", "-c", "gamecraft/teacher"]):
        assert "[gamecraft]" in doctor.missing_package("gymnasium", asked)
    assert "[viki]" in doctor.missing_package("mujoco", ["gamecraft", "play"])


def test_the_cli_shows_that_sentence_instead_of_a_traceback(monkeypatch, capsys):
    def fail(options: object) -> None:
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")

    monkeypatch.setattr("fulgurite.launch.verbs.list_names", fail)
    assert main(["list"]) == 2
    assert "pip install 'fulgurite[viki]'" in capsys.readouterr().err


def test_the_report_covers_machine_versions_each_paper_and_the_cache(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    titles = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert titles[:4] == ["machine", "versions", "GPU", "hello"]
    assert {"chunking", "dnd", "gamecraft", "paro", "viki"} <= {*titles[4:9]} and titles[-1] == "sources in the cache"
    assert "GB of memory" in text and "GB free" in text
    assert "  fulgurite run hello: runs here" in text
    gamecraft = text[text.index("\ngamecraft") : text.index("\nsweep")]
    assert "no-such-package-xyz (missing)" in gamecraft and "pip install 'fulgurite[gamecraft]'" in gamecraft


def test_a_broken_base_install_is_told_and_is_the_exit_status(monkeypatch, capsys):
    base = (Requirement("torch<1"), Requirement("no-such-package-xyz"))
    monkeypatch.setattr(doctor, "requirements", lambda: {"": base})
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "The base install is broken" in text and "no-such-package-xyz missing" in text and "wanted <1" in text


def test_an_experiment_too_large_for_this_machine_is_said_not_to_run_here(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "memory_gb", lambda: 0.5)
    assert doctor._verdict("hello", gpus=0) == "[yellow]not here: needs 0.7 GB of memory[/yellow]"
    file = tmp_path / "gpu.yaml"
    file.write_text("model: {class_path: hello}\ndata: {class_path: digits}\ntrainer: {accelerator: cuda}\n")
    assert "needs a GPU" in doctor._verdict(str(file), gpus=0)
    assert "runs here" in doctor._verdict(str(file), gpus=1)


def test_requirements_of_every_extra_are_read_from_the_release_itself():
    found = {extra: [r.name for r in wanted] for extra, wanted in RELEASED().items()}
    assert "torch" in found[""] and "jsonargparse" in found[""]
    assert {"dnd", "chunking", "paro", "viki", "gamecraft"} <= set(found)
    assert next(iter(found)) == ""


def test_a_clone_is_told_the_command_of_its_own_environment(monkeypatch):
    monkeypatch.setattr("fulgurite.registry.IN_CLONE", True)
    assert ".venv/bin/pip install -c constraints.txt -e '.[viki]'" in doctor.missing_package("mujoco")


def test_a_plugin_that_fails_at_import_is_reported(tmp_path, monkeypatch, capsys):
    (tmp_path / "some_plugin.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    point = importlib.metadata.EntryPoint("some", "some_plugin", PLUGIN_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: (point,))
    assert main(["doctor"]) == 0
    assert "plug-in some is broken: some_plugin: RuntimeError: not today" in capsys.readouterr().out
