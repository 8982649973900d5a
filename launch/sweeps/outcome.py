"""What a sweep leaves: a table, a parallel-coordinates plot, and the best trial as an experiment of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...datamodules.files import atomic_write
from ..config.experiment import EXPERIMENTS, find
from ..records.tables import print_table
from ..stages.estimate import duration
from .sweep_file import Sweep
from .trial import Place, Trial

NO_COLOUR = "0.75"


def rank(sweep: Sweep, trials: Sequence[Trial]) -> list[Trial]:
    """The trials, best first; those cut off early come after all that ended, those without a value last."""

    def key(trial: Trial) -> tuple[int, float]:
        group = {"done": 0, "stopped": 1}.get(trial.state, 2) if trial.value is not None else 3
        return group, (-trial.value if sweep.maximize else trial.value) if trial.value is not None else 0.0

    return sorted(trials, key=key) if sweep.metric else list(trials)


def best_of(sweep: Sweep, trials: Sequence[Trial]) -> Trial | None:
    """The best trial that has a value."""
    first = next(iter(rank(sweep, trials)), None)
    return first if first is not None and first.value is not None else None


def write_outcome(place: Place, trials: Sequence[Trial]) -> list[Path]:
    """Write trials.md and, where there is a metric, parallel.png and best.yaml into the sweep's folder.

    Returns:
        The files.
    """
    files = [place.folder / "trials.md"]
    rows = table_rows(place.sweep, trials)
    with atomic_write(files[0]) as temporary:
        temporary.write_text(_markdown(place, header(place.sweep, trials), rows), encoding="utf-8")
    best = best_of(place.sweep, trials)
    if best is not None:
        files += [place.folder / "parallel.png", place.folder / "best.yaml"]
        draw(place.sweep, trials, files[1])
        with atomic_write(files[2]) as temporary:
            temporary.write_text(best_experiment(place, best), encoding="utf-8")
    return files


def header(sweep: Sweep, trials: Sequence[Trial]) -> list[str]:
    """Column names of the table."""
    return ["trial", *varying(sweep, trials), sweep.metric or "metric", "state", "took"]


def varying(sweep: Sweep, trials: Sequence[Trial]) -> list[str]:
    """Names of the parameters that are not the same in all trials; all of them if there is none."""
    names = [p.name for p in sweep.parameters]
    return [n for n in names if len({_short(t.parameters.get(n)) for t in trials}) > 1] or names


def table_rows(sweep: Sweep, trials: Sequence[Trial]) -> list[list[str]]:
    """One row a trial, best first."""
    return [
        [
            trial.id, *(_short(trial.parameters.get(name)) for name in varying(sweep, trials)),
            "–" if trial.value is None else f"{trial.value:.4g}", _state(trial), duration(trial.seconds),
        ]
        for trial in rank(sweep, trials)
    ]  # fmt: skip


def print_outcome(place: Place, trials: Sequence[Trial]) -> None:
    """Print the table on stdout."""
    print_table(table_rows(place.sweep, trials), header=header(place.sweep, trials))


def best_experiment(place: Place, best: Trial) -> str:
    """The best trial as the text of an experiment file."""
    sweep = place.sweep
    of = (
        " on the test set: choosing by it makes it an optimistic number"
        if (sweep.metric or "").startswith("test/")
        else ""
    )
    base = find(sweep.experiment)
    head = [
        f"# The best of {len(place.all())} trials of the sweep {place.folder.name} ({sweep.method}).",
        f"# {sweep.metric} = {best.value:.6g}, seed of the experiment, one run each{of}.",
        f"# Its run: {best.run}",
        "#",
        f"#   fulgurite run {place.folder / 'best.yaml'}",
    ]
    parent = sweep.experiment if base.is_relative_to(EXPERIMENTS) else str(base)
    settings: dict[str, Any] = {"base": parent}
    for name, value in {**_fixed(place, best), **best.parameters}.items():
        settings[name] = value
    return "\n".join(head) + "\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _fixed(place: Place, best: Trial) -> dict[str, Any]:
    """Settings that the sweep's command gives to every trial."""
    from ..config.experiment import parse_flags
    from ..config.settings import Settings, read_yaml
    from .trial import split_words

    flags, files = split_words(place.sweep.fixed)
    merged = Settings()
    for file in files:
        merged.merge(read_yaml(file).items())
    merged.merge(parse_flags(flags))
    return {".".join(path): leaf.value for path, leaf in merged if ".".join(path) not in best.parameters}


