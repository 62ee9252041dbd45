"""fleet: fifty machines are claimed, given back, die and are mended, while the server and Postgres are killed; and then
everything is true: nobody lost a seat, every process has its row and every row its process, and the history adds up.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import httpx
from sqlalchemy import func, select

from backend.db.engine import Database
from backend.errors import Conflict, NotFound, Unavailable
from backend.models import Claim, Repair
from backend.services.actor import Actor
from backend.services.claims import list_claims, release_vms
from backend.services.vms import request_repair
from tests.harness.pools import database_of
from tests.harness.processes import list_processes
from tests.harness.server import Server
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario
from tests.soak.strikes import kill_agent, kill_postgres, kill_server
from tests.soak.truth import list_violations

MACHINES, STORM_S = 50, 600.0
AT_REST_S, UP_S = 420, 240
# A person looks after what nothing has mended for so long.
PATIENCE_S = 45
ADMIN = Actor.admin("soak")
SETTINGS = (
    "agent.heartbeat_interval_s=2",
    "agent.unreachable_after_s=8",
    "pool.default.boot_deadline_s=60",
    "pool.default.unreachable_grace_s=30",
    # A machine that dies while it is cleaned is known to be unclean after that.
    "pool.default.cleaning_deadline_s=90",
    "healing.after_s=1",
    "healing.pause_s=1",
    "healing.restart_s=30",
    "healing.reboot_s=60",
    "healing.replace_s=120",
    "healing.seat_grace_s=30",
    "healing.per_hour=100000",
    "healing.breaker_failures=1000",
)
_AWAY = (httpx.TransportError, Unavailable)


async def play(game: Round, machines: int = MACHINES, storm_s: float = STORM_S) -> None:
    """One fleet's ten minutes."""
    server = Server(game.directory / "home", *SETTINGS, f"pool.default.max={machines + machines // 5 + 1}")
    try:
        await server.start()
        _, names = await server.launch(machines)
        await server.until_status(names, "available", within_s=UP_S)
        game.say(f"{machines} machines are up")
        async with database_of(server) as db, server.client() as client:
            fleet = _Fleet(game, server, client, db)
            await fleet.live_through(storm_s)
            await fleet.come_to_rest("in the seats that they have")
            await fleet.give_everything_back()
            await fleet.come_to_rest("empty")
            await fleet.report()
        assert await server.stop() == 0
        left = {process.pid for process in list_processes(server.home)} - set(server.vms.list_running().values())
        assert not left, f"left after the end: {left}"
    finally:
        await server.close()


