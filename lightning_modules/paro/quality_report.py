"""The table of `fulgurite paro quality`, what it says in words, and its picture.

Axis legend: S start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...datamodules.files import atomic_write
from .fidelity import NUM_ACTIONS, Fidelity, mean_and_interval
from .quality import ALL, DENSE, FLOOR, REAL, SEED, Setting

NAMES = {REAL: "real answers", DENSE: "dense", FLOOR: "dense, other kernel", SEED: "dense, other noise"}
KERNELS = {
    "pytorch": "plain PyTorch",
    "hopper": "Hopper kernel",
    "triton": "Triton kernel",
    "cutlass": "CUTLASS kernel",
}
COLUMNS = [
    "orders", "target", "numbers", "computed by", "density", "recall", "PSNR, dB", "from", "to", "SSIM", "from", "to",
    "actions right", "from", "to", "FVD-IDM to dense, paired", "FVD-IDM to real", "lossless",
]  # fmt: skip
NOTE = (
    "From, to: the middle 95 % of the mean by bootstrap over starts, or single pictures. PSNR and SSIM are against the "
    "dense ones, 60 dB where equal. Recall is of captures that chose nothing. All: no block is left out."
)
NOTE_ON_FILMS = (
    f" SSIM looks at one frame in four. Actions: by inverse dynamics, chance {1 / NUM_ACTIONS:.1%}; the real answers "
    "are its ceiling. FVD-IDM is over its features, not comparable to any FVD, biased upwards at so few films. "
    "Paired: films under plans share the dense ones' noise, those of other noise don't, so it judges nothing. "
    "Lossless: actions right and FVD-IDM to real both inside the range of dense films of this and of other noise."
)
COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#57534e")


def report(
    settings: Sequence[Setting],
    measured: Mapping[str, Fidelity],
    recall: Mapping[str, float],
    computed: Mapping[str, str],
    prefix: str,
    title: str,
    about: str,
) -> dict[str, Any]:
    """Metrics, table and sentences, as the content of results.json.

    Args:
        settings: the rows.
        measured: by their keys.
        recall: by `<arm>_<target>`.
        computed: what computed the attention, by key.
        prefix: of the metrics' names.
        title: of the table.
        about: what the films are, in a sentence or two.
    """
    lossless = {s.key: _is_lossless(measured, s.key) for s in settings if _is_cell(s)}
    rows: list[list[Any]] = []
    metrics: dict[str, float] = {f"{prefix}/recall/{key}": value for key, value in recall.items()}
    for setting in settings:
        found, key = measured[setting.key], setting.key
        psnr, ssim = mean_and_interval(found.psnr_S), mean_and_interval(found.ssim_S)
        right = mean_and_interval(found.accuracy_S) if found.accuracy_S else (None, None, None)
        of_pictures: list[Any] = [None] * 6 if setting.kind in (REAL, DENSE) else [*psnr, *ssim]
        plan, who = setting.plan, computed[key]
        rows.append([
            NAMES.get(setting.kind, setting.kind), setting.target, setting.numbers, KERNELS.get(who, who),
            None if plan is None else float(plan.density.mean()), recall.get(f"{setting.kind}_{setting.target}"),
            *of_pictures, *right, found.frechet_dense, found.frechet_real,
            {True: "yes", False: "no", None: None}[lossless.get(key)],
        ])  # fmt: skip
        of_motion = (("accuracy", right[0]), ("frechet", found.frechet_dense), ("frechet_real", found.frechet_real))
        metrics |= {f"{prefix}/{name}/{key}": value for name, value in of_motion if value is not None}
        if setting.kind not in (REAL, DENSE):
            metrics |= {f"{prefix}/psnr/{key}": psnr[0], f"{prefix}/ssim/{key}": ssim[0]}
    films = bool(measured[DENSE].accuracy_S)
    width = len(COLUMNS) if films else COLUMNS.index("actions right")
    table = {
        "title": title,
        "columns": COLUMNS[:width],
        "rows": [row[:width] for row in rows],
        "note": f"{about} {NOTE}{NOTE_ON_FILMS if films else ''}",
    }
    statements = [*_order_gains(settings, measured), _lossless_sentence(lossless), _kernel_sentence(settings, computed)]
    return {"metrics": metrics, "tables": [table], "statements": [s for s in statements if s]}


def draw(settings: Sequence[Setting], measured: Mapping[str, Fidelity], file: Path) -> None:
    """PSNR over density, a panel for each kind of numbers and a line for each choice of orders.

    Args:
        settings: the rows.
        measured: by their keys.
        file: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = [s for s in settings if _is_cell(s) and s.target != ALL]
    numbers, arms = (list(dict.fromkeys(getattr(s, name) for s in cells)) for name in ("numbers", "kind"))
    others = [mean_and_interval(measured[s.key].psnr_S)[0] for s in settings if s.kind == SEED]
    floor = mean_and_interval(measured[f"{FLOOR}_{ALL}_bf16"].psnr_S)[0]
    figure, axes = pyplot.subplots(1, len(numbers), figsize=(4.2 * len(numbers), 3.8), sharey=True, squeeze=False)
    for axis, number in zip(axes[0], numbers, strict=True):
        for arm, colour in zip(arms, COLOURS, strict=False):
            mine = [s for s in cells if (s.kind, s.numbers) == (arm, number)]
            density = [float(s.plan.density.mean()) for s in mine if s.plan is not None]
            psnr = [mean_and_interval(measured[s.key].psnr_S) for s in mine]
            bars = [[m - low for m, low, _ in psnr], [high - m for m, _, high in psnr]]
            axis.errorbar(density, [m for m, _, _ in psnr], bars, marker="o", capsize=3, color=colour, label=arm)
        axis.axhline(floor, color="#57534e", linestyle="--", linewidth=1, label="dense, other kernel")
        if others:
            axis.axhspan(min(others), max(others), color="#d6d3d1", label="dense, other noise")
        axis.set(title=number, xlabel="density of 64x64 blocks", xlim=(0, 1))
    axes[0][0].set_ylabel("PSNR against dense, dB")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    pyplot.close(figure)


