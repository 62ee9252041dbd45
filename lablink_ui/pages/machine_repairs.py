"""What was tried to mend a machine: when, with what outcome, and what comes next."""

from __future__ import annotations

from backend.services.healing_limits import HealingLimits
from backend.services.healing_outlook import Outlook, find_outlook
from backend.services.repairs import RepairView, list_repairs
from backend.services.views import VmView
from lablink_ui.components import Moment
from lablink_ui.components.seat_parts import UntilEnd
from lablink_ui.parts import tag
from lablink_ui.visits import Visit
from lablink_ui.words import REPAIR_WORDS, RUNG_WORDS, sentence

_SHOWN = 10


class MachineRepairs:
    """The section; it is there only where something was tried or will be."""

    def __init__(self, visit: Visit, vm: VmView) -> None:
        self._db, self._vm_id = visit.house.db, vm.id
        self._limits = HealingLimits.of(visit.house.settings.healing)
        with tag("section", "card pad", aria_label="Healing", data_testid="vm-repairs") as self._section:
            tag("h2", "", "Healing")
            self._list = tag("ul", "lines", aria_label="Attempts")
        self._section.set_visibility(False)

    async def read(self) -> None:
        """Shows how it stands now."""
        repairs = await list_repairs(self._db, self._vm_id, limit=_SHOWN)
        outlook = await find_outlook(self._db, self._vm_id, self._limits)
        self._section.set_visibility(bool(repairs or outlook))
        self._list.clear()
        with self._list:
            if outlook:
                _draw_outlook(outlook)
            for each in repairs:
                _draw(each)


def _draw_outlook(outlook: Outlook) -> None:
    with tag("li", "", data_testid="vm-repair-next"), tag("div", "what"), tag("span", "sub details"):
        tag("span", "", outlook.sentence)
        if outlook.at:
            with tag("span"):
                tag("span", "", "in ")
                UntilEnd().show(outlook.at)


def _draw(repair: RepairView) -> None:
    word, tone = REPAIR_WORDS[repair.outcome]
    with tag("li", "", data_status=repair.outcome or "running"):
        tag("span", f"chip {tone}", word)
        with tag("div", "what"):
            tag("strong", "", f"{RUNG_WORDS[repair.rung]}{f': {repair.replacement}' if repair.replacement else ''}")
            why = repair.reason or repair.cause
            with tag("span", "sub details"):
                if why:
                    tag("span", "", f"{sentence(why).rstrip('.')}.")
                with tag("span"):
                    tag("span", "", "begun ")
                    Moment().show(repair.began_at)
                with tag("span"):
                    tag("span", "", "ended " if repair.ended_at else "has at most another ")
                    if repair.ended_at:
                        Moment().show(repair.ended_at)
                    else:
                        UntilEnd().show(repair.deadline_at)
