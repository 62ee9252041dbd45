"""Whose code runs in our pages: ours alone, whatever people, machines and addresses contain."""

from __future__ import annotations

import re
from urllib.parse import quote

import httpx
import pytest
from playwright.async_api import Browser
from starlette.responses import PlainTextResponse
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import InvalidStatus

from backend.api.headers import SecurityHeaders
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.runs import LogLine, record_log
from backend.services.vm_logs import record_vm_log
from lablink_ui.pages.sign_in import safe_target
from tests.harness.pages import Visitor, visit
from tests.pages.conftest import connect
from tests.pages.worlds import KIM, launch

ATTACKS = (
    '<img src=x onerror="window.hacked=1">',
    '"><script>window.hacked=1</script>',
    "</script><script>window.hacked=1</script>",
    "{{ constructor.constructor('window.hacked=1')() }}",
    "`${window.hacked=1}`",
    "javascript:window.hacked=1",
)
ATTACK = " ".join(ATTACKS)
# As a part of an address: without slashes.
NAME = f"{ATTACKS[0]} {ATTACKS[3]} {ATTACKS[4]}"
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="


async def test_every_answer_carries_the_headers_of_trust(furnished) -> None:
    async with furnished.server.client() as client:
        for path in ("/", "/login", "/seat", "/admin", "/nowhere", "/healthz", "/api/openapi.json", "/api/nowhere"):
            answer = await client.get(path, headers={"Accept": "text/html"})
            headers = answer.headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["referrer-policy"] == "same-origin", path
            assert "camera=()" in headers["permissions-policy"], path
            assert "frame-ancestors 'none'" in headers["content-security-policy"], path
            if answer.status_code != 303:
                assert headers["cache-control"] == "no-store", path
            # Over plain HTTP a browser must not be told to come by TLS only.
            assert "strict-transport-security" not in headers, path


async def test_behind_tls_browsers_are_told_to_keep_to_it() -> None:
    headers = SecurityHeaders(PlainTextResponse("ok"), secure=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(headers), base_url="https://lablink.example") as client:
        assert (await client.get("/")).headers["strict-transport-security"] == "max-age=31536000"


async def test_each_script_of_a_page_carries_that_pages_own_nonce(furnished) -> None:
    async with furnished.server.client() as client:
        first, second = [await client.get("/") for _ in range(2)]
    nonces = []
    for answer in (first, second):
        scripts = re.findall(r"<script[^>]*>", answer.text)
        (nonce,) = re.findall(r"'nonce-([^']+)'", answer.headers["content-security-policy"])
        assert len(scripts) > 5
        assert all(f'nonce="{nonce}"' in script for script in scripts), scripts
        nonces.append(nonce)
    assert nonces[0] != nonces[1]


async def test_what_cannot_be_shown_is_told_as_a_page_to_people_and_as_json_to_programs(furnished) -> None:
    async with furnished.server.client() as client:
        page = await client.get("/seat/open/spent", headers={"Accept": "text/html"})
        data = await client.get("/seat/open/spent", headers={"Accept": "application/json"})
    assert (page.status_code, data.status_code) == (401, 401)
    assert "<h1>This does not open anything</h1>" in page.text
    assert data.json()["error"]["message"] in page.text


async def test_the_api_is_described_without_a_page_that_loads_from_elsewhere(furnished) -> None:
    async with furnished.server.client() as client:
        assert (await client.get("/api/openapi.json")).json()["info"]["title"] == "LabLink"
        assert (await client.get("/api/docs")).status_code == 404


async def test_what_people_and_machines_say_is_shown_and_never_run(furnished, admin: Visitor) -> None:
    world = furnished.world
    await ensure_pool(world.db, "hostile", PoolSpec(), actor=KIM)
    operation = await launch(world.db, "hostile", 1)
    await plant(furnished, operation.id, operation.hostnames[0])
    seen = {}
    for path in (
        "/admin",
        "/admin/instances",
        f"/admin/instances/{quote(NAME, safe='')}",
        f"/admin/operations/{operation.id}",
        "/admin/operations",
        "/admin/events",
        "/admin/pools/hostile",
    ):
        await admin.go(path)
        await admin.page.get_by_text("window.hacked=1", exact=False).first.wait_for(state="attached")
        seen[path] = await admin.page.evaluate("window.hacked")
    assert set(seen.values()) == {None}, seen
    assert admin.errors == []


