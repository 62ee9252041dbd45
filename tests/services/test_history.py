"""The history: what is in it, how it is asked, how it leaves the house, and what never stands in it."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import LabLinkError
from backend.keys import KeyRing, new_key
from backend.services.actor import Actor
from backend.services.api_tokens import create_api_token, list_api_tokens, revoke_api_token
from backend.services.claims import request_claim
from backend.services.enrolments import create_enrolments
from backend.services.events import EventFilter, iterate_events, list_events
from backend.services.exports import COLUMNS, ExportFormat, export_events
from backend.services.invites import accept_invite, create_invite, create_reset
from backend.services.moves import record_event
from backend.services.people import change_password, get_user
from backend.services.second_step import begin_second_step, confirm_second_step
from backend.services.sign_in import ensure_api_token, ensure_first_admin, sign_in, sign_out
from backend.services.throttles import Throttle
from backend.states import Role
from tests.services.worlds import ADMIN, make_machines

KIM = Actor.admin("kim", "192.0.2.7")


async def export(db: Database, form: ExportFormat, wanted: EventFilter | None = None) -> str:
    return "".join([line async for line in export_events(db, wanted or EventFilter(), form)])


async def say(db: Database, *messages: str, kind: str = "vm.test") -> None:
    async with db.transaction() as session:
        for message in messages:
            record_event(session, kind, message, actor=KIM, at=db.now())


async def test_every_filter_lets_through_what_it_says(db: Database, clock) -> None:
    await make_machines(db, 2)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=b"1")
    begun = db.now()
    clock.advance(3_600)
    await create_api_token(db, "ci", Role.VIEWER, actor=KIM)

    async def kinds(wanted: EventFilter) -> set[str]:
        found = [each.event.kind async for each in iterate_events(db, wanted)]
        assert sorted(found) == sorted(each.kind for each in await list_events(db, wanted))
        return set(found)

    assert await kinds(EventFilter(group="people")) == {"token.created"}
    assert await kinds(EventFilter(group="pools")) == {"pool.created"}
    assert await kinds(EventFilter(group="seats")) == {"claim.preparing"}
    assert await kinds(EventFilter(actor="KIM")) == {"token.created"}
    assert await kinds(EventFilter(actor="researcher:ada")) == {"claim.preparing", "vm.in-use"}
    in_use = {each.message async for each in _events(db, EventFilter(about="lab-m0"))}
    assert in_use
    assert not any("lab-m1" in message for message in in_use)
    assert await kinds(EventFilter(about="nowhere%")) == set()
    assert await kinds(EventFilter(since=begun + timedelta(seconds=10))) == {"token.created"}
    assert "token.created" not in await kinds(EventFilter(until=begun + timedelta(seconds=10)))
    assert await kinds(EventFilter(words="stands in line")) == set()
    assert await kinds(EventFilter(group="machines", about="lab", actor="agent", words="joined")) == {"vm.joined"}


async def _events(db: Database, wanted: EventFilter):
    async for each in iterate_events(db, wanted):
        yield each.event


async def test_an_export_holds_all_events_once_in_order_however_many_there_are(db: Database) -> None:
    await say(db, *(f"number {n}" for n in range(2_500)))
    lines = [json.loads(line) for line in (await export(db, ExportFormat.JSONL)).splitlines()]
    assert [line["message"] for line in lines] == [f"number {n}" for n in range(2_500)]
    assert all(tuple(line) == COLUMNS for line in lines)
    rows = list(csv.reader(io.StringIO(await export(db, ExportFormat.CSV))))
    assert tuple(rows[0]) == COLUMNS
    assert [row[0] for row in rows[1:]] == [str(line["id"]) for line in lines]


async def test_no_cell_of_a_csv_is_a_formula(db: Database) -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "＝1", '"=1","=2"', "a\n=1", "a,=1"]
    await say(db, *hostile)
    rows = list(csv.DictReader(io.StringIO(await export(db, ExportFormat.CSV))))
    assert len(rows) == len(hostile)
    for row, message in zip(rows, hostile, strict=True):
        assert row["message"].lstrip("'").replace("\r\n", "\n") == message.replace("\r\n", "\n")
        assert all(
            not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝")) for cell in row.values()
        )


async def test_whoever_does_something_stands_beside_it(db: Database) -> None:
    await ensure_first_admin(db, "the first password")
    await ensure_api_token(db, "t" * 24)
    secret = await sign_in(
        db, "admin", "the first password", keys=KeyRing([new_key()]), throttle=Throttle(), session_hours=1,
        address="192.0.2.9",
    )  # fmt: skip
    assert isinstance(secret, str)
    await sign_out(db, secret, address="192.0.2.9")
    token = (await list_api_tokens(db))[0]
    await revoke_api_token(db, token.id, actor=KIM)
    said = [(each.kind, each.actor, each.address) async for each in _events(db, EventFilter())]
    assert said == [
        ("user.created", "rule:first_start", None),
        ("token.created", "rule:first_start", None),
        ("user.signed_in", "admin:admin", "192.0.2.9"),
        ("user.signed_out", "admin:admin", "192.0.2.9"),
        ("token.revoked", "admin:kim", "192.0.2.7"),
    ]


async def test_no_secret_stands_in_the_history_or_leaves_with_it(db: Database, clock) -> None:
    keys, secrets = KeyRing([new_key()]), set()

    def keep(secret: str) -> str:
        secrets.add(secret)
        return secret

    async def enter(name: str, password: str) -> object:
        return await sign_in(db, name, password, keys=keys, throttle=Throttle(), session_hours=1, address="192.0.2.1")

    generated = await ensure_first_admin(db, None)
    assert generated is not None
    await enter("admin", keep(generated))
    await ensure_api_token(db, keep("environment-secret-token-0001"))
    _, link = await create_invite(db, "kim", Role.ADMIN, actor=ADMIN)
    await accept_invite(db, keep(link), keep("SECRET-password-one"))
    user_id = (await get_user(db, "kim")).id
    # A password in the wrong field, a wrong one, a weak one.
    for name, password in (("SECRET-password-one", "x"), ("kim", keep("SECRET-wrong-password"))):
        with pytest.raises(LabLinkError):
            await enter(name, password)
    session = await enter("kim", "SECRET-password-one")
    assert isinstance(session, str)
    keep(session)
    for new in ("SECRETshort", keep("SECRET-password-two")):
        try:
            await change_password(
                db, user_id, "SECRET-password-one", new, kept_session_id=None, throttle=Throttle(), actor=KIM
            )
        except LabLinkError:
            keep(new)
    setup = await begin_second_step(db, user_id, "SECRET-password-two", keys=keys, throttle=Throttle(), actor=KIM)
    code = pyotp.TOTP(keep(setup.secret)).at(clock())
    await confirm_second_step(db, user_id, code, keys=keys, throttle=Throttle(), actor=KIM)
    keep((await enter("kim", "SECRET-password-two")).ticket)  # type: ignore[attr-defined]
    _, reset = await create_reset(db, "kim", actor=ADMIN)
    keep(reset)
    _, token = await create_api_token(db, "ci", Role.ADMIN, actor=KIM)
    keep(token)
    await make_machines(db, 1)
    for enrolment in await create_enrolments(db, "lab", 2, actor=ADMIN):
        keep(enrolment)
    claimed = await request_claim(db, "lab", "ada@lab.org", owner_hash=None, idempotency_key=keep("SECRET-key"))
    assert claimed.link is not None
    keep(claimed.link)

    async with db.transaction() as opened:
        stored = str((await opened.execute(text("SELECT array_agg(events::text)::text FROM events"))).scalar())
    written = [stored, await export(db, ExportFormat.CSV), await export(db, ExportFormat.JSONL)]
    assert all("kim" in each for each in written)
    assert len(secrets) >= 14
    for each in written:
        assert [secret for secret in secrets if secret in each] == []
