"""The course of a swarm: machines enrol, people come, all are asked what they see, and everything leaves again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lablink_ui.swarm.api import Api
from lablink_ui.swarm.consoles import sign_in
from lablink_ui.swarm.crew import ENDED, Crew
from lablink_ui.swarm.http import Client, Failed
from lablink_ui.swarm.scenario import Scenario, parse_scenario
from lablink_ui.swarm.tally import Tally
from lablink_ui.swarm.target import Target
from lablink_ui.swarm.worker import make_order

PREFIX = "swarm-"
AGENTS_EACH, PEOPLE_EACH = 1_500, 300
SECOND_S, LAG_EVERY_S, LOOK_S = 1.0, 5.0, 0.25
# Beyond what one enrolment or one farewell takes on a slow machine.
ENROL_S, LEAVE_S = 60.0, 60.0


@dataclass(slots=True)
class Course:
    """One run. ``token``: an admin's API token; ``password``: the console's, where admin pages are asked for."""

    target: Target
    text: str
    seed: int
    token: str
    password: str | None
    keep: bool
    on_progress: Callable[[str], None]
    tally: Tally = field(default_factory=Tally)
    hostnames: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    in_line: int = 0
    began: float = 0.0
    seconds: float = 0.0
    scenario: Scenario = field(init=False)

    def __post_init__(self) -> None:
        self.scenario = parse_scenario(self.text)

    async def run(self) -> None:
        """All of it. What goes wrong is in the tally; nothing of a swarm stays unless it shall."""
        api = Api(self.target, self.token)
        self.began = time.monotonic()
        try:
            async with Crew(self.tally) as machines:
                try:
                    await self._begin(api, machines)
                    await self._let_people_come(api)
                finally:
                    if not self.keep:
                        # Whoever is told to stop twice still clears up.
                        await asyncio.shield(self._clear_up(api))
        except Failed as exc:
            self.tally.fail(f"swarm: {exc.kind}", str(exc))
        finally:
            self.seconds = time.monotonic() - self.began
            api.close()

    def verdict(self) -> list[str]:
        """Why it failed; nothing if all was well."""
        tally, people = self.tally, self.scenario.arrivals.people
        reasons = [
            f"{number} times {kind}, such as: {tally.said[kind][0]}" for kind, number in tally.errors.most_common()
        ]
        reasons += self.doubles
        missing = people - tally.seated - self.in_line
        if missing > 0:
            reasons.append(f"{missing} of {people} people have neither a seat nor a place in line")
        if self.left_behind:
            reasons.append(f"{len(self.left_behind)} machines are left behind, such as {self.left_behind[0]}")
        return reasons

    async def _begin(self, api: Api, machines: Crew) -> None:
        """Has the machines enrolled and available."""
        scenario, tally = self.scenario, self.tally
        former = [str(each["hostname"]) for each in await api.list_instances()]
        if any(hostname.startswith(PREFIX) for hostname in former):
            raise Failed(
                "another swarm", f"machines named {PREFIX}… are there already; destroy them, or wait for them to go"
            )
        if not scenario.agents:
            return
        self.on_progress(f"{scenario.agents} machines enrol")
        tokens = await self._make_tokens(api)
        self.hostnames = [f"{PREFIX}{number:04d}" for number in range(1, scenario.agents + 1)]
        named = list(zip(self.hostnames, tokens, strict=True))
        processes = range(0, len(named), AGENTS_EACH)
        for first in processes:
            order = make_order(
                self.target, self.text, self.seed, kind="machines", machines=named[first : first + AGENTS_EACH]
            )
            await machines.start(order)
        await self._until(
            lambda: tally.reached["ready"] + tally.reached["failed"] >= len(processes),
            within_s=ENROL_S + scenario.agents / 10,
            what="all machines have enrolled",
        )
        if tally.reached["failed"]:
            raise Failed("machines", "some could not enrol")
        await self._until_status(api, {"available"}, within_s=scenario.patience)
        tally.reached.clear()

    async def _make_tokens(self, api: Api) -> list[str]:
        pools, agents = self.scenario.pool, self.scenario.agents
        # As evenly as it goes: of 10 machines in 3 pools, 4, 3 and 3.
        shares = [agents // len(pools) + (number < agents % len(pools)) for number in range(len(pools))]
        made = [await api.make_tokens(pool, share) for pool, share in zip(pools, shares, strict=True)]
        return [token for tokens in made for token in tokens]

    async def _let_people_come(self, api: Api) -> None:
        scenario, tally = self.scenario, self.tally
        processes = max(1, -(-scenario.arrivals.people // PEOPLE_EACH))
        cookies = await self._sign_in() if scenario.admin_pages else {}
        async with Crew(tally) as crew:
            for first in range(processes):
                order = make_order(
                    self.target,
                    self.text,
                    self.seed,
                    kind="people",
                    first=first,
                    of=processes,
                    admin_pages=list(range(first, scenario.admin_pages, processes)),
                    cookies=cookies,
                    keep=self.keep,
                )
                await crew.start(order)
            await self._until(lambda: tally.reached["ready"] >= processes, within_s=ENROL_S, what="all are here")
            self.on_progress("people come")
            watching = [asyncio.create_task(work) for work in (self._watch(), self._watch_lag(api))]
            try:
                await crew.tell("begin")
                await self._until_done()
                # Nobody has left yet who does not leave by himself: what the server says now must be what they see.
                # Who holds machines elsewhere as well is no concern of the swarm's.
                here = [each for each in await api.list_instances() if each["pool"] in scenario.pool]
                self.doubles = tally.find_doubles(here)
            finally:
                self.in_line = tally.counts["in line"]
                await asyncio.shield(self._have_them_leave(crew, processes))
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)

    async def _until_done(self) -> None:
        scenario, tally = self.scenario, self.tally
        await self._until(
            lambda: tally.counts["done"] >= scenario.arrivals.people or tally.errors[ENDED],
            within_s=scenario.lasts_s + ENROL_S + 4 * scenario.patience,
            what="all people are done",
        )

    async def _have_them_leave(self, crew: Crew, processes: int) -> None:
        """Also when it is broken off in the middle: a place in line would outlast its machines."""
        self.on_progress("all leave")
        await crew.tell("leave")
        await self._until(
            lambda: self.tally.reached["gone"] >= processes or self.tally.errors[ENDED],
            within_s=LEAVE_S + 4 * self.scenario.patience,
            what="all people have left",
        )

    async def _sign_in(self) -> dict[str, str]:
        client = Client(self.target)
        try:
            await sign_in(client, self.password or "")
            return client.cookies
        finally:
            client.close()

    async def _watch(self) -> None:
        """Once a second: what there is now, for the progress and for the report's curves."""
        tally, second = self.tally, 0
        began = last = time.monotonic()
        while True:
            second += 1
            await asyncio.sleep(max(0.0, began + second * SECOND_S - time.monotonic()))
            now = time.monotonic()
            beats, claims = tally.values("heartbeat", last), tally.values("claim", last)
            counts = tally.counts
            tally.series.append(
                {
                    "at_s": round(now - began, 1),
                    "arrived": counts["arrived"],
                    "seated": tally.seated,
                    "in_line": counts["in line"],
                    "pages": counts["pages"],
                    "heartbeats_per_s": round(len(beats) / (now - last), 1),
                    "claim_ms_worst": max(claims, default=0.0),
                    "errors": tally.errors.total(),
                }
            )
            last = now
            self.on_progress(_progress(tally, self.scenario))

    async def _watch_lag(self, api: Api) -> None:
        """By itself: a server that is late answers this late as well, and the curves must not wait for it."""
        began = time.monotonic()
        while True:
            await asyncio.sleep(LAG_EVERY_S)
            lag = await api.find_lag()
            if lag is not None:
                self.tally.server_lag_s.append((time.monotonic() - began, lag))

    async def _clear_up(self, api: Api) -> None:
        if not self.hostnames:
            return
        try:
            there = await self._list_there(api)
            await api.destroy(there)
            await self._until_gone(api)
        except Failed as exc:
            self.tally.fail(f"swarm: {exc.kind}", str(exc))

    async def _until_gone(self, api: Api) -> None:
        end = time.monotonic() + LEAVE_S + len(self.hostnames) / 10
        while time.monotonic() < end and (there := await self._list_there(api)):
            self.on_progress(f"{len(there)} machines leave")
            await asyncio.sleep(LOOK_S)
        self.left_behind = await self._list_there(api)

    async def _list_there(self, api: Api) -> list[str]:
        ours = set(self.hostnames)
        return sorted(str(each["hostname"]) for each in await api.list_instances() if each["hostname"] in ours)

    async def _until_status(self, api: Api, statuses: set[str], *, within_s: float) -> None:
        end, ours = time.monotonic() + within_s, set(self.hostnames)
        while True:
            others = [
                each
                for each in await api.list_instances()
                if each["hostname"] in ours and each["status"] not in statuses
            ]
            if not others:
                return
            if time.monotonic() > end:
                raise Failed("machines", f"{len(others)} are not available, such as {others[0]['hostname']}")
            await asyncio.sleep(LOOK_S)

    async def _until(self, fact: Callable[[], object], *, within_s: float, what: str) -> None:
        end = time.monotonic() + within_s
        while not fact():
            if time.monotonic() > end:
                raise Failed("late", f"not within {within_s:.0f} s: {what}")
            await asyncio.sleep(0.05)


def _progress(tally: Tally, scenario: Scenario) -> str:
    series, claims = tally.series[-1], tally.values("claim")
    worst = f", slowest claim {max(claims):.0f} ms" if claims else ""
    return (
        f"{series['at_s']:.0f} s: {series['arrived']:.0f} of {scenario.arrivals.people} came,"
        f" {series['seated']:.0f} sat,"
        f" {series['in_line']:.0f} in line, {series['pages']:.0f} pages open,"
        f" {series['heartbeats_per_s']:.0f} beats/s{worst}, {series['errors']:.0f} errors"
    )
