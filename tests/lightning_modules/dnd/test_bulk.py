"""Many LoRAs in one pass are those that one-by-one training with PEFT makes; their scores are those of scoring.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fulgurite.datamodules.dnd.examples import Example
from fulgurite.datamodules.dnd.text import TextFormat, collate
from fulgurite.datamodules.dnd.token_rows import RowStream, token_rows
from fulgurite.datamodules.draws import Shuffled
from fulgurite.lightning_modules.dnd.adapted import AdaptedModel
from fulgurite.lightning_modules.dnd.batched_lora import BatchedLoRA
from fulgurite.lightning_modules.dnd.bulk import BulkSettings, train_together
from fulgurite.lightning_modules.dnd.bulk_scoring import score_together
from fulgurite.lightning_modules.dnd.scoring import score
from fulgurite.registry import UserError

BASE, CPU = "tiny-random-llama", torch.device("cpu")
CONFIG = {
    "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "layers_to_transform": [1],
    "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"],
}  # fmt: skip
SETTINGS = BulkSettings(rank=4, steps=6, num_snapshots=2, lr=2e-2, warmup_steps=2, init_seed=3, save_every=2)
TASKS = [
    [Example(f"say {i} in words", "yes" if i % 2 else "no, never", ("yes", "no, never")) for i in range(12)],
    [Example(f"a longer prompt about number {i}", str(i), (str(i), str(i + 1), "none")) for i in range(9)],
    [Example(f"{i}?", "x" * (i + 1), ("x" * (i + 1), "y")) for i in range(5)],
]


@pytest.fixture(scope="module")
def model() -> BatchedLoRA:
    return BatchedLoRA(BASE, CONFIG, CPU)


def streams(model: BatchedLoRA) -> list[RowStream]:
    return [RowStream(token_rows(model.tokenizer, TextFormat(), t, 64), 4, seed=i) for i, t in enumerate(TASKS)]


def trained(model: BatchedLoRA, folder: Path) -> list[dict[str, torch.Tensor]]:
    last: dict[int, dict[str, torch.Tensor]] = {}
    train_together(model, streams(model), SETTINGS, folder / "state", lambda k, s, state: last.update({k: dict(state)}))
    return [last[k] for k in range(len(TASKS))]


def test_training_together_is_training_one_by_one_with_peft(model: BatchedLoRA, tmp_path: Path) -> None:
    together = trained(model, tmp_path)
    alone = AdaptedModel(BASE, CONFIG)
    for k, examples in enumerate(TASKS):
        alone.reset(SETTINGS.init_seed)
        assert alone.state().keys() == together[k].keys()
        weights = [p for p in alone.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=1.0, weight_decay=0.0)
        draws = Shuffled(examples, seed=k)
        for step in range(SETTINGS.steps):
            optimizer.param_groups[0]["lr"] = SETTINGS.lr_at(step)
            batch = collate(alone.tokenizer, TextFormat(), [draws[step * 4 + i] for i in range(4)], 64)
            optimizer.zero_grad()
            alone.loss(batch["input_ids"], batch["labels"]).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
        for key, value in alone.state().items():
            torch.testing.assert_close(
                together[k][key], value, rtol=2e-3, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}"
            )
            assert ".lora_A." in key or value.abs().max() > 1e-3, "nothing was learned"


def test_a_cut_off_group_goes_on_as_if_it_had_not_been(model: BatchedLoRA, tmp_path: Path) -> None:
    whole = trained(model, tmp_path)

    class Killed(Exception):
        pass

    calls = 0
    before = model.losses

    def losses(*arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return before(*arguments)  # type: ignore[arg-type]

    model.losses = losses  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trained(model, tmp_path / "cut")
    assert (tmp_path / "cut" / "state").is_file()
    again = trained(model, tmp_path / "cut")
    model.losses = before  # type: ignore[method-assign]
    assert calls == 4 + SETTINGS.steps - 2, "it did not begin at its resume point"
    assert not (tmp_path / "cut" / "state").exists()
    for first, second in zip(whole, again, strict=True):
        for key in first:
            torch.testing.assert_close(first[key], second[key])


def test_adapters_that_are_no_plain_loras_are_refused() -> None:
    with pytest.raises(UserError, match="use_rslora"):
        BatchedLoRA(BASE, {**CONFIG, "use_rslora": True}, CPU)


def test_scores_together_are_the_scores_one_by_one(model: BatchedLoRA, tmp_path: Path) -> None:
    states = trained(model, tmp_path)
    alone = AdaptedModel(BASE, CONFIG)
    stack = {key: torch.stack([s[key] for s in states]) for key in states[0]}
    for examples in TASKS:
        found = score_together(model, stack, TextFormat(), examples, tokens_at_once=200)
        for k, state in enumerate(states):
            alone.load(state)
            wanted = score(alone.peft, alone.tokenizer, TextFormat(), examples)
            assert found.choice_KE is not None
            assert float(found.choice_KE[k].float().mean()) == pytest.approx(wanted.choice)
            assert float(found.exact_KE[k].float().mean()) == pytest.approx(wanted.exact_match)
    with alone.without_adapter():
        wanted = score(alone.peft, alone.tokenizer, TextFormat(), TASKS[0], shots=TASKS[1][:2], hint=" Go.")
    base = score_together(model, None, TextFormat(), TASKS[0], shots=TASKS[1][:2], hint=" Go.")
    assert base.choice_KE is not None and float(base.choice_KE.float().mean()) == pytest.approx(wanted.choice)
