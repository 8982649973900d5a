"""Where in a model and in a sampling run a call of attention stands: what a backend with a plan has to know.

A backend owns a `Place`; hooks on the model keep it up to date (`kernels.adapters.follow`). torch.compile traces hooks
and place alike: the layer is a constant of each layer's code, the grid is guarded on, the timestep stays a tensor and
makes no new graph.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

NO_LAYER = -1


@dataclass
class Place:
    """Where a call stands.

    Attributes:
        layer: number of the attention layer among those of the plan; `NO_LAYER` in every other attention, such as
            cross-attention or a text encoder's.
        timestep: the transformer's own timestep, a tensor whose first element counts; None = unknown.
        grid: picture tokens along (frames, height, width) or (height, width); None = unknown.
        side: where text stands, `prefix` or `suffix`; None = unknown, or no text.
    """

    layer: int = NO_LAYER
    timestep: Tensor | None = None
    grid: tuple[int, ...] | None = None
    side: str | None = None
