"""What `textdiffusion serve` is measured against: FastAPI around diffusers' solver of the same network.

    python -m benchmarks.naive_server MODEL PORT STEPS

A function that draws, under a decorator, as tutorials have it: the framework's threads call it side by side.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.sampling import draw_by_diffusers
from core.images import pictures
from core.images.config import ImageSample
from core.images.model import load_model
from core.processes.world import own_device


class Ask(BaseModel):
    """One image."""

    seed: int = 0
    label: int = 0


def make_app(folder: Path, steps: int) -> FastAPI:
    """The wrapper."""
    trained = load_model(folder, own_device())
    app = FastAPI()

    @app.post("/generate")
    def generate(ask: Ask) -> dict[str, Any]:
        settings = ImageSample(count=1, steps=steps, seed=ask.seed, batch_size=1)
        image = draw_by_diffusers(trained, settings, np.array([ask.label]))[0]
        buffer = io.BytesIO()
        pictures.enlarged(image, smallest_side=1).save(buffer, "PNG")
        return {"png": base64.b64encode(buffer.getvalue()).decode()}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(Path(sys.argv[1]), int(sys.argv[3])), port=int(sys.argv[2]), log_level="warning")
