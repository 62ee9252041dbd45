"""Two servers, one Postgres, a worker apart, HAProxy in front: whoever holds the socket, it is one LabLink."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import Browser

from backend.services.operations import list_operations
from tests.conftest import make_database
from tests.harness.agents import HandAgent, join
from tests.harness.pages import Visitor, visit
from tests.harness.seats import Screen, Seat, a_seat
from tests.harness.server import Server, gather_all
from tests.harness.several import COOKIE, Lab, meanwhile
from tests.harness.waiting import until

# Of so many terminals the balancer's hash sends some to each server.
PACE_S, TERMINALS = 0.2, 4


@pytest.fixture(scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory, template_url: str) -> AsyncIterator[Lab]:
    several = Lab(tmp_path_factory.mktemp("several"), await make_database(template_url))
    try:
        await several.start()
        yield several
    finally:
        await several.close()


async def claim(client: httpx.AsyncClient, pool: str, email: str) -> httpx.Response:
    """Claims as a program does that may have to ask again."""
    return await client.post("/api/request_vm", json={"email": email, "pool": pool}, headers={"Idempotency-Key": email})


async def claim_as_somebody(lab: Lab, pool: str, email: str) -> httpx.Response:
    """Claims without a cookie and over a connection of its own: the balancer chooses."""
    # Nothing here is encrypted: to read the system's certificates each time would be most of the work.
    async with lab.balancer.client(verify=False) as client:
        return await claim(client, pool, email)


async def list_holders(lab: Lab, pool: str) -> dict[str, str]:
    """Who sits where: machine by e-mail; a person who sat on two would be seen."""
    vms = [vm for vm in (await lab.balancer.list_vms()).values() if vm["pool"] == pool and vm["email"]]
    assert len({vm["email"] for vm in vms}) == len(vms)
    return {vm["email"]: vm["hostname"] for vm in vms}


@pytest.fixture(scope="module")
async def desk(lab: Lab, chromium: Browser) -> AsyncIterator[Visitor]:
    """An admin's page that stays open through all that happens; at first it is held by the server that leads."""
    admin = await visit(chromium, lab.balancer)
    await admin.context.add_cookies([{"name": COOKIE, "value": await lab.leader(), "url": lab.balancer.url}])
    await admin.sign_in()
    await admin.go("/admin/instances")
    yield admin
    await admin.context.close()


async def find_server(desk: Visitor) -> str:
    """The name of the server that holds the page."""
    return next(each["value"] for each in await desk.context.cookies() if each["name"] == COOKIE)


async def test_60_claims_at_once_through_the_balancer_are_60_places_for_60_people(lab: Lab) -> None:
    pool = await lab.make_pool("hall")
    async with lab.balancer.client() as client:
        await join(lab.balancer, client, 36, prefix=pool, pool=pool)
    answers = await gather_all(*(claim_as_somebody(lab, pool, f"p{n}@lab.org") for n in range(60)))
    assert Counter(answer.status_code for answer in answers) == {201: 36, 202: 24}
    assert {answer.cookies[COOKIE] for answer in answers} == {"one", "two"}
    told = [answer.json()["hostname"] for answer in answers if answer.status_code == 201]
    assert len(set(told)) == 36
    assert set(told) == set((await list_holders(lab, pool)).values())


async def test_a_claim_at_one_reaches_the_agent_that_waits_at_the_other(lab: Lab) -> None:
    pool = await lab.make_pool("poll")
    one, two = lab.servers.values()
    async with one.client() as here, two.client() as there:
        (agent,) = await join(one, here, 1, prefix=pool, pool=pool)
        waiting = asyncio.create_task(agent.list_commands(wait=30))
        # It waits by now, or sees the command when it comes: it makes no difference to what is asked here.
        assert (await claim(there, pool, "ada@lab.org")).status_code == 201
        claimed_at = time.monotonic()
        (command,) = await waiting
        assert time.monotonic() - claimed_at < 5
        # The result goes where it likes.
        assert (await HandAgent(agent.hostname, agent.token, there).finish(command["id"])).status_code == 200

        async def is_active() -> bool:
            return (await claim(here, pool, "ada@lab.org")).json()["status"] == "active"

        await until(is_active, what="the seat is active")


async def test_a_revoked_agent_is_refused_by_the_process_that_remembered_it(lab: Lab) -> None:
    pool = await lab.make_pool("gone")
    one, two = lab.servers.values()
    async with one.client() as here, two.client() as there:
        (agent,) = await join(one, here, 1, prefix=pool, pool=pool)
        assert (await agent.beat()).status_code == 200
        answer = await there.post("/api/admin/destroy", json={"hostnames": [agent.hostname]}, headers=two.api.headers)
        assert answer.status_code == 202, answer.text
        await HandAgent(agent.hostname, agent.token, there).obey()

        async def is_refused() -> bool:
            return (await agent.beat()).status_code == 401

        await until(is_refused, within_s=5, what="its token is dead at the other server as well")


async def test_a_page_at_one_shows_what_was_committed_at_the_other(lab: Lab, desk: Visitor) -> None:
    await joins_at(lab.other(await find_server(desk)), "seen")
    await desk.sees_status("vm-seen-000", "available", within_s=10)


async def joins_at(server: Server, name: str) -> None:
    """A machine joins: something new for every page to show."""
    async with server.client(verify=False) as client:
        await join(server, client, 1, prefix=name)


