"""Optimizers without torch's compiler compute what torch's compute."""

import torch

from core.training.eager import AdamW


def test_adamw_takes_the_very_steps_of_torchs() -> None:
    weights = []
    for optimizer_class in (AdamW, torch.optim.AdamW):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 24).reshape(4, 6))
        optimizer = optimizer_class([weight], lr=0.01, weight_decay=0.1, fused=True)
        for step in range(5):
            optimizer.zero_grad()
            (weight * (weight + step)).square().sum().backward()
            optimizer.step()
        weights.append(weight.detach().clone())
        assert optimizer.state[weight]["step"] == 5
    assert torch.equal(*weights)


def test_a_step_records_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    assert weight.grad_fn is None
    assert weight.requires_grad
