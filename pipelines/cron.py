"""Cron expressions with a time zone, checked before they are sent."""

from __future__ import annotations

import difflib
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from core.errors import UserError

_FIELDS = ("minute 0-59", "hour 0-23", "day of the month 1-31", "month 1-12", "day of the week 0-6")


def with_zone(cron: str, zone: str) -> str:
    """The expression as the service takes it: `CRON_TZ=Europe/Berlin 0 3 * * 1`.

    Args:
        cron: five fields: minute, hour, day of the month, month, day of the week.
        zone: name of the IANA time zone database.

    Raises:
        UserError: one of the fields, or the zone, is not valid.
    """
    own, fields = split_zone(cron)
    zone = own or zone
    next_times(fields, zone, 1)
    return f"CRON_TZ={zone} {fields}"


def split_zone(expression: str) -> tuple[str, str]:
    """(zone, five fields) of an expression that may begin with `CRON_TZ=ZONE`; an empty zone if it does not."""
    first, _, rest = " ".join(expression.split()).partition(" ")
    return (first.split("=", 1)[1], rest) if first.startswith(("CRON_TZ=", "TZ=")) else ("", f"{first} {rest}".strip())


def next_times(cron: str, zone: str, count: int) -> list[datetime]:
    """The next times at which a schedule fires, in its zone.

    Raises:
        UserError: as `with_zone`, or the expression names no date (30 February).
    """
    from croniter import croniter
    from croniter.croniter import CroniterError

    try:
        where = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError):
        near = difflib.get_close_matches(zone, sorted(available_timezones()), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; allowed: names such as Europe/Berlin"
        raise UserError(f"--timezone {zone!r}: no such time zone{hint}") from None
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        raise UserError(f"--cron {cron!r}: {len(fields)} fields; expected 5: {', '.join(_FIELDS)}")
    for position, field in enumerate(fields):
        probe = ["*"] * len(_FIELDS)
        probe[position] = field
        if not croniter.is_valid(" ".join(probe)) or not set(field) <= set("0123456789*,-/") | set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        ):
            raise UserError(f"--cron {cron!r}: field {position + 1} is {field!r}; allowed: {_FIELDS[position]}")
    try:
        times = croniter(" ".join(fields), datetime.now(where))
        return [times.get_next(datetime) for _ in range(count)]
    except CroniterError as error:
        raise UserError(f"--cron {cron!r}: {error}") from None
