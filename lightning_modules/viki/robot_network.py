"""A robot's network: each thing, robot and place is a token, and an action is scored by the tokens that it names.

B = batch, S = slots of `agent_view` (things, robots, areas), D = width, A = actions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .agent_view import ACTIONS, AGENTS, NUM_AREAS, NUM_ASSETS, NUM_SLOTS, Seen, seen

_PRIMITIVES = tuple(dict.fromkeys(name for name, _ in ACTIONS))
_PLACE_FACTS = 14


class RobotNetwork(nn.Module):
    """Features to a score of each action, or to one value.

    A slot's features are what it is, and relations that a plain network would have to learn anew for every pair of
    slots: whether the robot stands there, holds it, holds something that belongs there. Slots share their weights, so
    what was learned of an apple in slot 1 holds for one in slot 3.

    Args:
        width: of the hidden layers.
        outputs: `actions`, or `value`.
    """

    def __init__(self, width: int, outputs: str) -> None:
        super().__init__()
        example = seen(torch.zeros(1, _num_features()))
        size = example.name.shape[-1] + example.type.shape[-1] + NUM_AREAS + 3 + 6 + _PLACE_FACTS
        self.first, self.second = nn.Linear(size, width), nn.Linear(width, width)
        self.pooled = nn.Linear(2 * width + 1, width)
        self.of_slot = nn.Linear(width, len(_PRIMITIVES) if outputs == "actions" else 1)
        self.of_all = nn.Linear(width, len(_PRIMITIVES) if outputs == "actions" else 1)
        self.outputs = outputs
        with torch.no_grad():
            for last in (self.of_slot, self.of_all):
                last.weight.mul_(0.1)
        primitive = torch.tensor([_PRIMITIVES.index(name) for name, _ in ACTIONS])
        names = torch.zeros(len(ACTIONS), NUM_SLOTS)
        for number, (_, slots) in enumerate(ACTIONS):
            names[number, list(slots)] = 1
        self.register_buffer("primitive_A", primitive, persistent=False)
        self.register_buffer("names_AS", names, persistent=False)

    def forward(self, features_BF: Tensor) -> Tensor:
        """Scores, float32 [B, A], or values, float32 [B]."""
        part = seen(features_BF)
        first_BSD = torch.tanh(self.first(_slots(part)))
        pooled_BD = torch.tanh(self.pooled(torch.cat([first_BSD.mean(1), first_BSD.amax(1), part.time], -1)))
        second_BSD = torch.tanh(self.second(first_BSD) + pooled_BD[:, None])
        if self.outputs == "value":
            values: Tensor = (self.of_all(pooled_BD) + self.of_slot(second_BSD).mean(1))[:, 0]
            return values
        slots_BSP, all_BP = self.of_slot(second_BSD), self.of_all(pooled_BD)
        of_action_BAS = slots_BSP.transpose(1, 2)[:, self.primitive_A]
        return (of_action_BAS * self.names_AS).sum(-1) + all_BP[:, self.primitive_A]


def _num_features() -> int:
    from .agent_view import AgentView

    return AgentView.num_features


def _slots(part: Seen) -> Tensor:
    """Features of each slot, [B, S, ...]."""
    batch, device = len(part.time), part.time.device
    places = NUM_SLOTS
    # what it is
    kind = torch.eye(3, device=device).repeat_interleave(
        torch.tensor([NUM_ASSETS, len(AGENTS), NUM_AREAS], device=device), 0
    )
    name = _into(part.name, 0, places)
    typ = _into(part.type, NUM_ASSETS, places)
    area = torch.zeros(batch, places, NUM_AREAS, device=device)
    area[:, places - NUM_AREAS :] = torch.eye(NUM_AREAS, device=device)
    thing = _into(torch.cat([part.flags, part.switch, part.order], -1), 0, places)
    # who is where: the robot that looks, and the others
    who = part.who[..., None]
    mine, others = (
        [(x * w).sum(1) for x in (part.agent_where[..., :-1], part.reached, part.carried)] for w in (who, 1 - who)
    )
    where = part.where[..., :-1]
    at_goal, at_before = (where * part.goal).sum(-1), (where * part.before).sum(-1)
    wanted, earlier = part.goal.sum(-1), part.before.sum(-1)
    pad = places - NUM_ASSETS
    by_thing = [  # [B, assets] each
        mine[1], mine[2], others[1], others[2], at_goal, wanted - at_goal, (earlier - at_before) * part.order[..., 1],
        (where * mine[0][:, None]).sum(-1),
    ]  # fmt: skip
    by_place = [  # [B, S] each
        mine[0], others[0], (part.goal * mine[2][..., None]).sum(1), (part.before * mine[2][..., None]).sum(1),
        (where * (wanted - at_goal)[..., None]).sum(1), (part.goal * (1 - at_goal)[..., None]).sum(1),
    ]  # fmt: skip
    facts = torch.stack([*(nn.functional.pad(x, (0, pad)) for x in by_thing), *by_place], -1)
    return torch.cat([kind.expand(batch, -1, -1), name, typ, area, thing, facts], -1)


def _into(values_BND: Tensor, start: int, places: int) -> Tensor:
    return nn.functional.pad(values_BND, (0, 0, start, places - start - values_BND.shape[1]))
