"""How the report names, explains and prints numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from report.artifacts import Json, number


@dataclass(frozen=True)
class Meaning:
    """A metric's name for people, one sentence on what it says, and which direction is good."""

    title: str
    text: str
    better: str = "lower"
    percent: bool = False
    rank: int = 50


# The first key contained in a metric's name wins, so special cases stand before general ones.
MEANINGS: dict[str, Meaning] = {
    "frechet": Meaning(
        "Fréchet distance",
        "How far the samples' cloud of judge features lies from the real test images'. Blur, missing classes "
        "and artefacts all raise it.",
        rank=0,
    ),
    "kernel": Meaning(
        "Kernel distance (KID)",
        "The same comparison without assuming Gaussian clouds, and unbiased: its expectation for perfect samples "
        "is zero.",
        rank=4,
    ),
    "precision": Meaning("Precision", "Share of samples that fall where real images are: fidelity.", "higher", True, 2),
    "recall": Meaning("Recall", "Share of real images that fall where samples are: coverage.", "higher", True, 3),
    "confidence": Meaning(
        "Judge confidence", "Mean probability the judge gives to the class it reads.", "higher", True, 20
    ),
    "chi2": Meaning(
        "Class balance (χ²)",
        "How unevenly the samples use the classes, compared with what was asked for.",
        rank=21,
    ),
    "histogram": Meaning("Class balance", "How far the classes read in the samples are from the real ones.", rank=21),
    "accuracy": Meaning(
        "Class accuracy",
        "Share of conditional samples in which the judge reads the class that was asked for.",
        "higher",
        True,
        1,
    ),
    "memor": Meaning(
        "Memorised",
        "Share of samples closer to a training image than real test images ever are.",
        "lower",
        True,
        6,
    ),
    "closer": Meaning(
        "Closer than real",
        "Share of samples nearer to training data than a typical real image.",
        "lower",
        True,
        6,
    ),
    "nearest": Meaning(
        "Nearest training image",
        "Distance from a sample to its closest training image. Far below the floor would mean copying.",
        "floor",
        rank=5,
    ),
    "neighbour": Meaning(
        "Nearest training image",
        "Distance from a sample to its closest training image. Far below the floor would mean copying.",
        "floor",
        rank=5,
    ),
    "autoregressive_bits": Meaning(
        "Bits per character, autoregressive", "What the autoregressive model of the same size needs.", rank=20
    ),
    "bits_per_char": Meaning(
        "Bits per character",
        "Upper bound on the bits the model needs for one character of unseen text.",
        rank=1,
    ),
    "bound": Meaning(
        "Bits per character", "Upper bound on the bits the model needs for one character of unseen text.", rank=1
    ),
    "judge_nll": Meaning(
        "Judge nats per character",
        "How surprised a separate language model is by the samples. Read it together with entropy.",
        rank=2,
    ),
    "entropy": Meaning(
        "Character entropy",
        "Variety of characters. Much lower than real text means repetition, higher means noise.",
        "floor",
        rank=3,
    ),
    "validity_4": Meaning(
        "Real words, 4+ letters", "Share of longer words that exist in the training text.", "higher", True, 0
    ),
    "validity": Meaning(
        "Real words", "Share of words in the samples that exist in the training text.", "higher", True, 0
    ),
    "js": Meaning("n-gram divergence", "Jensen–Shannon divergence between n-gram counts of samples and text."),
    "distinct": Meaning("Distinct n-grams", "Share of n-grams that occur once: variety.", "higher", True),
    "copies_over_50": Meaning(
        "Samples that recite, 50+ characters",
        "Share of samples with more than 50 characters in a row from the training text.",
        "lower",
        True,
        6,
    ),
    "copy": Meaning(
        "Longest copy",
        "Longest run of characters shared with the training text. Long runs are recitation.",
        "lower",
        rank=6,
    ),
    "infill": Meaning(
        "Infill nats per character", "Surprise at the true middle of held-out text, given both sides.", rank=5
    ),
    "loss": Meaning("Validation loss", "Loss on held-out data at fixed noise levels.", rank=10),
}

