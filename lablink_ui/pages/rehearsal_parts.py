"""Parts of a rehearsal's page: what is needed, how the arrivals went, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from backend.services.lead_times import ENOUGH
from backend.services.rehearsal_need import Need
from backend.services.rehearsal_verdict import Reason, say_time
from backend.services.rehearsals import RehearsalView
from backend.states import RehearsalStatus
from lablink_ui.parts import Chip, Facts, tag, text
from lablink_ui.words import VERDICT_WORDS, count, duration, people, person, sentence, span

_ARRIVALS_WORDS = {
    "wanted": ("Once the machines are done", "idle"),
    "running": ("Under way", "busy"),
    "failed": ("Could not be replayed", "bad"),
    "off": ("Not replayed", "idle"),
}


class NeedPart:
    """How many machines, and until when they are to be launched."""

    def __init__(self) -> None:
        with tag("section", "card pad", aria_label="What it needs"):
            tag("h2", "", "What it needs")
            self._facts = Facts(
                {
                    "expected": "Expected",
                    "needed": "Machines needed",
                    "there": "There now",
                    "launch": "To launch",
                    "by": "Launch by",
                    "boots": "Boots so far",
                    "last": "The last class",
                }
            )

    def show(self, rehearsal: RehearsalView) -> None:
        """Shows what one found."""
        need, expected = rehearsal.need, rehearsal.expected
        zone = ZoneInfo(expected.zone)
        self._facts.show(
            expected=f"{people(expected.people)} from {say_time(expected.starts_at, zone)} on, over "
            f"{expected.over_s / 60:g} minutes",
            needed=f"{need.needed:,}",
            there=f"{need.up:,} up" + (f", {need.coming:,} on the way" if need.coming else ""),
            launch=count(need.to_launch, "machine") if need.to_launch else "None",
            by=say_time(need.launch_at, zone) if need.launch_at else None,
            boots=_boots(need),
            last=_last_class(need),
        )


class ArrivalsPart:
    """The replay of the arrivals."""

    def __init__(self) -> None:
        with tag("section", "card pad", aria_label="Arrivals"):
            with tag("div", "row"):
                tag("h2", "", "Arrivals, replayed")
                self._chip = Chip("rehearsal-arrivals")
            tag("p", "sub", "Simulated people come to simulated machines, in a pool of their own beside the real one.")
            self._facts = Facts(
                {
                    "who": "Simulated",
                    "seated": "Seated",
                    "line": "Stayed in line",
                    "errors": "Errors",
                    "wait": "From the click to the seat",
                    "why": "Why",
                }
            )

    def show(self, rehearsal: RehearsalView) -> None:
        """Shows what one found."""
        seen, state = rehearsal.arrivals, str(rehearsal.arrivals["state"])
        if state == "replayed":
            words = ("Went well", "good") if seen.get("verdict") == "ok" else ("Went wrong", "bad")
        else:
            words = _ARRIVALS_WORDS[state]
        self._chip.show(state, words)
        times = seen.get("join_to_seat_ms") or {}
        waits = [f"{share} within {duration_ms(times[key])}" for share, key in _SHARES if times.get(key) is not None]
        self._facts.show(
            who=_who(seen) if "within_s" in seen else None,
            seated=_figure(seen.get("seated")),
            line=_figure(seen.get("in_line")),
            errors=_figure(seen.get("errors")),
            wait=sentence(", ".join(waits)) or None,
            why="; ".join(seen.get("reasons") or ()) or None,
        )


_SHARES = (("half", "p50"), ("95 %", "p95"), ("99 %", "p99"))


class VerdictPart:
    """Go or no-go, and why."""

    def __init__(self) -> None:
        with tag("section", "card pad", aria_label="Verdict") as self._section:
            with tag("div", "row"):
                self._chip = Chip("rehearsal-verdict")
                self._when = text("span", "", "sub")
            self._reasons = tag("div", "")
        self._section.set_visibility(False)
        self._shown: tuple[Reason, ...] | None = None

    def show(self, rehearsal: RehearsalView | None) -> None:
        """Shows the verdict of one, or that there is none yet."""
        self._section.set_visibility(rehearsal is not None)
        if rehearsal is None:
            return
        self._chip.show(*_state(rehearsal))
        by = f"{person(rehearsal.created_by)}, {rehearsal.created_at:%-d %B %Y %H:%M} UTC"
        self._when.say(f"{sentence(rehearsal.reason)}. Begun by {by}" if rehearsal.reason else f"Begun by {by}")
        if rehearsal.reasons == self._shown:
            return
        self._shown = rehearsal.reasons
        self._reasons.clear()
        with self._reasons:
            for reason in rehearsal.reasons:
                _draw(reason)


def duration_ms(milliseconds: float) -> str:
    """``350 ms``, ``1.2 s``."""
    return f"{milliseconds:,.0f} ms" if milliseconds < 1_000 else f"{milliseconds / 1_000:,.1f} s"


def _draw(reason: Reason) -> None:
    word, tone = ("Against", "bad") if reason.is_against else ("Note", "info")
    with tag("div", "attention"):
        tag("span", f"chip {tone}", word)
        with tag("p", "lines"):
            tag("span", "", reason.what)
            if reason.remedy:
                tag("span", "sub whole remedy", reason.remedy)


def _who(seen: Mapping[str, Any]) -> str:
    return f"{people(seen['people'])} within {span(seen['within_s'])}, {count(seen['agents'], 'machine')}"


def _state(rehearsal: RehearsalView) -> tuple[str, tuple[str, str]]:
    if rehearsal.verdict:
        return rehearsal.verdict, VERDICT_WORDS[rehearsal.verdict]
    if rehearsal.status is RehearsalStatus.RUNNING:
        return "running", ("Under way", "busy")
    return "ended", ("No verdict", "idle")


def _boots(need: Need) -> str:
    boots = need.boots
    if not boots.measured or boots.median_s is None or boots.slow_s is None:
        return f"No boots measured yet: {span(boots.lead_s)} are assumed"
    half, most = duration(boots.median_s), duration(boots.slow_s)
    said = f"half within {half}, nine of ten within {most} (the last {boots.measured})"
    few = "" if boots.measured >= ENOUGH else f"; too few to go by: {span(boots.lead_s)} are assumed"
    return sentence(said) + few


def _last_class(need: Need) -> str | None:
    last = need.last_class
    return f"{people(last.people)} came, nine of ten within {duration(last.within_s)}" if last else None


def _figure(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None
