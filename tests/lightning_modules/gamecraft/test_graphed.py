"""A loss through CUDA graphs: the same losses and weights as without them, over steps, shapes and autocast."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fulgurite.lightning_modules.gamecraft.graphed import GraphedLoss


def squared(trained: nn.Module, frozen: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        wanted = frozen(x)
    return (trained(x) - wanted).float().square().mean()


def train(graphed: bool) -> list[Tensor]:
    torch.manual_seed(0)
    trained = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 8)).cuda()
    frozen = nn.Linear(8, 8).cuda().requires_grad_(False)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2, fused=True)
    loss_of = GraphedLoss(squared, trained, frozen) if graphed else lambda x: squared(trained, frozen, x)
    losses = []
    for step in range(12):
        x = torch.randn(4 + 4 * (step % 2), 8, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            loss = loss_of(x)
        losses.append(loss.detach().clone())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        frozen.weight.mul_(0.9)  # as a moving average changes under it
    return [*losses, *(p.detach() for p in trained.parameters())]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_graphs_change_nothing() -> None:
    for a, b in zip(train(True), train(False), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
