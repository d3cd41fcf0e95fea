"""Muon's steps are orthogonal matrices, whatever the gradient's scale and shape."""

import pytest
import torch

from core.training import muon
from core.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(32, 32), (24, 32), (16, 64), (16, 144), (144, 16)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalised_matrices_have_singular_values_near_one_and_the_same_directions(shape, scale):
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(torch.stack([-matrix, matrix]))[1]
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ found @ v.T  # diagonal if the directions are kept
    values = inner.diagonal()[s > 0.1 * s[0]]
    assert ((values > 0.6) & (values < 1.3)).all()
    torch.testing.assert_close(inner - inner.diagonal().diag(), torch.zeros_like(inner), atol=1e-3, rtol=0)


def test_it_finds_the_least_squares_solution():
    generator = torch.Generator().manual_seed(0)
    x, truth = torch.randn(256, 8, generator=generator), torch.randn(8, 4, generator=generator)
    weight = torch.nn.Parameter(torch.zeros(8, 4))
    optimizer = Muon([weight], lr=0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        (x @ weight - x @ truth).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), truth, atol=0.02, rtol=0)


@pytest.mark.parametrize("together", [2**24, 300, 1])
def test_matrices_of_one_shape_take_the_steps_they_take_alone(monkeypatch, together):
    monkeypatch.setattr(muon, "TOGETHER", together)
    shapes = [(8, 4, 3, 3), (16, 16), (8, 4, 3, 3), (16, 16), (8, 36), (8, 4, 3, 3)]

    def weights():
        generator = torch.Generator().manual_seed(0)
        return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]

    def steps(*optimizers, parameters):
        for _ in range(3):
            for parameter in parameters[:-1]:  # the last has no gradient and stays
                parameter.grad = parameter.detach().sin()
            for optimizer in optimizers:
                optimizer.step()

    jointly, alone = weights(), weights()
    steps(Muon(jointly, lr=0.1, weight_decay=0.1), parameters=jointly)
    steps(*(Muon([parameter], lr=0.1, weight_decay=0.1) for parameter in alone), parameters=alone)
    for one, other, first in zip(jointly, alone, weights(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        assert (one == first).all() == (one is jointly[-1])


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="takes matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


def test_a_step_that_the_device_finds_not_finite_changes_nothing() -> None:
    """As torch's fused AdamW: what is not finite is known on the device alone."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(4, 6)), torch.nn.Parameter(torch.randn(4, 6))]
    plain, decided = (
        Muon([p.detach().clone().requires_grad_() for p in parameters], lr=0.1, weight_decay=0.1) for _ in "ab"
    )

    def step(muon: Muon, gradient: float, bad: float | None) -> None:
        for parameter in muon.param_groups[0]["params"]:
            parameter.grad = torch.linspace(-1, 1, 24).view(4, 6) * gradient
        muon.found_inf = None if bad is None else torch.tensor(bad)
        muon.step()

    for bad in (None, 0.0):
        step(plain, 1.0, None)
        step(decided, 1.0, bad)
    step(decided, float("nan"), 1.0)
    step(plain, 0.5, None)
    step(decided, 0.5, 0.0)
    for left, right in zip(plain.param_groups[0]["params"], decided.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(left, right)
        buffers = [muon.state[p]["momentum_buffer"] for muon, p in ((plain, left), (decided, right))]
        torch.testing.assert_close(*buffers)


def test_matrices_that_a_gpu_widens_take_the_same_steps() -> None:
    shapes = [(8, 4, 3, 3), (16, 16), (16, 8), (8, 8), (12, 8), (8, 36)]
    parameters = sorted(map(torch.zeros, shapes), key=lambda p: (min(muon._sides(p)), muon._sides(p)))
    updates = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(0)).double()
    alone, together = (muon._directions(updates, parameters, widen=widen) for widen in (False, True))
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
