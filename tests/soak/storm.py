"""storm: everybody arrives within moments, clicks more than once and comes by every door; some leave again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

import httpx
from sqlalchemy import select

from backend.db.engine import Database
from backend.models import Claim, Event
from backend.services.actor import Actor
from backend.services.claims import release_vms
from backend.services.vms import list_vms
from backend.states import ClaimStatus
from tests.harness.agents import HandAgent, join
from tests.harness.pools import database_of
from tests.harness.server import Server, gather_all
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario
from tests.soak.truth import UP, list_violations

ADMIN = Actor.admin("soak")
DOORS = ("API", "API with a key", "browser")
ARRIVAL_S, STAY_S = 2.0, 1.0
SEATED, IN_LINE, AGAIN, REFUSED, THROTTLED, BUSY = 201, 202, 200, 409, 429, 503


@dataclass
class Person:
    """Somebody who wants a seat: what they do was drawn before; the rest is what they were told, and when."""

    email: str
    door: str
    arrives_s: float
    clicks: int
    stays_s: float | None
    clicked_at: float = 0.0
    told_in_line_at: float | None = None
    has_left: bool = False
    codes: list[int] = field(default_factory=list)
    hostnames: set[str] = field(default_factory=set)


async def play(game: Round, people: int = 300, machines: int = 200) -> None:
    """One workshop's first minute."""
    luck = game.luck
    crowd = [
        Person(
            email=f"p{number}@lab.org",
            door=luck.choice(DOORS),
            arrives_s=luck.uniform(0, ARRIVAL_S),
            clicks=luck.choice((1, 1, 2, 3)),
            stays_s=luck.uniform(0, STAY_S) if luck.random() < 0.2 else None,
        )
        for number in range(people)
    ]
    server = Server(game.directory / "home", f"pool.default.max={machines}", "agent.unreachable_after_s=600")
    try:
        await server.start()
        async with database_of(server) as db, server.client() as client, obedient_agents(server, machines):
            game.say(f"{machines} machines are available")
            await gather_all(*(visit(server, client, db, person) for person in crowd))
            left = sum(person.has_left for person in crowd)
            game.say(f"{people} people have clicked {sum(each.clicks for each in crowd)} times, {left} have left")
            await until(lambda: is_just(db, crowd, machines), within_s=30, what="everybody has a seat or a place")
            game.say("nobody sits twice, nobody was let in past somebody else")
        assert await server.stop() == 0
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def obedient_agents(server: Server, count: int) -> AsyncIterator[Sequence[HandAgent]]:
    """Machines whose agents do at once what they are told."""

    async def obey(agent: HandAgent) -> None:
        while True:
            answer = await agent.client.get("/api/commands?wait=20", headers=agent.headers)
            assert answer.status_code in {200, BUSY}, answer.text
            for command in answer.json().get("commands", ()):
                # Told again until it is heard, as a real agent does.
                await until(lambda number=command["id"]: has_finished(agent, number), every_s=0.5)

    async with server.client() as client:
        agents = await join(server, client, count)
        working = [asyncio.create_task(obey(agent)) for agent in agents]
        try:
            yield agents
        finally:
            ended = [task for task in working if task.done()]
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            for task in ended:
                task.result()


async def has_finished(agent: HandAgent, command_id: int) -> bool:
    return (await agent.finish(command_id)).status_code == 200


async def visit(server: Server, client: httpx.AsyncClient, db: Database, person: Person) -> None:
    """Comes, clicks, checks the answers, and perhaps leaves again."""
    # The moments are the seed's: this is no waiting for a fact.
    await asyncio.sleep(person.arrives_s)
    if person.door == "browser":
        async with server.client(verify=False) as browser:
            await browser.get("/join/default")
            await click(browser, person, {"Origin": server.url})
    else:
        await click(client, person, {"Idempotency-Key": person.email} if person.door == "API with a key" else {})
    check_answers(person)
    if person.stays_s is not None and person.hostnames:
        await asyncio.sleep(person.stays_s)
        await release_vms(db, person.hostnames, actor=ADMIN)
        person.has_left = True


