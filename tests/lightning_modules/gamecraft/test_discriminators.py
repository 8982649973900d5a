"""Discriminators: whose weights get whose gradients, gradients of a fixed size, and both sides' learning."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

from fulgurite.datamodules.gamecraft.camera import plucker_rays
from fulgurite.lightning_modules.gamecraft.chunk_training import predict
from fulgurite.lightning_modules.gamecraft.consistency import PhaseGrid
from fulgurite.lightning_modules.gamecraft.decoder import decoder_loss
from fulgurite.lightning_modules.gamecraft.discriminators import (
    FrameDiscriminator,
    TokenDiscriminator,
    frozen,
    hinge,
    map_distance,
    measured,
)
from fulgurite.lightning_modules.gamecraft.distillation import adversarial_loss, distillation_loss, student_of
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE

VAE = {"block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
SIDE = 32


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def norm(gradients: Any) -> float:
    return sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5


def test_a_measured_gradient_is_that_of_an_absolute_error_whatever_the_loss() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    (x.abs().mean()).backward()
    wanted = x.grad.square().mean().sqrt()
    for steepness in (1e-3, 1e3):
        x.grad = None
        y = measured(x, torch.tensor(0.5))
        assert torch.equal(y, x)
        (steepness * y.square().sum()).backward()
        torch.testing.assert_close(x.grad.square().mean().sqrt(), 0.5 * wanted)
        torch.testing.assert_close(x.grad / x.grad.norm(), (x / x.norm()).detach())
    x.grad = None
    measured(x, torch.tensor(0.0)).square().sum().backward()
    assert (x.grad == 0).all()


def student_inputs() -> tuple[Tensor, ...]:
    size, latent = 2, SIDE // 8
    x0, noise = torch.randn(2, size, 16, 9, latent, latent)
    grid = PhaseGrid(48, 8, 3.0)
    n = torch.tensor([4, 30])
    levels = (grid.sigma(n), grid.sigma(n - 1), grid.sigma(grid.boundary(n)))
    history = torch.randn(size, 16, 1, latent, latent)
    k = torch.tensor([[20.0, 0, 16], [0, 24, 16], [0, 0, 1]]).expand(size, 33, 3, 3)
    c2w = torch.eye(4).expand(size, 33, 4, 4).clone()
    c2w[:, :, 2, 3] = torch.linspace(0, 1, 33)
    seen = (torch.randn(size, 16, 384), torch.ones(size, 16, dtype=torch.bool), torch.randn(size, 384))
    none = tuple(torch.zeros_like(x) for x in seen[::2])
    return x0, noise, *levels, torch.rand(size), history, k, c2w, *seen, none[0], seen[1], none[1]


def test_each_side_of_a_students_loss_gets_its_own_gradients() -> None:
    teacher = GameCraftTransformer.of_size("tiny", guidance_embeds=False).requires_grad_(False)
    student = student_of(teacher)
    average = student_of(teacher).requires_grad_(False)
    critic = TokenDiscriminator(64, 3)
    inputs = student_inputs()

    def gradients(weight: float) -> tuple[list[Tensor], list[Tensor], tuple[Tensor, ...]]:
        student.zero_grad()
        critic.zero_grad()
        found = adversarial_loss(plucker_rays, 1e-3, student, average, teacher, critic, torch.tensor(weight), *inputs)
        found[0].backward()
        own = [torch.zeros(1) if p.grad is None else p.grad.clone() for p in student.parameters()]
        return own, [p.grad.clone() for p in critic.parameters()], found

    student.zero_grad()
    plain_loss = distillation_loss(plucker_rays, 1e-3, student, average, teacher, *inputs)
    plain_loss.backward()
    plain = [torch.zeros(1) if p.grad is None else p.grad.clone() for p in student.parameters()]

    none, of_critic, found = gradients(0.0)
    torch.testing.assert_close(found[1], plain_loss.detach())
    for a, b in zip(none, plain, strict=True):
        torch.testing.assert_close(a, b)
    some, same, _ = gradients(1.0)
    moved = norm(a - b for a, b in zip(some, none, strict=True))
    assert 0.05 * norm(none) < moved < 20 * norm(none)  # it reaches the student, at a size beside the consistency's
    for a, b in zip(same, of_critic, strict=True):
        torch.testing.assert_close(a, b)  # and the discriminator minds its own loss alone
    assert norm(of_critic) > 0 and all(p.grad is None for p in (*teacher.parameters(), *average.parameters()))


def test_a_discriminator_of_tokens_learns_and_a_chunk_that_follows_it_looks_real() -> None:
    teacher = GameCraftTransformer.of_size("tiny", guidance_embeds=False).requires_grad_(False)
    *_, history, k, c2w, states, mask, pooled = student_inputs()[:12]
    rays, zero = plucker_rays(k, c2w, SIDE, SIDE), torch.zeros(2)
    critic = TokenDiscriminator(64, 3)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)

    def taps(x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        predict(teacher, x, zero, history, rays, (states, mask, pooled), taps=found)
        return found

    for _ in range(25):
        made, real = 0.3 * torch.randn(2, 16, 9, 4, 4), torch.randn(2, 16, 9, 4, 4)
        loss = hinge(critic(taps(real)), critic(taps(made)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.detach() < 0.5
    assert taps(made)[0].shape == (2, 9 * 4, 64)  # the history's tokens are left out
    x = made.clone().requires_grad_()
    before = frozen(critic, taps(x)).mean()
    (-before).backward()
    with torch.no_grad():
        after = critic(taps(x - 2.0 * x.grad / x.grad.abs().max())).mean()
    assert after > before


def test_each_side_of_a_decoders_loss_gets_its_own_gradients() -> None:
    vae = GameplayVAE(**VAE, spatial_padding="zeros")
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    critic = FrameDiscriminator((8, 16, 16))
    x, predicted = torch.rand(1, 3, 5, 32, 32) * 2 - 1, torch.randn(1, 16, 2, 4, 4)
    loss = functools.partial(decoder_loss, 60.0, vae, critic, x, predicted)

    def gradients(features: float, score: float) -> tuple[list[Tensor], list[Tensor]]:
        vae.zero_grad()
        critic.zero_grad()
        loss(torch.tensor(features), torch.tensor(score))[0].backward()
        return [p.grad.clone() for p in vae.decoder.parameters()], [p.grad.clone() for p in critic.parameters()]

    none, of_critic = gradients(0.0, 0.0)
    assert norm(of_critic) > 0 and all(p.grad is None for p in vae.encoder.parameters())
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        some, same = gradients(*weights)
        assert norm(a - b for a, b in zip(some, none, strict=True)) > 1e-3 * norm(none)
        for a, b in zip(same, of_critic, strict=True):
            torch.testing.assert_close(a, b)


def test_maps_are_compared_by_direction() -> None:
    a = torch.randn(1, 8, 2, 3, 3)
    assert float(map_distance([a, 5 * a], [3 * a, a])) == pytest.approx(0, abs=1e-6)
    assert float(map_distance([a], [-a])) == pytest.approx(4, rel=1e-5)
