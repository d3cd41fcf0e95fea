"""What became of a person's files: counted while they are read, kept in dataset.json, printed in a few lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from core.records import Label, Record

EXAMPLES = 3  # names shown of what was skipped
Count = Annotated[int, Field(ge=0)]


class Skipped(Record):
    """Files left out for one reason: how many, and the first few names."""

    count: Count
    examples: tuple[Label, ...] = ()

    @property
    def names(self) -> str:
        return ", ".join([*self.examples, "..."][: self.count])


class Summary(Record):
    """How many files or images were read, what was skipped and why, and how many were changed in which way."""

    read: Count = 0
    skipped: dict[Label, Skipped] = Field(default_factory=dict)
    transparent: Count = Field(0, description="with transparent pixels")
    rotated: Count = Field(0, description="turned upright as EXIF says")
    cropped: Count = Field(0, description="cropped to their centre square")
    reduced: Count = Field(0, description="larger than 4096 pixels, shrunk")
    clipped: Count = Field(0, description="with values outside data.value_range, clipped")
    first_frames: Count = Field(0, description="of several frames or pages, the first one taken")
    grey: Count = Field(0, description="grey among coloured ones")
    duplicates: Count = Field(0, description="equal to an earlier one")
    leaked: Count = Field(0, description="of validation or test equal to one of training")
    byte_order_marks: Count = Field(0, description="with a byte order mark, removed")
    crlf: Count = Field(0, description="with CRLF line ends, made LF")
    warnings: tuple[Label, ...] = ()

    def lines(self, unit: str) -> list[str]:
        """The same for a reader; `unit` is what is read: file, image."""
        left = sum(entry.count for entry in self.skipped.values())
        why = ", ".join(f"{entry.count:,} {reason} ({entry.names})" for reason, entry in self.skipped.items())
        lines = [
            f"read {self.read:,} {unit}{'' if self.read == 1 else 's'}" + (f"; skipped {left:,}: {why}" if left else "")
        ]
        noticed = [
            f"{value:,} {described.description}"
            for name, described in type(self).model_fields.items()
            if described.description and (value := getattr(self, name))
        ]
        if noticed:
            lines.append("of them " + ", ".join(noticed))
        return [*lines, *(f"warning: {warning}" for warning in self.warnings)]


class Tally:
    """Counts what `Summary` says, while files are read."""

    def __init__(self) -> None:
        self.skipped: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}
        self.warnings: list[str] = []

    def skip(self, name: str, reason: str) -> None:
        """`name`, relative to the data's folder, is left out."""
        self.skipped.setdefault(reason, []).append(name)

    def skip_all(self, skipped: Iterable[tuple[str, str]]) -> None:
        for name, reason in skipped:
            self.skip(name, reason)

    def count(self, what: str, number: int = 1) -> None:
        """One more of a field of `Summary`."""
        self.counts[what] = self.counts.get(what, 0) + number

    def summary(self) -> Summary:
        """What was counted so far."""
        skipped = {
            reason: Skipped(count=len(names), examples=tuple(name[-200:] for name in sorted(names)[:EXAMPLES]))
            for reason, names in sorted(self.skipped.items())
        }
        return Summary(skipped=skipped, warnings=tuple(self.warnings), **self.counts)
