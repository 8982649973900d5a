"""The resumable loader: what it gives is a function of the draws' numbers alone."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

from fulgurite.datamodules.draws import DrawLoader, Shuffled


class Numbers(Dataset[int]):
    """Draw n is the number n."""

    def __getitem__(self, draw: int) -> int:
        return draw


def given(loader: DrawLoader, count: int) -> list[list[int]]:
    batches = iter(loader)
    return [next(batches).tolist() for _ in range(count)]


def test_epochs_follow_each_other_without_a_gap():
    loader = DrawLoader(Numbers(), batch_size=2, num_batches=3)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4, 5]]
    assert [b.tolist() for b in loader] == [[6, 7], [8, 9], [10, 11]]


def test_an_epoch_that_was_left_early_is_followed_by_a_whole_one():
    loader = DrawLoader(Numbers(), batch_size=1, num_batches=5)
    assert given(loader, 3) == [[0], [1], [2]]
    assert [b.tolist() for b in loader] == [[3], [4], [5], [6], [7]]


def test_a_restored_loader_goes_on_after_the_last_batch_given_also_with_workers():
    first = DrawLoader(Numbers(), batch_size=2, num_batches=10, num_workers=2)
    assert given(first, 3)[-1] == [4, 5]  # its workers have fetched further than that
    second = DrawLoader(Numbers(), batch_size=2, num_batches=10)
    second.load_state_dict(first.state_dict())
    assert given(second, 1) == [[6, 7]]


def test_making_an_iterator_draws_nothing_from_the_global_generator():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    given(DrawLoader(Numbers(), batch_size=2, num_batches=3), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_share_the_draws_out(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    seen = []
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        loader = DrawLoader(Numbers(), batch_size=2, num_batches=4)
        seen += [n for batch in loader for n in batch.tolist()]
        assert loader.state_dict() == {"batches_given": 4}
    assert sorted(seen) == list(range(24))


def test_shuffled_goes_through_every_item_once_a_pass_in_an_order_of_its_own():
    items = Shuffled("abcdefgh", seed=3)
    passes = [[items[8 * p + i] for i in range(8)] for p in range(3)]
    assert all(sorted(p) == list("abcdefgh") for p in passes)
    assert passes[0] != passes[1] != passes[2]
    assert [Shuffled("abcdefgh", seed=3)[8 + i] for i in (5, 2)] == [passes[1][5], passes[1][2]]
