"""Named plug-in points, and the torch-free index that answers `fulgurite list`.

A part registers itself with literal arguments, so that its name can be read from the source text without importing it:

    @MODELS.register("dnd", paper="2506.16406")
    class DnDModule(LightningModule): ...

Looking a name up (`MODELS["dnd"]`) imports the one module that holds it. Other distributions add parts through the
entry-point group `fulgurite.plugins` (any name -> the module or package that registers). This file imports no torch.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent
IN_CLONE = (ROOT / "pyproject.toml").is_file()
ROOMS = ("kernels", "datamodules", "lightning_modules", "launch")
PLUGIN_GROUP = "fulgurite.plugins"

T = TypeVar("T")
_REGISTER_CALL = re.compile(r"^@\s*\w+\.register\(", re.MULTILINE)


class UserError(Exception):
    """A mistake that the user can mend: shown as its text alone (at most six lines), never as a traceback."""


class Notice(UserWarning):
    """A warning that matters to whoever reads the numbers: in a stage of a run, its report repeats it."""


def install_line(extra: str = "") -> str:
    """The pip command for fulgurite with an extra: in a clone, that of its own environment with the tested versions."""
    suffix = f"[{extra}]" if extra else ""
    if IN_CLONE:
        return f".venv/bin/pip install -c constraints.txt -e '.{suffix}'"
    return f"pip install 'fulgurite{suffix}'" if extra else "pip install --upgrade fulgurite"


@dataclass(frozen=True)
class Entry:
    """One registered name, as read from the source text.

    Attributes:
        registry: lower-case name of the registry, such as `models`.
        name: the name users type.
        path: dotted import path of the class or function.
        file: source file.
        line: line of the decorated definition, from 1.
        summary: first line of the docstring.
        extra: the decorator's literal keyword arguments, such as `paper`.
        plugin: name of the entry point that brought it, or None for our own.
    """

    registry: str
    name: str
    path: str
    file: Path
    line: int
    summary: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    plugin: str | None = None


@dataclass(frozen=True)
class Index:
    """Every registered name, and the plug-ins that could not be read (name -> reason)."""

    entries: tuple[Entry, ...]
    broken: Mapping[str, str]

    def of(self, registry: str) -> dict[str, Entry]:
        """The entries of one registry by name, sorted."""
        return {e.name: e for e in sorted(self.entries, key=lambda e: e.name) if e.registry == registry}


class Registry(Mapping[str, Any]):
    """Names for one kind of part. A paper that offers a choice of its own makes its own, as a module-level constant
    whose name is the registry's in capitals (`READERS = Registry("readers")`): the index goes by that name.

    Args:
        name: lower-case plural, such as `models`; shown by `fulgurite list`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts: dict[str, Any] = {}

    def register(self, name: str, **extra: Any) -> Callable[[T], T]:
        """Decorator that gives a class or function its name.

        Raises:
            ValueError: if the name is taken by something else; the text names both files.
        """

        def add(part: T) -> T:
            held = self._parts.get(name)
            if held is not None and _where(held) != _where(part):
                raise ValueError(f"{self.name}: '{name}' is registered twice: by {_where(held)} and by {_where(part)}")
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> Any:
        if name not in self._parts:
            entry = read_index().of(self.name).get(name)
            if entry is None:
                raise UserError(unknown(self.name, name, list(self)))
            import_part(entry.path.rpartition(".")[0])
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*read_index().of(self.name), *self._parts}))

    def __len__(self) -> int:
        return len(list(iter(self)))


MODELS = Registry("models")
DATAMODULES = Registry("datamodules")
ATTENTION = Registry("attention")
COMMANDS = Registry("commands")


def nearest(name: str, choices: list[str], count: int = 3) -> list[str]:
    """The choices that look most like `name`, best first; a shared last part (`dnd/tiny` ~ `tiny`) counts too."""
    found = difflib.get_close_matches(name, choices, n=count, cutoff=0.6)
    tail = name.rpartition("/")[2].rpartition(".")[2]
    found = list(dict.fromkeys(found))
    found += [c for c in choices if c not in found and tail and c.rpartition("/")[2].rpartition(".")[2] == tail]
    return found[:count]


def did_you_mean(
    name: str, choices: list[str], otherwise: str = "", *, show: Callable[[str], str] = repr, end: str = ""
) -> str:
    """`Did you mean 'a' or 'b'?` and then `end`, for a name that is none of `choices`; `otherwise` if none is near."""
    near = nearest(name, choices)
    return f"Did you mean {' or '.join(show(n) for n in near)}?{end}" if near else otherwise


def unknown(kind: str, name: str, choices: list[str], lists_all: str = "") -> str:
    """Text for a name that does not exist: the nearest ones and the command that lists all."""
    hint = did_you_mean(name, choices, f"There are {len(choices)} of them.")
    return f"no {kind.removesuffix('s')} named '{name}'\n{hint}\n{lists_all or f'fulgurite list {kind}'}   shows all"


