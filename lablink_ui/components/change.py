"""What becomes of a table's rows from one look to the next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]


class Change(NamedTuple):
    """The rows that are new or different, and the ids of those that are gone."""

    upserts: Sequence[Row]
    removals: Collection[int]


def find_change(former: Sequence[Row], rows: Sequence[Row]) -> Change:
    """What is to be told to whoever knows the former rows, of which each id is one's alone.

    Reckoned once for pages that share both lists, one page after the other: to compare is what costs.
    """
    global _last  # noqa: PLW0603 - a memory of one
    if _last is None or _last[0] is not former or _last[1] is not rows:
        held = {row["id"]: row for row in former}
        upserts = [row for row in rows if held.get(row["id"]) != row]
        _last = former, rows, Change(upserts, held.keys() - {row["id"] for row in rows})
    return _last[2]


_last: tuple[Sequence[Row], Sequence[Row], Change] | None = None
