"""Terminals: the shells of this agent's sessions, each carried to the server by a connection that is dialled anew when
it breaks; the shell does not notice.

From here go text frames ``{"isolation": …}`` first and ``{"exit": status}`` last, and binary frames of output, each
the offset of its first byte (8 bytes, big-endian) and the bytes. To here come binary frames whose first byte says what.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import struct
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from agent.client import CONNECT_S, Backoff, ServerAway
from agent.session import Session
from agent.shell import Shell
from agent.store import Store

INPUT, RESIZE, ACKNOWLEDGE, SEND_FROM, WATCH = range(5)
# The server closes with this code, or refuses with such a status, when there is nothing to come back for.
OVER = 4_410
OVER_STATUSES = (401, 403, 404, 410)
# A dead connection is noticed within the sum of these.
PING_S, PONG_S = 5.0, 10.0
LAST_RETRY_S, IDLE_S = 3.0, 60.0
MAX_FRAME = 128 * 1024
MOST = 64
_CONTAINER_SHELL = "command -v bash >/dev/null && exec bash -l; exec sh -l"
_LOOPBACK = ("http://127.", "http://localhost", "http://[::1]")

logger = logging.getLogger("lablink.agent")


class TerminalError(Exception):
    """A terminal could not be opened; the message is for people."""


class Terminals:
    """All terminals of this process."""

    def __init__(self, store: Store, server_url: str, container: str | None) -> None:
        self._store, self._server_url, self._container = store, server_url, container
        self._shells: dict[int, tuple[Session, Shell]] = {}
        self._lock = threading.Lock()

    def open(self, terminal_id: int, session: Session) -> None:
        """Starts a shell in the session and dials in with it.

        Raises:
            TerminalError: it could not be started.
        """
        with self._lock:
            if terminal_id in self._shells:
                return
            if len(self._shells) >= MOST:
                raise TerminalError(f"this machine has {MOST} terminals already")
            try:
                shell = self._start(session)
            except OSError as exc:
                raise TerminalError(f"the shell could not be started: {exc.strerror}") from exc
            self._shells[terminal_id] = (session, shell)
        threading.Thread(target=self._carry, args=(terminal_id, session, shell), daemon=True).start()

    def end_of(self, claim_id: int) -> None:
        """Ends every terminal of a claim."""
        with self._lock:
            shells = [shell for session, shell in self._shells.values() if session.claim_id == claim_id]
        for shell in shells:
            shell.hang_up()

    def isolation(self, session: Session) -> str:
        """What keeps a terminal apart from the rest of the machine."""
        return "container" if self._container else "user" if session.user else "none"

    def _start(self, session: Session) -> Shell:
        environment = {"LANG": "C.UTF-8", **session.environment(), "TERM": "xterm-256color"}
        if "UTF" not in environment["LANG"].upper():
            environment["LANG"] = "C.UTF-8"
        if self._container:
            given = {name: environment[name] for name in ("LANG", "TERM", "LABLINK_SESSION")}
            options = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
            argv = ["docker", "exec", "--interactive", "--tty", *options, self._container, "sh", "-c", _CONTAINER_SHELL]
            return Shell(argv, environment=environment, directory=self._store.home, identity={})
        program = shutil.which("bash") or "/bin/sh"
        return Shell(
            [program, "-l"],
            environment={**environment, "SHELL": program},
            directory=session.home,
            identity=session.identity(),
        )

    def _carry(self, terminal_id: int, session: Session, shell: Shell) -> None:
        """Carries a shell to the server until it has ended and the server knows, or wants no more of it."""
        backoff = Backoff(last_s=LAST_RETRY_S)
        pause = threading.Event()
        try:
            while not self._carry_once(terminal_id, session, shell, backoff):
                pause.wait(backoff.pause_s(ServerAway("the connection of a terminal was lost")))
        finally:
            shell.hang_up()
            with self._lock:
                del self._shells[terminal_id]

    def _carry_once(self, terminal_id: int, session: Session, shell: Shell, backoff: Backoff) -> bool:
        """One connection, from dialling to its end. Returns whether there is nothing to come back for."""
        try:
            with self._dial(terminal_id) as connection:
                backoff.reset()
                connection.send(json.dumps({"isolation": self.isolation(session)}))
                return _converse(connection, shell)
        except InvalidStatus as exc:
            return exc.response.status_code in OVER_STATUSES
        except (OSError, WebSocketException):
            return False
        finally:
            shell.watch(is_watched=False)

    def _dial(self, terminal_id: int) -> ClientConnection:
        return connect(
            f"ws{self._server_url.removeprefix('http')}/api/agent/terminals/{terminal_id}",
            additional_headers={"Authorization": f"Bearer {self._store.find_token() or ''}"},
            # The machine's proxies, as for every other request; loopback must stay loopback.
            proxy=None if self._server_url.startswith(_LOOPBACK) else True,
            compression=None,
            open_timeout=CONNECT_S * 2,
            close_timeout=1.0,
            ping_interval=PING_S,
            ping_timeout=PONG_S,
            max_size=MAX_FRAME,
        )


def _converse(connection: ClientConnection, shell: Shell) -> bool:
    """Hears what the server says while another thread tells it what the shell says."""
    speaker: threading.Thread | None = None
    try:
        for frame in connection:
            if not isinstance(frame, bytes) or not frame:
                continue
            if frame[0] == SEND_FROM and speaker is None:
                offset = struct.unpack(">Q", frame[1:9])[0]
                speaker = threading.Thread(target=_speak, args=(connection, shell, offset), daemon=True)
                speaker.start()
            else:
                _hear(frame, shell)
    except ConnectionClosed:
        pass
    finally:
        # The other thread notices when it has something to say; what it has not said is said by its successor.
        connection.close()
    return connection.close_code == OVER


def _hear(frame: bytes, shell: Shell) -> None:
    what, rest = frame[0], frame[1:]
    if what == INPUT:
        shell.type(rest)
    elif what == RESIZE:
        shell.resize(*struct.unpack(">HH", rest[:4]))
    elif what == ACKNOWLEDGE:
        shell.acknowledge(struct.unpack(">Q", rest[:8])[0])
    elif what == WATCH:
        shell.watch(is_watched=rest[:1] == b"\x01")


def _speak(connection: ClientConnection, shell: Shell, offset: int) -> None:
    with contextlib.suppress(ConnectionClosed, OSError):
        while True:
            was_over = shell.is_over
            start, content = shell.take(offset, wait_s=IDLE_S)
            if content:
                connection.send(struct.pack(">Q", start) + content)
                offset = start + len(content)
            elif was_over:
                connection.send(json.dumps({"exit": shell.status}))
                return
            elif connection.close_code is not None:
                return
