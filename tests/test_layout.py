"""The layout of the repository: what the mapped root asks for, names, floors, sizes (CONTRIBUTING.md says why)."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fulgurite.registry import ROOMS

ROOT = Path(__file__).resolve().parents[1]
ROOT_MODULES = {"__init__", "__main__", "cli", "registry"}
FLOORS = ("kernels", "datamodules", "lightning_modules", "launch", "cli")
# the package's own face and entry point stand above every floor
ABOVE = {"__init__", "__main__"}
VAGUE = {"common", "helper", "helpers", "manager", "misc", "util", "utils"}
LONGEST_FILE = 450


def package_files() -> list[Path]:
    """Every Python file that is part of the package."""
    return sorted([*ROOT.glob("*.py"), *(f for room in ROOMS for f in (ROOT / room).rglob("*.py"))])


def settings() -> dict[str, Any]:
    """The table [tool.setuptools] of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    return table


def imports(file: Path) -> Iterator[tuple[int, int, str]]:
    """(line, level, dotted name) of each import; `from . import a, b` gives `a` and `b`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node.lineno, node.level, name) for name in names)


def absolute(file: Path, level: int, name: str) -> str:
    """The dotted name below `fulgurite` that a relative import in `file` means; ``..`` where it leaves the package."""
    folder = list(file.relative_to(ROOT).parent.parts)
    if level - 1 > len(folder):
        return ".."
    return ".".join([*folder[: len(folder) - (level - 1)], name])


def test_kernels_has_no_init() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists(), (
        "see kernels/README.md: it would shadow Hugging Face's package"
    )


def test_root_holds_only_the_package_modules() -> None:
    found = {f.stem for f in ROOT.glob("*.py")}
    assert found <= ROOT_MODULES, f"would be shipped in the wheel: {sorted(found - ROOT_MODULES)}"
    names = {p.stem for p in ROOT.iterdir() if not p.name.startswith(".") and (p.is_dir() or p.suffix == ".py")}
    assert not names & sys.stdlib_module_names, "shadows the standard library for whoever works in the root"


def test_every_folder_with_code_is_listed() -> None:
    packages = set(settings()["packages"])
    missing = {
        ".".join(("fulgurite", *file.parent.relative_to(ROOT).parts))
        for file in package_files()
        if ".".join(("fulgurite", *file.parent.relative_to(ROOT).parts)) not in packages
    }
    assert not missing, f"add to `packages` in pyproject.toml, or a wheel lacks them: {sorted(missing)}"


def test_every_listed_package_is_a_folder_with_content() -> None:
    for package in settings()["packages"]:
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert any(f.is_file() for f in folder.iterdir()), f"{package} is listed in pyproject.toml and holds nothing"


def test_every_folder_with_code_is_a_regular_package_but_kernels() -> None:
    folders = {f.parent for f in package_files()} - {ROOT / "kernels"}
    assert [d for d in sorted(folders) if not (d / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", ["setup.py", "noxfile.py", "conftest.py", "MANIFEST.in"])
def test_no_build_script_in_the_root(name: str) -> None:
    assert not (ROOT / name).exists()


def test_imports_inside_the_package_are_relative_and_stay_inside() -> None:
    wrong = []
    for file in package_files():
        for line, level, name in imports(file):
            if level == 0 and name.partition(".")[0] in {"fulgurite", *ROOMS, "registry", "cli"}:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
            if level and absolute(file, level, name) == "..":
                wrong.append(f"{file.relative_to(ROOT)}:{line} leaves the package")
    assert wrong == []


def test_floors() -> None:
    wrong = []
    for file in package_files():
        here = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if here in ABOVE:
            continue
        allowed = {"registry", "__version__", *(FLOORS[: FLOORS.index(here) + 1] if here in FLOORS else ())}
        for line, level, name in imports(file):
            target = absolute(file, level, name).partition(".")[0] if level else ""
            if target and target not in allowed:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {target}")
    assert wrong == [], f"a room imports only what lies below it: {' <- '.join(FLOORS)}"


def test_registry_scans_named_folders_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A registration in tests/ or build/ must not be found: the root's own path would lead there."""
    from fulgurite import registry

    for folder in ("tests", "build/lib/fulgurite/lightning_modules", "lightning_modules"):
        (tmp_path / folder).mkdir(parents=True)
        text = f'@MODELS.register("{folder.partition("/")[0]}")\nclass Model: ...\n'
        (tmp_path / folder / "model.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    found = {e.name for e in registry.read_index.__wrapped__().entries if not e.plugin}
    assert found == {"lightning_modules"}


def test_tests_are_no_packages() -> None:
    found = (ROOT / "tests").rglob("__init__.py")
    assert (
        sorted(f for f in found if ROOT / "tests" / "plugins" not in f.parents) == []
    )  # plug-ins to install, not tests


def test_no_vague_names() -> None:
    files = [*package_files(), *(ROOT / "tests").rglob("*.py")]
    words = {f: set(f.relative_to(ROOT).with_suffix("").as_posix().replace("/", "_").split("_")) for f in files}
    assert [str(f.relative_to(ROOT)) for f in files if words[f] & VAGUE] == [], "say what the file holds"


def test_names_are_snake_case() -> None:
    names = {part for f in package_files() for part in f.relative_to(ROOT).with_suffix("").parts}
    assert [n for n in sorted(names) if n != n.lower() or "-" in n] == []


def test_no_file_is_too_long() -> None:
    files = [*package_files(), *(ROOT / "tests").rglob("*.py")]
    lengths = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in files}
    assert {f: n for f, n in lengths.items() if n > LONGEST_FILE} == {}


def test_extras_have_the_papers_names_and_all_holds_them() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    papers = ["dnd", "chunking", "paro", "viki", "gamecraft"]
    assert list(extras) == [*papers, "sweep", "ray", "slurm", "demo", "dev", "docs", "all"]
    assert extras["all"] == [f"fulgurite[{','.join(list(extras)[:-1])}]"]


def test_every_requirement_has_a_tested_version_in_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    tested = {canonicalize_name(name): version for name, version in pins.items()}
    assert not [v for v in tested.values() if "+" in v], "a build suffix ties the pin to one machine"
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name != "fulgurite":
            assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), str(requirement)


def test_citation_and_package_name_one_version() -> None:
    import fulgurite

    assert f"version: {fulgurite.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_make_lists_its_targets_with_a_sentence_each() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    for target in targets:
        (line,) = [line.split() for line in shown.splitlines() if line.split()[:1] == [target]]
        assert len(line) > 3, f"make {target} lacks its sentence"
