"""`fulgurite new paper NAME`: a skeleton that runs, is tested and passes the checks as it is.

In a clone it becomes a sixth paper (launch/templates/paper); from an installed copy a plug-in distribution in a folder
of its own (launch/templates/plugin).
"""

from __future__ import annotations

import keyword
import re
import sys
import tomllib
from pathlib import Path

from ..datamodules.files import atomic_write
from ..registry import ROOT, UserError, read_index
from .config.experiment import EXPERIMENTS, LIGHTNING_VERBS

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 30
# verbs of the command line, folders and files of the package, and words that stand for one of its own parts
RESERVED = {
    *LIGHTNING_VERBS,
    *("run", "list", "info", "explain", "fetch", "cache", "runs", "results", "new", "doctor", "bench"),
    *("export", "plan", "sweep"),
    *("kernels", "datamodules", "lightning_modules", "launch", "experiments", "weights", "docs", "tests"),
    *("fulgurite", "registry", "cli", "base", "sweeps", "hello", "sources", "files", "draws"),
}


def write_skeleton(name: str) -> list[Path]:
    """Write the skeleton and say what to do next.

    Args:
        name: short name in snake_case, such as `mamba`.

    Returns:
        The files that were written.

    Raises:
        UserError: if the name can't be used, or a file of the skeleton is already there (nothing is written then).
    """
    check_name(name)
    clone = (ROOT / "pyproject.toml").is_file()
    root = ROOT if clone else Path.cwd() / name
    files = rendered("paper" if clone else "plugin", name, root)
    there = [f for f in files if f.exists()]
    if there:
        raise UserError(
            f"{there[0]} is already there\nNothing was written. Choose another name, or move the old files away."
        )
    listed = _with_packages((ROOT / "pyproject.toml").read_text(encoding="utf-8"), name) if clone else None
    for file, text in files.items():
        _write(file, text)
    if listed is not None:
        _write(ROOT / "pyproject.toml", listed)
    for file in files:
        print(file)
    if clone:
        print(f"{ROOT / 'pyproject.toml'}: two packages added")
        print(f"\nnext:  fulgurite run {name}/smoke\n       docs/adding_a_paper.md")
    else:
        print(f"\nnext:  pip install -e ./{name}\n       fulgurite run {name}/fulgurite_{name}/smoke.yaml")
    return list(files)


def check_name(name: str) -> None:
    """Refuse a name that can't be a package, a registered name and an experiment's folder at once.

    Raises:
        UserError: says why.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or len(name) > LONGEST:
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")[:LONGEST]
        hint = f", such as '{near}'" if near else ""
        raise UserError(
            f"'{name}' can't be a paper's name\n"
            f"It is a package too: small letters, digits, single underscores, at most {LONGEST}{hint}."
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise UserError(f"'{name}' is a word of Python's own\nChoose another name, such as '{name}_paper'.")
    if name in sys.stdlib_module_names:
        raise UserError(
            f"'{name}' is a module of Python's standard library\nChoose another name, such as '{name}_paper'."
        )
    taken = next((str(e.file) for e in read_index().entries if name in e.name.split()), None)
    for room in (ROOT / "lightning_modules", ROOT / "datamodules", EXPERIMENTS):
        for place in (room / name, room / f"{name}.py", room / f"{name}.yaml"):
            taken = taken or (str(place) if place.exists() else None)
    if taken or name in RESERVED:
        raise UserError(
            f"'{name}' is already taken"
            + (f": {taken}" if taken else " by fulgurite itself")
            + "\nfulgurite list   shows all names"
        )


def rendered(kind: str, name: str, root: Path) -> dict[Path, str]:
    """Target file -> text, for the templates of a kind (`paper` or `plugin`)."""
    camel = "".join(part.capitalize() for part in name.split("_"))
    words = {"@name@": name, "@Name@": camel, "@dash@": name.replace("_", "-")}
    found = {}
    for template in sorted((TEMPLATES / kind).rglob("*.txt")):
        target = template.relative_to(TEMPLATES / kind).as_posix().removesuffix(".txt").replace("NAME", name)
        text = template.read_text(encoding="utf-8")
        for word, value in words.items():
            text = text.replace(word, value)
        found[root / target] = text
    return found


def _with_packages(text: str, name: str) -> str:
    """pyproject.toml with the paper's two packages in its list, each after the last of its room; all else as it was.

    Raises:
        UserError: if the list is not written one package a line.
    """
    new = [f"fulgurite.{room}.{name}" for room in ("datamodules", "lightning_modules")]
    lines = text.splitlines(keepends=True)
    for package in new:
        room = package.rpartition(".")[0]
        places = [i for i, line in enumerate(lines) if re.match(rf'\s*"{re.escape(room)}(\.[\w.]+)?",?\s*$', line)]
        if places:
            last = lines[places[-1]]
            lines[places[-1]] = last.rstrip().rstrip(",") + ",\n"
            lines.insert(places[-1] + 1, f'{last[: len(last) - len(last.lstrip())]}"{package}",\n')
    result = "".join(lines)
    before, after = tomllib.loads(text), tomllib.loads(result)
    old, extended = (t.get("tool", {}).get("setuptools", {}).pop("packages", []) for t in (before, after))
    if before != after or sorted(extended) != sorted([*old, *new]):
        raise UserError(
            f"{ROOT / 'pyproject.toml'}: the list of packages can't be extended\n"
            "Nothing was written. Write it with one package a line."
        )
    return result


def _write(file: Path, text: str) -> None:
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: can't be written: {error.strerror}") from None