async def click(client: httpx.AsyncClient, person: Person, headers: dict[str, str]) -> None:
    """So many clicks at once."""

    async def once() -> None:
        body = {"email": person.email, "pool": "default"}
        answer = await until(lambda: ask(client, body, headers), within_s=60, every_s=0.5)
        person.codes.append(answer.status_code)
        if answer.status_code == IN_LINE and person.told_in_line_at is None:
            person.told_in_line_at = monotonic()
        if hostname := answer.json().get("hostname"):
            person.hostnames.add(hostname)

    person.clicked_at = monotonic()
    await gather_all(*(once() for _ in range(person.clicks)))


async def ask(client: httpx.AsyncClient, body: dict[str, str], headers: dict[str, str]) -> httpx.Response | None:
    """The answer; None where it was "busy, try again in a moment", which keeps nothing."""
    answer = await client.post("/api/request_vm", json=body, headers=headers)
    return None if answer.status_code == BUSY else answer


def check_answers(person: Person) -> None:
    """One claim, however many clicks: the same again for whoever can be known again, a refusal for all others."""
    codes, story = sorted(person.codes), f"{person.email} by {person.door}: {person.codes} {person.hostnames}"
    assert len(person.hostnames) <= 1, story
    if person.door == "API":
        assert codes[0] in {SEATED, IN_LINE}, story
        # Who learns that a seat exists learns something about a person: soon the address is told to come later.
        assert set(codes[1:]) <= {REFUSED, THROTTLED}, story
    else:
        assert codes.count(SEATED) <= 1, story
        assert set(codes) <= {AGAIN, SEATED, IN_LINE}, story
        assert SEATED in codes or IN_LINE in codes, story


async def is_just(db: Database, crowd: Sequence[Person], machines: int) -> bool:
    """Whether all is at rest and as it should be.

    Raises:
        AssertionError: it is not (yet); says what.
    """
    staying = [person for person in crowd if not person.has_left]
    async with db.transaction() as session:
        claims = (await session.scalars(select(Claim).order_by(Claim.id))).all()
        seatings = select(Event.claim_id, Event.id).where(Event.kind == f"claim.{ClaimStatus.PREPARING}")
        seated_at = {int(claim_id or 0): at for claim_id, at in await session.execute(seatings)}
    held = [claim for claim in claims if claim.status == ClaimStatus.ACTIVE]
    assert len(held) == min(machines, len(staying)), f"{len(held)} sit"
    assert len(claims) == len(crowd), f"{len(claims)} claims of {len(crowd)} people"
    check_order(crowd, {claim.email: seated_at.get(claim.id) for claim in claims})
    promised = {person.email: hostname for person in staying for hostname in person.hostnames}
    in_line = [person.email for person in staying if not person.hostnames]
    # Machines that joined have no process here: all that are up count as running.
    up = [vm.hostname for vm in await list_vms(db) if vm.status in UP]
    violations = await list_violations(db, running=up, promised=promised, in_line=in_line)
    assert not violations, "; ".join(violations)
    return True


def check_order(crowd: Sequence[Person], seated: dict[str, int | None]) -> None:
    """Whoever was told a place in line before another one had even clicked, sits before that other one."""
    for waiting in crowd:
        if waiting.told_in_line_at is None:
            continue
        mine = seated[waiting.email]
        for later in crowd:
            theirs = seated[later.email]
            if theirs is None or later.clicked_at < waiting.told_in_line_at:
                continue
            assert mine is not None, f"{later.email} was let in past {waiting.email}"
            assert mine < theirs, f"{later.email} was let in before {waiting.email}"


STORM = Scenario(
    "storm", 10, "300 people on 200 machines within two seconds, by every door; no seat twice, in order", play
)
