"""Rosters as people have them: every make of CSV, and every bad line told with its number."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InvalidInput
from backend.keys import KeyRing, new_key
from backend.services.emails import check_email
from backend.services.roster_text import MAX_BYTES, MAX_LINES, decode_roster, parse_roster
from backend.services.rosters import RosterEntryView, write_links


@pytest.mark.parametrize(
    ("content", "people"),
    [
        (b"ada@lab.org", [("ada@lab.org", None)]),
        (
            b"\xef\xbb\xbfEmail;Name\r\nada@lab.org;Ada\r\nbob@lab.org;\r\n",
            [("ada@lab.org", "Ada"), ("bob@lab.org", None)],
        ),
        (b'ada@lab.org,"Lovelace, Ada"\n\n  \n', [("ada@lab.org", "Lovelace, Ada")]),
        (b'"ada@lab.org";"the ""first"""', [("ada@lab.org", 'the "first"')]),
        (b"ada@lab.org\tAda Lovelace; Countess\n", [("ada@lab.org", "Ada Lovelace; Countess")]),
        (b"ada@lab.org,,,\r bob@lab.org , Bob ", [("ada@lab.org", None), ("bob@lab.org", "Bob")]),
        ("ada@lab.org,Ada Łukasz 雪".encode(), [("ada@lab.org", "Ada Łukasz 雪")]),
    ],
)
def test_every_make_of_csv_is_read(content: bytes, people: list[tuple[str, str | None]]) -> None:
    roster = parse_roster(decode_roster(content))
    assert [(each.email, each.label) for each in roster.people] == people
    assert roster.bad == ()


def test_every_bad_line_is_told_with_its_number_and_reason_and_the_others_are_read() -> None:
    lines = ["email,name", "ada@lab.org", "nobody", "", "bob@lab.org,x,y,z", '"carl@lab.org,Carl', ",Dora"]
    roster = parse_roster("\n".join([*lines, "eve@lab.org,a\x07b", "ADA@lab.org,Ada"]))
    assert [(bad.line, bad.reason.split(".")[0]) for bad in roster.bad] == [
        (3, "'nobody' is not an e-mail address"),
        (5, "It has 4 columns; an e-mail and a label are wanted"),
        (6, "A quote in it is not closed, or stands in the middle of a column"),
        (7, "It has no e-mail"),
        (8, "Its label holds characters that cannot be shown"),
    ]
    assert [(each.email, each.label) for each in roster.people] == [("ADA@lab.org", "Ada")]
    assert roster.repeated == 1


@pytest.mark.parametrize(
    "content", [b"", b" \n ;; \n", b"email\n", "a@lab.org".encode("utf-16"), b"\xff\xfe", b"x" * (MAX_BYTES + 1)]
)
def test_what_is_no_roster_is_refused_with_words(content: bytes) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_roster(decode_roster(content))
    assert refusal.value.message


def test_5000_lines_are_read_and_one_more_is_refused() -> None:
    lines = [f"p{n}@lab.org" for n in range(MAX_LINES)]
    assert len(parse_roster("\n".join(lines)).people) == MAX_LINES
    with pytest.raises(InvalidInput):
        parse_roster("\n".join([*lines, "one@more.org"]))


@given(st.text(max_size=400))
@settings(max_examples=300)
def test_whatever_is_pasted_every_line_is_either_a_person_or_told(pasted: str) -> None:
    try:
        roster = parse_roster(pasted)
    except InvalidInput:
        return
    for person in roster.people:
        assert check_email(person.email) == person.email
        assert person.label is None or "\n" not in person.label
    assert len({bad.line for bad in roster.bad}) == len(roster.bad)


def test_a_download_is_no_formula_and_keeps_every_character() -> None:
    keys, at = KeyRing([new_key()]), __import__("datetime").datetime.now()
    entries = [
        RosterEntryView(1, "=cmd@lab.org", '=HYPERLINK("x")', 1, at),
        RosterEntryView(2, "a@b.c", '"Q", ü', 1, at),
    ]
    header, first, second = csv.reader(io.StringIO(write_links(keys, "https://l", "lab", entries)))
    assert header == ["email", "label", "link"]
    assert first[:2] == ["'=cmd@lab.org", '\'=HYPERLINK("x")']
    assert second[:2] == ["a@b.c", '"Q", ü']
    assert second[2].startswith("https://l/join/lab?me=2.")
