"""What a service remembers for `textdiffusion watch`: latencies, and the newest samples that it served.

    <folder>/served.json              a `Served` (factory/watch.py): counts, latencies, history, the samples' hash
    <folder>/samples/samples.npz      images, with sample.json beside them, as the step `sample` writes them
    <folder>/samples/samples.jsonl    texts, without the prompts that they continue; filled gaps are left out

Both are bounded, written every half minute and at the end, and begun anew for a new champion. One service a folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from core import storage
from core.errors import UserError
from core.evaluation import SAMPLING
from core.names import inside
from core.storage import integrity
from core.text.config import GAP
from factory.watch import INTERVALS, SAMPLES, SERVED, quantiles
from serving.card import ModelCard
from serving.orders import Order

log = logging.getLogger("serving")
EVERY = 30.0  # seconds between two writings
LATENCIES = 10_000  # of a route, the newest
OF_AN_ORDER = 4  # samples of one order, at most: one client's wishes must not be all that is kept


class Watch:
    """The memory of one service; nothing is kept where `folder` is None."""

    def __init__(self, folder: str | None, keep: int) -> None:
        self.folder, self._keep = folder, keep
        self._begin(None)

    def _begin(self, card: ModelCard | None) -> None:
        self._card, self._since, self._served = card, _now(), 0
        self._statuses: dict[str, Counter[int]] = {}
        self._seconds: dict[str, deque[float]] = {}
        self._samples: deque[dict[str, Any]] = deque(maxlen=self._keep)
        self._history: deque[dict[str, Any]] = deque(maxlen=INTERVALS)
        self._recent: deque[float] = deque(maxlen=LATENCIES)  # seconds, since the last writing
        self._answered = self._refused = 0
        self._changed = False

    def serves(self, card: ModelCard) -> None:
        """Another model is in service: what was kept is of the one before."""
        self._begin(card)

    def asked(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        if self.folder is None:
            return
        self._statuses.setdefault(route, Counter())[status] += 1
        self._answered += 1
        if status >= 400:
            self._refused += 1
        else:
            self._recent.append(seconds)
            self._seconds.setdefault(route, deque(maxlen=LATENCIES)).append(seconds)
        self._changed = True

    def drew(self, order: Order) -> None:
        """An order was drawn to its end."""
        if self.folder is None or order.card is not self._card:
            return
        self._served += len(order.rows)
        settings = {key: order.section.get(key) for key in ("steps", "guidance", "temperature")}
        for index in range(min(OF_AN_ORDER, len(order.rows))):
            row, sample = order.rows[index], order.samples[index]
            prompt = str(row.get("prompt", ""))
            if GAP in prompt:
                continue
            if isinstance(sample, str):
                sample = sample.removeprefix(prompt)
            self._samples.append({"sample": sample, "label": row.get("label", -1), "seed": row["seed"], **settings})

    async def keep_writing(self) -> None:
        """Writes now and then, until it is cancelled; a drive that refuses costs a line of the log."""
        while self.folder is not None:
            await asyncio.sleep(EVERY)
            await self.write()

    async def write(self) -> None:
        """Writes what has changed."""
        if self.folder is None or self._card is None or not self._changed:
            return
        self._changed = False
        facts, samples = self._facts(), list(self._samples)
        try:
            await asyncio.to_thread(_write, self.folder, self._card, facts, samples)
        except (UserError, OSError) as error:
            self._changed = True
            log.error("what was served is not written: %s", error)

    def _facts(self) -> dict[str, Any]:
        assert self._card is not None
        card = self._card
        if self._answered:
            at = {name: round(value, 5) for name, value in quantiles(self._recent).items()}
            self._history.append({"until": _now(), "n": self._answered, "refused": self._refused, **at})
            self._answered = self._refused = 0
            self._recent.clear()
        return {
            "model": card.name,
            "version": card.version,
            "weights_sha256": card.weights_sha256,
            "modality": card.modality,
            "run": card.run,
            "since": self._since,
            "until": _now(),
            "served": self._served,
            "requests": {route: {str(code): n for code, n in codes.items()} for route, codes in self._statuses.items()},
            "seconds": {route: [round(one, 5) for one in values] for route, values in self._seconds.items()},
            "history": list(self._history),
        }


def _write(folder: str, card: ModelCard, facts: Mapping[str, Any], samples: list[dict[str, Any]]) -> None:
    """The samples first; served.json names their hash, so what a reader meets half written is noticed."""
    place = inside(folder, SAMPLES[card.modality])
    if card.modality == "images":
        shape = (0, *card.shape)
        images = np.stack([one["sample"] for one in samples]) if samples else np.zeros(shape, np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=images, labels=np.array([one["label"] for one in samples], np.int64))
        data = buffer.getvalue()
    else:
        lines = [{"mode": "diffusion", "prompt": "", "text": one["sample"], "seed": one["seed"]} for one in samples]
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    drawn = {"settings": card.section, "weights_sha256": card.weights_sha256, "class_names": list(card.classes) or None}
    storage.write_json(inside(folder, f"samples/{SAMPLING}"), drawn)
    storage.write_bytes(place, data)
    steps = Counter(str(one["steps"]) for one in samples)
    kept = {"kept": len(samples), "steps": dict(steps), "samples_sha256": hashlib.sha256(data).hexdigest()}
    integrity.write_json(storage.join(folder, SERVED), {**facts, **kept})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
