"""`fulgurite doctor`: this machine, its versions, and what of each paper can run here."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence

from packaging.requirements import Requirement
from rich.console import Console

from ..datamodules.sources import cache
from ..datamodules.sources.catalogue import SOURCES
from ..datamodules.sources.download import is_cached
from ..datamodules.viki.scenes.opengl import find_platform, missing_message
from ..registry import ROOT, UserError, install_line, load_plugins
from .config.experiment import names, resolve
from .config.needs import sources_of
from .stages.estimate import memory_gb
from .stages.run_folder import DEFAULT_ROOT

TOOLS = ("sweep", "demo")
OTHER_EXTRAS = (*TOOLS, "dev", "all")
KEY_LIBRARIES = (
    "torch",
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "omegaconf",
    "transformers",
    "peft",
    "numpy",
    "wandb",
)
# import names that differ from their distribution's
DISTRIBUTIONS = {
    "OpenGL": "pyopengl",
    "PIL": "pillow",
    "av": "av",
    "collada": "pycollada",
    "cutlass": "nvidia-cutlass-dsl",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
console = Console(highlight=False, soft_wrap=True)


def missing_package(module: str, asked: Sequence[str] = ()) -> str:
    """Sentence and pip command for a module that is not installed.

    Args:
        module: import name, with or without its submodules.
        asked: words of the command line; of several extras with the package, one that they name is told.
    """
    head = module.partition(".")[0]
    if head == "fulgurite":
        return f"{module} is missing: this copy is damaged\npip install --force-reinstall --no-deps fulgurite"
    distribution = DISTRIBUTIONS.get(head, head.replace("_", "-").lower())
    found = [e for e, wanted in requirements().items() if any(_same(r.name, distribution) for r in wanted)]
    named = [e for e in found if e in {word.partition("/")[0] for word in asked}]
    extra = next(iter(named or found), None)
    if extra is None:
        return f"the package '{head}' is missing\npip install {distribution}"
    if not extra:
        return f"the package '{head}' is missing, which fulgurite needs everywhere\npip install '{distribution}'"
    return f"the package '{head}' is missing; it comes with an extra\n{install_line(extra)}"


def papers() -> list[str]:
    """Short names of the papers: those with experiments, and those with an extra."""
    with_experiments = [n.partition("/")[0] for n in names() if "/" in n]
    return list(dict.fromkeys([*with_experiments, *(e for e in requirements() if e and e not in OTHER_EXTRAS)]))


@functools.cache
def requirements() -> dict[str, tuple[Requirement, ...]]:
    """What each extra needs on this system ("" is the base), papers first; from the installed metadata, or from
    pyproject.toml in a clone that is not installed.
    """
    lines: dict[str, list[str]] = {}
    try:
        metadata = importlib.metadata.metadata("fulgurite")
        listed = importlib.metadata.requires("fulgurite") or []
        for extra in ["", *(metadata.get_all("Provides-Extra") or [])]:
            fits = [Requirement(line) for line in listed]
            lines[extra] = [str(r) for r in fits if _of_extra(r, extra)]
    except importlib.metadata.PackageNotFoundError:
        try:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        except (OSError, KeyError, tomllib.TOMLDecodeError):
            return {}
        lines = {"": project.get("dependencies", []), **project.get("optional-dependencies", {})}
    found = {}
    for extra in sorted(lines, key=lambda e: ["", e, *OTHER_EXTRAS].index(e)):
        wanted = [Requirement(line) for line in lines[extra]]
        here = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": extra})]
        found[extra] = tuple(r for r in here if not _same(r.name, "fulgurite"))
    return found


def print_report() -> int:
    """Print what this machine can do; returns 1 if the base install itself is broken, else 0."""
    _machine()
    broken = _versions()
    gpus = _gpu()
    for paper in ("hello", *papers()):
        _paper(paper, gpus)
    for tool in TOOLS:
        _title(tool)
        _extra(tool)
    _sources()
    for plugin, reason in load_plugins().items():
        console.print(f"[red]plug-in {plugin} is broken[/red]: {reason}")
    if broken:
        console.print(f"\n[red]The base install is broken[/red]: {', '.join(broken)}\n{install_line()}")
    return 1 if broken else 0


def fault(requirement: Requirement) -> str | None:
    """What is wrong with an installed distribution: `missing`, or its version outside the range; None if nothing."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
    fits = requirement.specifier.contains(version, prereleases=True)
    return None if fits else f"{version}, wanted {requirement.specifier}"


