"""Where volume leads: terabytes of data, a thousand GPUs, millions of samples. Calculated from measured parts.

The parts are CPU seconds of one core of a shared cloud machine (two vCPUs, AVX2, SHA extensions), November 2026; the
command of each stands in docs/planning.md. They are linear in what they are of: ten times the images took 11.0 times.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.gpus import HARDWARE, Training, machine, step
from core.text.bpe import LEARNED_FROM

HASHED = 0.8e-9  # s a byte: SHA-256, when a data set is opened
ARRAY_IMAGE, ARRAY_BYTE = 5.5e-6, 5.2e-9  # s an image, and s a byte of its pixels: arrays through prepare-data
FETCHED = 5.3e-9  # s a byte: a shard read, hashed, written into the cache, and its images picked from there
FILE_IMAGE = 320e-6  # s: a PNG file of 28x28 pixels, of which all processors decode
TEXT_BYTE = 65e-9  # s a byte of text: BPE of 4,096 tokens, of which all processors tokenize
LEARNED_BYTE = 0.33e-6  # s a byte of text that merges are learned from, `LEARNED_FROM` at most
DRAWN = 1 / 230  # s: an image of the job digits, 16 steps with guidance
PROCESSORS = 64  # of the machine that prepares
DISK = 1.2e9  # bytes/s that a network disk reads; assumed
SHARDED = 16e9  # bytes of images above which they are shards: `data.shards.above_gb`
FETCHING = 4  # threads of a process that fetch shards of the next window
MEMORY = 200e9  # bytes of a machine of eight GPUs that can hold what one of its processes has read; assumed


@dataclass(frozen=True)
class DataSet:
    """So many examples of so many bytes each, in arrays, in files, or as text."""

    name: str
    examples: float
    size: int
    kind: str

    @property
    def bytes(self) -> float:
        return self.examples * self.size

    @property
    def serial(self) -> float:
        """Seconds of the one process that writes, on any number of processors."""
        if self.kind == "text":
            learned = LEARNED_BYTE * min(self.bytes, LEARNED_FROM)
            return learned + 3 * HASHED * self.bytes  # text, tokens and their content
        return 0.0 if self._by_shard else self._written

    @property
    def _written(self) -> float:
        return ARRAY_IMAGE * self.examples + ARRAY_BYTE * self.bytes

    @property
    def _by_shard(self) -> bool:
        """Whether each process writes shards of its own."""
        return self.kind == "files" and self.sharded

    @property
    def shared(self) -> float:
        """Seconds of what processors share."""
        parts = {"arrays": 0.0, "files": FILE_IMAGE * self.examples, "text": TEXT_BYTE * self.bytes}
        return parts[self.kind] + (self._written if self._by_shard else 0.0)

    @property
    def prepared(self) -> float:
        """Seconds until it is prepared on a machine of `PROCESSORS`."""
        return max(self.serial, self.shared / PROCESSORS)

    @property
    def sharded(self) -> bool:
        """Whether a training reads it through a cache."""
        return self.kind != "text" and self.bytes > SHARDED

    @property
    def epoch(self) -> float:
        """Seconds in which a machine fetches all shards once, meanwhile it trains; 0 if there are none."""
        return max(FETCHED / FETCHING, 1 / DISK) * self.bytes if self.sharded else 0.0

    @property
    def opened(self) -> float:
        """Seconds until every one of a machine's eight processes has read and hashed what it opens: all, or of
        images in shards the labels alone."""
        kept = self.bytes * (1.8 if self.kind == "text" else 1)  # tokens of two bytes, 2.5 characters each, beside it
        if self.sharded:
            kept = 8 * self.examples
        return max(HASHED * kept, (8 if kept > MEMORY else 1) * kept / DISK)


SETS = (
    DataSet("10 million images of 8x8, arrays", 10e6, 64, "arrays"),
    DataSet("10 million images of 28x28, files", 10e6, 784, "files"),
    DataSet("1 TB: 330 million of 32x32 in colour, files", 330e6, 3072, "files"),
    DataSet("10 TB: 51 million of 256x256 in colour, arrays", 51e6, 196_608, "arrays"),
    DataSet("10 GB of text", 10e9, 1, "text"),
    DataSet("10 TB of text", 10e12, 1, "text"),
)


def volume_rows() -> list[dict[str, object]]:
    """What each data set takes, and what of it comes first."""
    return [
        {
            "data": one.name,
            "one core": _span(one.serial + one.shared),
            f"{PROCESSORS} cores": _span(one.prepared),
            "limit": "one process writes" if one.serial >= one.shared / PROCESSORS else "cores",
            "opened by 8 processes": _span(one.opened),
            "an epoch fetched": _span(one.epoch) if one.sharded else "-",
        }
        for one in SETS
    ]


def reach_rows(field: list[Training], share: int = 64) -> list[dict[str, object]]:
    """Share of the speed that GPUs keep at `share` examples each, and the noise that each of 1,024 draws for a step."""
    rows = []
    for one in field:
        row: dict[str, object] = {"training": one.name}
        alone = step(replace(one, batch=share), "a100").seconds
        for machines in (1, 8, 32, 128):
            gpus = machine("a100-x8").accelerator_count * machines
            taken = step(replace(one, batch=share * gpus), "a100-x8", machines)
            row[f"{gpus:,} GPUs"] = f"{100 * alone / taken.seconds:.0f} %"
        noise = 4 * one.noise * share
        row["noise of a step"] = f"{noise / 1e6:.2g} MB, {1e6 * noise / HARDWARE['a100'].bandwidth:.0f} µs"
        rows.append(row)
    return rows


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s"
