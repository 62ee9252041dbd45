"""crashes: random work on a real server, SIGKILL at random moments; afterwards everything must be true again."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, NotFound, Unavailable
from backend.services.actor import Actor
from backend.services.claims import release_vms
from backend.services.operations import list_operations, request_cancel
from backend.services.vms import list_vms, request_repair
from tests.harness.pools import database_of
from tests.harness.processes import list_processes
from tests.harness.server import Server
from tests.harness.waiting import until
from tests.soak.rounds import Round, Scenario
from tests.soak.strikes import STRIKES
from tests.soak.truth import list_violations

ADMIN = Actor.admin("soak")
LONGEST_PAUSE_S = 2.0
# An agent that is killed while it boots is given up by the boot deadline; a worker that lost its lease by two leases.
AT_REST_S = 120
REPAIR_AGAIN_S = 20
# What a request may meet while things die: no answer, or one that says "later".
_AWAY = (httpx.TransportError, Unavailable)


async def play(game: Round) -> None:
    """One server's hard life, from its first start to its end."""
    luck = game.luck
    server = Server(
        game.directory / "home",
        f"terraform.parallelism={luck.choice((1, 2, 4))}",
        "agent.heartbeat_interval_s=1",
        "agent.unreachable_after_s=3",
        # What fails here is repaired by a person, who counts what became of it.
        "healing.at_once=0",
        verb=luck.choice(("serve", "demo")),
    )
    try:
        await server.start()
        game.say("started")
        async with database_of(server) as db, server.client() as client:
            await _shorten_the_boot_deadline(db)
            life = _Life(game, server, client, db)
            for _ in range(luck.randint(2, 4)):
                await life.act()
            await life.come_to_rest()
            await life.report()
            await life.destroy_everything()
        assert await server.stop() == 0
        left = [" ".join(process.cmdline()) for process in list_processes(server.home)]
        assert not left, f"left after the end: {left}"
        game.say("ended, nothing left")
    finally:
        await server.close()


async def _shorten_the_boot_deadline(db: Database) -> None:
    """Below what an admin may set: of agents killed while they boot there are many, and each costs it whole."""
    async with db.transaction() as session:
        await session.execute(text("UPDATE pools SET boot_deadline_s = 10"))


