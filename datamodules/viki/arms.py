"""Level 3 records: two arms at one bench, who has to move what where, and the ways of their hands in the picture."""

from __future__ import annotations

import zlib

import numpy

from .encoding import encode
from .generator import HELDOUT_LAYOUTS, HELDOUT_STYLES
from .prompts import trajectory_prompt
from .records import Record
from .scene_description import NUM_LAYOUTS, NUM_STYLES
from .scenes.renderer import SceneRenderer
from .scenes.trajectories import ArmTask, trajectory_scene

_WORDINGS = (
    "Wanted: {both}. You {own}. Your partner's part: {other}.",
    "In the end there should be {both}. Yours is to {own}; the other arm has to {other}.",
    "Two arms share a bench, and the aim is {both}. Your share: {own}. The share of your partner: {other}.",
    "You {own} while your partner's work is to {other}, which makes {both}.",
)


def draw_arms_record(split: str, index: int, seed: int, renderer: SceneRenderer) -> Record:
    """One level 3 record with its picture, whole pixels as gold; the same arguments give the same record.

    Args:
        split: train, val, test or heldout_scene.
        index: its number in the split.
        seed: of the data set.
        renderer: draws it.

    Raises:
        UserError: if no setting of the scene was found.
    """
    draw = numpy.random.default_rng((seed, zlib.crc32(split.encode()), index, 3))
    held_out = split == "heldout_scene"
    layouts = [n for n in range(NUM_LAYOUTS) if (n in HELDOUT_LAYOUTS) == held_out]
    styles = [n for n in range(NUM_STYLES) if (n in HELDOUT_STYLES) == held_out]
    scene = trajectory_scene(
        int(draw.integers(2**31)), renderer, layout=int(draw.choice(layouts)), style=int(draw.choice(styles))
    )
    both = f"{_aim(scene.own)} and {_aim(scene.partner)}"
    wording = _WORDINGS[int(draw.integers(len(_WORDINGS)))]
    instruction = wording.format(both=both, own=_share(scene.own), other=_share(scene.partner))
    gold = [numpy.rint(task.path).astype(int).tolist() for task in (scene.own, scene.partner)]
    return Record(
        3, trajectory_prompt(), instruction, str(gold), (encode(scene.picture),), ("ego",), split, index, "arms"
    )


def _aim(task: ArmTask) -> str:
    return f"the {task.carried} {'in' if task.target == 'bowl' else 'on'} the {task.target}"


def _share(task: ArmTask) -> str:
    return f"bring the {task.carried} to the {task.target}"