async def plant(furnished, operation_id: int, hostname: str) -> None:
    """Puts the attacks past every check, wherever a page shows what others have said."""
    db = furnished.world.db
    async with await connect(furnished.database_url) as connection:
        await connection.execute(
            "UPDATE vms SET hostname = %s, email = %s, reason = %s, status = 'failed' WHERE hostname = %s",
            (NAME, ATTACK[:255], ATTACK, hostname),
        )
        await connection.execute("UPDATE operations SET reason = %s WHERE id = %s", (ATTACK, operation_id))
        await connection.execute(
            "UPDATE pools SET startup_script = %s, repository = %s WHERE name = 'hostile'", (ATTACK,) * 2
        )
        (vm_id,) = await (await connection.execute("SELECT id FROM vms WHERE hostname = %s", (NAME,))).fetchone()
    await record_vm_log(db, vm_id, ATTACKS[0], [ATTACK])
    await record_log(db, operation_id, [LogLine(db.now(), "error", ATTACK)])
    async with db.transaction() as session:
        record_event(session, "vm.attack", ATTACK, actor=Actor.admin(ATTACKS[0], ATTACKS[1]), at=db.now(), vm_id=vm_id)


async def test_what_an_address_says_is_never_run(furnished, admin: Visitor) -> None:
    seen = {}
    for path in (
        "/admin/instances?status={}",
        "/admin/create?pool={}",
        "/admin/pools/{}",
        "/join/{}",
        "/join/vision?code={}",
    ):
        for attack in (NAME, ATTACKS[1]) if "?" in path else (NAME,):
            await admin.go(path.format(quote(attack, safe="")))
            seen[path, attack] = await admin.page.evaluate("window.hacked")
    assert set(seen.values()) == {None}, seen
    assert admin.errors == []


async def test_a_script_that_got_into_a_page_all_the_same_is_stopped_by_the_policy(furnished, browser: Browser) -> None:
    person = await visit(browser, furnished.server)
    await person.go("/")
    await person.page.evaluate(
        """() => {
          window.stopped = [];
          addEventListener("securitypolicyviolation", (event) => window.stopped.push(event.effectiveDirective));
          document.body.insertAdjacentHTML("beforeend", '<img src="data:," onerror="window.hacked=1">');
          const script = document.createElement("script");
          script.textContent = "window.hacked=1";
          document.body.append(script);
          const far = document.createElement("script");
          far.src = "https://elsewhere.example/x.js";
          document.body.append(far);
        }"""
    )
    await person.page.wait_for_function("window.stopped.length === 3")
    assert await person.page.evaluate("window.hacked") is None
    await person.context.close()


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://127.0.0.1:1", "null"])
async def test_the_pages_socket_refuses_pages_of_other_sites(furnished, origin: str) -> None:
    server = furnished.server
    async with server.client() as client:
        polled = await client.get(f"{SOCKET}polling", headers={"Origin": origin})
        assert polled.status_code == 403
    with pytest.raises(InvalidStatus) as refused:
        async with connect_socket(
            server.url.replace("http", "ws", 1) + f"{SOCKET}websocket", origin=origin, proxy=None
        ):
            pass
    assert refused.value.response.status_code == 403


async def test_the_pages_socket_opens_for_our_own_pages(furnished) -> None:
    server = furnished.server
    async with connect_socket(
        server.url.replace("http", "ws", 1) + f"{SOCKET}websocket", origin=server.url, proxy=None
    ) as socket:
        assert str(await socket.recv()).startswith("0")


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/admin/instances?status=failed", "/admin/instances?status=failed"),
        ("https://elsewhere.example/admin", "/admin"),
        ("//elsewhere.example/admin", "/admin"),
        ("/admin//elsewhere.example", "/admin"),
        ("/\\elsewhere.example", "/admin"),
        ("/admin\\@elsewhere.example", "/admin"),
        ("javascript:alert(1)", "/admin"),
        ("/administrator", "/admin"),
        ("/admin\r\nSet-Cookie: x=y", "/admin"),
        ("", "/admin"),
    ],
)
async def test_signing_in_leads_back_to_the_console_and_nowhere_else(target: str, leads_to: str) -> None:
    assert safe_target(target) == leads_to
