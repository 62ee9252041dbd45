"""The seat on a machine, as an admin helps with it: a new key for who lost theirs."""

from __future__ import annotations

from backend.errors import Conflict
from backend.services.seat_keys import reissue_key
from backend.services.views import VmView
from backend.states import VmStatus
from lablink_ui.components.seat_parts import KeyOnce
from lablink_ui.frame import Frame
from lablink_ui.visits import Visit, attempt

_WORDS = "Somebody who lost their seat key can have a new one. Make sure who it is: a key opens the seat."
_QUESTION = "The old key stops working at once. Give the new one to its owner, and to nobody else."


class MachineSeat:
    """The key of the seat on a machine."""

    def __init__(self, visit: Visit, frame: Frame, vm: VmView) -> None:
        self._visit, self._frame, self._vm = visit, frame, vm
        self._card = KeyOnce(_WORDS, verb="Make a new key", testid="vm-new-key", on_renew=self._ask, is_fresh=False)
        self._card.set_visibility(False)

    def show(self, vm: VmView) -> None:
        """Shown while somebody sits there."""
        self._card.set_visibility(vm.status is VmStatus.IN_USE)

    async def _ask(self) -> None:
        if await self._frame.ask.ask("Make a new seat key?", _QUESTION, verb="Make a new key"):
            await attempt(self._renew)

    async def _renew(self) -> str:
        house = self._visit.house
        actor = await self._visit.actor()
        claim = next((each for each in house.live.snapshot.claims.values() if each.vm_id == self._vm.id), None)
        if claim is None:
            raise Conflict("Nobody sits at this machine any more.")
        self._card.show(await reissue_key(house.db, claim.id, actor=actor))
        return f"The seat of {claim.email} has a new key"
