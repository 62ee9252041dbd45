"""The programs of Chrome Remote Desktop, as a session runs them: ``start-host`` registers, ``chrome-remote-desktop``
starts and stops. What they say is untrusted text; whether they succeeded is judged by what is there afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agent.program import Program
from agent.session import Session

REDIRECT_URL = "https://remotedesktop.google.com/_/oauthredirect"
MAX_OUTPUT = 20_000
LOOK_S, LAST_LINES_S, ASK_S = 0.05, 1.0, 10.0
RUNTIME_DIRECTORIES = Path("/run/user")
_HOST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

_NO_PIN = "consisting of at least six digits"
_NEW_CODE = "Get a new one from Google and paste it at once."
_NEW_SEAT = "Move to another machine, or tell your organiser."
# What the programs print, and what it means for who reads the seat's page.
_REASONS = (
    ("OAuth error", f"Google did not take the code: it was used before, or is some minutes old. {_NEW_CODE}"),
    ("network error", "This machine cannot reach Google. Tell your organiser, and try again with a new code."),
    (_NO_PIN, "The remote desktop program did not take the PIN. Tell your organiser."),
    ("different PINs", "The remote desktop program did not take the PIN. Tell your organiser."),
)
# The program asks for ever for a PIN that it does not take.
_ENDLESS = (_NO_PIN, "different PINs")


class CrdError(Exception):
    """Chrome Remote Desktop could not be started or removed; the message is for people."""


class GivenUp(CrdError):
    """It was broken off: the seat ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a program. ``status`` is None if it was ended by us; ``output`` holds no secret any more."""

    status: int | None
    output: str


@dataclass(frozen=True, slots=True)
class CrdHost:
    """The host of one session. ``start_host`` is the path of the program; its sibling is found beside it."""

    session: Session
    start_host: Path
    given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def directory(self) -> Path:
        """Where the host's registration is."""
        return self.session.home / ".config" / "chrome-remote-desktop"

    @property
    def program(self) -> Path:
        """The program that starts and stops."""
        return self.start_host.with_name("chrome-remote-desktop")

    def is_installed(self) -> bool:
        """Whether both programs are there."""
        return all(os.access(path, os.X_OK) for path in (self.start_host, self.program))

    def can_be_asked(self) -> bool:
        """Whether its programs can be run; without the session's user they cannot."""
        return self.is_installed() and self._find_owner() is not None

    def register(self, code: str, pin: str, *, deadline_s: float) -> Run:
        """Registers with the Google account that the code is of.

        The code is on the command line, the one way that the program takes it: while it runs (seconds), every user of
        this machine can read it in /proc/PID/cmdline. It is good for one use, which this is, and a session's machine
        has no second person on it. The PIN would stay valid: it goes by standard input, which only this user can read.
        """
        argv = [
            str(self.start_host),
            f"--code={code}",
            f"--redirect-url={REDIRECT_URL}",
            f"--name={self.session.hostname}",
        ]
        return self._run(argv, deadline_s=deadline_s, typed=f"{pin}\n{pin}\n", secrets=(code, pin))

    def start(self, *, deadline_s: float) -> Run:
        """Starts the registered host, and waits until it runs or the program gives up."""
        return self._run(
            [str(self.program), "--start"], deadline_s=deadline_s, until=lambda: bool(self.list_processes())
        )

    def stop(self, *, deadline_s: float) -> Run:
        """Asks the host to end."""
        return self._run([str(self.program), "--stop"], deadline_s=deadline_s)

    def is_running(self) -> bool:
        """Whether a host of this session runs, by the process table or by its own word."""
        if self.list_processes():
            return True
        if not self.can_be_asked():
            return False
        return "STARTED" in self._run([str(self.program), "--get-status"], deadline_s=ASK_S).output.split()

    def list_processes(self) -> list[psutil.Process]:
        """The processes that serve this session's registration: they carry its path."""
        mark = f"--config={os.path.realpath(self.directory)}{os.sep}"
        # A zombie has no command line.
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(word.startswith(mark) for word in process.info["cmdline"] or ())
        ]

    def find_host_id(self) -> str | None:
        """The id under which Google knows the host, once it is registered: the one proof that it is."""
        for path in self.list_registrations():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                host_id = json.loads(path.read_text(encoding="utf-8"))["host_id"]
                if isinstance(host_id, str) and _HOST_ID.fullmatch(host_id):
                    return host_id
        return None

    def list_registrations(self) -> list[Path]:
        """The files that bind this machine to an account."""
        return sorted(self.directory.glob("host#*.json"))

    def ensure_runtime_directory(self) -> None:
        """The programs die without /run/user/UID, which exists by itself only where the user has signed in.

        Raises:
            CrdError: it is not there and we may not make it, or the user is gone.
        """
        owner = self._get_owner()
        path = RUNTIME_DIRECTORIES / str(owner.pw_uid)
        if path.is_dir():
            return
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        except OSError as exc:
            raise CrdError(
                f"This machine has no {path}, which Chrome Remote Desktop needs. Tell your organiser."
            ) from exc

    def remove_runtime_directory(self) -> None:
        """Removes what was made for a session's own user; the agent's own user keeps its directory."""
        owner = self._find_owner()
        if owner is not None and owner.pw_uid != os.getuid():
            shutil.rmtree(RUNTIME_DIRECTORIES / str(owner.pw_uid), ignore_errors=True)

    def _run(
        self,
        argv: list[str],
        *,
        deadline_s: float,
        typed: str = "",
        secrets: tuple[str, ...] = (),
        until: Callable[[], bool] | None = None,
    ) -> Run:
        """Runs a program to its end, to its deadline, or until a fact is there; no shell, no line of it in any log."""
        output: list[str] = []

        def keep(line: str) -> None:
            # The rest is read too, or the program would stand still.
            if sum(len(each) + 1 for each in output) < MAX_OUTPUT:
                output.append(line[:MAX_OUTPUT])

        program = self._spawn(argv, keep, typed)
        end = time.monotonic() + deadline_s
        while (status := program.status) is None and not (until is not None and until()):
            if time.monotonic() > end or any(word in each for word in _ENDLESS for each in output):
                program.end()
                break
            if self.given_up.wait(LOOK_S):
                program.end()
                raise GivenUp("The seat was given back.")
        program.read_on(within_s=LAST_LINES_S if until is None else LOOK_S)
        return Run(status, _strike("\n".join(output)[:MAX_OUTPUT], secrets))

    def _spawn(self, argv: list[str], emit: Callable[[str], None], typed: str) -> Program:
        """The one place where anything of Chrome Remote Desktop is started."""
        owner = self._get_owner()
        environment = {
            **self.session.environment(),
            "USER": owner.pw_name,
            "LOGNAME": owner.pw_name,
            "XDG_RUNTIME_DIR": str(RUNTIME_DIRECTORIES / str(owner.pw_uid)),
            "XDG_SESSION_CLASS": "user",
            "XDG_SESSION_TYPE": "x11",
            # As in Google's line: the host makes a display of its own.
            "DISPLAY": "",
        }
        try:
            return Program(
                argv,
                directory=self.session.home,
                environment=environment,
                emit=emit,
                typed=typed,
                identity=self.session.identity(),
            )
        except OSError as exc:
            raise CrdError(f"{argv[0]} could not be started: {exc.strerror}. Tell your organiser.") from exc

    def _get_owner(self) -> pwd.struct_passwd:
        owner = self._find_owner()
        if owner is None:
            raise CrdError(f"The user of this session, {self.session.user}, is gone from the machine. {_NEW_SEAT}")
        return owner

    def _find_owner(self) -> pwd.struct_passwd | None:
        """As whom the session's programs run: its own user, or else the agent's."""
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(self.session.user) if self.session.user else pwd.getpwuid(os.getuid())
        return None


def explain(run: Run, what: str) -> str:
    """Why a program did not do its work, as a sentence for the seat's page."""
    for word, reason in _REASONS:
        if word in run.output:
            return reason
    if run.status is None:
        return f"{what} took too long and was ended. {_NEW_CODE}"
    said = next((line.strip() for line in reversed(run.output.splitlines()) if line.strip()), "nothing")
    return f"{what} ended with status {run.status} and said: {said[:200]}. {_NEW_CODE}"


def _strike(output: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        output = output.replace(secret, "[secret]")
    return output
