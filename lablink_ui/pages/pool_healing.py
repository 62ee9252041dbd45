"""How healing stands in a pool: stopped by its breaker, or at work."""

from __future__ import annotations

from backend.live.changes import ChangeSet
from backend.services.healing_breakers import BreakerView, close_breaker, find_breaker
from backend.services.views import PoolView
from lablink_ui.components.seat_parts import UntilEnd
from lablink_ui.parts import button, tag, text
from lablink_ui.visits import Reader, Visit, attempt
from lablink_ui.words import sentence


class HealingPart:
    """The section of a pool's page; it is there only while the breaker is open."""

    def __init__(self, visit: Visit, pool: PoolView) -> None:
        self._visit, self._pool = visit, pool
        with tag("section", "card pad", aria_label="Healing", data_testid="pool-healing") as self._section:
            tag("h2", "", "Healing stopped")
            self._why = text("p", "", "note warn")
            with tag("p", "sub"):
                tag("span", "", "Too many attempts failed alike. One machine is tried again in ")
                self._trial = UntilEnd()
                tag("span", "", "; if that works, healing goes on by itself.")
            if visit.may_operate:
                button("Mend again now", lambda: attempt(self._close), classes="small start", testid="healing-close")
        self._section.set_visibility(False)
        self._reader = Reader(self._read)

    def show(self, changes: ChangeSet | None = None) -> None:
        """Shows how it stands now."""
        if changes is None or changes.touches("healing_breakers", self._pool.id):
            self._reader.ask()

    async def _read(self) -> None:
        self._show(await find_breaker(self._visit.house.db, self._pool.id))

    def _show(self, breaker: BreakerView | None) -> None:
        self._section.set_visibility(breaker is not None)
        if breaker:
            self._why.say(f"{sentence(breaker.reason).rstrip('.')}.")
            self._trial.show(breaker.trial_at)

    async def _close(self) -> str:
        await close_breaker(self._visit.house.db, self._pool.name, actor=await self._visit.actor())
        return "Machines are mended again"
