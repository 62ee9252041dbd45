"""Two servers, one Postgres, a worker apart, HAProxy in front: whoever holds the socket, it is one LabLink."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import Browser, expect

from tests.conftest import make_database
from tests.harness.agents import HandAgent, join
from tests.harness.pages import Visitor, visit
from tests.harness.seats import Seat
from tests.harness.server import gather_all
from tests.harness.several import COOKIE, Lab, meanwhile
from tests.harness.waiting import until


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


async def visit_page(lab: Lab, browser: Browser, path: str) -> tuple[Visitor, str]:
    """An admin's page through the balancer; also the name of the server that holds it."""
    person = await visit(browser, lab.balancer)
    await person.sign_in()
    await person.go(path)
    (name,) = [each["value"] for each in await person.context.cookies() if each["name"] == COOKIE]
    return person, name


async def test_100_claims_at_once_through_the_balancer_are_100_places_for_100_people(lab: Lab) -> None:
    pool = await lab.make_pool("hall")
    async with lab.balancer.client() as client:
        await join(lab.balancer, client, 60, prefix=pool, pool=pool)
    answers = await gather_all(*(claim_as_somebody(lab, pool, f"p{n}@lab.org") for n in range(100)))
    assert Counter(answer.status_code for answer in answers) == {201: 60, 202: 40}
    assert {answer.cookies[COOKIE] for answer in answers} == {"one", "two"}
    told = [answer.json()["hostname"] for answer in answers if answer.status_code == 201]
    assert len(set(told)) == 60
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


async def test_a_page_at_one_shows_what_was_committed_at_the_other(lab: Lab, browser: Browser) -> None:
    pool = await lab.make_pool("seen")
    person, name = await visit_page(lab, browser, "/admin/instances")
    other = lab.other(name)
    async with other.client() as client:
        await join(other, client, 1, prefix=pool, pool=pool)
    await person.sees_status(f"vm-{pool}-000", "available", within_s=10)
    await person.context.close()


async def test_what_is_swept_is_swept_once_and_a_terminal_finds_its_agent_through_any_change(lab: Lab) -> None:
    leader = await lab.leader()
    # One machine is refilled, by whoever leads; the worker apart makes it.
    pool = await lab.make_pool("kept", max=1, available_min=1, terminal=True)

    async def find_machine() -> str | None:
        return next((n for n, vm in (await lab.balancer.list_vms()).items() if vm["pool"] == pool), None)

    hostname = await until(find_machine, what="a machine is asked for")
    await lab.balancer.until_status([hostname], "available")
    async with lab.balancer.client() as client:
        seat = await Seat(lab.balancer, client).claim("ada@lab.org", pool)
        number = await seat.open()
        screen = await seat.connect(number)
        await screen.shows(f"@{hostname}:~$ ")
        await screen.type("x=kept; for i in $(seq 100); do echo n$i; sleep 0.02; done\n")
        await screen.shows("n20")

        # Who leads is killed; the terminal may have been there or not.
        lab.servers[leader].kill()
        assert await lab.leader() != leader
        survivor = await follow(seat, number, screen, "n100")
        await lab.servers[leader].start()
        await lab.is_served_by(leader)
        # Its agent may be where the balancer would not send it any more: both come together all the same.
        again = await seat.connect(number)
        again = await follow(seat, number, again, "n100")
        await again.type("echo x=$x\n")
        await follow(seat, number, again, "x=kept")
        await survivor.leave()
    async with lab.database() as db:
        launches = await count_launches(db, pool)
    assert launches == 1


async def follow(seat: Seat, number: int, screen, *words: str):
    """Waits for these words, as a page does: connecting anew, from where it was, whenever it is cut off."""

    async def shows() -> bool:
        nonlocal screen
        if screen.close_code is not None:
            former, screen = screen, await seat.connect(number, offset=screen.offset)
            screen.output = former.output
        return all(word in screen.text for word in words)

    await until(shows, within_s=30, what=f"{words} in the terminal")
    return screen


async def count_launches(db, pool: str) -> int:
    from backend.services.operations import list_operations

    return sum(operation.pool == pool for operation in await list_operations(db))


async def test_killed_in_a_storm_of_claims_nobody_loses_a_seat_and_its_pages_come_back(
    lab: Lab, browser: Browser
) -> None:
    pool = await lab.make_pool("storm")
    async with lab.balancer.client() as client:
        await join(lab.balancer, client, 60, prefix=pool, pool=pool)
    person, name = await visit_page(lab, browser, "/admin/instances")
    told: dict[str, str] = {}
    asked_again = 0

    async def get_seat(email: str) -> None:
        nonlocal asked_again
        for _ in range(100):
            try:
                answer = await claim_as_somebody(lab, pool, email)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code in {200, 201}:
                told[email] = answer.json()["hostname"]
                return
            assert answer is None or answer.status_code >= 500, answer.text
            asked_again += 1
            await asyncio.sleep(0.1)
        raise AssertionError(f"{email} got no seat")

    async def kill() -> None:
        await until(lambda: len(told) >= 10, every_s=0.001, what="the storm is in full swing")
        lab.servers[name].kill()

    await gather_all(kill(), *(get_seat(f"s{n}@lab.org") for n in range(60)))
    assert len(set(told.values())) == 60
    assert await list_holders(lab, pool) == told
    # Its page is drawn by the other one now, and is true.
    async with lab.other(name).client() as client:
        await join(lab.other(name), client, 1, prefix="late", pool=pool)
    await person.sees_status("vm-late-000", "available", within_s=30)
    await expect(person.page.get_by_test_id("live-state")).to_have_attribute("data-status", "live")
    await person.context.close()
    await lab.servers[name].start()
    await lab.is_served_by(name)


async def test_servers_restarted_one_after_the_other_fail_no_claim_and_no_heartbeat(lab: Lab, browser: Browser) -> None:
    pool = await lab.make_pool("rolling")
    person, _ = await visit_page(lab, browser, "/admin/instances")
    async with lab.balancer.client() as client:
        agents = await join(lab.balancer, client, 2, prefix=pool, pool=pool)
        counted: Counter[str] = Counter()

        async def claim_all_the_time() -> None:
            while True:
                answer = await claim_as_somebody(lab, pool, f"r{counted['claims']}@lab.org")
                assert answer.status_code in {201, 202}, answer.text
                counted["claims"] += 1
                await asyncio.sleep(0.05)

        async def beat_all_the_time() -> None:
            while True:
                answer = await agents[0].beat()
                assert answer.status_code == 200, answer.text
                counted["beats"] += 1
                await asyncio.sleep(0.05)

        async def poll_all_the_time() -> None:
            while True:
                await agents[1].list_commands(wait=20)
                counted["polls"] += 1

        async with meanwhile(claim_all_the_time(), beat_all_the_time(), poll_all_the_time()):
            for name, server in lab.servers.items():
                assert await server.stop() == 0
                await server.start()
                await lab.is_served_by(name)
    assert counted["claims"] > 10
    assert counted["beats"] > 10
    async with lab.servers["one"].client() as client:
        await join(lab.servers["one"], client, 1, prefix="after")
    await person.sees_status("vm-after-000", "available", within_s=30)
    await person.context.close()
