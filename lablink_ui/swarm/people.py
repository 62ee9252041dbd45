"""Researchers who behave as people do: come, hesitate, click (some twice), sit, reload, come back, lose Wi-Fi."""

from __future__ import annotations

import asyncio
import time

from lablink_ui.swarm.http import Client, Failed
from lablink_ui.swarm.page import Page
from lablink_ui.swarm.scenario import Mishap, Person, Scenario
from lablink_ui.swarm.target import Target
from lablink_ui.swarm.telling import Teller

AGENT = "Mozilla/5.0 (X11; Linux x86_64) lablink-swarm"
SEATED, PREPARING, WAITING, RELEASED = "active", "preparing", "waiting", "released"
CLAIMED = {200, 201, 202}


class Researcher:
    """One person with one browser."""

    def __init__(self, target: Target, person: Person, scenario: Scenario, teller: Teller) -> None:
        self._person, self._scenario, self._teller = person, scenario, teller
        self._client = Client(target, {"User-Agent": AGENT})
        self._page = Page(self._client, on_problem=lambda exc: teller.failed("person", exc))
        self._hostname = ""
        self._is_in_line = self._has_left = False

    async def live(self, began: float) -> None:
        """The whole story, but for the farewell. ``began``: the moment from which arrivals count."""
        ends = began + self._scenario.lasts_s
        await _until_moment(began + self._person.arrives_s)
        self._teller.count("arrived")
        try:
            await self._come()
            await self._sit(ends)
            await _until_moment(ends)
            await self._look()
        except Failed as exc:
            self._teller.failed("person", exc)
        self._teller.count("done")

    async def leave(self) -> None:
        """Gives back whatever is held: the seat, or the place in line."""
        if not self._has_left and (self._hostname or self._is_in_line):
            try:
                await self._give_back()
            except Failed as exc:
                self._teller.failed("person leaving", exc)
        await self.close()

    async def close(self) -> None:
        """Closes the browser."""
        await self._page.close()
        self._client.close()

    async def _come(self) -> None:
        """From the link to what came of the click."""
        page, scenario = self._page, self._scenario
        arrived_s = await self._open(f"/join/{self._person.pool}")
        if scenario.files:
            await page.fetch_files()
        # A click counts only once the page's script is there, and it says so by its socket.
        await page.until(lambda: page.is_connected, within_s=scenario.patience, what="the join page alive")
        if page.find("claim-submit") is None:
            raise Failed("no form", f"{page.path} lets nobody in; the pool must be open to everybody")
        await self._type_and_hesitate()
        clicked = time.monotonic()
        await asyncio.gather(*(self._click() for _ in range(self._person.clicks)))
        await self._open("/seat")
        await self._until_seat_is({PREPARING, SEATED, WAITING}, "the seat")
        if page.status("seat-status") != WAITING:
            self._teller.took("click to machine", time.monotonic() - clicked)
            await self._until_seat_is({SEATED, WAITING}, "a machine that is ready")
        shown_s = time.monotonic() - clicked
        if page.status("seat-status") == WAITING:
            self._is_in_line = True
            self._teller.count("in line")
            self._teller.took("click to line", shown_s)
            return
        self._note_seat()
        self._teller.took("click to seat", shown_s)
        self._teller.took("join to seat", arrived_s + shown_s)

    async def _until_seat_is(self, statuses: set[str], what: str) -> None:
        page = self._page
        await page.until(lambda: page.status("seat-status") in statuses, within_s=self._scenario.patience, what=what)

    async def _type_and_hesitate(self) -> None:
        email, hesitates_s = self._person.email, self._person.hesitates_s
        for end in range(1, len(email) + 1):
            await self._page.act("claim-email", "input", email[:end])
            await asyncio.sleep(hesitates_s / (len(email) + 1))
        await asyncio.sleep(hesitates_s / (len(email) + 1))

    async def _click(self) -> None:
        began = time.monotonic()
        answer = await self._client.ask(
            "POST",
            "/api/request_vm",
            {"pool": self._person.pool, "email": self._person.email},
            headers={"Origin": self._client.target.origin},
            within_s=self._scenario.patience,
        )
        self._teller.took("claim", time.monotonic() - began)
        if answer.status not in CLAIMED:
            raise Failed(f"claim {answer.status}", answer.problem())

    async def _sit(self, ends: float) -> None:
        """What happens to somebody who has a seat, now or once the line has moved."""
        page = self._page
        if self._is_in_line:
            waited_from = time.monotonic()
            try:
                left_s = max(0.0, ends - waited_from)
                await page.until(lambda: page.status("seat-status") == SEATED, within_s=left_s, what="a machine")
            except Failed:
                # None became free; that is no error.
                return
            self._is_in_line = False
            self._teller.count("in line", -1)
            self._teller.took("line to seat", time.monotonic() - waited_from)
            self._note_seat()
        sat, left_s = time.monotonic(), max(0.0, ends - time.monotonic())
        for mishap in self._person.mishaps:
            await _until_moment(sat + mishap.at * left_s)
            await self._suffer(mishap, ends)
        if self._person.gives_back_at is not None:
            await _until_moment(sat + self._person.gives_back_at * left_s)
            await self._give_back()
            self._teller.count("gave back")
            await self.close()

    async def _suffer(self, mishap: Mishap, ends: float) -> None:
        page = self._page
        # Nobody is away when it is over and all are asked what they see.
        for_s = min(mishap.for_s, max(0.0, ends - time.monotonic() - 1))
        if mishap.kind == "wifi":
            await page.lose_network(for_s)
            self._teller.count("wifi lost")
            began = time.monotonic()
            await self._until_back()
            self._teller.took("back after wifi", time.monotonic() - began)
            return
        if mishap.kind == "return":
            await page.close()
            self._teller.count("pages", -1)
            await asyncio.sleep(for_s)
        else:
            self._teller.count("pages", -1)
        self._teller.count(f"{mishap.kind}s")
        await self._open("/seat")
        await self._check_seat()

    async def _until_back(self) -> None:
        page = self._page
        try:
            await page.until(lambda: page.is_connected, within_s=self._scenario.patience, what="the page again")
            await self._check_seat()
        except Failed as exc:
            raise Failed("page did not come back", str(exc)) from None

    async def _check_seat(self) -> None:
        """The seat is the same as before.

        Raises:
            Failed: it is not.
        """
        await self._until_seat_is({SEATED}, "the same seat")
        hostname = self._page.text("seat-hostname")
        if hostname != self._hostname:
            raise Failed("another seat", f"{hostname} in place of {self._hostname}")

    async def _look(self) -> None:
        """At the end: what the page says, which must be what it has said before."""
        if self._has_left:
            return
        if self._hostname:
            await self._check_seat()
        self._teller.sees(self._person.email, self._page.status("seat-status"), self._hostname)

    async def _give_back(self) -> None:
        page, patience_s = self._page, self._scenario.patience
        if self._hostname:
            self._teller.left(self._person.email, self._hostname)
        await page.act("seat-release", "click", {"isTrusted": True}, within_s=patience_s)
        await page.answer_question(within_s=patience_s)
        await page.until(
            lambda: page.status("seat-status") == RELEASED, within_s=patience_s, what="the end of the seat"
        )
        self._has_left = True
        self._teller.count("pages", -1)

    async def _open(self, path: str) -> float:
        took_s = await self._page.open(path)
        self._teller.took("page", took_s)
        if not path.startswith("/join"):
            self._teller.count("pages")
        return took_s

    def _note_seat(self) -> None:
        self._hostname = self._page.text("seat-hostname")
        self._teller.sat(self._person.email, self._hostname)


async def _until_moment(at: float) -> None:
    # The moments are the scenario's: this is no waiting for a fact.
    await asyncio.sleep(max(0.0, at - time.monotonic()))
