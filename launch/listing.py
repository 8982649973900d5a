"""`fulgurite list`, `info` and `cache`: what there is, read from text and from disk, without torch."""

from __future__ import annotations

from rich.console import Console

from ..datamodules.sources import cache
from ..datamodules.sources.catalogue import SOURCES
from ..datamodules.sources.download import is_cached
from ..registry import PLUGIN_GROUP, Entry, UserError, did_you_mean, read_index
from .config.experiment import EXPERIMENTS, find, names
from .config.settings import read_yaml, short_path
from .config.signatures import locate, parameters
from .records.tables import print_table

console = Console(highlight=False, soft_wrap=True, width=None)


def kinds() -> list[str]:
    """What can be listed: experiments, every registry, sources, plugins."""
    registries = dict.fromkeys(
        ["models", "datamodules", "commands", "attention", *(e.registry for e in read_index().entries)]
    )
    return ["experiments", *registries, "sources", "plugins"]


def print_list(kind: str | None) -> None:
    """Print one kind, or all of them.

    Raises:
        UserError: for an unknown kind.
    """
    if kind is not None and kind not in kinds():
        hint = did_you_mean(kind, kinds(), f"Kinds: {', '.join(kinds())}.", show=str)
        raise UserError(f"nothing called '{kind}' to list\n{hint}\nfulgurite list   shows all kinds")
    for name in [kind] if kind else kinds():
        rows = _rows(name)
        if rows or kind:
            console.print(f"[bold]{name}[/bold]")
            print_table(rows or [("none",)], indent=2)
    for plugin, reason in read_index().broken.items():
        console.print(f"[red]plug-in {plugin} is broken[/red]: {reason}")


def _rows(kind: str) -> list[tuple[str, ...]]:
    if kind == "experiments":
        return [(n, str(_meta(n, "title") or "")) for n in names()]
    if kind == "sources":
        return [
            (s.name, s.title, s.licence, f"{s.download_mb:g} MB", "cached" if is_cached(s.name) else "")
            for s in SOURCES.values()
        ]
    if kind == "plugins":
        found = dict.fromkeys(e.plugin for e in read_index().entries if e.plugin)
        return [
            (p, ", ".join(f"{e.registry}: {e.name}" for e in read_index().entries if e.plugin == p)) for p in found if p
        ]
    return [(e.name, e.summary, f"(plug-in {e.plugin})" if e.plugin else "") for e in read_index().of(kind).values()]


def _meta(experiment: str, key: str) -> object:
    leaf = read_yaml(EXPERIMENTS / f"{experiment}.yaml").get((key,))
    return leaf.value if leaf else None


def print_info(name: str) -> None:
    """Print what a name is: an entry of a registry, an experiment, a source or a dotted class path.

    Raises:
        UserError: if nothing has that name.
    """
    entries = [e for e in read_index().entries if e.name == name]
    related = [e for e in read_index().entries if e.name.startswith(name + " ")]
    for entry in entries:
        _print_entry(entry)
    for entry in related:
        console.print(f"[bold]fulgurite {entry.name}[/bold]  {entry.summary}")
    experiments = [n for n in names() if n == name or n.startswith(name + "/")]
    for experiment in experiments:
        console.print(
            f"[bold]fulgurite run {experiment}[/bold]  {_meta(experiment, 'title') or ''}  "
            f"({short_path(find(experiment))})"
        )
    if name in SOURCES:
        source = SOURCES[name]
        console.print(
            f"[bold]{source.name}[/bold] (source): {source.title}; {source.licence}; {source.download_mb:g} MB. "
            f"{source.note}"
        )
    dotted = {"trainer": "lightning.pytorch.Trainer"}.get(name, name)
    found = locate(dotted) if "." in dotted else None
    if found:
        console.print(f"[bold]{dotted}[/bold]  ({short_path(found.file)}:{found.node.lineno})")
        _print_parameters(dotted)
    if not (entries or related or experiments or name in SOURCES or found):
        known = [*(e.name for e in read_index().entries), *names(), *SOURCES]
        hint = did_you_mean(name, known, end="\n")
        raise UserError(f"nothing is named '{name}'\n{hint}fulgurite list   shows all names")


def _print_entry(entry: Entry) -> None:
    paper = f", arXiv {entry.extra['paper']}" if entry.extra.get("paper") else ""
    origin = f", plug-in {entry.plugin} (group {PLUGIN_GROUP})" if entry.plugin else ""
    console.print(f"[bold]{entry.name}[/bold] ({entry.registry.removesuffix('s')}{paper}{origin}): {entry.summary}")
    console.print(f"  {entry.path}  {short_path(entry.file)}:{entry.line}")
    _print_parameters(entry.path)


def _print_parameters(dotted: str) -> None:
    for p in (parameters(dotted) or {}).values():
        default = "" if p.default is None else f" = {p.default}"
        console.print(f"    {p.name}: {p.annotation or 'any'}{default}", markup=False)


def print_cache() -> None:
    """Print the cache's entries and its place."""
    found = list(cache.entries())
    total = sum(e.num_bytes for e in found)
    print_table([(e.name, f"{e.num_bytes / 1e6:.1f} MB", "" if e.complete else "incomplete") for e in found])
    console.print(f"{total / 1e6:.1f} MB in {cache.cache_dir()}   (FULGURITE_CACHE moves it)")


def clean_cache(chosen: list[str]) -> None:
    """Delete named entries, or all."""
    freed = cache.clean(chosen or None)
    console.print(f"{freed / 1e6:.1f} MB freed")