@functools.cache
def read_index() -> Index:
    """Index of our own rooms and of every plug-in, read as text: nothing is imported.

    Raises:
        UserError: if two parts share a name (the text names both files), or one of our own files is no Python.
    """
    entries: list[Entry] = []
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            module = ".".join(("fulgurite", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
            try:
                entries += scan(file, module)
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                raise UserError(
                    f"{file}:{line}: can't be read as Python: {getattr(error, 'msg', None) or error}"
                ) from None
    broken: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        try:
            entries += [e for file, module in _plugin_files(point.value) for e in scan(file, module, plugin=point.name)]
        except (OSError, SyntaxError, ValueError) as error:
            broken[point.name] = f"{point.value}: {error}"
    taken: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        first = taken.setdefault((entry.registry, entry.name), entry)
        if first is not entry:
            if entry.plugin is None:
                raise UserError(
                    f"{entry.registry}: '{entry.name}' is registered twice:\n"
                    f"{first.file}:{first.line}\n{entry.file}:{entry.line}\nRename one of them."
                )
            broken[entry.plugin] = f"'{entry.name}' is already taken in {entry.registry} by {first.file}:{first.line}"
    return Index(tuple(e for e in entries if taken[e.registry, e.name] is e), broken)


def scan(file: Path, module: str, plugin: str | None = None) -> list[Entry]:
    """The registrations in one source file, in order.

    Raises:
        SyntaxError: if the file is not Python.
        ValueError: if a registration's arguments are not literals.
    """
    text = file.read_text(encoding="utf-8")
    if not _REGISTER_CALL.search(text):
        return []
    found = []
    for node in ast.parse(text, str(file)).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for call in node.decorator_list:
            if not (
                isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register"
            ):
                continue
            if not (isinstance(call.func.value, ast.Name) and call.func.value.id.isupper()):
                continue
            name = ast.literal_eval(call.args[0])
            extra = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            registry = call.func.value.id.lower()
            found.append(Entry(registry, name, f"{module}.{node.name}", file, node.lineno, summary, extra, plugin))
    return found


def load_plugins() -> dict[str, str]:
    """Import every plug-in, for code that needs their side effects; returns name -> reason for those that failed."""
    failed = dict(read_index().broken)
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        if point.name not in failed:
            try:
                point.load()
            except Exception as error:  # a plug-in may fail in any way, and must not take the program with it
                failed[point.name] = f"{point.value}: {type(error).__name__}: {error}"
    return failed


def import_part(module: str) -> None:
    """Import a module that holds registered parts.

    Raises:
        UserError: if it is a plug-in's and its import raises; names the plug-in, the error and the line. Errors of our
            own modules are left as they are.
    """
    points = importlib.metadata.entry_points(group=PLUGIN_GROUP)
    package = module.partition(".")[0]
    of = next((p for p in points if p.value.partition(":")[0].partition(".")[0] == package), None)
    try:
        importlib.import_module(module)
    except Exception as error:
        if of is None:
            raise
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
        distribution = of.dist.name if of.dist else package
        text = str(error).strip().partition("\n")[0][:300]
        raise UserError(
            f"plug-in '{of.name}' can't be imported: {type(error).__name__}: {text}\n"
            f"{frames[-1].filename}:{frames[-1].lineno}\n"
            f"Mend or update it, or take it out: pip uninstall {distribution}"
        ) from error


def plugin_packages() -> list[str]:
    """Top-level package names of the installed plug-ins: what an experiment file may name beside our own."""
    return sorted(
        {p.value.partition(":")[0].partition(".")[0] for p in importlib.metadata.entry_points(group=PLUGIN_GROUP)}
    )


def plugin_files() -> list[Path]:
    """Python files of the installed plug-ins: their whole packages, or the registered module alone where the package
    has no `__init__.py`.
    """
    found: set[Path] = set()
    for point in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        whole = package_files(point.value.partition(":")[0].partition(".")[0])
        try:
            found.update(whole or (file for file, _ in _plugin_files(point.value)))
        except ValueError:  # a broken plug-in; `fulgurite list` reports it
            continue
    return sorted(found)


def package_files(package: str) -> list[Path]:
    """Python files of a top-level package or module, sorted, found without importing it; none if there is no such."""
    file = find_source(package)
    if file is None:
        return []
    return sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]


def find_source(module: str) -> Path | None:
    """Source file of a dotted module, found on the path without importing its parents; None if there is none."""
    head, *rest = module.split(".")
    if head == "fulgurite":
        roots = [ROOT]
    else:
        try:
            spec = importlib.util.find_spec(head) if head not in sys.builtin_module_names else None
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            return None
        if not rest:
            return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
        roots = [Path(p) for p in spec.submodule_search_locations or ()]
    for root in roots:
        base = root.joinpath(*rest)
        for file in (base.with_suffix(".py") if rest else base / "__init__.py", base / "__init__.py"):
            if file.is_file():
                return file
    return None


def _plugin_files(value: str) -> list[tuple[Path, str]]:
    module = value.partition(":")[0]
    file = find_source(module)
    if file is None:
        raise ValueError("module not found")
    if file.name != "__init__.py":
        return [(file, module)]
    files = sorted(file.parent.rglob("*.py"))
    return [
        (f, ".".join((module, *f.relative_to(file.parent).with_suffix("").parts)).removesuffix(".__init__"))
        for f in files
    ]


def _where(part: Any) -> str:
    code = getattr(part, "__code__", None)
    file = code.co_filename if code else getattr(sys.modules.get(part.__module__), "__file__", "?")
    return f"{part.__module__}.{part.__qualname__} ({file})"
