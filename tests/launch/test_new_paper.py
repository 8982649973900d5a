"""`fulgurite new paper NAME`: its skeleton runs, is tested and passes the checks as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from fulgurite import cli
from fulgurite.launch import new_paper
from fulgurite.registry import ROOT, UserError

LEFT_OUT = (".git", ".venv", ".typing", "__pycache__", "runs", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of this repository, as `<tmp_path>/above/fulgurite`."""
    return Path(shutil.copytree(ROOT, tmp_path / "above" / "fulgurite", ignore=shutil.ignore_patterns(*LEFT_OUT)))


@pytest.fixture
def call(child_environment: Callable[..., dict[str, str]]) -> Callable[..., str]:
    """Runs `python ARGUMENTS` with a folder's packages first; returns what it printed."""

    def run(*arguments: str, cwd: Path, path: Path) -> str:
        environment = {
            **child_environment(),
            "PYTHONPATH": os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")]),
        }
        done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_in_a_clone_the_skeleton_is_listed_and_passes_its_own_test_and_the_layouts(clone, call):
    call("-m", "fulgurite", "new", "paper", "sixth", cwd=clone, path=clone.parent)
    assert (clone / "lightning_modules" / "sixth" / "README.md").is_file()
    assert "fulgurite run sixth/smoke" in call("-m", "fulgurite", "info", "sixth", cwd=clone, path=clone.parent)
    tests = ["tests/lightning_modules/sixth/test_module.py", "tests/test_layout.py"]
    call("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=clone, path=clone.parent)


@pytest.mark.parametrize("name", ["x", "a_much_longer_name_of_30_chars"])
def test_in_a_clone_the_skeleton_is_clean_whatever_its_names_length(name, clone, call, monkeypatch):
    monkeypatch.setattr(new_paper, "ROOT", clone)
    made = [str(file) for file in new_paper.write_skeleton(name) if file.suffix == ".py"]
    assert len(made) == 5
    call("-m", "ruff", "check", "--no-cache", *made, cwd=clone, path=clone.parent)
    call("-m", "ruff", "format", "--no-cache", "--check", *made, cwd=clone, path=clone.parent)


@pytest.mark.slow
def test_outside_a_clone_it_is_a_plug_in_that_installs_and_runs(tmp_path, monkeypatch, call, capsys):
    monkeypatch.setattr(new_paper, "ROOT", tmp_path / "no-clone")
    monkeypatch.chdir(tmp_path)
    new_paper.write_skeleton("sixth")
    assert "pip install -e ./sixth" in capsys.readouterr().out
    site = tmp_path / "site"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), "./sixth"]
    call(*pip, cwd=tmp_path, path=site)
    path = Path(os.pathsep.join([str(site), *_above(tmp_path)]))
    assert "plug-in sixth" in call("-m", "fulgurite", "list", "models", cwd=tmp_path, path=path)
    printed = call("-m", "fulgurite", "run", "sixth/fulgurite_sixth/smoke.yaml", cwd=tmp_path, path=path)
    assert "test/accuracy" in printed and "report.md" in printed
    assert "1 passed" in call("-m", "pytest", "-q", "-p", "no:cacheprovider", "sixth/tests", cwd=tmp_path, path=path)


def test_only_the_list_of_packages_changes_in_pyproject(clone, monkeypatch):
    monkeypatch.setattr(new_paper, "ROOT", clone)
    before = (clone / "pyproject.toml").read_text(encoding="utf-8")
    new_paper.write_skeleton("sixth")
    after = (clone / "pyproject.toml").read_text(encoding="utf-8")
    added = ["fulgurite.datamodules.sixth", "fulgurite.lightning_modules.sixth"]
    old, new = before.splitlines(), after.splitlines()
    assert [line for line in new if line not in old] == [f'    "{name}",' for name in added]
    assert [line for line in old if line not in new] == []
    packages = tomllib.loads(after)["tool"]["setuptools"]["packages"]
    assert [p for p in packages if p not in added] == tomllib.loads(before)["tool"]["setuptools"]["packages"]


def test_nothing_is_overwritten_and_nothing_is_left_half_written(clone, monkeypatch):
    monkeypatch.setattr(new_paper, "ROOT", clone)
    own = clone / "tests" / "lightning_modules" / "sixth" / "test_module.py"
    own.parent.mkdir(parents=True)
    own.write_text("mine\n")
    before = (clone / "pyproject.toml").read_bytes()
    with pytest.raises(UserError, match="already there"):
        new_paper.write_skeleton("sixth")
    assert own.read_text() == "mine\n" and not (clone / "lightning_modules" / "sixth").exists()
    assert (clone / "pyproject.toml").read_bytes() == before


def test_a_pyproject_that_cannot_be_extended_is_left_alone(clone, monkeypatch):
    monkeypatch.setattr(new_paper, "ROOT", clone)
    file = clone / "pyproject.toml"
    file.write_text('[tool.setuptools]\npackages = ["fulgurite.datamodules", "fulgurite.lightning_modules"]\n')
    with pytest.raises(UserError, match="can't be extended"):
        new_paper.write_skeleton("sixth")
    assert not (clone / "lightning_modules" / "sixth").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Mamba", "such as 'mamba'"),
        ("my-paper", "such as 'my_paper'"),
        ("2fast", "small letters"),
        ("a__b", "single underscores"),
        ("x" * 31, "at most 30"),
        ("", "can't be a paper's name"),
        ("../up", "small letters"),
        ("lambda", "a word of Python's own"),
        ("match", "a word of Python's own"),
        ("json", "standard library"),
        ("dnd", "already taken"),
        ("digits", "already taken"),
        ("kernels", "already taken by fulgurite itself"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_the_reason(name, reason):
    with pytest.raises(UserError) as error:
        new_paper.check_name(name)
    assert reason in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_every_verb_of_the_command_line_is_reserved():
    assert {*cli._verbs(), *cli.LIGHTNING_VERBS} <= new_paper.RESERVED


def _above(folder: Path) -> list[str]:
    """A folder from which `import fulgurite` works, if the package is not installed."""
    link = folder / "above"
    link.mkdir()
    (link / "fulgurite").symlink_to(ROOT)
    return [str(link)]
