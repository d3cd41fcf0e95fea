"""The backbone: what it may look at, and what its positions mean."""

import pytest
import torch

from core.text.config import TransformerConfig
from core.text.transformer import Cache, Transformer, rotate, rotation

CONFIG = TransformerConfig(width=32, depth=2, heads=2)


@pytest.fixture
def model() -> Transformer:
    torch.manual_seed(0)
    model = Transformer(CONFIG).double()
    for parameter in model.parameters():  # zero-initialised projections would hide every mistake
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return model


def test_causal_features_do_not_depend_on_later_tokens(model: Transformer) -> None:
    x, positions = torch.randn(3, 10, 32, dtype=torch.float64), torch.arange(10)
    changed = x.clone()
    changed[:, 6:] = torch.randn(3, 4, 32)
    before, after = model(x, positions, causal=True), model(changed, positions, causal=True)
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=0)
    assert (after[:, 6:] != before[:, 6:]).any(dim=-1).all()


def test_bidirectional_features_depend_on_every_token(model: Transformer) -> None:
    x = torch.randn(1, 6, 32, dtype=torch.float64, requires_grad=True)
    for index in range(6):
        (gradient,) = torch.autograd.grad(model(x, torch.arange(6))[:, index].square().sum(), x)
        assert (gradient.abs().sum(dim=-1) > 0).all()


def test_rotary_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 8, dtype=torch.float64), torch.randn(1, 8, dtype=torch.float64)

    def product(i: int, j: int) -> torch.Tensor:
        return (rotate(q, rotation(torch.tensor([i]), 8)) * rotate(k, rotation(torch.tensor([j]), 8))).sum()

    torch.testing.assert_close(product(3, 1), product(103, 101), rtol=1e-4, atol=1e-5)  # angles are fp32
    assert abs(product(3, 1) - product(4, 1)) > 1e-3


def test_rotation_is_that_of_complex_numbers() -> None:
    x, positions = torch.randn(3, 5, 8, dtype=torch.float64), torch.arange(5)
    angles = positions.float()[:, None] * 10_000.0 ** (-torch.arange(4) / 4)
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotate(x, rotation(positions, 8)), torch.cat((turned.real, turned.imag), -1).double(),
                               rtol=1e-5, atol=1e-6)  # fmt: skip


def test_features_do_not_change_when_all_positions_shift(model: Transformer) -> None:
    x, positions = torch.randn(2, 7, 32, dtype=torch.float64), torch.arange(7)
    torch.testing.assert_close(
        model(x, positions + 50, causal=True), model(x, positions, causal=True), rtol=1e-3, atol=1e-4
    )


def test_order_matters_through_positions_alone(model: Transformer) -> None:
    x, positions, order = torch.randn(1, 5, 32, dtype=torch.float64), torch.arange(5), torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(model(x[:, order], positions[order]), model(x, positions)[:, order])
    assert (model(x[:, order], positions) - model(x, positions)[:, order]).abs().max() > 1e-3


def test_reading_in_pieces_with_a_cache_gives_the_same_features(model: Transformer) -> None:
    x, positions = torch.randn(2, 9, 32, dtype=torch.float64), torch.arange(9)
    whole = model(x, positions, causal=True)
    for fixed in (False, True):
        cache, features = Cache(12, torch.device("cpu"), fixed=fixed), []
        for part in x.split([4, 1, 4], dim=1):
            places = cache.place(part.shape[1])
            features.append(model(part, places, mask=cache.seen(places), cache=cache))
            cache.length += part.shape[1]
        torch.testing.assert_close(torch.cat(features, dim=1), whole)


def test_a_new_layer_changes_nothing_yet() -> None:
    model = Transformer(CONFIG)
    x = torch.randn(1, 4, 32)
    torch.testing.assert_close(model(x, torch.arange(4)), model.last_norm(model.first_norm(x)))
