"""What training writes down: JSON lines that resume exactly, and TensorBoard events."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import jsontext, storage
from core.names import inside

log = logging.getLogger(__name__)
TIMING = ("seconds", "rate")  # the fields that differ between two runs of the same training


class TrainingLog:
    """Rows of the log, in memory and in every checkpoint, so that a resumed log has neither gap nor repetition.

    Where Vertex AI sets AIP_TENSORBOARD_LOG_DIR (a custom job with a TensorBoard), event files are copied there.

    Args:
        rows: rows of the checkpoint that training resumes from.
        tensorboard: empty folder for event files, or None. They begin with `rows`: what a killed process wrote is lost,
            or lies where Vertex AI's TensorBoard looks and is replaced there by `purge_step`.
    """

    def __init__(self, rows: list[dict[str, Any]], tensorboard: Path | None) -> None:
        self.rows = rows
        self._writer, self._folder = None, tensorboard
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=0)
            for row in rows:
                self._draw(row)

    def add(self, examples: int, **fields: Any) -> None:
        """One row; nested mappings become `name/key` in TensorBoard."""
        self.rows.append({"examples": examples, **fields})
        self._draw(self.rows[-1])

    def _draw(self, row: Mapping[str, Any]) -> None:
        if self._writer is None:
            return
        for name, value in row.items():
            if name == "examples":
                continue
            for key, number in value.items() if isinstance(value, dict) else [("", value)]:
                self._writer.add_scalar(f"{name}/{key}".rstrip("/"), number, row["examples"])

    def publish(self) -> None:
        """Brings the event files to where Vertex AI's TensorBoard looks for them; a refusal there is only noted."""
        place = os.environ.get("AIP_TENSORBOARD_LOG_DIR")
        if self._writer is None or self._folder is None or not place:
            return
        self._writer.flush()
        try:
            storage.copy_tree(self._folder, place.rstrip("/"))
        except Exception as error:  # curves are a convenience: whatever is wrong with them must not end a training
            log.warning("TensorBoard: events could not be copied to %s: %s", place, error)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def to_bytes(self) -> bytes:
        return jsontext.to_lines(self.rows)

    @staticmethod
    def parse(data: bytes) -> list[dict[str, Any]]:
        return jsontext.parse_lines(data, "the log")


def write_records(rows: list[dict[str, Any]], previews: Mapping[str, bytes], out: Path) -> None:
    """Writes train_log.jsonl and previews/ of a finished training into a model folder."""
    storage.write_bytes(out / "train_log.jsonl", TrainingLog(rows, None).to_bytes())
    for name, data in previews.items():
        storage.write_bytes(inside(out / "previews", name.removeprefix("preview-")), data)


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of train_log.jsonl in a model folder; none if the model was saved without."""
    uri = storage.join(folder, "train_log.jsonl")
    return TrainingLog.parse(storage.read_bytes(uri)) if storage.exists(uri) else []