class _Fleet:
    """What people do to it, what befalls it, and what it has promised: ``people`` hold a seat or a place in line."""

    def __init__(self, game: Round, server: Server, client: httpx.AsyncClient, db: Database) -> None:
        self._server, self._client, self._db = server, client, db
        self._luck, self._say = game.luck, game.say
        self._numbers = itertools.count(1)
        self._people: dict[str, str | None] = {}
        self._is_over = False
        self._done: Counter[str] = Counter()
        self._repaired_at: dict[str, float] = {}

    async def live_through(self, storm_s: float) -> None:
        """People come and go and machines die, several at a time; now and then the server, Postgres, or both die."""
        end = time.monotonic() + storm_s
        kinds = (self._claim, self._claim, self._release, self._release, self._release, self._kill_agent)
        # A luck for each: what is done at the same time must not take turns at one source.
        lives = [self._live(end, kinds, random.Random(self._luck.random())) for _ in range(4)]
        await asyncio.gather(self._strike(end, random.Random(self._luck.random())), *lives)
        self._say(f"the storm is over: {dict(self._done)}")

    async def come_to_rest(self, how: str) -> None:
        """Waits until nothing moves by itself any more and everything is true."""
        await until(self._is_true, within_s=AT_REST_S, every_s=1, what=f"everything is true, {how}")
        self._say(f"at rest and true, {how}")

    async def give_everything_back(self) -> None:
        """Every seat and every place in line; whoever is let in meanwhile gives that back too."""
        self._people.clear()
        self._is_over = True

        async def is_empty() -> bool:
            claims = await list_claims(self._db, only_open=True)
            held = [each.hostname for each in claims if each.hostname]
            if held:
                await release_vms(self._db, held, actor=ADMIN)
            return not claims

        await until(is_empty, within_s=AT_REST_S, every_s=0.5, what="every seat is given back")

    async def report(self) -> None:
        """Says what it came to."""
        async with self._db.transaction() as session:
            claims = await session.scalar(select(func.count(Claim.id)))
            tried = (await session.execute(select(Repair.outcome, func.count()).group_by(Repair.outcome))).all()
        self._say(f"{claims} claims, attempts to mend: {dict(sorted((str(key), count) for key, count in tried))}")

    async def _live(
        self, end: float, kinds: tuple[Callable[[random.Random], Awaitable[str]], ...], luck: random.Random
    ) -> None:
        while time.monotonic() < end:
            # The moments are the seed's: this is no waiting for a fact.
            await asyncio.sleep(luck.uniform(0.2, 3))
            kind = luck.choice(kinds)
            try:
                self._done[await kind(random.Random(luck.random()))] += 1
            except _AWAY as exc:
                self._done[type(exc).__name__] += 1

    async def _strike(self, end: float, luck: random.Random) -> None:
        while time.monotonic() < end:
            await asyncio.sleep(luck.uniform(3, 25))
            for kill in luck.choice(((kill_server,), (kill_postgres,), (kill_server, kill_postgres))):
                self._say(f"SIGKILL of {', '.join(kill(self._server, luck)) or 'nothing'}")
                self._done[kill.__name__] += 1
            if self._server.process is None or self._server.process.poll() is not None:
                await self._server.start()
            await self._server.ready()

    async def _claim(self, luck: random.Random) -> str:
        email = f"p{next(self._numbers)}@lab.org"
        answer = await self._client.post("/api/request_vm", json={"email": email, "pool": "default"})
        if answer.status_code == 503:
            raise Unavailable(answer.text)
        assert answer.status_code in {201, 202}, answer.text
        self._people[email] = answer.json().get("hostname")
        return "claims"

    async def _release(self, luck: random.Random) -> str:
        if not self._people:
            return "releases of nothing"
        email = luck.choice(sorted(self._people))
        # Whether it comes through or not: what was given back is promised no more.
        del self._people[email]
        for claim in await list_claims(self._db, only_open=True):
            if claim.email == email and claim.hostname:
                try:
                    await release_vms(self._db, [claim.hostname], actor=ADMIN)
                except (Conflict, NotFound):
                    return "releases too late"
        return "releases"

    async def _kill_agent(self, luck: random.Random) -> str:
        return "agents killed" if kill_agent(self._server, luck) else "agents spared"

    async def _is_true(self) -> bool:
        await self._look_after_what_nothing_mends()
        running = self._server.vms.list_running()
        found = await list_violations(self._db, running=running, promised={}, in_line=self._people)
        # What a seat left behind is kept as it is until the seat ends.
        kept = {name for name, vm in (await self._server.list_vms()).items() if vm["status"] == "quarantined"}
        if not self._is_over:
            found = [each for each in found if not any(name in each.split() for name in kept)]
        assert not found, "; ".join(found)
        return True

    async def _look_after_what_nothing_mends(self) -> None:
        """What an admin's launch left half made, and what healing has given up, is repaired by a person."""
        for name, vm in (await self._server.list_vms()).items():
            if vm["status"] != "failed":
                self._repaired_at.pop(name, None)
            elif time.monotonic() - self._repaired_at.setdefault(name, time.monotonic()) > PATIENCE_S:
                self._repaired_at[name] = time.monotonic()
                try:
                    await request_repair(self._db, [name], actor=ADMIN)
                    self._say(f"repair of {name} by hand ({vm['reason']})")
                except (Conflict, NotFound):
                    continue


FLEET = Scenario(
    "fleet", 1, "50 machines claimed, killed and mended for 10 min while server and Postgres are killed", play
)
