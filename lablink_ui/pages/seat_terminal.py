"""The seat's terminals, and who else looks into them."""

from __future__ import annotations

from backend.services.actor import Actor
from backend.services.terminal_watches import WatchView, agree_to_watch, end_watch, list_watches
from backend.services.terminals import list_terminals
from backend.services.views import PoolView, VmView
from backend.states import ClaimStatus
from lablink_ui.components.terminals import TerminalTabs
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import button, tag, text
from lablink_ui.visits import Reader, attempt

_SHARED = (
    "This machine is a part of the organiser's own computer. Your terminal has a user of its own there, "
    "but shares the computer with others."
)
_OPEN = (
    "This terminal does not isolate: whatever runs in it can reach all that the agent of this machine can. "
    "Try things out here, but keep nothing here that matters."
)


class TerminalCard:
    """Shown while the seat is active and its pool offers a terminal."""

    def __init__(self, visit: SeatVisit) -> None:
        self._visit = visit
        self._is_on = False
        self._watches: list[WatchView] = []
        with tag("section", "card pad terminal-card", aria_label="Terminal") as self._card:
            tag("h2", "sr", "Terminal")
            self._asked = tag("div", "stack terminal-asked", aria_live="polite")
            self._tabs = TerminalTabs(
                base="/api/seat/terminals",
                claim_id=visit.claim.id,
                testid="seat-terminal",
                hostname=visit.claim.hostname or visit.claim.pool,
            )
            self._notice = text("p", "", "note busy", data_testid="terminal-notice")
        self._card.set_visibility(False)
        self._notice.set_visibility(False)
        self._reader = Reader(self._read)

    def show(self, now: SeatNow) -> None:
        """Shows the seat as it is now."""
        is_on = now.claim.status is ClaimStatus.ACTIVE and now.pool is not None and now.pool.terminal
        changes, claim_id = now.changes, now.claim.id
        is_news = changes is not None and (
            changes.touches("terminals", claim_id) or changes.touches("terminal_watches", claim_id)
        )
        notice = _notice(now.pool, now.vm)
        self._notice.say(notice)
        self._notice.set_visibility(bool(notice))
        if is_on != self._is_on or (is_on and is_news):
            self._is_on = is_on
            self._card.set_visibility(is_on)
            self._reader.ask()

    async def _read(self) -> None:
        db, claim_id = self._visit.house.db, self._visit.claim.id
        terminals = await list_terminals(db, claim_id, only_open=False)
        # The first one opens by itself: one click was enough.
        is_fresh = self._is_on and not terminals
        self._tabs.show([each.id for each in terminals if each.ended_at is None], starts=is_fresh)
        watches = await list_watches(db, claim_id)
        if watches != self._watches:
            self._watches = watches
            self._draw_watches()

    def _draw_watches(self) -> None:
        self._asked.clear()
        with self._asked:
            for watch in self._watches:
                self._draw_watch(watch)

    def _draw_watch(self, watch: WatchView) -> None:
        with tag("div", "note busy row"):
            if watch.agreed_at is None:
                asked = "to help in your terminals: to see and to type" if watch.may_type else "to watch your terminals"
                tag("span", "", f"{watch.admin}, an organiser, asks {asked}, with what they show already.")
                button(
                    "Agree", lambda: attempt(lambda: self._agree(watch)), classes="small primary", testid="watch-agree"
                )
                button("Refuse", lambda: attempt(lambda: self._end(watch)), classes="small", testid="watch-refuse")
            else:
                does = "watches your terminals and may type in them" if watch.may_type else "watches your terminals"
                tag("span", "", f"{watch.admin}, an organiser, {does}.")
                button("End it", lambda: attempt(lambda: self._end(watch)), classes="small", testid="watch-end")

    async def _agree(self, watch: WatchView) -> str:
        visit = self._visit
        await agree_to_watch(
            visit.house.db,
            visit.claim.id,
            watch.id,
            may_type=watch.may_type,
            owner_hash=visit.owner_hash,
            actor=self._actor(),
        )
        return f"{watch.admin} sees your terminals now"

    async def _end(self, watch: WatchView) -> str:
        visit = self._visit
        await end_watch(visit.house.db, visit.claim.id, watch.id, actor=self._actor(), owner_hash=visit.owner_hash)
        return f"{watch.admin} does not see your terminals"

    def _actor(self) -> Actor:
        return Actor.researcher(self._visit.claim.email, self._visit.address)


def _notice(pool: PoolView | None, vm: VmView | None) -> str:
    """What its owner must know of what keeps the terminal apart, once the machine's agent has told."""
    if pool is None or vm is None or vm.isolation is None:
        return ""
    if vm.isolation == "none":
        return _OPEN
    return _SHARED if pool.provider == "local" and vm.isolation == "user" else ""
