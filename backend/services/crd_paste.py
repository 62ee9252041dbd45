"""What people paste from Google's page, parsed and never run: the code is taken out, nothing else travels onwards.

The grammar is Google's own line and nothing beside it::

    [$|#] [DISPLAY=] PROGRAM --code="4/…" --redirect-url="https://remotedesktop.google.com/_/oauthredirect" --name=NAME

with PROGRAM as Google writes it for Linux, the Windows command prompt or PowerShell, the flags in any order, and what
phones, mail programs and editors make of quotes, dashes, spaces and line ends. All three flags must be there, so a code
alone is refused: whoever pastes the whole line cannot paste some other secret by mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from backend.errors import InvalidInput

MAX_PASTE = 4_000
_REDIRECT_URL = "https://remotedesktop.google.com/_/oauthredirect"
_CODE = re.compile(r"4/[A-Za-z0-9_-]{6,512}")
_NAME = re.compile(r"\$\(hostname\)|%COMPUTERNAME%|\$Env:COMPUTERNAME|[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.IGNORECASE)

# What is not as Google wrote it though people see no difference: as ``str.translate`` wants it.
_RETOUCHED = {
    **dict.fromkeys(map(ord, "“”„‟«»″＂"), '"'),
    **dict.fromkeys(map(ord, "‘’‚‛′＇"), "'"),
    # Phones turn two hyphens into one dash.
    **dict.fromkeys(map(ord, "—–―⸺"), "--"),
    **dict.fromkeys(map(ord, "‐‑‒−﹣－"), "-"),
    **dict.fromkeys(
        map(ord, "\u00a0\u1680\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t"), " "
    ),
    **dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad"), None),
    **dict.fromkeys(map(ord, "\r\u2028\u2029"), "\n"),
}
# A line's end with the sign by which a shell is told that the line goes on: sh, PowerShell, the Windows prompt.
_CONTINUED = re.compile(r"[\\`^] *\n")
_PROMPT = re.compile(r"[$#] +")
_DISPLAY = re.compile(r"DISPLAY= +")
_WINDOWS = r"\\Google\\Chrome Remote Desktop\\CurrentVersion\\remoting_start_host\.exe"
_PROGRAMS = tuple(
    re.compile(program, re.IGNORECASE if "exe" in program else 0)
    for program in (
        r"/opt/google/chrome-remote-desktop/start-host",
        rf'"%PROGRAMFILES(?:\(X86\))?%{_WINDOWS}"',
        rf'& *"\$\{{Env:PROGRAMFILES(?:\(X86\))?\}}{_WINDOWS}"',
        rf'(?:& *)?"C:\\Program Files(?: \(x86\))?{_WINDOWS}"',
    )
)
_FLAG = re.compile(r"--([A-Za-z-]+)")
_VALUE = re.compile(r""" *=? *(?:"([^"]*)"|'([^']*)'|([^\s"'=][^\s"']*))(?= |$)""")
_FLAGS = {
    "code": 'the code (--code="4/…")',
    "redirect-url": "the address (--redirect-url=…)",
    "name": "its end (--name=…)",
}
_AGAIN = "Copy the whole line that Google shows, with its copy button, and paste it once."


@dataclass(frozen=True, slots=True)
class CrdCode:
    """A code of Google's. It is a secret for as long as it lives: it shows in no log and no traceback."""

    value: str = field(repr=False)


def parse_paste(paste: str) -> CrdCode:
    """The code in a pasted line of Google's.

    Raises:
        InvalidInput: it is not that line; the message says what is missing or wrong, and repeats nothing of it.
    """
    line = _read_as_written(paste)
    rest = line[_end(_DISPLAY, line, _end(_PROMPT, line)) :]
    end = next((end for end in (_end(program, rest) for program in _PROGRAMS) if end), 0)
    if not end or rest[end : end + 1].strip():
        raise _refuse(_what_instead(line))
    values = _read_flags(rest[end:])
    missing = [words for flag, words in _FLAGS.items() if flag not in values]
    if missing:
        raise _refuse(f"Of Google's line, {' and '.join(missing)} is missing.")
    _check(values)
    return CrdCode(values["code"])


def _read_as_written(paste: str) -> str:
    """The paste in one line, as Google wrote it."""
    if len(paste) > MAX_PASTE:
        raise _refuse(f"That is more than {MAX_PASTE:,} characters: much longer than Google's line.")
    text = paste.replace("\r\n", "\n").translate(_RETOUCHED)
    # Mail programs break long lines anywhere, also between the quotes.
    text = _CONTINUED.sub("\n", text)
    text = re.sub(r"\"[^\"]*\"|'[^']*'", lambda quoted: re.sub(r" *\n *", "", quoted[0]), text)
    line = text.replace("\n", " ").strip()
    if not line:
        raise _refuse("There is nothing in the field.")
    if not (line.isascii() and line.isprintable()):
        raise _refuse("There are characters in it that Google's line does not have.")
    return line


def _end(pattern: re.Pattern[str], text: str, start: int = 0) -> int:
    """Where ``pattern`` ends that begins at ``start``; ``start`` if it is not there."""
    found = pattern.match(text, start)
    return found.end() if found else start


def _what_instead(line: str) -> str:
    if _CODE.fullmatch(line.strip("\"'")):
        return "That is the code alone; the line around it is needed too."
    if line.startswith(("http://", "https://")):
        return "That is the address of a page, not the line that the page shows."
    if not any(name in line for name in ("start-host", "remoting_start_host")):
        return "That is not Google's line: it begins with DISPLAY= /opt/google/chrome-remote-desktop/start-host."
    return "Something stands before Google's line, or its beginning is missing."


def _read_flags(rest: str) -> dict[str, str]:
    values: dict[str, str] = {}
    position = 0
    while rest[position:].strip():
        position += len(rest[position:]) - len(rest[position:].lstrip())
        flag = _FLAG.match(rest, position)
        if flag is None:
            raise _refuse("There is more in it than Google's line.")
        name = flag[1]
        if name not in _FLAGS:
            raise _refuse(f"Google's line has no flag --{name[:30]}.")
        if name in values:
            raise _refuse(f"--{name} stands in it twice: two lines were pasted, or one twice.")
        value = _VALUE.match(rest, flag.end())
        if value is None or value.end() == flag.end():
            raise _refuse(f"What follows --{name} is missing or cut off.")
        values[name] = next(part for part in value.groups() if part is not None)
        position = value.end()
    return values


def _check(values: dict[str, str]) -> None:
    if not _CODE.fullmatch(values["code"]):
        raise _refuse("The code is not one of Google's: it begins with 4/ and has letters, digits, - and _ only.")
    if values["redirect-url"] != _REDIRECT_URL:
        raise _refuse(f"The address in --redirect-url must be {_REDIRECT_URL}.")
    if not _NAME.fullmatch(values["name"]):
        raise _refuse("What follows --name must be $(hostname), as Google writes it.")


def _refuse(why: str) -> InvalidInput:
    return InvalidInput(f"{why} {_AGAIN}", code="invalid_crd_command")