async def test_what_is_due_is_launched_once_by_a_worker_apart(lab: Lab) -> None:
    pool = await keep_one_machine(lab)
    async with lab.database() as db:
        operations = [operation for operation in await list_operations(db) if operation.pool == pool]
    assert len(operations) == 1


async def keep_one_machine(lab: Lab) -> str:
    """A pool that keeps one machine free; returns its name once there is one."""
    pool = await lab.make_pool("kept", max=1, available_min=1, terminal=True)

    async def find_machine() -> str | None:
        return next((name for name, vm in (await lab.balancer.list_vms()).items() if vm["pool"] == pool), None)

    hostname = await until(find_machine, what="a machine is asked for")
    await lab.balancer.until_status([hostname], "available")
    return pool


async def test_killed_in_a_storm_of_claims_nobody_loses_a_seat_and_its_pages_come_back(lab: Lab, desk: Visitor) -> None:
    pool = await lab.make_pool("storm")
    async with lab.balancer.client() as client:
        await join(lab.balancer, client, 40, prefix=pool, pool=pool)
    name = await lab.leader()
    told: dict[str, str] = {}

    async def get_seat(email: str) -> None:
        for _ in range(100):
            try:
                answer = await claim_as_somebody(lab, pool, email)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in {200, 201}:
                told[email] = answer.json()["hostname"]
                return
            assert answer is None or answer.status_code >= 500, answer.text
            await asyncio.sleep(0.1)
        raise AssertionError(f"{email} got no seat")

    async def kill() -> None:
        await until(lambda: len(told) >= 10, every_s=0.001, what="the storm is in full swing")
        lab.servers[name].kill()

    await gather_all(kill(), *(get_seat(f"s{n}@lab.org") for n in range(40)))
    assert len(set(told.values())) == 40
    assert await list_holders(lab, pool) == told
    # The other one leads now, and holds the page.
    await joins_at(lab.other(name), "late")
    await desk.sees_status("vm-late-000", "available")
    assert await find_server(desk) != name
    assert await lab.leader() != name
    await lab.servers[name].start()
    await lab.is_served_by(name)


@pytest.mark.long
async def test_servers_restarted_one_after_the_other_fail_no_claim_no_heartbeat_and_no_terminal(
    lab: Lab, desk: Visitor
) -> None:
    pool, kept = await lab.make_pool("rolling"), await keep_one_machine(lab)
    counted: Counter[str] = Counter()
    async with lab.balancer.client() as client, a_seat(lab.balancer, "ada@lab.org", kept) as seat:
        agents = await join(lab.balancer, client, 2, prefix=pool, pool=pool)

        async def claim_all_the_time() -> None:
            while True:
                answer = await claim_as_somebody(lab, pool, f"r{counted['claims']}@lab.org")
                assert answer.status_code in {201, 202}, answer.text
                counted["claims"] += 1
                await asyncio.sleep(PACE_S)

        async def beat_all_the_time() -> None:
            while True:
                answer = await agents[0].beat()
                assert answer.status_code == 200, answer.text
                counted["beats"] += 1
                await asyncio.sleep(PACE_S)

        async def poll_all_the_time() -> None:
            while True:
                await agents[1].list_commands(wait=20)

        terminals = [Terminal(seat, await seat.open()) for _ in range(TERMINALS)]
        for terminal in terminals:
            await terminal.type("x=kept\n")
        async with meanwhile(claim_all_the_time(), beat_all_the_time(), poll_all_the_time()):
            await stops_as_told(lab.servers["one"])
            await lab.servers["one"].start()
            await lab.is_served_by("one")
            # Their agent came to the server that stayed; the balancer would send some of them to the other one now.
            for terminal in terminals:
                fresh = Terminal(seat, terminal.number)
                await fresh.type("echo x=$x\n")
                await fresh.shows("x=kept")
            # Of what its coming back is like we know by now.
            await stops_as_told(lab.servers["two"])
            for terminal in terminals:
                await terminal.type("echo still=$x\n")
                await terminal.shows("still=kept")
    assert counted["claims"] > 10
    assert counted["beats"] > 10
    await joins_at(lab.servers["one"], "after")
    await desk.sees_status("vm-after-000", "available")


async def stops_as_told(server: Server) -> None:
    """By SIGTERM: it says that it is about to stop while it still serves, so that a balancer sends nobody there."""
    ending = asyncio.create_task(server.stop())

    async def says_so() -> bool:
        answer = await server.api.get("/readyz")
        return answer.status_code == 503 and answer.json()["status"] == "stopping"

    await until(says_so, within_s=10, what="it says that it is about to stop")
    assert await ending == 0


class Terminal:
    """A terminal as a page has it: connected anew, from where it was, whenever it is cut off."""

    def __init__(self, seat: Seat, number: int) -> None:
        self._seat, self.number = seat, number
        self._screen: Screen | None = None

    async def type(self, text: str) -> None:
        """Types once there is a prompt."""
        await self.shows("$ ")
        assert self._screen is not None
        await self._screen.type(text)

    async def shows(self, words: str) -> None:
        """Waits for these words."""
        await until(lambda: self._shows(words), within_s=30, what=f"{words} in terminal {self.number}")

    async def _shows(self, words: str) -> bool:
        former = self._screen
        if former is None or former.close_code is not None:
            self._screen = await self._seat.connect(self.number, offset=former.offset if former else 0)
            self._screen.output = former.output if former else b""
        return words in self._screen.text
