"""Accuracy over levels leaves level 3 out, whose released accuracy a constant answer nearly has; rewards do not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fulgurite.lightning_modules.viki.grpo.module import VikiGRPOModule
from fulgurite.lightning_modules.viki.rewards import Reward

ANSWERED = [(1, Reward(1.0, 1.0, 1.0)), (2, Reward(1.0, 0.0, 0.1)), (3, Reward(0.0, 0.9, 0.81))]
WANTED = {"val/accuracy": 0.5, "val/format": 2 / 3, "val/reward": 1.91 / 3}


def logged_by_lightning(answered):
    seen = {}
    module = SimpleNamespace(log=lambda name, value, **_: seen.update({name: value}))
    records = [SimpleNamespace(level=level) for level, _ in answered]
    VikiGRPOModule._log_rewards(module, "val", records, [reward for _, reward in answered])
    return seen


def logged_by_rllib(answered):
    pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")
    from fulgurite.lightning_modules.viki.grpo.env_runner import sums_of
    from fulgurite.lightning_modules.viki.grpo.reports import _rewards

    return _rewards("val", sums_of(answered))


@pytest.mark.parametrize("logged", [logged_by_lightning, logged_by_rllib])
def test_level_3_is_left_out_of_accuracy_alone(logged):
    found = logged(ANSWERED)
    assert {name: found[name] for name in WANTED} == pytest.approx(WANTED)
    assert "val/accuracy" not in logged(ANSWERED[2:])


def test_each_level_has_its_own():
    found = logged_by_rllib(ANSWERED)
    assert [found[f"val/accuracy_l{level}"] for level in (1, 2, 3)] == [1.0, 0.0, 0.9]
