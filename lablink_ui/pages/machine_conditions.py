"""What is wrong with a machine: since when, in a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from backend.services.conditions import ConditionView
from backend.services.views import VmView
from lablink_ui.components import Moment
from lablink_ui.parts import tag
from lablink_ui.rows import condition_word
from lablink_ui.words import SEVERITY_WORDS, sentence


class MachineConditions:
    """The section; it is there only while something is wrong."""

    def __init__(self) -> None:
        self._shown: Sequence[ConditionView] = ()
        with tag("section", "card pad", aria_label="Conditions") as self._section:
            tag("h2", "", "What is wrong")
            self._list = tag("ul", "lines", aria_label="Conditions")
        self._section.set_visibility(False)

    def show(self, vm: VmView) -> None:
        """Shows what is wrong now, the worst first."""
        if vm.conditions == self._shown:
            return
        self._shown = vm.conditions
        self._section.set_visibility(bool(vm.conditions))
        self._list.clear()
        with self._list:
            for each in vm.conditions:
                self._draw(vm, each)

    def _draw(self, vm: VmView, condition: ConditionView) -> None:
        with tag("li", "", data_testid=f"condition-{condition.kind}", data_status=condition.severity):
            tag("span", f"chip {SEVERITY_WORDS[condition.severity][1]}", condition_word(vm, condition))
            with tag("div", "what"):
                tag("strong", "", f"{sentence(condition.sentence).rstrip('.')}.")
                with tag("span", "sub details"):
                    tag("span", "", condition.remedy)
                    with tag("span"):
                        tag("span", "", "since ")
                        Moment().show(condition.since_at)
