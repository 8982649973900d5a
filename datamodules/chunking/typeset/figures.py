"""Drawn figures with text inside: bars, curves, flowcharts, a device with its parts named."""

from __future__ import annotations

from typing import Any

from .manuscript import Draft, Manuscript
from .truth import ChunkKind
from .wording import Wording, lexicon

SHAPES = ("bars", "curve", "flow", "chain", "device")


def add_figure(manuscript: Manuscript, wording: Wording, shape: str) -> None:
    """Add a figure with a caption below; the figure's text is what is written in the drawing, one label a line.

    Args:
        manuscript: where it is added.
        wording: source of text.
        shape: one of `SHAPES`.
    """
    rng = wording.rng
    number = manuscript.count("figure")
    unit: tuple[ChunkKind, str] = ("figure", f"f{number}")
    labels, values = _labels(wording, shape, manuscript.columns > 1)
    code = manuscript.run("\n".join([*values, *labels]))  # in the order in which the template draws them
    caption = f"{wording.words['figure']} {number}{rng.choice((':', '.', ' –'))} {wording.choice('figure_captions')}"
    figure = Draft("figure", [code], manuscript.path, unit=unit)
    below = Draft("caption", [manuscript.run(caption)], manuscript.path, unit=unit)
    highest = max((float(v) for v in values), default=1.0)
    drawn: list[dict[str, Any]] = [{"text": v, "height": 14 + 52 * float(v) / highest} for v in values]
    manuscript.add(
        "figure",
        [figure, below],
        code=code.code,
        shape=shape,
        labels=labels,
        values=drawn,
        framed=rng.random() < 0.4,
        centred=rng.random() < 0.5,
        caption={"code": below.runs[0].code, "text": caption},
    )


def _labels(wording: Wording, shape: str, narrow: bool) -> tuple[list[str], list[str]]:
    rng, lists = wording.rng, lexicon(wording.language)
    if shape in ("bars", "curve"):
        first = rng.randint(0, 2)
        labels = lists["bars"][first : first + (4 if narrow else 5)]
        return labels, [str(rng.randint(4, 99)) for _ in labels]
    if shape == "device":
        found = rng.sample(lists["parts"], rng.randint(3, 5))
        return [f"{k + 1} {name}" for k, name in enumerate(found)], []
    count = rng.randint(3, 5) if shape == "flow" else (2 if narrow else 3)
    return wording.sample("flow", count), []
