"""Muon: orthogonal updates for convolutions and matrices, AdamW for the rest."""

from __future__ import annotations

import copy

import torch
from torch import nn

from fulgurite.lightning_modules.gamecraft.muon import NEWTON_SCHULZ, RMS, Muon, orthogonal


def test_singular_values_come_near_one_whatever_the_shape() -> None:
    torch.manual_seed(0)
    given = [torch.randn(16, 40), torch.randn(48, 16) * 1e-4, torch.randn(16, 40) * 100, torch.randn(32, 32)]
    for matrix, made in zip(given, orthogonal(given, 5), strict=True):
        assert made.shape == matrix.shape
        values = torch.linalg.svdvals(made)
        assert values.max() < 1.3
        assert values.median() > 0.6
        # the same directions: the polar factor's are the matrix's own
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        mixed = left.mT @ made @ right.mT
        assert (mixed - mixed.diagonal().diag()).abs().max() < 1e-2


def test_it_is_the_iteration_on_the_matrix_itself() -> None:
    torch.manual_seed(1)
    a, b, c = NEWTON_SCHULZ
    matrix = torch.randn(16, 64)
    x = (matrix / matrix.norm()).double()
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(orthogonal([matrix, torch.randn(24, 24)], 5)[0].double(), x, atol=1e-4, rtol=1e-3)


def test_updates_have_adams_size_and_small_weights_are_adams() -> None:
    torch.manual_seed(2)
    conv, narrow = nn.Conv3d(16, 32, 3), nn.Conv3d(3, 32, 1)
    ours = [*conv.parameters(), *narrow.parameters()]
    theirs = copy.deepcopy(narrow)
    muon, adam = Muon(ours, lr=1e-2), torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0)
    before = conv.weight.detach().clone()
    for _ in range(3):
        for p, q in zip(narrow.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        conv.weight.grad, conv.bias.grad = torch.randn_like(conv.weight), None
        muon.step()
        adam.step()
        torch.testing.assert_close(narrow.weight, theirs.weight)
        torch.testing.assert_close(narrow.bias, theirs.bias)
        moved = (conv.weight - before).square().mean().sqrt() / 1e-2
        assert 0.7 * RMS < moved < 1.3 * RMS
        before = conv.weight.detach().clone()


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(3)
    nets = [nn.Linear(16, 20), nn.Linear(16, 20)]
    nets[1].load_state_dict(nets[0].state_dict())
    first, second = (Muon(net.parameters(), lr=1e-2) for net in nets)

    def step(net: nn.Linear, optimizer: Muon, number: int) -> None:
        generator = torch.Generator().manual_seed(number)
        net(torch.randn(8, 16, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step(nets[0], first, 0)
    step(nets[1], second, 0)
    resumed = Muon(nets[1].parameters(), lr=1.0)
    resumed.load_state_dict(copy.deepcopy(second.state_dict()))
    step(nets[0], first, 1)
    step(nets[1], resumed, 1)
    assert torch.equal(nets[0].weight, nets[1].weight) and torch.equal(nets[0].bias, nets[1].bias)
