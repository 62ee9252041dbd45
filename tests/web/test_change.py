"""What tables are told makes of the rows they had those they shall have, and is no more than that."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lablink_ui.components.change import Row, find_change

# Few ids and few words, so that rows stay, change and go.
ROWS = st.dictionaries(st.integers(1, 6), st.sampled_from(["free", "taken"])).map(
    lambda found: [{"id": number, "state": state} for number, state in found.items()]
)


@given(looks=st.lists(ROWS, min_size=2, max_size=8))
def test_whatever_is_shown_one_after_the_other_every_table_ends_with_the_last_and_is_told_nothing_twice(
    looks: list[list[Row]],
) -> None:
    tables = [{row["id"]: row for row in looks[0]} for _ in range(3)]
    for former, rows in pairwise(looks):
        for table in tables:
            change = find_change(former, rows)
            assert not [row for row in change.upserts if table.get(row["id"]) == row]
            table |= {row["id"]: row for row in change.upserts}
            for number in change.removals:
                del table[number]
            assert table == {row["id"]: row for row in rows}
