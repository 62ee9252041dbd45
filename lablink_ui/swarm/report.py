"""What came of a swarm: as JSON for programs (its keys stay), and as a page for people."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from lablink_ui.swarm.course import Course
from lablink_ui.swarm.page_of_report import draw
from lablink_ui.swarm.tally import VERSION

JSON_NAME, HTML_NAME = "swarm.json", "swarm.html"
# Above this the swarm itself may be what was measured.
LATE_MS = 250.0
MEASURED = {
    "join_to_seat_ms": "join to seat",
    "click_to_machine_ms": "click to machine",
    "click_to_seat_ms": "click to seat",
    "click_to_line_ms": "click to line",
    "line_to_seat_ms": "line to seat",
    "claim_ms": "claim",
    "page_ms": "page",
    "admin_page_ms": "admin page",
    "back_after_wifi_ms": "back after wifi",
    "heartbeat_ms": "heartbeat",
}


def make_report(course: Course, *, began_at: datetime) -> dict[str, Any]:
    """The report. Keys may be added; those that are here keep their names and meanings."""
    tally, scenario, reasons = course.tally, course.scenario, course.verdict()
    beats = tally.samples["heartbeat"]
    lasted_s = max(at for at, _ in beats) - min(at for at, _ in beats) if len(beats) > 1 else 0.0
    lags = [lag for _, lag in tally.server_lag_s]
    return {
        "version": VERSION,
        "verdict": "failed" if reasons else "ok",
        "reasons": reasons,
        "url": course.target.origin,
        "seed": course.seed,
        "scenario": scenario.as_json(),
        "began_at": began_at.isoformat(timespec="seconds"),
        "seconds": round(course.seconds, 1),
        "agents": scenario.agents,
        "people": scenario.arrivals.people,
        "admin_pages": scenario.admin_pages,
        "errors": tally.errors.total(),
        "errors_by_kind": dict(tally.errors.most_common()),
        "refused_429": tally.refused_429,
        "doubles": len(course.doubles),
        "seated": tally.seated,
        "in_line": course.in_line,
        **{key: tally.summary(what) for key, what in MEASURED.items()},
        "heartbeats": len(beats),
        "heartbeats_per_s": round(len(beats) / lasted_s, 1) if lasted_s else None,
        "commands": {
            kind.partition(" ")[2]: number for kind, number in tally.counts.items() if kind.startswith("command ")
        },
        "reloads": tally.counts["reloads"],
        "returns": tally.counts["returns"],
        "wifi_losses": tally.counts["wifi lost"],
        "not_back": tally.errors["person: page did not come back"],
        "gave_back": tally.counts["gave back"],
        "admin_updates": tally.counts["admin updates"],
        "left_behind": course.left_behind,
        "server_lag_s": {"max": max(lags), "last": lags[-1]} if lags else None,
        "swarm_late_ms": tally.late_ms,
        "notes": _notes(course),
        "series": tally.series,
        "server_lag_series": [{"at_s": round(at, 1), "lag_s": lag} for at, lag in tally.server_lag_s],
    }


def write_report(report: dict[str, Any], directory: Path) -> None:
    """Writes both files.

    Raises:
        OSError: the directory cannot be written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / JSON_NAME).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (directory / HTML_NAME).write_text(draw(report), encoding="utf-8")


def format_report(report: dict[str, Any]) -> str:
    """The report in a few lines, for a terminal."""
    lines = [
        f"{report['people']} people: {report['seated']} sat, {report['in_line']} stayed in line",
        f"{report['agents']} machines, {report['admin_pages']} admin pages, {report['seconds']:.0f} s",
        f"errors {report['errors']}, 429s {report['refused_429']}, doubles {report['doubles']}",
        f"pages not back after a lost Wi-Fi: {report['not_back']} of {report['wifi_losses']}",
    ]
    for key in MEASURED:
        shown = [f"{name} {value:.0f} ms" for name, value in report[key].items() if value is not None]
        if shown:
            lines.append(f"{key.removesuffix('_ms').replace('_', ' ')}: {', '.join(shown)}")
    lines += [f"* {note}" for note in report["notes"]]
    lines += [f"FAILED {reason}" for reason in report["reasons"]]
    return "\n".join([*lines, f"verdict: {report['verdict']}"])


def _notes(course: Course) -> list[str]:
    notes = []
    if course.tally.late_ms > LATE_MS:
        notes.append(
            f"The swarm itself was late by {course.tally.late_ms:.0f} ms at its worst: times may be its own."
            " Give it another core, or another machine."
        )
    if not course.tally.server_lag_s:
        notes.append("The server does not tell by how much it is late; server.metrics=true has it do so.")
    return notes
