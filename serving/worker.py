"""`python -m serving.worker`: the process that owns the model. It draws a batch for each frame on its standard input.

    service -> {"modality", "parts", "batch", "section"}       once; answered by {"ready", "tile", "threads"}
    service -> {"section", "rows", "watched"}                  answered by any number of {"frame"}, then {"done"}

It ends when its input ends, however the service ended. Signals are the service's business.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from typing import Any, BinaryIO

from core.errors import UserError
from core.processes.accelerators import require_gpus
from serving.frames import packed, read

WARM_STEPS = 2


class _Out:
    """The pipe to the service. What libraries print goes to stderr instead."""

    def __init__(self) -> None:
        self._stream: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, header: dict[str, Any], payload: bytes = b"") -> None:
        self._stream.write(packed(header, payload))
        self._stream.flush()


def main() -> None:
    """Loads the model, draws a batch to warm up, says that it is ready, and draws until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    out = _Out()
    asked = read(sys.stdin.buffer)
    if asked is None:
        return
    try:
        import torch

        from serving.drawing import load

        require_gpus()
        drawer = load(asked["modality"], asked["parts"], asked["batch"])
        row: dict[str, Any] = {"seed": 0, "index": 0}
        row |= {"label": -1} if asked["modality"] == "images" else {"prompt": ""}
        short = {"steps": min(WARM_STEPS, asked["section"]["steps"])}
        drawer.draw({**asked["section"], **short}, [row] * drawer.tile)
    except UserError as error:
        out.send({"error": str(error)})
        return
    out.send({"ready": True, "tile": drawer.tile, "threads": torch.get_num_threads()})
    while (asked := read(sys.stdin.buffer)) is not None:
        _answer(out, drawer, asked)


def _answer(out: _Out, drawer: Any, asked: dict[str, Any]) -> None:
    def show(facts: dict[str, Any], payload: bytes) -> None:
        out.send({"frame": facts}, payload)

    began = time.monotonic()
    try:
        header, payload = drawer.draw(asked["section"], asked["rows"], show if asked["watched"] else None)
    except UserError as error:
        out.send({"error": str(error)})
    except Exception as error:
        from serving.drawing import no_memory

        if no_memory(error):  # what is left of this process is not to be trusted: a new one is
            raise
        traceback.print_exc()
        out.send({"fault": f"{type(error).__name__}"})
    else:
        out.send({"done": header, "seconds": time.monotonic() - began}, payload)


if __name__ == "__main__":
    main()
