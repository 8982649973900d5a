"""Settings with their origins: YAML files and flags merged leaf by leaf, each leaf knowing where it came from.

A `Settings` maps a path such as `("model", "init_args", "lr")` to a `Leaf`. Lists are leaves. No torch here.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ...registry import ROOT, UserError

Path_ = tuple[str, ...]
_DOTTED = re.compile(r"\w+(\.\w+)*")  # a setting; a key such as `gain of Qwen2.5-0.5B` is words, and stays whole
MAX_NODES = 100_000
MAX_DEPTH, MAX_LEAVES = 40, 5000  # far more than any experiment; a file beyond is broken, or a bomb of aliases
_LISTS = "fulgurite list experiments   shows the names"
CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True)
class Leaf:
    """One value, where it was set, and the leaf that it replaced. For a list, `inner` says where its parts were set:
    `(0, "overrides", "model")` -> `file:line`.
    """

    value: Any
    origin: str
    replaced: Leaf | None = field(default=None, compare=False)
    inner: Mapping[tuple[int | str, ...], str] = field(default_factory=dict, compare=False)


def _over(leaf: Leaf, old: Leaf) -> Leaf:
    """The leaf with `old` at the end of the chain of those that it replaced."""
    if leaf.origin == old.origin:
        return leaf
    return replace(leaf, replaced=_over(leaf.replaced, old) if leaf.replaced else old)


class _LineLoader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that `1e-4` is a number, as people expect."""


_LineLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)


def parse_value(text: str) -> Any:
    """A flag's value, read as YAML: `5` is a number, `[1, 2]` a list, `null` None. So is `None`, and lists and mappings
    may stand as JSON or as Python shows them: W&B's agent writes a sweep's values so.
    """
    if text == "None":
        return None
    if text[:1] in ("{", "["):
        for read in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                return read(text)
    try:
        return yaml.load(text, Loader=_LineLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def short_path(file: Path) -> str:
    """A file's path as users know it: from the package's root, or from where they stand."""
    for base in (ROOT, Path.cwd()):
        if file.is_relative_to(base):
            return str(file.relative_to(base))
    return str(file)


def read_yaml(file: Path) -> dict[Path_, Leaf]:
    """Leaves of a YAML file in order, with `file:line` origins. Dotted keys (`model.lr: 1`) count as nested ones.

    Raises:
        UserError: if the file can't be read, is no YAML, is no mapping, or has a key twice; names the line.
    """
    name = short_path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{name}: can't be read: {error.strerror}\n"
            "An experiment is a YAML file; give its path, or a name.\n"
            f"{_LISTS}"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{name}:{line}: not UTF-8 text: {error.reason}\nSave the file as UTF-8.") from None
    try:
        root = yaml.compose(text, Loader=_LineLoader)
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
            raise UserError(
                f"{name}:1: an experiment is a mapping of keys to values, this is {kind}\n"
                "fulgurite explain hello   shows one"
            )
        if _expanded_size(root, {}) > MAX_NODES:
            raise UserError(f"{name}: its aliases expand to more than {MAX_NODES:,} values\nWrite out what you need.")
        leaves: dict[Path_, Leaf] = {}
        _walk(root, (), name, leaves, set())
        return leaves
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        problem = problem.replace("\\t", "tab")
        raise UserError(
            f"{name}:{line}: not valid YAML: {problem}\n"
            "Check the indentation (spaces, no tabs) and the quotes on and above this line."
        ) from None
    except RecursionError:
        raise UserError(f"{name}: nested too deeply to be an experiment") from None


def _walk(node: yaml.MappingNode, path: Path_, name: str, leaves: dict[Path_, Leaf], taken: set[Path_]) -> None:
    """Fill `leaves`; `taken` holds every path above a leaf."""
    if len(path) > MAX_DEPTH or len(leaves) > MAX_LEAVES:
        raise RecursionError
    for key_node, value_node in _pairs(node):
        line = f"{name}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{line}: a key is a word, not a list or a mapping")
        text = str(key_node.value)
        key = (*path, *(text.split(".") if _DOTTED.fullmatch(text) else [text]))
        if key in taken or any(key[:size] in leaves for size in range(1, len(key) + 1)):
            raise UserError(f"{line}: '{'.'.join(key)}' is set twice in this file\nKeep one of the two.")
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            _walk(value_node, key, name, leaves, taken)
        else:
            inner: dict[tuple[int | str, ...], str] = {}
            _note_lines(value_node, (), name, inner, set())
            leaves[key] = Leaf(_construct(value_node, line), line, inner=inner)
            taken |= {key[:size] for size in range(1, len(key))}


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of nodes with every alias written out; a node inside itself counts once."""
    if id(node) not in known:
        known[id(node)] = 1
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_expanded_size(child, known) for child in children)
    return known[id(node)]


def _pairs(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    """A mapping's pairs with merge keys (`<<: *other`) worked in: its own keys win."""
    own = [(k, v) for k, v in node.value if k.tag != "tag:yaml.org,2002:merge"]
    if len(own) == len(node.value):
        return own
    _LineLoader("").flatten_mapping(node)  # puts what is merged before what is the node's own
    merged = {k.value: (k, v) for k, v in node.value[: len(node.value) - len(own)] if isinstance(k, yaml.ScalarNode)}
    for key, _ in own:
        merged.pop(key.value, None)
    return [*merged.values(), *own]


