"""Rosters: the people who may claim in a pool, each with a personal link that proves who they are."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Forbidden, NotFound
from backend.keys import KeyRing
from backend.models import RosterEntry
from backend.services.actor import Actor
from backend.services.guesses import WrongLink, counting_guesses
from backend.services.moves import record_event
from backend.services.pools import get_pool_row
from backend.services.roster_text import RosterLine

PURPOSE = "roster"
BIGGEST_ID = 2**63 - 1
_WRONG = "This personal link is not valid, or not any more. Ask your organiser for a new one."
# A spreadsheet would take a cell that begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class RosterEntryView:
    """A person on a roster. ``version`` is that of the personal link that works."""

    id: int
    email: str
    label: str | None
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to."""

    added: int
    changed: int
    present: int


async def import_roster(db: Database, pool_name: str, people: Collection[RosterLine], *, actor: Actor) -> Imported:
    """Puts people on a pool's roster. Who is on it keeps the link; who was removed gets a new one.

    Raises:
        NotFound: no such pool.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name, lock=True)
        rows = await session.scalars(select(RosterEntry).where(RosterEntry.pool_id == pool.id))
        # Living entries last, so that they win over removed ones of the same e-mail.
        known = {row.email.lower(): row for row in sorted(rows, key=lambda row: (row.removed_at is None, row.id))}
        added = changed = 0
        for person in people:
            row = known.get(person.email.lower())
            if row is None:
                row = RosterEntry(
                    pool_id=pool.id, email=person.email, label=person.label, version=1, created_at=db.now()
                )
                session.add(row)
                added += 1
            elif row.removed_at is not None:
                row.removed_at, row.version, row.label = None, row.version + 1, person.label
                added += 1
            elif person.label is not None and person.label != row.label:
                row.label = person.label
                changed += 1
        message = f"{added} people were put on the roster of {pool_name}"
        record_event(session, "roster.imported", message, actor=actor, at=db.now(), pool_id=pool.id)
        return Imported(added, changed, len(people) - added - changed)


async def list_roster(db: Database, pool_id: int) -> list[RosterEntryView]:
    """Everybody on a pool's roster, by e-mail."""
    query = (
        select(RosterEntry)
        .where(RosterEntry.pool_id == pool_id, RosterEntry.removed_at.is_(None))
        .order_by(func.lower(RosterEntry.email))
    )
    async with db.transaction() as session:
        return [_view_of(row) for row in await session.scalars(query)]


async def reissue_link(db: Database, pool_id: int, email: str, *, actor: Actor) -> RosterEntryView:
    """Makes a person's link anew; the former one dies at once, seats stay.

    Raises:
        NotFound: nobody of this e-mail is on the roster.
    """
    actor.must_operate()
    async with db.transaction() as session:
        row = await _get_entry(session, pool_id, email)
        row.version += 1
        message = f"The personal link of {row.email} was made anew"
        record_event(session, "roster.reissued", message, actor=actor, at=db.now(), pool_id=pool_id)
        return _view_of(row)


async def remove_people(db: Database, pool_id: int, emails: Collection[str], *, actor: Actor) -> int:
    """Takes people off a roster: their links die at once, seats they have stay. Returns how many were on it."""
    actor.must_operate()
    lowered = [email.lower() for email in emails]
    query = select(RosterEntry).where(
        RosterEntry.pool_id == pool_id, RosterEntry.removed_at.is_(None), func.lower(RosterEntry.email).in_(lowered)
    )
    async with db.transaction() as session:
        rows = (await session.scalars(query.with_for_update())).all()
        for row in rows:
            row.removed_at = db.now()
            message = f"{row.email} was taken off the roster"
            record_event(session, "roster.removed", message, actor=actor, at=db.now(), pool_id=pool_id)
        return len(rows)


async def check_link(db: Database, pool_name: str, link: str, *, keys: KeyRing, address: str | None) -> RosterEntryView:
    """Whose personal link this is.

    Raises:
        NotFound: no such pool.
        Forbidden: it is nobody's.
        Throttled: too many wrong ones from this address.
    """
    async with counting_guesses(db, address), db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        return _view_of(await find_linked(session, pool.id, link, keys))


async def find_linked(session: AsyncSession, pool_id: int, link: str | None, keys: KeyRing | None) -> RosterEntry:
    """The roster's row that a personal link proves, for services only.

    Raises:
        Forbidden: the link is missing, wrong or dead.
    """
    if not link:
        raise Forbidden("This workshop needs your personal link. Your organiser sent it to you.", code="link_needed")
    number, _, signature = link.partition(".")
    if keys is None or not (number.isascii() and number.isdigit() and int(number[:20]) <= BIGGEST_ID):
        raise WrongLink(_WRONG)
    row = await session.get(RosterEntry, int(number[:20]))
    is_right = row is not None and keys.is_signed(PURPOSE, f"{row.id}:{row.version}", signature)
    if row is None or not is_right or row.pool_id != pool_id or row.removed_at is not None:
        raise WrongLink(_WRONG)
    return row


def make_link(keys: KeyRing, public_url: str, pool: str, entry: RosterEntryView) -> str:
    """The personal link of an entry, as it is handed out. It says nothing that a new key would change."""
    return f"{public_url}/join/{pool}?me={entry.id}.{keys.sign(PURPOSE, f'{entry.id}:{entry.version}')}"


def write_links(keys: KeyRing, public_url: str, pool: str, entries: Collection[RosterEntryView]) -> str:
    """All personal links as CSV: e-mail, label, link."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(("email", "label", "link"))
    for entry in entries:
        writer.writerow((_cell(entry.email), _cell(entry.label or ""), make_link(keys, public_url, pool, entry)))
    return written.getvalue()


async def record_export(db: Database, pool: str, *, actor: Actor) -> list[RosterEntryView]:
    """Everybody on a pool's roster, for handing out links; written down, since links are keys.

    Raises:
        NotFound: no such pool.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool_id = (await get_pool_row(session, pool)).id
        message = f"The personal links of {pool} were downloaded"
        record_event(session, "roster.exported", message, actor=actor, at=db.now(), pool_id=pool_id)
    return await list_roster(db, pool_id)


async def _get_entry(session: AsyncSession, pool_id: int, email: str) -> RosterEntry:
    row = await session.scalar(
        select(RosterEntry)
        .where(
            RosterEntry.pool_id == pool_id,
            RosterEntry.removed_at.is_(None),
            func.lower(RosterEntry.email) == email.lower(),
        )
        .with_for_update()
    )
    if row is None:
        raise NotFound(f"{email[:80]} is not on the roster.")
    return row


def _cell(words: str) -> str:
    return f"'{words}" if words.startswith(_FORMULA) else words


def _view_of(row: RosterEntry) -> RosterEntryView:
    return RosterEntryView(row.id, row.email, row.label, row.version, row.created_at)
