"""Whose seat it is, by API: each hole of the older system is tried and leads nowhere."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import httpx
import pytest

from backend.services.actor import Actor
from backend.services.admission import set_access
from backend.services.join_codes import CodeLimits, rotate_code
from backend.services.tokens import hash_token
from backend.services.vms import request_reboot
from backend.states import Access, Role
from tests.crd.pastes import LINE
from tests.harness.agents import HandAgent, join
from tests.harness.pools import database_of, make_pool
from tests.harness.server import Server

ADMIN = Actor.admin("test")
CHANGES = ("release", "extend", "move", "key")
# With none of these is anything of a seat reached; opening one is how a browser comes to hold it.
OPENING = "/api/seat/open"
_names = (f"own{n}" for n in itertools.count())


@dataclass
class Sitter:
    """Somebody with a seat: a browser, and what the claim answered."""

    browser: httpx.AsyncClient
    answer: dict[str, str]
    seat: dict[str, object]
    browser_id: int
    agent: HandAgent | None = None

    @property
    def key(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.answer['seat_key']}"}


async def new_browser(server: Server) -> httpx.AsyncClient:
    browser = server.client()
    browser.headers["Origin"] = server.url
    await browser.get("/")
    return browser


async def claim(browser: httpx.AsyncClient, pool: str, email: str, **more: str) -> httpx.Response:
    return await browser.post("/api/request_vm", json={"pool": pool, "email": email, **more})


async def sit(server: Server, pool: str, email: str) -> Sitter:
    browser = await new_browser(server)
    answer = await claim(browser, pool, email)
    assert answer.status_code == 201, answer.text
    seat = (await browser.get("/api/seat")).json()
    (here,) = (await browser.get("/api/seat/browsers")).json()["browsers"]
    return Sitter(browser, answer.json(), seat, here["id"])


async def make_workshop(server: Server, machines: int, **figures: object) -> tuple[str, list[HandAgent]]:
    pool = await make_pool(server, next(_names), **figures)
    async with server.client() as client:
        return pool, await join(server, client, machines, prefix=pool, pool=pool)


@pytest.fixture(scope="module")
async def two(shared_server: Server) -> tuple[Sitter, Sitter]:
    """Two people, each with a seat in the same pool."""
    pool, agents = await make_workshop(shared_server, 3, claim_duration_s=3_600, terminal=True, crd=True)
    ada, eve = [await sit(shared_server, pool, f"{name}@lab.org") for name in ("ada", "eve")]
    eve.agent = next(agent for agent in agents if agent.hostname == eve.answer["hostname"])
    return ada, eve


async def test_nothing_that_one_researcher_holds_reads_or_changes_the_seat_of_another(
    shared_server: Server, two: tuple[Sitter, Sitter]
) -> None:
    ada, eve = two
    assert eve.agent
    routes = await list_seat_routes(shared_server)
    assert len(routes) >= 12
    async with shared_server.client() as nobody:
        holds = {
            "cookie": (eve.browser, {}),
            "key": (nobody, eve.key),
            "link": (nobody, {"Authorization": f"Bearer {eve.answer['seat_url'].rpartition('/')[2]}"}),
            "machine": (nobody, eve.agent.headers),
            "nothing": (nobody, {}),
            # A token of the console is no seat either.
            "console": (shared_server.api, {}),
        }
        for (method, path), (name, (client, headers)) in itertools.product(routes, holds.items()):
            asked = path.format(browser_id=ada.browser_id, terminal_id=1) + f"?claim={ada.seat['claim']}"
            body = {"json": {"crd_command": LINE}} if path.endswith("crd_command") else {}
            answer = await client.request(method, asked, headers=headers, **body)
            assert answer.status_code == 401, (name, method, path, answer.text)
            assert str(ada.seat["hostname"]) not in answer.text
    now = (await ada.browser.get("/api/seat")).json()
    assert {**now, "status": ""} == {**ada.seat, "status": ""}
    assert len((await ada.browser.get("/api/seat/browsers")).json()["browsers"]) == 1


async def list_seat_routes(server: Server) -> list[tuple[str, str]]:
    """Every route that is about a seat, as the server describes itself: a new one is tried too."""
    paths = (await server.api.get("/api/openapi.json")).json()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if path.startswith("/api/seat") and path != OPENING
    ]


async def test_a_browser_of_another_seat_cannot_be_signed_out_by_its_number(two: tuple[Sitter, Sitter]) -> None:
    ada, eve = two
    assert (await eve.browser.delete(f"/api/seat/browsers/{ada.browser_id}")).status_code == 404
    assert (await ada.browser.get("/api/seat")).status_code == 200


async def test_no_page_shows_anything_of_anothers_seat(two: tuple[Sitter, Sitter]) -> None:
    ada, eve = two
    hostname = str(ada.seat["hostname"])
    assert hostname in (await ada.browser.get("/seat")).text
    for path in ("/", "/seat", f"/seat?claim={ada.seat['claim']}", f"/join/{ada.seat['pool']}"):
        page = await eve.browser.get(path, follow_redirects=True)
        assert hostname not in page.text
        assert "ada@lab.org" not in page.text


@pytest.mark.parametrize("verb", CHANGES)
async def test_another_sites_page_cannot_use_the_cookie(two: tuple[Sitter, Sitter], verb: str) -> None:
    ada, _ = two
    for origin in ("https://evil.example", "null"):
        answer = await ada.browser.post(f"/api/seat/{verb}", headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin")


async def test_typing_someones_email_gives_neither_their_seat_nor_a_second_one(shared_server: Server) -> None:
    pool, _ = await make_workshop(shared_server, 2)
    ada = await sit(shared_server, pool, "ada@lab.org")
    stranger = await new_browser(shared_server)
    for email in ("ada@lab.org", "ADA@lab.org", " ada@lab.org "):
        answer = await claim(stranger, pool, email)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "seat_exists")
        assert set(answer.json()) == {"error"}
        assert pool not in answer.text
    assert (await stranger.get("/api/seat")).status_code == 401
    used = [vm for vm in (await shared_server.list_vms()).values() if vm["pool"] == pool and vm["email"]]
    assert [vm["hostname"] for vm in used] == [ada.answer["hostname"]]


async def test_the_same_email_twice_and_a_rejoin_while_rebooting_are_the_same_seat(shared_server: Server) -> None:
    pool, agents = await make_workshop(shared_server, 2)
    ada = await sit(shared_server, pool, "ada@lab.org")
    async with database_of(shared_server) as db:
        await request_reboot(db, [ada.answer["hostname"]], actor=ADMIN)
    again = await claim(ada.browser, pool, "ada@lab.org")
    assert (again.status_code, again.json()["hostname"]) == (200, ada.answer["hostname"])
    # The key is known to who claimed, and is never said again.
    assert "seat_key" not in again.json()
    assert len(agents) == 2


async def test_a_key_does_for_a_program_what_the_cookie_does_for_a_browser(shared_server: Server) -> None:
    pool, _ = await make_workshop(shared_server, 3, claim_duration_s=3_600)
    ada = await sit(shared_server, pool, "ada@lab.org")
    async with shared_server.client() as program:
        program.headers.update(ada.key)
        assert (await program.get("/api/seat")).json()["hostname"] == ada.answer["hostname"]
        assert (await program.post("/api/seat/extend")).status_code == 200
        assert (await program.post("/api/seat/move")).json()["hostname"] != ada.answer["hostname"]
        fresh = (await program.post("/api/seat/key")).json()["seat_key"]
        assert (await program.get("/api/seat")).status_code == 401
        program.headers["Authorization"] = f"Bearer {fresh}"
        assert (await program.delete("/api/seat/browsers")).json() == {"signed_out": 1}
        assert (await ada.browser.get("/api/seat")).status_code == 401
        assert (await program.post("/api/seat/release")).json()["status"] == "released"
        assert (await program.get("/api/seat")).status_code == 401


async def test_a_pool_without_limits_or_free_machines_says_so(shared_server: Server) -> None:
    pool, _ = await make_workshop(shared_server, 1)
    ada = await sit(shared_server, pool, "ada@lab.org")
    for verb, code in (("extend", "no_end"), ("move", "none_free")):
        answer = await ada.browser.post(f"/api/seat/{verb}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, code)


async def test_opening_by_key_needs_a_browser_of_this_server(shared_server: Server) -> None:
    pool, _ = await make_workshop(shared_server, 1)
    ada = await sit(shared_server, pool, "ada@lab.org")
    body = {"seat_key": ada.answer["seat_key"]}
    async with shared_server.client() as program:
        assert (await program.post("/api/seat/open", json=body)).status_code == 401
    eve = await new_browser(shared_server)
    assert (await eve.post("/api/seat/open", json=body, headers={"Origin": "null"})).status_code == 403
    assert (await eve.post("/api/seat/open", json={"seat_key": ""})).status_code == 422
    assert (await eve.post("/api/seat/open", json=body)).json()["claim"] == ada.seat["claim"]


async def test_a_code_by_api_is_needed_told_and_throttled(shared_server: Server) -> None:
    pool, _ = await make_workshop(shared_server, 1)
    async with database_of(shared_server) as db:
        await set_access(db, pool, Access.CODE, actor=ADMIN)
        code = (await rotate_code(db, pool, CodeLimits(), actor=ADMIN)).code
    async with shared_server.client() as client:
        assert (await claim(client, pool, "ada@lab.org")).json()["error"]["code"] == "code_needed"
        tries = [await claim(client, pool, "ada@lab.org", code=f"WRNG-{n:04d}") for n in range(20)]
        assert {answer.status_code for answer in tries} == {403, 429}
        assert int(tries[-1].headers["Retry-After"]) > 0
        made = await claim(client, pool, "ada@lab.org", code=code)
        assert made.status_code == 201
        # In line, with the same answer and a place.
        waiting = await claim(client, pool, "bob@lab.org", code=code)
        assert (waiting.status_code, waiting.json()["position"]) == (202, 1)
        assert len(waiting.json()["seat_key"]) == 19
        missing = await client.post("/api/request_vm", json={"pool": pool, "code": code})
        assert missing.status_code == 422


async def test_rosters_and_links_are_for_those_who_may_hand_them_out(shared_server: Server) -> None:
    pool, _ = await make_workshop(shared_server, 1)
    path, content = f"/api/admin/pools/{pool}/roster", "ada@lab.org,Ada\nnobody"
    async with database_of(shared_server) as db:
        await set_access(db, pool, Access.ROSTER, actor=ADMIN)
        token = "a viewer's token for this test"
        await add_token(db, token, Role.VIEWER)
    async with shared_server.client() as nobody, shared_server.client(token=token) as viewer:
        for client, status in ((nobody, 401), (viewer, 403)):
            assert (await client.post(f"{path}?save=true", content=content)).status_code == status
            assert (await client.get(f"{path}.csv")).status_code == status
    checked = await shared_server.api.post(path, content=content)
    assert checked.json() == {
        "good": 1,
        "repeated": 0,
        "bad": [{"line": 2, "reason": "'nobody' is not an e-mail address."}],
    }
    assert (await shared_server.api.get(f"{path}.csv")).text.count("\n") == 1
    assert (await shared_server.api.post(f"{path}?save=true", content=content)).json()["added"] == 1
    links = await shared_server.api.get(f"{path}.csv")
    assert links.headers["content-type"].startswith("text/csv")
    me = links.text.splitlines()[1].rpartition("?me=")[2]
    async with shared_server.client() as client:
        answer = await client.post("/api/request_vm", json={"pool": pool, "me": me})
        assert answer.status_code == 201
        wrong = await client.post("/api/request_vm", json={"pool": pool, "email": "ada@lab.org", "me": me[:-2]})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "wrong_link")
    for bad, status in ((b"\xff\xfe\x00", 422), (b"", 422)):
        assert (await shared_server.api.post(path, content=bad)).status_code == status
    assert (await shared_server.api.post("/api/admin/pools/nowhere/roster", content=content)).status_code == 404


async def add_token(db, token: str, role: Role) -> None:
    from backend.models import ApiToken

    async with db.transaction() as session:
        session.add(ApiToken(name=token, token_hash=hash_token(token), role=role, created_at=db.now()))
