"""Reading a roster as people have it: pasted, or a CSV file of any make. Nothing here writes anything."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass

from backend.errors import InvalidInput
from backend.services.emails import check_email

MAX_LINES, MAX_BYTES, MAX_LABEL = 5_000, 1_000_000, 200
_HEADERS = {"email", "e-mail", "mail", "e-mail address", "email address"}
# An e-mail holds none of these, so the first one in a line is what separates its columns.
_SEPARATOR = re.compile(r"[,;\t]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class RosterLine:
    """A person on a roster."""

    email: str
    label: str | None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be used, by its number in the text (from 1), and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Roster:
    """What was read. ``repeated`` lines named a person that an earlier line had named; the later label counts."""

    people: tuple[RosterLine, ...]
    bad: tuple[BadLine, ...]
    repeated: int


def decode_roster(content: bytes) -> str:
    """The text of an uploaded file.

    Raises:
        InvalidInput: it is too large, or not UTF-8.
    """
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"A roster may have up to {MAX_BYTES:,} bytes.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput("The file is not UTF-8 text. Save it as 'CSV UTF-8' and try again.") from None


def parse_roster(text: str) -> Roster:
    """Reads e-mails with optional labels, one person a line, separated by comma, semicolon or tab.

    Raises:
        InvalidInput: there are too many lines, or none.
    """
    # Not splitlines: it would also break at characters that belong into a label's error message.
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if sum(bool(line.strip()) for line in lines) > MAX_LINES:
        raise InvalidInput(f"A roster may have up to {MAX_LINES:,} lines.")
    people: dict[str, RosterLine] = {}
    bad: list[BadLine] = []
    repeated, is_first = 0, True
    for number, line in enumerate(lines, start=1):
        if not line.strip(" \t,;"):
            continue
        try:
            cells = _split(line)
            if is_first and cells[0].lower() in _HEADERS:
                continue
            person = _person(cells)
        except InvalidInput as exc:
            bad.append(BadLine(number, exc.message))
        else:
            former = people.get(person.email.lower())
            repeated += former is not None
            people[person.email.lower()] = RosterLine(person.email, person.label or (former.label if former else None))
        finally:
            is_first = False
    if not people and not bad:
        raise InvalidInput("There is nobody in it: one e-mail a line, and a label after a comma if you like.")
    return Roster(tuple(people.values()), tuple(bad), repeated)


def _split(line: str) -> list[str]:
    found = _SEPARATOR.search(line)
    try:
        (cells,) = csv.reader([line], delimiter=found.group() if found else ",", strict=True, skipinitialspace=True)
    except csv.Error:
        raise InvalidInput("A quote in it is not closed, or stands in the middle of a column.") from None
    return [cell.strip() for cell in cells]


def _person(cells: list[str]) -> RosterLine:
    email, label, *more = [*cells, ""][: max(2, len(cells))]
    if any(more):
        raise InvalidInput(f"It has {len(cells)} columns; an e-mail and a label are wanted.")
    if len(label) > MAX_LABEL:
        raise InvalidInput(f"Its label has more than {MAX_LABEL} characters.")
    if _CONTROL.search(label):
        raise InvalidInput("Its label holds characters that cannot be shown.")
    try:
        return RosterLine(check_email(email), label or None)
    except InvalidInput:
        raise InvalidInput(f"'{email[:60]}' is not an e-mail address." if email else "It has no e-mail.") from None