def _is_cell(setting: Setting) -> bool:
    """Whether a row is one of those to be judged, and no control of dense attention."""
    return setting.kind not in NAMES


def _is_lossless(measured: Mapping[str, Fidelity], key: str) -> bool | None:
    """Whether a row lies in the band of dense films: the range of those of this noise and of other noise.

    Judged are the actions recognised and the distance to the real answers. The distance to the dense films is paired:
    a row under a plan shares their noise, so that it is near them whatever it lost. Outside is outside, on the better
    side too.

    Returns:
        None where no dense films of other noise were made, and for single pictures.
    """
    noise = [found for name, found in measured.items() if name.startswith(f"{SEED}_")]
    own = measured[key]
    if not noise or own.frechet_real is None:
        return None
    band = [measured[DENSE], *noise]
    right = [mean_and_interval(x.accuracy_S)[0] for x in band]
    to_real = [x.frechet_real for x in band if x.frechet_real is not None]
    inside = min(right) <= mean_and_interval(own.accuracy_S)[0] <= max(right)
    return inside and min(to_real) <= own.frechet_real <= max(to_real)


def _order_gains(settings: Sequence[Setting], measured: Mapping[str, Fidelity]) -> list[str]:
    """The first arm against each other one, start by start, in the first kind of numbers."""
    cells = [s for s in settings if _is_cell(s) and s.target != ALL]
    first, numbers = cells[0].kind, cells[0].numbers
    said = []
    for target in dict.fromkeys(s.target for s in cells):
        own = measured[f"{first}_{target}_{numbers}"].psnr_S
        parts = []
        for arm in dict.fromkeys(s.kind for s in cells if s.kind != first):
            other = measured[f"{arm}_{target}_{numbers}"].psnr_S
            gain, low, high = mean_and_interval([a - b for a, b in zip(own, other, strict=True)])
            parts.append(f"{gain:+.2f} dB [{low:+.2f}, {high:+.2f}] against {arm}")
        if parts:
            said.append(f"At {target}, {numbers}, the orders of {first} give {', '.join(parts)}.")
    return said


def _lossless_sentence(lossless: Mapping[str, bool | None]) -> str:
    judged = {key: value for key, value in lossless.items() if value is not None}
    if not judged:
        return ""
    within = [key for key, value in judged.items() if value]
    names = ", ".join(within) if within else "none"
    return f"Inside the range of dense films of this and of other noise: {len(within)} of {len(judged)} rows ({names})."


def _kernel_sentence(settings: Sequence[Setting], computed: Mapping[str, str]) -> str:
    who = {s.numbers: computed[s.key] for s in settings if _is_cell(s)}
    return f"Computed by: {'; '.join(f'{numbers} {KERNELS[name]}' for numbers, name in who.items())}."
