"""Ranges of very many texts, for factory/shards.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.config import validate
from core.errors import UserError
from core.jsontext import to_lines
from core.processes.world import own_device
from core.text.config import TextSample
from core.text.model import load_model
from core.text.sampling import Sampler


def drawer(
    sample: Mapping[str, Any], model: Path, size: int
) -> tuple[Callable[[int, int], bytes], str, dict[str, Any]]:
    """(start, stop) -> lines as samples.jsonl has them, of the first mode, without prompts; their suffix; facts.

    Texts are drawn from one stream of noise for each batch, so a shard is whole batches.

    Raises:
        UserError: the model is damaged, or the settings ask for what it cannot do.
    """
    settings = validate(TextSample, {"modes": ("diffusion",), **sample, "count": size}, "sample")
    if len(settings.modes) != 1 or settings.modes[0] not in ("diffusion", "autoregressive") or settings.prompts:
        raise UserError("sample.modes: shards take one mode, diffusion or autoregressive, and no prompts")
    if size % settings.batch_size:
        raise UserError(f"shard size {size}: allowed: a multiple of sample.batch_size, {settings.batch_size}")
    device = own_device()
    trained = load_model(model, device)
    sampler = Sampler(trained, None, settings, device)

    def shard(start: int, stop: int) -> bytes:
        return to_lines(sampler.span(settings.modes[0], start, stop))

    facts = settings.model_dump(mode="json", exclude={"count"})
    return shard, ".jsonl", {"sample": facts, "weights_sha256": trained.description["weights_sha256"]}