def draw(sweep: Sweep, trials: Sequence[Trial], file: Path) -> None:
    """Parallel coordinates: one axis a parameter that varies and one for the metric, one line a trial, coloured by the
    metric; grey where it has no value.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [t for t in reversed(rank(sweep, trials)) if t.parameters]
    axes = [(name, [t.parameters.get(name) for t in shown]) for name in varying(sweep, shown)]
    metric = [t.value for t in shown]
    axes.append((str(sweep.metric), metric))
    figure, plot = pyplot.subplots(figsize=(max(5.0, 1.9 * len(axes)), 4), constrained_layout=True)
    scaled = [_axis(values) for _, values in axes]
    finite = [v for v in metric if v is not None]
    colours = pyplot.get_cmap("viridis" if sweep.maximize else "viridis_r")
    for number, value in enumerate(metric):
        places = [heights[number] for heights, _ in scaled]
        known = [(x, y) for x, y in enumerate(places) if y is not None]
        spread = max(finite) - min(finite)
        colour = NO_COLOUR if value is None else colours((value - min(finite)) / spread if spread else 0.5)
        plot.plot(*zip(*known, strict=True), color=colour, linewidth=1.6, alpha=0.9)
    for x, (_, ticks) in enumerate(scaled):
        plot.axvline(x, color="black", linewidth=0.8)
        for height, text in ticks:
            plot.annotate(text, (x, height), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    plot.set_xticks(range(len(axes)), [name.replace(".init_args", "") for name, _ in axes], fontsize=8)
    plot.set_xlim(-0.1, len(axes) - 0.55)
    plot.set_yticks([])
    for side in ("left", "right", "top", "bottom"):
        plot.spines[side].set_visible(False)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


def _axis(values: Sequence[Any]) -> tuple[list[float | None], list[tuple[float, str]]]:
    """Heights in 0..1 of an axis's values, and its marks: numbers by size (by their logarithm if they span more than
    two powers of ten), anything else by its order.
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len([v for v in values if v is not None]) and numbers:
        is_log = min(numbers) > 0 and max(numbers) / min(numbers) > 100
        scale = math.log10 if is_log else float
        low, high = scale(min(numbers)), scale(max(numbers))
        heights = [None if v is None else (scale(v) - low) / (high - low) if high > low else 0.5 for v in values]
        marks = sorted(set(numbers)) if len(set(numbers)) <= 6 else [min(numbers), max(numbers)]
        return heights, [((scale(v) - low) / (high - low) if high > low else 0.5, f"{v:.4g}") for v in marks]
    names = sorted({_short(v) for v in values})
    place = {name: n / max(1, len(names) - 1) for n, name in enumerate(names)}
    return [place[_short(v)] for v in values], [(h, name[:24]) for name, h in place.items()]


def _state(trial: Trial) -> str:
    if trial.state == "failed" and trial.error:
        return f"failed: {trial.error.splitlines()[0][:80]}"
    return f"stopped early, after {trial.steps}" if trial.state == "stopped" else trial.state


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _markdown(place: Place, columns: list[str], rows: list[list[str]]) -> str:
    from ..records.report import table

    sweep = place.sweep
    goal = f", {'highest' if sweep.maximize else 'lowest'} {sweep.metric} first" if sweep.metric else ""
    return f"# {place.folder.name}: {sweep.method} over {sweep.experiment}{goal}\n\n{table(columns, rows)}\n"
