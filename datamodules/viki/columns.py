"""The columns of the parquet files: the same in every file, so that dicts are padded with nulls as in released ones."""

from __future__ import annotations

import pyarrow

from .vocabulary import objects, places

_MAX_ASSETS = 5
_AGENTS = ("R1", "R2", "R3")


def schema(level: int) -> pyarrow.Schema:
    """The columns for records of a level: 1, 2 or 3."""
    text, message = pyarrow.string(), [("role", pyarrow.string()), ("content", pyarrow.string())]
    return pyarrow.schema(
        [
            ("images", pyarrow.list_(pyarrow.struct([("bytes", pyarrow.binary()), ("path", text)]))),
            ("data_source", text),
            ("prompt", pyarrow.list_(pyarrow.struct(message))),
            ("ability", text),
            ("reward_model", pyarrow.struct([("style", text), ("ground_truth", _task() if level == 2 else text)])),
            (
                "extra_info",
                pyarrow.struct(
                    [
                        ("schema_version", pyarrow.int64()), ("split", text), ("index", pyarrow.int64()),
                        ("family", text), ("views", pyarrow.list_(text)), ("scene", text),
                    ]
                ),
            ),
        ]
    )  # fmt: skip


def _task() -> pyarrow.DataType:
    text, words = pyarrow.string(), pyarrow.list_(pyarrow.string())
    status = pyarrow.struct([("pos.name", text), ("is_activated", pyarrow.bool_())])
    fact = pyarrow.struct([("type", text), ("name", text), ("is_satisfied", pyarrow.bool_()), ("status", status)])
    names = (*objects(), *(place.name for place in places().values() if place.kind == "fixture"))
    starts = [*_AGENTS, *(f"{name}_{number}" for name in names for number in range(_MAX_ASSETS))]
    actions = pyarrow.struct([(agent, words) for agent in _AGENTS])
    return pyarrow.struct(
        [
            ("description", text), ("task_id", text), ("task_name", text), ("layout_id", pyarrow.int64()),
            ("robots", pyarrow.struct([(agent, text) for agent in _AGENTS])), ("idle_robots", words),
            ("init_pos", pyarrow.struct([(name, words) for name in starts])),
            ("goal_constraints", pyarrow.list_(pyarrow.list_(fact))),
            ("temporal_constraints", pyarrow.list_(pyarrow.list_(pyarrow.list_(fact)))),
            ("time_steps", pyarrow.list_(pyarrow.struct([("step", pyarrow.int64()), ("actions", actions)]))),
        ]
    )  # fmt: skip