def _of_extra(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    return requirement.marker.evaluate({"extra": extra}) and (
        not extra or not requirement.marker.evaluate({"extra": ""})
    )


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")


def _title(text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def _machine() -> None:
    _title("machine")
    memory = memory_gb()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    console.print(
        f"  {platform.platform()}, {cores} cores, {f'{memory:.1f} GB of memory' if memory else 'memory unknown'}"
    )
    for what, place in (("cache", cache.cache_dir()), ("runs", DEFAULT_ROOT.absolute())):
        console.print(f"  {what}: {place}, {cache.free_bytes(place) / 1e9:.1f} GB free")
    git = shutil.which("git")
    version = (
        subprocess.run([git, "--version"], capture_output=True, text=True, check=False).stdout.strip() if git else ""
    )
    console.print(f"  {version or 'git is missing: records will name no commit'}")


def _versions() -> list[str]:
    """Print the key libraries; returns the base requirements that are missing or out of range."""
    _title("versions")
    console.print(f"  Python {platform.python_version()} (3.11 to 3.13 are tested), {sys.executable}")
    console.print(f"  fulgurite in {ROOT}")
    base = {r.name.lower(): r for r in requirements().get("", ())}
    if not base:
        console.print("  [yellow]fulgurite is not installed, so its requirements are unknown[/yellow]")
    faults = {name: found for name, r in base.items() if (found := fault(r))}
    for name in KEY_LIBRARIES:
        version = faults.get(name) or (fault(Requirement(name)) or importlib.metadata.version(name))
        wanted = f" ({base[name].specifier or 'any'})" if name in base and name not in faults else ""
        console.print(
            f"  {name} {'[red]' if name in faults else ''}{version}{'[/red]' if name in faults else ''}{wanted}"
        )
    return [f"{name} {found}" for name, found in faults.items()]


def _gpu() -> int:
    """Print the GPUs that torch sees; returns how many."""
    _title("GPU")
    if importlib.util.find_spec("torch") is None:
        console.print("  unknown: torch is missing")
        return 0
    import torch

    count = torch.cuda.device_count()
    for device in range(count):
        p = torch.cuda.get_device_properties(device)
        console.print(f"  {p.name}, {p.total_memory / 1e9:.0f} GB, compute capability {p.major}.{p.minor}")
    if not count:
        console.print(f"  none that torch {torch.__version__} can use")
    return count


def _paper(paper: str, gpus: int) -> None:
    _title(paper)
    found = [n for n in names() if n == paper or n.startswith(paper + "/")]
    for name in found:
        console.print(f"  fulgurite run {name}: {_verdict(name, gpus)}")
    if not found:
        console.print("  no experiment in this version")
    _extra(paper)
    if paper == "viki":
        platform = find_platform()
        console.print(f"  pictures: by OpenGL without a display, {platform}" if platform else f"  {missing_message()}")


def _verdict(name: str, gpus: int) -> str:
    try:
        experiment = resolve(name)
        wanted = [s for s in sources_of(experiment) if not is_cached(s)]
    except UserError as error:
        return f"[red]{str(error).splitlines()[0]}[/red]"
    estimate, memory = experiment.meta.get("estimate") or {}, memory_gb()
    obstacles = []
    devices = {str(s.settings.get("trainer", "accelerator", default="auto")) for s in experiment.stages}
    if devices & {"gpu", "cuda"} and not gpus:
        obstacles.append("needs a GPU")
    if memory and estimate.get("memory_gb", 0) > memory:
        obstacles.append(f"needs {estimate['memory_gb']} GB of memory")
    if estimate.get("disk_gb", 0) * 1e9 > cache.free_bytes(DEFAULT_ROOT):
        obstacles.append(f"needs {estimate['disk_gb']} GB of disk")
    if obstacles:
        return f"[yellow]not here: {', '.join(obstacles)}[/yellow]"
    known = sum(SOURCES[s].download_mb for s in wanted if s in SOURCES)
    size = f" ({known:g} MB)" if all(s in SOURCES for s in wanted) else ""
    ahead = f"; first run downloads {', '.join(wanted)}{size}" if wanted else ""
    time = f", about {estimate['minutes']} min on 2 CPU cores" if "minutes" in estimate else ""
    return f"[green]runs here[/green]{time}{ahead}"


def _extra(extra: str) -> None:
    faults = [(r.name, found) for r in requirements().get(extra, ()) if (found := fault(r))]
    if faults:
        console.print(f"  extra packages: {', '.join(f'{name} ({found})' for name, found in faults)}")
        console.print(f"  {install_line(extra)}", markup=False)
    elif extra in requirements():
        console.print("  extra packages: all there")


def _sources() -> None:
    _title("sources in the cache")
    for source in SOURCES.values():
        state = "cached" if is_cached(source.name) else f"not yet, {source.download_mb:g} MB to download"
        console.print(f"  {source.name}: {state}")
