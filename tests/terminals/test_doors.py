"""Who gets at a terminal, and who gets nothing: other seats, sites and machines, those signed out, watchers."""

from __future__ import annotations

import asyncio
import json

import psutil
import psycopg
import pytest
from websockets.exceptions import InvalidStatus

from backend.db.notices import send_notice
from backend.keys import KeyRing, new_key
from backend.services.actor import Actor
from backend.services.sign_in import Throttle, sign_in
from backend.services.terminal_watches import agree_to_watch, end_watch, request_watch
from backend.services.tokens import hash_token
from tests.harness.pools import database_of, make_pool
from tests.harness.seats import Seat, connect_to
from tests.harness.server import PASSWORD
from tests.harness.waiting import until

KEYS = KeyRing([new_key()])

OWNER, ADMIN = Actor.researcher("ada@lab.org"), Actor.admin("admin")


async def refused(server, path: str, **headers: str) -> int:
    """The status with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as caught:
        await connect_to(server, path, {name.replace("_", "-"): value for name, value in headers.items()})
    return caught.value.response.status_code


async def test_a_terminal_opens_for_its_owners_pages_alone(lab, take_seat) -> None:
    ada, bob = await take_seat("ada@lab.org"), await take_seat("bob@lab.org")
    number = await ada.open()
    path, ours = f"/api/seat/terminals/{number}", lab.url
    assert await refused(lab, path) == 403
    assert await refused(lab, path, Origin=ours) == 403
    assert await refused(lab, path, Origin=ours, Cookie=bob.cookie) == 403
    assert await refused(lab, path, Origin=ours, Cookie="lablink-browser=" + "x" * 43) == 403
    assert await refused(lab, path, Cookie=ada.cookie) == 403
    assert await refused(lab, path, Origin="https://evil.example", Cookie=ada.cookie) == 403
    assert await refused(lab, "/api/seat/terminals/999999999", Origin=ours, Cookie=ada.cookie) == 403
    assert await refused(lab, "/api/seat/terminals/1x", Origin=ours, Cookie=ada.cookie) == 404
    assert await refused(lab, f"{path}?from=-1", Origin=ours, Cookie=ada.cookie) == 422
    assert await refused(lab, f"/api/admin/terminals/{number}", Origin=ours, Cookie=ada.cookie) == 401
    assert (await bob.client.delete(path, headers=bob.headers)).status_code == 404
    assert (await bob.client.get("/api/seat/terminals")).json() == {"terminals": []}
    assert (await ada.client.post("/api/seat/terminals")).status_code == 403
    assert (await ada.client.delete(path, headers={"Origin": "https://evil.example"})).status_code == 403
    async with lab.client() as stranger:
        assert (await stranger.post("/api/seat/terminals", headers=ada.headers)).status_code == 401


async def test_an_agent_brings_terminals_of_its_own_machine_alone(lab, take_seat) -> None:
    ada, bob = await take_seat("ada@lab.org"), await take_seat("bob@lab.org")
    number = await ada.open()
    path = f"/api/agent/terminals/{number}"
    tokens = {
        seat: (lab.home / "vms" / seat.hostname / "home" / "agent.token").read_text().strip() for seat in (ada, bob)
    }
    assert await refused(lab, path) == 401
    assert await refused(lab, path, Authorization="Bearer wrong", Cookie=ada.cookie) == 401
    assert await refused(lab, path, Authorization=f"Bearer {tokens[bob]}") == 404
    assert await refused(lab, path + "x", Authorization=f"Bearer {tokens[ada]}") == 404
    assert (await ada.client.delete(f"/api/seat/terminals/{number}", headers=ada.headers)).status_code == 200
    assert await refused(lab, path, Authorization=f"Bearer {tokens[ada]}") == 410
    assert await refused(lab, f"/api/seat/terminals/{number}", Origin=lab.url, Cookie=ada.cookie) == 410


async def test_a_browser_that_is_signed_out_loses_its_terminals_within_a_second(lab, take_seat) -> None:
    seat = await take_seat()
    number = await seat.open()
    screen = await seat.connect(number)
    await screen.shows("$ ")
    async with (
        database_of(lab) as db,
        await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection,
    ):
        await connection.execute("UPDATE seat_browsers SET ended_at = now() WHERE ended_at IS NULL")
    assert await screen.closed(within_s=1) == 4_403
    assert await refused(lab, f"/api/seat/terminals/{number}", Origin=lab.url, Cookie=seat.cookie) == 403


async def test_an_agent_that_comes_late_is_not_parted_from_its_browser_by_the_servers_own_call(lab, take_seat) -> None:
    seat = await take_seat()
    agent = psutil.Process(lab.vms.list_running()[seat.hostname])
    async with (
        database_of(lab) as db,
        await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection,
    ):
        await connection.execute("LISTEN lablink")
        agent.suspend()
        try:
            screen = await seat.connect(await seat.open())
            called = await hear(connection, "terminal_calls")
        finally:
            agent.resume()
        await screen.shows(f"@{seat.hostname}:~$ ")
        other = await seat.open()
        beside = await seat.connect(other)
        await beside.shows(f"@{seat.hostname}:~$ ")
        # As if it had been on its way all the time; then one of another process, whose browser waits for the other one.
        await send_notice(db, "terminal_calls", called["ids"], parents=called["parents"])
        await send_notice(db, "terminal_calls", [other])
        assert await beside.closed() == 1_013
        await screen.type("echo st''ill\n")
        await screen.shows("still")
        assert screen.close_code is None


async def hear(connection: psycopg.AsyncConnection, table: str) -> dict:
    """The next thing that is said about this."""
    async with asyncio.timeout(30):
        async for notice in connection.notifies():
            if (said := json.loads(notice.payload))["table"] == table:
                return said
    raise AssertionError("the connection ended")


async def test_a_frame_that_is_too_large_ends_the_connection(take_seat) -> None:
    screen = await (await take_seat()).start()
    await screen.type("x" * 70_000)
    assert await screen.closed() == 1_009


async def test_a_seat_has_eight_terminals_and_a_pool_without_them_none(lab, take_seat) -> None:
    seat = await take_seat()
    for _ in range(8):
        await seat.open()
    ninth = await seat.client.post("/api/seat/terminals", headers=seat.headers)
    assert (ninth.status_code, ninth.json()["error"]["code"]) == (409, "too_many_terminals")
    await make_pool(lab, "without", terminal=False)
    async with lab.client() as client:
        await client.get("/")
        body = {"email": "eve@lab.org", "pool": "without"}
        assert (await client.post("/api/request_vm", json=body, headers=seat.headers)).status_code == 202
        answer = await client.post("/api/seat/terminals", headers=seat.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "seat_not_active")


async def test_an_admin_sees_nothing_before_the_owner_agrees_and_types_only_if_that_was_agreed(lab, take_seat) -> None:
    seat = await take_seat()
    number = await seat.open()
    screen = await seat.connect(number)
    await screen.shows("$ ")
    async with database_of(lab) as db:
        secret = await sign_in(db, "admin", PASSWORD, keys=KEYS, throttle=Throttle(), session_hours=1)
        path, admin = f"/api/admin/terminals/{number}", {"Origin": lab.url, "Cookie": f"lablink-session={secret}"}
        claim_id = (await seat.client.get("/api/seat/terminals")).json()["terminals"][0]["claim_id"]
        assert await refused(lab, path, **admin) == 403
        watch = await request_watch(db, claim_id, "admin", may_type=False, actor=ADMIN)
        assert await refused(lab, path, **admin) == 403
        owner = {"owner_hash": hash_token(seat.cookie.partition("=")[2]), "actor": OWNER}
        await agree_to_watch(db, claim_id, watch.id, may_type=False, **owner)
        assert await refused(lab, path, Origin="https://evil.example", Cookie=admin["Cookie"]) == 403
        watcher = await connect_to(lab, path, admin)
        await watcher.shows("$ ")
        await watcher.type("echo from-the-ad''min\n")
        await screen.type("echo from-the-ow''ner\n")
        await watcher.shows("from-the-owner")
        assert "from-the-admin" not in screen.text

        # More was asked for: nothing is shown before that is agreed to.
        asked = await request_watch(db, claim_id, "admin", may_type=True, actor=ADMIN)
        assert await watcher.closed(within_s=1) == 4_403
        await agree_to_watch(db, claim_id, asked.id, may_type=True, **owner)
        helper = await connect_to(lab, path, admin)
        await helper.type("echo from-the-hel''per\n")
        await screen.shows("from-the-helper")
        await end_watch(db, claim_id, asked.id, **owner)
        assert await helper.closed(within_s=1) == 4_403
        assert await refused(lab, path, **admin) == 403

        from backend.services.events import list_events

        kinds = [event.kind for event in await list_events(db, words="watch.")]
        assert kinds[:5] == ["watch.ended", "watch.agreed", "watch.requested", "watch.agreed", "watch.requested"]


async def test_a_watcher_whose_session_ends_is_sent_away(lab, take_seat) -> None:
    seat = await take_seat()
    watcher = await watch(lab, seat, await seat.open())
    async with (
        database_of(lab) as db,
        await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection,
    ):
        await connection.execute("UPDATE admin_sessions SET revoked_at = now() WHERE revoked_at IS NULL")
    assert await watcher.closed(within_s=1) == 4_403


async def test_a_watcher_who_takes_nothing_is_dropped_and_never_slows_the_owner(lab, take_seat) -> None:
    seat = await take_seat()
    number = await seat.open()
    screen = await seat.connect(number)
    await screen.shows("$ ")
    watcher = await watch(lab, seat, number, takes=False)
    await screen.type("yes 0123456789 | head -c 6000000; echo d''one\n")
    await until(lambda: screen.offset > 6_000_000, within_s=20, what="the owner has it all")
    watcher.take_up()
    await watcher.closed()
    assert watcher.offset < screen.offset


async def watch(lab, seat: Seat, number: int, *, takes: bool = True):
    """An admin who watches with the owner's consent."""
    async with database_of(lab) as db:
        secret = await sign_in(db, "admin", PASSWORD, keys=KEYS, throttle=Throttle(), session_hours=1)
        claim_id = (await seat.client.get("/api/seat/terminals")).json()["terminals"][0]["claim_id"]
        asked = await request_watch(db, claim_id, "admin", may_type=False, actor=ADMIN)
        owner_hash = hash_token(seat.cookie.partition("=")[2])
        await agree_to_watch(db, claim_id, asked.id, may_type=False, owner_hash=owner_hash, actor=OWNER)
    headers = {"Origin": lab.url, "Cookie": f"lablink-session={secret}"}
    watcher = await connect_to(lab, f"/api/admin/terminals/{number}", headers, takes=takes)
    if takes:
        await watcher.shows("$ ")
    else:
        await until(lambda: watcher.close_code is None)
    return watcher
