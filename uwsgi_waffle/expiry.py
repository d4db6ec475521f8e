"""Values that go back by themselves: one more row of the store says which, when, and to what."""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from .stores import EXPIRES, Stored

__all__ = ["ACTOR", "duration", "end_of", "ended", "temporary_in", "with_expiry"]

log = logging.getLogger("uwsgi_waffle")

ACTOR = "expiry"

UNITS = ("days", "hours", "minutes", "seconds")
DURATION = re.compile("".join(rf"(?:(?P<{unit}>\d{{1,9}}){unit[0]})?" for unit in UNITS))


@dataclass(frozen=True, slots=True)
class Temporary:
    """A value that counts until a time.

    Attributes:
        until: when it ends, in UTC by the clock of the host that set it.
        value: its JSON text; ``None`` is no value, so the default. If another one is stored by
            then, nothing goes back.
        before: the text to go back to, likewise.
    """

    until: datetime
    value: str | None = field(repr=False)
    before: str | None = field(repr=False)


#: All names of each renamed variable, by the one whose value counts: `Schema.families`.
Families = Mapping[str, tuple[str, ...]]


def temporary_in(
    values: bytes, families: Callable[[Mapping[str, Any]], Families]
) -> dict[str, datetime]:
    """Return when each temporary value of an encoded snapshot ends, by name."""
    if EXPIRES.encode() not in values:
        return {}
    rows = json.loads(values)
    entries = _entries(rows.get(EXPIRES, {}))
    _share(entries, rows, families(rows))
    return {name: entry.until for name, entry in entries.items()}


def duration(text: str) -> timedelta:
    """Read a time such as ``30m`` or ``1d12h``.

    Raises:
        ValueError: it isn't written so, or no date is so far away.
    """
    match = DURATION.fullmatch(text.replace(" ", ""))
    parts = {unit: int(number) for unit, number in match.groupdict("0").items()} if match else {}
    if not any(parts.values()):
        raise ValueError(f"{text!r} is no time; write 90s, 30m, 12h, 7d, or 1h30m.")
    try:
        total = timedelta(**parts)
        end_of(total)
    except (OverflowError, ValueError):
        raise ValueError(f"{text!r} is too long; write a shorter time, or none.") from None
    return total


def end_of(expires: timedelta) -> datetime:
    """Return when a value that is set now ends.

    Raises:
        TypeError: ``expires`` is no duration.
        ValueError: it isn't positive, or no date is so far away.
    """
    if not isinstance(expires, timedelta):
        raise TypeError(f"expires must be a datetime.timedelta, not {expires!r}.")
    if expires <= timedelta():
        raise ValueError(f"expires={expires} must be a positive time")
    try:
        return datetime.now(timezone.utc) + expires
    except OverflowError:
        raise ValueError(f"expires={expires} is too long; leave it out") from None


def with_expiry(
    stored: Stored,
    changes: Mapping[str, str | None],
    before: Mapping[str, str | None],
    until: datetime | None,
    families: Families,
) -> dict[str, str | None]:
    """Return ``changes``, and with them what becomes of the row of temporary values.

    Args:
        stored: what the store holds.
        changes: the rows that the update changes.
        before: the present texts of the variables that it sets, also of those that it sets to the
            value that they have.
        until: when these values end; ``None`` is never.
        families: the names of renamed variables in ``stored``.
    """
    entries = _entries_of(stored)
    texts = {**stored.values, **changes}
    _share(entries, dict(stored.values), families)
    for name, value in before.items():
        names = next((names for names in families.values() if name in names), (name,))
        earlier = [entry for one in names if (entry := entries.pop(one, None))]
        if until is not None:
            first = earlier[0].before if earlier and earlier[0].value == value else value
            entry = Temporary(until, texts.get(name), first)
            entries.update({one: entry for one in names if one == name or one in texts})
    text = _to_json(entries)
    return dict(changes) if text == stored.values.get(EXPIRES) else {**changes, EXPIRES: text}


def ended(stored: Stored, families: Families) -> list[dict[str, str | None]]:
    """Return the changes that end expired values, each update's together, the earliest first.

    A value that was set since is kept.
    """
    now, found = datetime.now(timezone.utc), defaultdict[datetime, dict[str, str | None]](dict)
    entries, rows = _entries_of(stored), dict(stored.values)
    _share(entries, rows, families)
    for name, entry in entries.items():
        if entry.until <= now:
            value = rows.get(name)
            # Writing the stored value again only drops the entry.
            found[entry.until][name] = entry.before if value == entry.value else value
    return [found[until] for until in sorted(found)]


def _share(entries: dict[str, Temporary], rows: dict[str, Any], families: Families) -> None:
    """Give all names of a variable the entry and the value of the one that counts.

    Another release may have set it, or may end it, under a name of its own.
    """
    for source, (name, *formers) in families.items():
        value, names = rows.get(source), (name, *formers)
        same = [n for n in names if n in rows and rows[n] == value]
        same = same or [n for n in names if n in entries]
        # A release that knows one of them only may have set the value for good.
        found = entries[same[-1]] if same and entries.keys() >= {*same} else None
        for one in (name, *(f for f in formers if f in entries or f in rows)):
            entries.pop(one, None)
            rows.pop(one, None)
            if found is not None:
                entries[one] = found
            if value is not None:
                rows[one] = value


def _entries_of(stored: Stored) -> dict[str, Temporary]:
    text = stored.values.get(EXPIRES, "{}")
    try:
        return _entries(json.loads(text))
    except (ValueError, RecursionError):
        return _entries(text)  # which says that it can't be read


def _entries(fields: Any) -> dict[str, Temporary]:
    try:
        return {
            name: Temporary(datetime.fromtimestamp(until, timezone.utc), value, before)
            for name, (until, value, before) in fields.items()
        }
    except (ValueError, TypeError, AttributeError, OverflowError, OSError) as error:
        log.warning(
            "uwsgi_waffle: no value goes back by itself, because the row %s can't be read: %s",
            EXPIRES,
            error,
        )
        return {}


def _to_json(entries: Mapping[str, Temporary]) -> str | None:
    if not entries:
        return None
    fields = {
        name: (entry.until.timestamp(), entry.value, entry.before)
        for name, entry in sorted(entries.items())
    }
    return json.dumps(fields, separators=(",", ":"))