MODES = ("autoregressive", "guided", "infill")  # samples of other modes have the mode after the metric's name


def meaning(name: str, entry: Json) -> Meaning:
    """What is known about metric `name`; the entry's own `title`, `text` and `better` come first."""
    mode = next((mode for mode in MODES if name.endswith(f"_{mode}")), "")
    lowered = name.lower().removesuffix(f"_{mode}")
    key = "kernel" if lowered == "kid" or lowered.startswith("kid_") else lowered
    found = next((item for part, item in MEANINGS.items() if part in key), None)
    plain = Meaning(lowered.replace("_", " ").replace("/", " ").capitalize(), "")
    base = found or plain
    title = _numbered(base.title, key) if found else ""
    title = str(entry.get("title") or title or plain.title)
    return Meaning(
        title=f"{title} ({mode})" if mode else title,
        text=str(entry.get("meaning") or entry.get("text") or base.text),
        better=str(entry.get("better") or base.better),
        percent=base.percent and abs(number(entry.get("value")) or 0.0) <= 1.0,
        rank=base.rank + (50 if mode else 0),  # the model's own samples come first
    )


def _numbered(title: str, name: str) -> str:
    """The glossary's title if it says all that the name says; with the name's number in it; else an empty text."""
    numbers = re.findall(r"\d+", name)
    if not numbers:
        return title if name.count("_") <= 2 and "/" not in name else ""
    if all(digits in title for digits in numbers):
        return title
    if len(numbers) == 1 and "n-gram" in title:
        return title.replace("n-gram", f"{numbers[0]}-gram")
    return ""


def figure(value: object, *, percent: bool = False, digits: int = 3) -> str:
    """A number with `digits` significant digits (`0.0123`, `12.3`, `1,234`, `98.4 %`), an en dash for none."""
    found = number(value)
    if found is None:
        return "–"
    if percent:
        return f"{100 * found:.0f} %" if found in (0, 0.5, 1) else f"{100 * found:.1f} %"
    if found == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(found)))
    if magnitude >= digits - 1 or (found == int(found) and magnitude < 15):
        return f"{found:,.0f}".replace("-", "−")
    if magnitude < -4:
        return f"{found:.1e}".replace("-", "−")
    return f"{found:.{digits - 1 - magnitude}f}".replace("-", "−")


def spread(deviation: float, value: float, *, percent: bool = False) -> str:
    """A standard deviation with as many decimals as the value it belongs to."""
    decimals = len(figure(value, percent=percent).removesuffix(" %").partition(".")[2])
    return (
        f"{100 * deviation if percent else deviation:.{decimals}f}" if decimals else figure(deviation, percent=percent)
    )


def compact(value: float) -> str:
    """A short label for an axis: 250, 1.5k, 20k, 3M, 0.01, 1e-5."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= limit:
            return f"{value / limit:g}{unit}".replace("-", "−")
    if 0 < size < 1e-3:
        mantissa, _, exponent = f"{value:.6e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


def duration(seconds: object) -> str:
    """Seconds for people: `0.4 s`, `38 s`, `4 min 12 s`, `2 h 5 min`."""
    found = number(seconds)
    if found is None:
        return "–"
    if found < 9.95:
        return f"{found:.1f} s"
    total = round(found)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def count(value: object) -> str:
    """An integer with thousands separators."""
    found = number(value)
    return "–" if found is None else f"{found:,.0f}"


def moment(value: object) -> str:
    """An ISO timestamp (or Unix seconds) as `24 November 2026, 03:54 UTC`; anything else as it stands."""
    from datetime import UTC, datetime

    try:
        if number(value) is not None:
            when = datetime.fromtimestamp(float(value), UTC)  # type: ignore[arg-type]
        else:
            when = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except (ValueError, OverflowError, OSError):
        return str(value or "")
    zone = " UTC" if when.tzinfo is not None and not when.utcoffset() else ""
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"
