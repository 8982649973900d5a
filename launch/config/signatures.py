"""What arguments a class or function takes, read from its source text: nothing is imported, so torch stays out.

Used to find misspelt keys before anything heavy starts, to suggest the right ones, and by `info` and `explain`.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

from ...registry import find_source


@dataclass(frozen=True)
class Parameter:
    """One argument: its annotation and default as source text (default None: required), and where it stands."""

    name: str
    annotation: str
    default: str | None
    file: Path
    line: int


@dataclass(frozen=True)
class Definition:
    """A class or function found in a source file."""

    node: ast.ClassDef | ast.FunctionDef
    module: str
    file: Path


@functools.lru_cache(maxsize=512)
def _parse(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=1024)
def locate(dotted: str, depth: int = 8) -> Definition | None:
    """Find the definition behind a dotted path, following re-exports such as `from .trainer import Trainer`."""
    module, _, name = dotted.rpartition(".")
    file = find_source(module) if module and depth else None
    tree = _parse(file) if file else None
    if file is None or tree is None:
        return None
    for node in _flat(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Definition(node, module, file)
    origin = _imports(tree, module, file).get(name)
    return locate(origin, depth - 1) if origin else None


def parameters(dotted: str) -> dict[str, Parameter] | None:
    """Arguments by name, without `self`; None if they can't be told from the text (C code, open `**kwargs`)."""
    found = locate(dotted)
    return _of(found) if found else None


def _of(found: Definition, depth: int = 8) -> dict[str, Parameter] | None:
    if isinstance(found.node, ast.FunctionDef):
        return _from_function(found.node, found.file)
    init = next((n for n in found.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    own = _from_function(init, found.file, skip_first=True) if init else {}
    if init and init.args.kwarg is None:
        return own
    if not init and any("dataclass" in ast.unparse(d) for d in found.node.decorator_list):
        return None
    tree = _parse(found.file)
    known = _imports(tree, found.module, found.file) if tree else {}
    inherited: dict[str, Parameter] = {}
    for base in found.node.bases:
        name = ast.unparse(base).partition("[")[0]
        head, _, rest = name.partition(".")
        dotted = known.get(head, f"{found.module}.{head}") + (f".{rest}" if rest else "")
        parent = locate(dotted) if depth else None
        below = _of(parent, depth - 1) if parent else None
        if below is None:
            return None if init or not own else own
        inherited |= below
        if below and not init:
            break
    return {**inherited, **own}


def _from_function(node: ast.FunctionDef, file: Path, skip_first: bool = False) -> dict[str, Parameter]:
    positional = [*node.args.posonlyargs, *node.args.args][1 if skip_first else 0 :]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = [*zip(positional, defaults[-len(positional) :] if positional else [], strict=True)]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    return {
        a.arg: Parameter(
            a.arg, ast.unparse(a.annotation) if a.annotation else "", ast.unparse(d) if d else None, file, a.lineno
        )
        for a, d in pairs
    }


def _flat(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements of a module, those inside top-level `if` and `try` included."""
    found: list[ast.stmt] = []
    for node in body:
        found.append(node)
        for part in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                found += _flat(getattr(node, part, []))
    return found


def _imports(tree: ast.Module, module: str, file: Path) -> dict[str, str]:
    """Local name -> dotted path, for every import at the top of a module."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: dict[str, str] = {}
    for node in _flat(tree.body):
        if isinstance(node, ast.Import):
            found.update(
                {
                    a.asname or a.name.partition(".")[0]: (a.asname and a.name) or a.name.partition(".")[0]
                    for a in node.names
                }
            )
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            found.update({a.asname or a.name: f"{source}.{a.name}" for a in node.names})
    return found


def has_method(dotted: str, method: str) -> bool:
    """Whether a class or a base of it defines a method, by the source text; Lightning's and torch's own bases, whose
    methods are empty stubs, don't count.
    """
    found = locate(dotted)
    if found is None or not isinstance(found.node, ast.ClassDef):
        return False
    if any(isinstance(n, ast.FunctionDef) and n.name == method for n in found.node.body):
        return True
    tree = _parse(found.file)
    known = _imports(tree, found.module, found.file) if tree else {}
    bases = [known.get(ast.unparse(b), f"{found.module}.{ast.unparse(b)}") for b in found.node.bases]
    return any(b.partition(".")[0] not in ("lightning", "torch") and has_method(b, method) for b in bases)


@functools.lru_cache(maxsize=512)
def names_in(module: str, depth: int = 6) -> frozenset[str] | None:
    """Names that a module defines or imports, its submodules included; None if they can't be told from the text
    (C code, `__getattr__`, star imports of such).
    """
    file = find_source(module)
    tree = _parse(file) if file and depth else None
    if file is None or tree is None:
        return None
    found: set[str] = set()
    for node in _flat(tree.body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    imports = _imports(tree, module, file)
    if "__getattr__" in found or any(isinstance(n, ast.For | ast.While | ast.With) for n in tree.body):
        return None
    found |= imports.keys() - {"*"}
    for star in _stars(tree, module, file):
        below = names_in(star, depth - 1)
        if below is None:
            return None
        found |= below
    if file.name == "__init__.py":
        found |= {f.stem for f in file.parent.glob("*.py")} | {f.parent.name for f in file.parent.glob("*/__init__.py")}
    return frozenset(found - {"__init__"})


def _stars(tree: ast.Module, module: str, file: Path) -> list[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in _flat(tree.body):
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.append(".".join([*parent, *([node.module] if node.module else [])]))
    return found


def is_a(dotted: str, wanted: str, depth: int = 8) -> bool | None:
    """Whether a class has a base called `wanted` (its last name), by the source text; None if that can't be told."""
    found = locate(dotted)
    if found is None or not depth:
        return None
    if not isinstance(found.node, ast.ClassDef):
        return False
    if found.node.name == wanted:
        return True
    answers: list[bool | None] = []
    for path in _bases(found):
        plain = path.rpartition(".")[2] in ("object", "ABC", "Generic", "Protocol")
        answers.append(False if plain else is_a(path, wanted, depth - 1))
    return True if True in answers else None if None in answers else False


def lineage(dotted: str, depth: int = 8) -> list[Definition]:
    """The class behind a dotted path and all its bases whose source text is found, itself first."""
    found = locate(dotted)
    if found is None or not depth or not isinstance(found.node, ast.ClassDef):
        return []
    return [found, *(d for path in _bases(found) for d in lineage(path, depth - 1))]


def _bases(found: Definition) -> list[str]:
    """Dotted paths of a class's bases."""
    tree = _parse(found.file)
    known = _imports(tree, found.module, found.file) if tree else {}
    paths = []
    for base in found.node.bases if isinstance(found.node, ast.ClassDef) else ():
        head, _, rest = ast.unparse(base).partition("[")[0].partition(".")
        paths.append(known.get(head, f"{found.module}.{head}") + (f".{rest}" if rest else ""))
    return paths
