"""Muon's steps are orthogonal matrices, whatever the gradient's scale and shape."""

import pytest
import torch

from core.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(32, 32), (16, 64), (64, 16)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_orthogonalised_matrices_have_singular_values_near_one_and_the_same_directions(shape, scale):
    matrix = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrix)
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


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="takes matrices"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)