class _Life:
    """What was done to a server, and what it has promised."""

    def __init__(self, game: Round, server: Server, client: httpx.AsyncClient, db: Database) -> None:
        self._server, self._client, self._db = server, client, db
        self._luck, self._say = game.luck, game.say
        self._numbers = itertools.count(1)
        self._promised: dict[str, str] = {}
        self._in_line: set[str] = set()
        self._launched: set[str] = set()
        self._repaired_at: dict[str, float] = {}

    async def act(self) -> None:
        """Some work, a strike in the middle of it, and what people do after one."""
        luck = self._luck
        kinds = [self._launch, self._claim, self._claim, self._release, self._destroy, self._cancel]
        # A sub-luck for each: work done at the same time must not take turns at one source.
        works = [(work, random.Random(luck.random())) for work in luck.choices(kinds, k=luck.randint(1, 3))]
        if not self._launched:
            works.insert(0, (self._launch, random.Random(luck.random())))
        victim, pause_s, aim = luck.choice(sorted(STRIKES)), luck.uniform(0, LONGEST_PAUSE_S), luck.random()
        doing = [asyncio.create_task(self._try(work, sub)) for work, sub in works]
        # The moment is the seed's: this is no waiting for a fact.
        await asyncio.sleep(pause_s)
        struck = STRIKES[victim](self._server, random.Random(aim))
        self._say(f"SIGKILL of {victim}: {', '.join(struck) or 'there was none'}")
        await asyncio.gather(*doing)
        if self._server.process is None or self._server.process.poll() is not None:
            await self._server.start()
        await self._server.ready()
        self._say("ready again")

    async def come_to_rest(self) -> None:
        """Waits until nothing moves by itself any more; machines that fell silent or failed are repaired."""
        await until(self._is_at_rest, within_s=AT_REST_S, every_s=0.5, what="everything is at rest")
        self._say("at rest")

    async def report(self) -> None:
        """Says what it came to."""
        vms = await self._server.list_vms()
        self._say(f"true: {len(vms)} machines, {len(self._promised)} seats, {len(self._in_line)} promised a place")

    async def destroy_everything(self) -> None:
        """Every machine can be destroyed, whatever became of it; nothing is left of any."""
        answer = await self._server.api.post("/api/admin/destroy", json={"all": True, "pool": "default"})
        assert answer.status_code == 202, answer.text
        self._promised.clear()
        await until(self._is_empty, within_s=60, every_s=0.5, what="everything is destroyed")
        await until(self._is_at_rest, within_s=10, what="the operations have ended")
        assert self._server.vms.list_existing() == []
        assert list_processes(self._server.home, "terraform") == []

    async def _try(self, work: Callable[[random.Random], Awaitable[str]], luck: random.Random) -> None:
        try:
            self._say(await work(luck))
        except _AWAY as exc:
            self._say(f"{work.__name__.strip('_')}: {type(exc).__name__}")

    async def _launch(self, luck: random.Random) -> str:
        count = luck.randint(1, 6)
        answer = await self._ask("/api/admin/create", {"pool": "default", "count": count}, 202)
        self._launched |= set(answer["hostnames"])
        return f"launch of {count}: operation {answer['operation_id']}"

    async def _claim(self, luck: random.Random) -> str:
        email = f"p{next(self._numbers)}@lab.org"
        answer = await self._ask("/api/request_vm", {"email": email, "pool": "default"}, 201, 202)
        if "hostname" in answer:
            self._promised[email] = answer["hostname"]
        else:
            self._in_line.add(email)
        return f"claim of {email}: {answer.get('hostname') or 'in line'}"

    async def _release(self, luck: random.Random) -> str:
        if not self._promised:
            return "release: nobody has a seat"
        email = luck.choice(sorted(self._promised))
        # Whether it comes through or not: what was given back is promised no more.
        hostname = self._promised.pop(email)
        try:
            await release_vms(self._db, [hostname], actor=ADMIN)
        except Conflict as exc:
            return f"release of {hostname}: {exc.message}"
        return f"release of {hostname}, of {email}"

    async def _destroy(self, luck: random.Random) -> str:
        existing = [vm.hostname for vm in await list_vms(self._db)]
        chosen = luck.sample(existing, k=min(len(existing), luck.randint(1, 2)))
        if not chosen:
            return "destroy: there is nothing"
        self._promised = {email: name for email, name in self._promised.items() if name not in chosen}
        await self._ask("/api/admin/destroy", {"hostnames": chosen}, 202, 404, 409)
        # A seat that was taken while this was asked for went with its machine.
        self._promised = {email: name for email, name in self._promised.items() if name not in chosen}
        return f"destroy of {', '.join(chosen)}"

    async def _cancel(self, luck: random.Random) -> str:
        running = await list_operations(self._db, only_open=True)
        if not running:
            return "cancel: nothing is open"
        try:
            await request_cancel(self._db, running[0].id, actor=ADMIN)
        except Conflict as exc:
            return f"cancel: {exc.message}"
        return f"cancel of operation {running[0].id}"

    async def _ask(self, path: str, body: dict[str, Any], *codes: int) -> dict[str, Any]:
        is_admin = path.startswith("/api/admin")
        answer = await (self._server.api if is_admin else self._client).post(path, json=body)
        if answer.status_code == 503:
            raise Unavailable(answer.text)
        assert answer.status_code in codes, f"{path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    async def _is_at_rest(self) -> bool:
        vms = await self._server.list_vms()
        here = set(self._server.vms.list_existing())
        for name, vm in vms.items():
            if "repair" in vm["actions"] and name in here:
                await self._repair(name, str(vm["reason"] or "silent"))
        violations = await self._list_violations()
        assert not violations, "; ".join(violations)
        return True

    async def _repair(self, hostname: str, why: str) -> None:
        """Asks once, and again only when a good while has passed, as a person would."""
        if time.monotonic() - self._repaired_at.get(hostname, -REPAIR_AGAIN_S) < REPAIR_AGAIN_S:
            return
        self._repaired_at[hostname] = time.monotonic()
        try:
            await request_repair(self._db, [hostname], actor=ADMIN)
            self._say(f"repair of {hostname} ({why})")
        except (Conflict, NotFound):
            return

    async def _is_empty(self) -> bool:
        return not await self._server.list_vms() and not self._server.vms.list_running()

    async def _list_violations(self) -> list[str]:
        running = self._server.vms.list_running()
        return await list_violations(self._db, running=running, promised=self._promised, in_line=self._in_line)


CRASHES = Scenario(
    "crashes",
    40,
    "launches, claims, releases, destroys and cancels; SIGKILL of server, Terraform, agents and Postgres in the middle",
    play,
)
