"""Does the picture move as fast as commanded? Keys at several speeds from the same starts, measured by optical flow.

Axis legend: S start, V speed.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ....datamodules.gamecraft.actions import Chord
from ..metrics.flow_metrics import correlation, is_rising, pair_flow
from ..motion import AXES, in_full_speeds
from .chunks import ChunkModel, answer
from .held_out import CounterfactualSet
from .judges import Judges

SPEEDS = (0.25, 0.5, 0.75, 1.0)
KEYS = {"w": ("forward", 1), "d": ("strafe", 1), "left": ("turn", -1), "down": ("look", -1)}  # axis and its sign


def speed_response(
    starts: CounterfactualSet, model: ChunkModel, judges: Judges, num_starts: int, batch_size: int, seed: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The part of results.json on speeds, and key -> flow [S, V] for a plot.

    Args:
        starts: where from.
        model: asked for every key at every speed.
        judges: for the speed along the key's own axis, and how closely the flow looks.
        num_starts: starts to take.
        batch_size: chunks generated at once.
        seed: of the noise, which all speeds of a start share.
    """
    chords = [Chord.of(**{key: speed}) for key in KEYS for speed in SPEEDS]
    flows, motions = [], []
    for number, start in enumerate(islice(starts, num_starts)):
        made = answer(model, start.request(chords, seed * 1_000_003 + number), batch_size)
        flows.append(pair_flow(made, judges.flow_stride).magnitude.mean(1))
        motions.append(in_full_speeds(judges.idm.measure(made)[0]).mean(1))
    flow_SKV = torch.stack(flows).unflatten(1, (len(KEYS), len(SPEEDS)))
    motion_SKVM = torch.stack(motions).unflatten(1, (len(KEYS), len(SPEEDS)))
    commanded_V = torch.tensor(SPEEDS)
    rows: list[list[Any]] = []
    metrics: dict[str, float] = {}
    for i, (key, (axis, sign)) in enumerate(KEYS.items()):
        flow_SV = flow_SKV[:, i]
        along_V = sign * motion_SKVM[:, i, :, AXES.index(axis)].mean(0)
        of_mean = correlation(commanded_V, flow_SV.mean(0))
        single = torch.tensor([correlation(commanded_V, f_V) for f_V in flow_SV]).median()
        rows.append([key, *flow_SV.mean(0).tolist(), of_mean, float(single), *along_V.tolist()])
        metrics |= {
            f"test/response/{key}_correlation": of_mean,
            f"test/response/{key}_correlation_one_start": float(single),
            f"test/response/{key}_motion_correlation": correlation(commanded_V, along_V),
        }
    worst = min(metrics[f"test/response/{key}_correlation"] for key in KEYS)
    rising = all(is_rising(flow_SKV[:, i].mean(0)) for i in range(len(KEYS)))
    metrics["test/response/worst_correlation"] = worst
    text = (
        f"{model.name}: measured flow {'rises' if rising else 'does NOT always rise'} with every step of commanded "
        f"speed; correlation at least {worst:.3f} over the {len(KEYS)} keys."
    )
    columns = ["key", *(f"flow at {s:g}, px/frame" for s in SPEEDS), "correlation", "of a single start, median"]
    columns += [f"measured speed at {s:g}" for s in SPEEDS]
    note = (
        "Flow: mean length (DIS), mean over starts. Measured speed: by inverse dynamics, along the key's own axis, as "
        "a fraction of full speed; a perfect model gives the commanded number."
    )
    table = {
        "title": f"Speed response from {len(flows)} held-out starts",
        "columns": columns,
        "rows": rows,
        "note": note,
    }
    return {"metrics": metrics, "tables": [table], "statements": [text]}, {
        k: flow_SKV[:, i] for i, k in enumerate(KEYS)
    }
