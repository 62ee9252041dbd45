"""Lines of logs as they are kept: nothing in them that moves a cursor, no secret; and how bad a line says it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from backend.redaction import KEY_BEGINS, STRUCK, redact

MAX_LINE = 4_000
MAX_CARRY = 300
LEVELS = ("debug", "info", "warn", "error")
# Colours and cursor movements; titles; the short ones.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\|$)|[ -/]+[0-~]|[0-~])|\x9b[0-?]*[ -/]*[@-~]"
)
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160), *range(8234, 8239), *range(8294, 8298)))
del _CONTROLS[ord("\t")]
_LEVEL = re.compile(
    r"\b(?:(?P<error>ERR(?:OR)?|CRITICAL|FATAL|PANIC|EMERG(?:ENCY)?|SEVERE|[Ee]rror:|[Ff]atal:|Traceback \(most recent)"
    r"|(?P<warn>WARN(?:ING)?|[Ww]arning:)|(?P<info>INFO|NOTICE)|(?P<debug>DEBUG|TRACE)"
    r"|level[\"']?\s?[=:]\s?[\"']?(?P<said>debug|trace|info|warn|err|fatal|panic|critical))"
)
_SAID = {"trace": "debug", "err": "error", "fatal": "error", "panic": "error", "critical": "error"}
_OPEN_ENDS = (":", "=", "=>", ",", "earer", "asic")
# Where a line says how bad it is; further on these are words like others.
_BEGINNING = 120


def tidy(line: str) -> str:
    """The line without NUL, colours and other controls; of one that was written over, what it showed last."""
    if line.isprintable():
        return line
    line = _ESCAPES.sub("", line)
    if "\r" in line or "\n" in line:
        line = next((part for part in reversed(re.split(r"[\r\n]", line)) if part.strip()), "")
    return line.translate(_CONTROLS).encode(errors="replace").decode()


def keep_lines(lines: Sequence[str], *, carry: str = "", secrets: Collection[str] = ()) -> tuple[list[str], str]:
    """The lines as they may be stored: tidied, without secrets, cut at 4,000 characters.

    A name and its value, or a private key, may stand on lines that come in two batches. So the lines are read together
    with ``carry``; returned as well is what the next ones are to be read with.
    """
    tidied = [tidy(line) for line in lines]
    kept = redact("\n".join([carry, *tidied]), secrets).split("\n")[1:]
    if len(kept) != len(tidied):
        kept = [redact(line, secrets) for line in tidied]
    carried = _next_carry([carry, *kept])
    # Cut last: half a secret would no longer look like one.
    return [line[:MAX_LINE] for line in kept], carried


def level_of(line: str) -> str:
    """One of ``LEVELS``: what the line says of itself, else info."""
    found = _LEVEL.search(line, 0, _BEGINNING)
    if found is None:
        return "info"
    said = found["said"]
    return _SAID.get(said, said) if said else str(found.lastgroup)


def _next_carry(kept: Sequence[str]) -> str:
    for line in reversed(kept):
        if begins := KEY_BEGINS.search(line):
            return "" if "-----END" in line else begins[0]
        if line.strip() != STRUCK:
            break
    # Of other lines only a name whose value follows.
    return kept[-1][-MAX_CARRY:] if kept[-1].rstrip().endswith(_OPEN_ENDS) else ""
