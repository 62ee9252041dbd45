"""A machine's terminals for admins: ask its researcher to watch or to help, and then do."""

from __future__ import annotations

from backend.live.changes import ChangeSet, Snapshot
from backend.services.terminal_watches import WatchView, end_watch, list_watches, request_watch
from backend.services.terminals import list_terminals
from backend.services.views import ClaimView, VmView
from backend.states import ClaimStatus
from lablink_ui.components.terminals import TerminalTabs
from lablink_ui.parts import button, tag, text
from lablink_ui.visits import Reader, Visit, attempt


class MachineTerminals:
    """Shown while somebody's active seat offers terminals."""

    def __init__(self, visit: Visit, vm: VmView) -> None:
        self._visit, self._vm = visit, vm
        self._claim: ClaimView | None = None
        self._tabs: TerminalTabs | None = None
        with tag("section", "card pad", aria_label="Terminals") as self._card:
            tag("h2", "", "Terminals")
            self._state = text("p", "", "sub", role="status", data_testid="watch-state", data_status="none")
            with tag("div", "row"):
                self._watch = button("Ask to watch", lambda: self._ask(may_type=False), testid="watch-ask")
                self._help = button("Ask to help", lambda: self._ask(may_type=True), testid="help-ask")
                self._stop = button("Stop", lambda: attempt(self._end), testid="watch-stop")
            self._others = text("p", "", "sub")
            self._screen = tag("div")
        self._card.set_visibility(False)
        self._reader = Reader(self._read)
        self._mine: WatchView | None = None

    def show(self, snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
        """Shows the machine as it is now."""
        claim = next((each for each in snapshot.claims.values() if each.vm_id == self._vm.id), None)
        pool = snapshot.pools.get(claim.pool_id) if claim else None
        is_on = claim is not None and claim.status is ClaimStatus.ACTIVE and pool is not None and pool.terminal
        former, self._claim = self._claim, claim if is_on else None
        self._card.set_visibility(is_on)
        if (former and former.id) != (self._claim and self._claim.id):
            self._screen.clear()
            self._tabs = None
            self._reader.ask()
        elif (
            changes
            and claim is not None
            and (changes.touches("terminals", claim.id) or changes.touches("terminal_watches", claim.id))
        ):
            self._reader.ask()

    async def _read(self) -> None:
        claim, db = self._claim, self._visit.house.db
        if claim is None:
            return
        watches = await list_watches(db, claim.id)
        terminals = await list_terminals(db, claim.id)
        name = self._visit.admin.name
        self._mine = next((each for each in watches if each.admin == name), None)
        self._say(claim, self._mine)
        others = [each.admin for each in watches if each.admin != name and each.agreed_at is not None]
        self._others.say(f"Also watching: {', '.join(others)}" if others else "")
        self._show_tabs(claim, self._mine, [each.id for each in terminals])

    def _say(self, claim: ClaimView, mine: WatchView | None) -> None:
        does = "help" if mine and mine.may_type else "watch"
        status, said = "none", f"{claim.email} works here. They are asked first; nothing is shown before they agree."
        if mine is not None and mine.agreed_at is None:
            status, said = "asked", f"{claim.email} was asked whether you may {does}. Waiting for the answer."
        elif mine is not None:
            what = "and may type in" if mine.may_type else "but may not type in"
            status, said = "on", f"You see {what} the terminals of {claim.email}, who can end this at any time."
        self._state.props["data-status"] = status
        self._state.update()
        self._state.say(said)
        self._stop.set_visibility(mine is not None)
        self._watch.set_visibility(mine is None or (mine.may_type and mine.agreed_at is not None))
        self._help.set_visibility(mine is None or not mine.may_type)

    def _show_tabs(self, claim: ClaimView, mine: WatchView | None, terminal_ids: list[int]) -> None:
        is_on = mine is not None and mine.agreed_at is not None
        if not is_on:
            self._screen.clear()
            self._tabs = None
            return
        if self._tabs is None:
            with self._screen:
                self._tabs = TerminalTabs(
                    base="/api/admin/terminals",
                    claim_id=claim.id,
                    testid="watch-terminal",
                    hostname=self._vm.hostname,
                    is_watch=True,
                )
        self._tabs.show(terminal_ids, may_type=mine is not None and mine.may_type)

    async def _ask(self, *, may_type: bool) -> None:
        async def ask() -> str:
            actor = await self._visit.actor()
            if self._claim is None:
                return "Nobody works here now"
            name = self._visit.admin.name
            await request_watch(self._visit.house.db, self._claim.id, name, may_type=may_type, actor=actor)
            return f"{self._claim.email} was asked"

        await attempt(ask)

    async def _end(self) -> str:
        actor = await self._visit.actor()
        if self._claim is not None and self._mine is not None:
            await end_watch(self._visit.house.db, self._claim.id, self._mine.id, actor=actor)
        return "You do not see the terminals any more"
