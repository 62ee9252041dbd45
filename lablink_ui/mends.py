"""The one button that mends a finding: what it says, what it asks first."""

from __future__ import annotations

from nicegui import ui

from backend.services.findings import FindingView
from backend.states import Mend
from lablink_ui.frame import Frame
from lablink_ui.parts import button
from lablink_ui.visits import Visit, attempt

WORDS: dict[Mend, str] = {
    Mend.MARK_FAILED: "Mark as failed",
    Mend.ADOPT: "Take in",
    Mend.DESTROY: "Destroy",
    Mend.START: "Switch on",
    Mend.REBUILD: "Rebuild state",
}
_ASKED: dict[Mend, str] = {
    Mend.MARK_FAILED: "A seat on it moves on, and another takes its place. A fresh look makes sure that it is gone.",
    Mend.ADOPT: "It gets a place in its pool, quarantined: nobody is given it before you have looked at it.",
    Mend.DESTROY: "The machine and its disk are taken away for good, with whatever somebody left on them.",
    Mend.REBUILD: "An operation makes Terraform's state say what exists. No machine is touched.",
}


def draw_mend(visit: Visit, frame: Frame, finding: FindingView) -> None:
    """The button, where something can be done from here by whoever looks."""
    if finding.mend is None or not visit.may_operate:
        return
    mend = finding.mend
    label = f"{WORDS[mend]}: {finding.hostname or finding.subject}"
    button(
        WORDS[mend],
        lambda: _mend(visit, frame, finding, mend),
        classes="small push",
        testid=f"mend-{finding.kind}-{finding.subject}",
        aria_label=label,
    )


async def _mend(visit: Visit, frame: Frame, finding: FindingView, mend: Mend) -> None:
    async def do() -> str:
        mended = await visit.house.reconciler.mend(finding.id, actor=await visit.actor())
        if mended.operation_id is not None:
            ui.navigate.to(f"/admin/operations/{mended.operation_id}")
        return mended.sentence

    danger = mend in {Mend.DESTROY, Mend.MARK_FAILED}
    title = f"{WORDS[mend]}: {finding.hostname or finding.subject}?"
    if mend not in _ASKED or await frame.ask.ask(title, _ASKED[mend], verb=WORDS[mend], danger=danger):
        await attempt(do)
