"""What the reader `rules` would say of items, told from the numbers that the trained chunker is given too.

Axis legend: B batch, N item, F number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ....datamodules.chunking.labels import FLAGS, IGNORED
from ....datamodules.chunking.layout.features import OWN, RELATED
from ....datamodules.chunking.typeset.truth import ROLES, Role


def rules_roles(batch: dict[str, Tensor]) -> Tensor:
    """[B, N] numbers of roles: the first rule that fits, body text where none does."""
    own_BNF = batch["own"]

    def says(name: str) -> Tensor:
        return own_BNF[..., OWN[name]] > 0.5

    order: list[tuple[Role, Tensor]] = [
        ("page_number", says("is_running") & says("page_number")),
        ("header", says("is_running") & (own_BNF[..., OWN["y0"]] < 0.5)),
        ("footer", says("is_running")),
        ("contents_entry", says("contents_line")),
        ("table_header", says("in_table") & says("in_header")),
        ("table_row", says("in_table")),
        ("title", says("in_title")),
        ("heading1", says("level2")),
        ("heading2", says("level3")),
        ("question", says("question")),
        ("answer", says("answer")),
        ("step", says("step")),
        ("list_item", says("bullet")),
    ]
    found = torch.full(own_BNF.shape[:2], ROLES.index("body"), device=own_BNF.device)
    for role, fits in reversed(order):
        found = torch.where(fits, ROLES.index(role), found)
    return found


def rules_flag(batch: dict[str, Tensor]) -> Tensor:
    """[B, N] numbers of flags by the rules of decide.py; `IGNORED` beyond a batch's first page, which has none."""
    related_BNF, own_BNF = batch["related"], batch["own"]

    def says(name: str) -> Tensor:
        return related_BNF[..., RELATED[name]] > 0.5

    bullet_in_list = (own_BNF[..., OWN["bullet"]] > 0.5) & says("in_procedure")
    goes_on = says("next_step") | bullet_in_list | says("cut_sentence")
    new = says("last_ended") | says("open_table") | ~says("has_context")
    found = torch.full(related_BNF.shape[:2], FLAGS.index("Partial"), device=own_BNF.device)
    found = torch.where(new, FLAGS.index("False"), found)
    found = torch.where(goes_on, FLAGS.index("True"), found)
    return torch.where(batch["page"] == 0, found, IGNORED)