def _construct(node: yaml.Node, line: str) -> Any:
    try:
        return _LineLoader("").construct_object(node, deep=True)
    except (ValueError, OverflowError) as error:  # a date or number that is none, such as 2020-99-99
        raise UserError(f"{line}: can't be read: {error}\nPut it in quotes if it is text.") from None


def _note_lines(
    node: yaml.Node, path: tuple[int | str, ...], name: str, inner: dict[tuple[int | str, ...], str], seen: set[int]
) -> None:
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    pairs = enumerate(node.value) if isinstance(node, yaml.SequenceNode) else [(k.value, v) for k, v in node.value]
    marks = (
        [n.start_mark for n in node.value]
        if isinstance(node, yaml.SequenceNode)
        else [k.start_mark for k, _ in node.value]
    )
    for (key, child), mark in zip(pairs, marks, strict=True):
        if isinstance(key, int | str):
            inner[(*path, key)] = f"{name}:{mark.line + 1}"
            _note_lines(child, (*path, key), name, inner, seen)


class Settings:
    """An ordered tree of leaves; later layers win. Short forms are understood once a class is known: with
    `model.class_path` set, `model.lr` means `model.init_args.lr`, and `model: dnd` sets the class.
    """

    def __init__(self, leaves: dict[Path_, Leaf] | None = None) -> None:
        self.leaves: dict[Path_, Leaf] = {}
        self.merge((leaves or {}).items())

    def merge(self, layer: Iterable[tuple[Path_, Leaf]]) -> Settings:
        """Lay another layer over this one, class paths first so that short forms find their class."""
        for path, leaf in sorted(layer, key=lambda item: item[0][-1] != "class_path"):
            self.set(path, leaf)
        return self

    def set(self, path: Path_, leaf: Leaf) -> None:
        """Set one leaf; whatever it shadows (itself, a leaf above, leaves below) goes, and is kept as `replaced`."""
        path = self._long_form(path)
        if (*path, "class_path") in self.leaves and isinstance(leaf.value, str):
            path = (*path, "class_path")
        old = self.leaves.get(path)
        for other in [p for p in self.leaves if p[: len(path)] == path or path[: len(p)] == p]:
            del self.leaves[other]
        self.leaves[path] = _over(leaf, old) if old else leaf

    def _long_form(self, path: Path_) -> Path_:
        for cut in range(1, len(path)):
            if (*path[:cut], "class_path") in self.leaves and path[cut] not in CLASS_KEYS:
                return self._long_form((*path[:cut], "init_args", *path[cut:]))
        return path

    def under(self, *prefix: str) -> Settings:
        """The subtree below a prefix, with the prefix taken off."""
        size = len(prefix)
        found = Settings()
        found.leaves = {p[size:]: leaf for p, leaf in self.leaves.items() if p[:size] == prefix and len(p) > size}
        return found

    def get(self, *path: str, default: Any = None) -> Any:
        """Value at a path: a leaf's value, or the nested dict below it."""
        if path in self.leaves:
            return self.leaves[path].value
        below = self.under(*path)
        return below.to_dict() if below.leaves else default

    def origin(self, *path: str) -> str:
        """Where a path was set: its own leaf's origin, or the first one below it."""
        for cut in range(len(path), 0, -1):
            if path[:cut] in self.leaves:
                return self.leaves[path[:cut]].origin
        below = next(iter(self.under(*path).leaves.values()), None)
        return below.origin if below else "?"

    def keys(self) -> list[str]:
        """First parts of all paths, in order, each once."""
        return list(dict.fromkeys(p[0] for p in self.leaves))

    def __iter__(self) -> Iterator[tuple[Path_, Leaf]]:
        return iter(self.leaves.items())

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dict of the values."""
        tree: dict[str, Any] = {}
        for path, leaf in self.leaves.items():
            node = tree
            for key in path[:-1]:
                node = node.setdefault(key, {})
            node[path[-1]] = leaf.value
        return tree
