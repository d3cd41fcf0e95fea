"""How the report prints numbers, durations and times."""

from __future__ import annotations

import math

from report.artifacts import number


def figure(value: object, *, percent: bool = False, digits: int = 3) -> str:
    """A number with `digits` significant digits (`0.0123`, `12.3`, `1,234`, `98.4 %`), an en dash for none."""
    measured = number(value)
    if measured is None:
        return "–"
    if percent:
        return f"{100 * measured:.0f} %" if measured in (0, 0.5, 1) else f"{100 * measured:.1f} %"
    if measured == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(measured)))
    if magnitude >= digits - 1 or (measured == int(measured) and magnitude < 15):
        return f"{measured:,.0f}".replace("-", "−")
    if magnitude < -4:
        return f"{measured:.1e}".replace("-", "−")
    return f"{measured:.{digits - 1 - magnitude}f}".replace("-", "−")


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
    value = number(seconds)
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    total = round(value)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def count(value: object) -> str:
    """An integer with thousands separators."""
    counted = number(value)
    return "–" if counted is None else f"{counted:,.0f}"


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
