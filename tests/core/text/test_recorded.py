"""Text that a GPU is asked for once and repeats: all shapes fixed, positions read from tensors, the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.randomness import Noise
from core.text import autoregressive, generation
from core.text.denoiser import Diffusion
from core.text.generation import Prefix, Settings, denoise_block
from core.training.graphs import Graphs, worthwhile
from tests.core.text.conftest import MODEL
from tests.core.training.recorded import Recordings

PROMPT = torch.tensor([[5, 6], [7, 8], [9, 10]])
SETTINGS = Settings(steps=4, temperature=0.9, guidance=1.5)
NEVER = 10**9
LONG = 2 * MODEL.context + 5  # the cache is begun anew on the way, and the last block is a part of one


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, warm: int) -> None:
    for module in (autoregressive, generation):
        monkeypatch.setattr(module, "worthwhile", lambda *_: Graphs(warm))


def three_ways(
    make: Callable[[], Tensor], warm: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Tensor], Recordings]:
    """What it gives with shapes that grow, with fixed ones, and with those recorded."""
    recordings = Recordings(monkeypatch)
    made = [make()]
    for some in (NEVER, warm):
        as_on_a_gpu(monkeypatch, some)
        made.append(make())
    return made, recordings


def test_tokens_that_are_drawn_again_and_again_from_a_recording(
    model: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Tensor:
        return autoregressive.generate(model.autoregressive, PROMPT, LONG, Noise.of("test", rows=3), 0.9)

    (growing, fixed, recorded), recordings = three_ways(make, 3, monkeypatch)
    assert torch.equal(fixed, growing)
    assert torch.equal(recorded, fixed)
    assert recordings.made == 1  # of one token; half a context is read anew more seldom
    assert recordings.replayed >= 25


@pytest.mark.parametrize(("sampler", "kinds", "replayed"), [("mixture", 3, 17), ("ddpm", 4, 15)])
def test_steps_of_blocks_from_a_recording(
    sampler: str, kinds: int, replayed: int, model: Diffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, sampler=sampler)
    watched = []

    def make() -> Tensor:
        """Logits of blocks with some tokens given, each after the text so far."""
        prefix, draws, found = Prefix(model, PROMPT, 4), Noise.of("blocks", rows=3), []
        watched.append(seen := [])
        for place in range(5):  # the context has room for three
            tokens = torch.arange(12).view(3, 4) + place
            ids, logits = denoise_block(
                model, prefix, tokens, tokens < 10, settings, draws, lambda _, ids: seen.append(ids)
            )
            found.append(logits)
            prefix.extend(ids, 4)
        return torch.stack(found)

    (growing, fixed, recorded), recordings = three_ways(make, 2, monkeypatch)
    assert torch.equal(recorded, fixed)
    torch.testing.assert_close(fixed, growing, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(watched[0], watched[2], strict=True))
    # Its last step, reading what it came to, and the others, of which one that hands on a guess has a first.
    assert recordings.made == kinds
    assert recordings.replayed == replayed


def test_texts_are_the_same_with_fixed_shapes(model: Diffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Tensor:
        return generation.generate(model, PROMPT, LONG, 4, SETTINGS, Noise.of("test", rows=3))

    growing = make()
    as_on_a_gpu(monkeypatch, NEVER)
    assert torch.equal(make(), growing)


def test_what_is_not_there_is_not_looked_at(model: Diffusion) -> None:
    """A cache that is begun anew still holds what was read before."""
    ids = torch.randint(20, (2, 12))
    fresh, used = (generation.Cache(MODEL.context, torch.device("cpu"), fixed=True) for _ in range(2))
    with torch.no_grad():
        model.autoregressive.read(torch.randint(20, (2, 16)), used)
        used.length = 0
        for part in ids.split([5, 1, 6], dim=1):
            assert torch.equal(model.autoregressive.read(part, used), model.autoregressive.read(part, fresh))


def test_recording_is_for_many_calls_on_a_gpu() -> None:
    assert not worthwhile(torch.device("cpu"), 10**6).on
    assert not worthwhile(torch.device("cuda"), 3).on
    assert worthwhile(torch.device("cuda"), 1000).on
