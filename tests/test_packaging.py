"""What is built from the repository, installed in environments of its own: wheel, sdist, both editables, plug-ins.

Nothing is downloaded: each environment sees the packages of the one that runs the tests, behind its own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PARTS = Path(__file__).parent / "plugins"
ROOMS = ("kernels", "datamodules", "lightning_modules", "launch", "experiments")
SMOKE_RUN = ("run", "hello", "--trainer.max_epochs", "1", "--data.num_batches", "5")
IMPORT_ALL = """\
import importlib, sys
for name in sys.argv[2:]:
    importlib.import_module(name)
import fulgurite, fulgurite.kernels
print(fulgurite.__file__)
"""
FIND_ALL = """\
import importlib.util, sys
from pathlib import Path
import fulgurite, fulgurite.kernels
for name in sys.argv[2:]:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None, name
    assert Path(spec.origin).is_file(), name
print(fulgurite.__file__)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its interpreter."""

    folder: Path

    def python(self, *arguments: str | Path, cwd: Path, status: int = 0) -> str:
        """Run the interpreter; returns stdout. The child's path is as a user's would be."""
        return self._run([self.folder / "bin" / "python", *arguments], cwd, status)

    def fulgurite(self, *arguments: str | Path, cwd: Path, status: int = 0) -> str:
        """Run the console script; returns stdout."""
        return self._run([self.folder / "bin" / "fulgurite", *arguments], cwd, status)

    def install(self, *arguments: str | Path, cwd: Path) -> None:
        """pip install, without dependencies and without a network."""
        self.python(
            "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", *arguments, cwd=cwd
        )

    def _run(self, command: list[str | Path], cwd: Path, status: int) -> str:
        dropped = ("PYTHONPATH", "PYTHONSAFEPATH", "COLUMNS", "FULGURITE_ALLOW_IMPORTS")
        kept = {k: v for k, v in os.environ.items() if k not in dropped}
        environment = {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "300", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == status, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Makes an empty environment behind which the running one's packages lie."""

    def make() -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        # a .pth adds the folder that it names, but not what the .pth files in there would add: no editable fulgurite
        (site / "packages_of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        return Environment(folder)

    return make


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files in a folder called `fulgurite`, without build folders, links and environments."""
    target = tmp_path_factory.mktemp("clone") / "fulgurite"
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, "these tests copy what git knows: run them in a clone"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`wheel` and `sdist`, built with `python -m build`: the wheel from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, clone]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="module")
def installed(
    make_environment: Callable[[], Environment], clone: Path, built: dict[str, Path]
) -> Callable[[str], Environment]:
    """The environment for one way of installing; made once each."""
    made: dict[str, Environment] = {}

    def get(way: str) -> Environment:
        if way not in made:
            made[way] = make_environment()
            if way == "wheel":
                made[way].install(built["wheel"], cwd=clone.parent)
            elif way == "editable":
                made[way].install("-e", clone, cwd=clone.parent)
            elif way == "strict editable":
                made[way].install("-e", clone, "--config-settings", "editable_mode=strict", cwd=clone.parent)
        return made[way]

    return get


def shipped(clone: Path) -> set[str]:
    """Every file that belongs to the package, relative to the root."""
    folders = (*ROOMS, "weights")
    files = [f for room in folders for f in (clone / room).rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    return {f.relative_to(clone).as_posix() for f in [*clone.glob("*.py"), clone / "py.typed", *files]}


def modules(clone: Path) -> list[str]:
    """Dotted name of every module of the package."""
    names = [name.removesuffix(".py") for name in shipped(clone) if name.endswith(".py")]
    return sorted(
        "fulgurite." + n.replace("/", ".") for n in names if n.rpartition("/")[2] not in ("__init__", "__main__")
    )


def test_wheel_holds_the_rooms_and_nothing_else(built: dict[str, Path], clone: Path) -> None:
    names = set(zipfile.ZipFile(built["wheel"]).namelist())
    assert {n for n in names if ".dist-info/" not in n} == {f"fulgurite/{n}" for n in shipped(clone)}


def test_wheel_says_what_it_is(built: dict[str, Path]) -> None:
    wheel = zipfile.ZipFile(built["wheel"])
    (metadata,) = [wheel.read(n).decode() for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in wheel.namelist())
    assert "\nRequires-Python: <3.14,>=3.11\n" in metadata
    _, _, description = metadata.partition("\n\n")
    assert description.startswith("# fulgurite"), "the wheel carries the README as its description"


def test_sdist_holds_the_package(built: dict[str, Path], clone: Path) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {n.partition("/")[2] for n in archive.getnames()}
    assert shipped(clone) | {"LICENSE", "README.md", "pyproject.toml"} <= names


@pytest.mark.parametrize(("way", "root", "program"), [
    ("clone", "above", "import"), ("editable", "clone", "import"), ("editable", "elsewhere", "find"),
    ("strict editable", "clone", "find"), ("strict editable", "elsewhere", "find"), ("wheel", "clone", "find"),
    ("wheel", "elsewhere", "import"),
])  # fmt: skip
def test_every_module_is_found_and_imports(
    way: str, root: str, program: str, installed: Callable[[str], Environment], clone: Path, tmp_path: Path
) -> None:
    """From the clone's root (from the folder above it, where nothing is installed), and from elsewhere. What differs
    between them is where modules are found; to import all of them, torch and the rest included, three are enough.
    """
    environment, cwd = installed(way), {"above": clone.parent, "clone": clone, "elsewhere": tmp_path}[root]
    text = {"import": IMPORT_ALL, "find": FIND_ALL}[program]
    place = Path(environment.python("-c", text, way, *modules(clone), cwd=cwd).splitlines()[-1])
    if way in ("clone", "editable"):
        assert place == clone / "__init__.py"
    else:
        assert clone not in place.parents or "build" in place.parts, "imported from the clone, not from the install"


@pytest.mark.parametrize("library", ["transformers", "diffusers"])
def test_library_imports_from_the_clones_root(
    library: str, installed: Callable[[str], Environment], clone: Path
) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install 'fulgurite[paro]'")
    model = {"transformers": "LlamaForCausalLM", "diffusers": "UNet2DConditionModel"}[library]
    environment = installed("editable")
    assert model in environment.python("-c", f"from {library} import {model}; print({model})", cwd=clone)


def test_folder_kernels_yields_to_an_installed_package(
    make_environment: Callable[[], Environment], clone: Path
) -> None:
    """Hugging Face's `kernels` goes before our folder of that name, also for who starts Python in the root."""
    environment = make_environment()
    (site,) = environment.folder.glob("lib/python*/site-packages")
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").write_text("OWNER = 'theirs'\n", encoding="utf-8")
    assert environment.python("-c", "import kernels; print(kernels.OWNER)", cwd=clone) == "theirs\n"


def test_wheel_lists_its_experiments_elsewhere(installed: Callable[[str], Environment], tmp_path: Path) -> None:
    environment = installed("wheel")
    shown = environment.fulgurite("list", "experiments", cwd=tmp_path)
    assert {"hello", "dnd/tiny"} <= {line.split()[0] for line in shown.splitlines() if line.split()}
    assert environment.python("-m", "fulgurite", "list", "experiments", cwd=tmp_path) == shown


def test_wheel_runs_an_experiment_elsewhere(installed: Callable[[str], Environment], tmp_path: Path) -> None:
    installed("wheel").fulgurite(*SMOKE_RUN, cwd=tmp_path)
    (report,) = (tmp_path / "runs" / "hello").glob("*/report.md")
    assert "accuracy" in report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def with_plugins(
    make_environment: Callable[[], Environment], built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """The wheel, a good plug-in distribution and a broken one, each built and installed."""
    environment = make_environment()
    folder = tmp_path_factory.mktemp("plugins")
    environment.install(built["wheel"], cwd=folder)
    for name in ("good", "broken"):
        shutil.copytree(PARTS / name, folder / name)
        if name == "broken":  # written here, since no linter could read it
            unreadable = folder / "broken" / "fulgurite_broken" / "unreadable.py"
            unreadable.write_text('@MODELS.register("x")\nclass Unfinished(:\n', encoding="utf-8")
        environment.install(folder / name, cwd=folder)
    return environment


def test_plugin_adds_a_model_a_datamodule_and_a_command(with_plugins: Environment, tmp_path: Path) -> None:
    for kind, name in (("models", "line"), ("datamodules", "points"), ("commands", "line greet")):
        (line,) = [
            x for x in with_plugins.fulgurite("list", kind, cwd=tmp_path).splitlines() if x.strip().startswith(name)
        ]
        assert "(plug-in line)" in line
    assert with_plugins.fulgurite("line", "greet", "--name", "Ada", "--times", "2", cwd=tmp_path) == "hello Ada\n" * 2


def test_plugins_experiment_runs(with_plugins: Environment, tmp_path: Path) -> None:
    experiment = tmp_path / "line.yaml"
    experiment.write_text(
        "base: base/cpu\nmodel: {class_path: line}\ndata: {class_path: points}\ntrainer: {max_epochs: 1}\n",
        encoding="utf-8",
    )
    with_plugins.fulgurite("run", experiment, cwd=tmp_path)
    assert list((tmp_path / "runs").glob("**/report.md"))


def test_broken_plugins_are_reported_and_break_nothing(with_plugins: Environment, tmp_path: Path) -> None:
    shown = with_plugins.fulgurite("list", cwd=tmp_path)
    reports = {line.split()[1]: line for line in shown.splitlines() if line.startswith("plug-in ")}
    assert set(reports) == {"absent", "unreadable", "taken"}
    assert "fulgurite_nowhere" in reports["absent"] and "not found" in reports["absent"]
    assert "unreadable.py" in reports["unreadable"]
    assert "'hello' is already taken in models" in reports["taken"]
    assert "fulgurite.lightning_modules.hello" in with_plugins.fulgurite("info", "hello", cwd=tmp_path)
