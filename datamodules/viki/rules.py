"""The faults of the released plan checker, one flag each (MARS-EAI/VIKI-R, verl/utils/reward_score/utils/eval).

`RELEASED` has them all, so that scores can be compared with published ones. `STRICT` has none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Rules:
    """Which faults of the released checker are kept.

    Attributes:
        crashes: Close, Handover, an unknown robot, reaching something that was put onto a mere thing, a goal that names
            what is not there: the released code raises, which counts as failed. Mended: they do what they say, or are
            refused with a sentence.
        any_place: Move and Place take any name for a place. Mended: it has to be in the record, a place of the kitchen,
            or named by a goal.
        reach_from_afar: a robot that stands anywhere in an area reaches everything there, and everything in an opened
            cabinet from its door. Mended: Reach, Place and Interact need the robot to stand at that very thing, or both
            to be at the spot where the robot started.
        grasps_all: Grasp takes everything that was reached, and Place needs no hand for more than one. Mended: it takes
            the thing it names.
        grasps_anything: fixtures can be carried away, robots and what lies in another's hand reached. Mended: only
            things that can be carried are, and only free ones.
        holds_anything: everything can be put onto everything, also onto itself. Mended: onto areas, into containers,
            onto boards.
        lost_after_grasp: a robot that grasped something is nowhere until it moves. Mended: it stands where the thing
            lay.
        tools_lie: a knife can be used while it lies somewhere. Mended: what can be carried is used in the hand.
        same_step: what has to come one after the other may come true in one step. Mended: a step apart.
        push_drags: pushing a box out of a container, or one that was put down together with other things, renames the
            place for all of them; pushed to a robot, it goes wherever that goes. Mended: only the box moves, with what
            lies in it, to where the robot stands.
        free_waiting: steps without an action, or that are no step at all, do not count. Mended: they count.
        one_draw: where a thing may start in several areas, one is drawn. Mended: the plan has to work for all.
    """

    crashes: bool = False
    any_place: bool = False
    reach_from_afar: bool = False
    grasps_all: bool = False
    grasps_anything: bool = False
    holds_anything: bool = False
    lost_after_grasp: bool = False
    tools_lie: bool = False
    same_step: bool = False
    push_drags: bool = False
    free_waiting: bool = False
    one_draw: bool = False


STRICT = Rules()
RELEASED = Rules(**{field.name: True for field in fields(Rules)})
