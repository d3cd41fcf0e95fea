"""Images with the channels and the resolution that a job asks for."""

from __future__ import annotations

import numpy as np

from core.images.config import ImageData
from core.images.sources import Batch
from core.sources.summary import Tally


def conform(batch: Batch, config: ImageData, tally: Tally) -> Batch:
    """`batch` with the channels and resolution that `config` asks for."""
    if config.channels == 1 and batch.ndim == 4:
        luma = batch.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
        batch = np.rint(luma).astype(np.uint8)
    elif config.channels == 3 and batch.ndim == 3:
        batch = np.repeat(batch[..., None], 3, axis=3)
    side = config.resolution
    if side is None or batch.shape[1:3] == (side, side):
        return batch
    tally.count("cropped", len(batch) if batch.shape[1] != batch.shape[2] else 0)
    return _resized(batch, side)


def _resized(batch: Batch, side: int) -> Batch:
    """The centre square of each image at `side` x `side` pixels, bicubic and antialiased."""
    import torch
    from torch.nn.functional import interpolate

    height, width = batch.shape[1:3]
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    batch = batch[:, top : top + square, left : left + square]
    planes = (
        torch.from_numpy(np.ascontiguousarray(batch).reshape(len(batch), square, square, -1)).movedim(-1, 1).float()
    )
    scaled = interpolate(planes, size=(side, side), mode="bicubic", antialias=True).round_().clamp_(0, 255)
    result: Batch = scaled.to(torch.uint8).movedim(1, -1).contiguous().numpy()
    return result if batch.ndim == 4 else result[..., 0]
