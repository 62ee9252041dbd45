"""A page as a browser has it open, without the browser: its elements, its socket, clicks, reloads, lost networks."""

from __future__ import annotations

import ast
import asyncio
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from lablink_ui.swarm.http import Answer, Client, Failed

Element = dict[str, Any]
CONNECT_S, ACK_S, MAX_HOPS = 20.0, 3.0, 6
# As socket.io's own client comes back.
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 5.0
REDIRECTS = {301, 302, 303, 307}
_ELEMENTS = re.compile(r"parseElements\(String\.raw`(.*?)`\)", re.DOTALL)
_QUERY = re.compile(r"^\s*query: (\{.*\}),$", re.MULTILINE)
_PREFIX = re.compile(r'^\s*prefix: "([^"]*)"', re.MULTILINE)
_FILE = re.compile(r'(?:src=|href=|url\()"(/(?:[^"\s]+/)?(?:_nicegui|assets)/[^"\s]+)"')
_EVENT = re.compile(r'42\["(\w+)",')
_ID = re.compile(r'"_id":(\d+)\}\]$')
_RELOADS = re.compile(r"history\.go\(0\)|location\.reload\(\)")
_LEAVES = re.compile(r'window\.lablink\.leave\(("(?:[^"\\]|\\.)*")\)')
_ESCAPES = (("&#36;", "$"), ("&#96;", "`"), ("&gt;", ">"), ("&lt;", "<"), ("&amp;", "&"))


class Page:
    """One tab. Within the block, or from ``open`` to ``close``, it follows what the server says."""

    def __init__(self, client: Client, *, on_problem: Callable[[Failed], None]) -> None:
        self.path, self.is_connected, self.updates = "", False, 0
        self._client, self._on_problem = client, on_problem
        self._tab = str(uuid.uuid4())
        self._elements: dict[str, Element] = {}
        self._by_testid: dict[str, str] = {}
        self._query: dict[str, Any] = {}
        self._prefix = ""
        self._files: list[str] = []
        self._next_id, self._acked_id, self._acked_at = 0, -1, 0.0
        self._changed = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._network = asyncio.Event()
        self._network.set()
        self._was_cut = False
        self._life: asyncio.Task[None] | None = None
        self._asked: dict[str, list[Any]] = {}

    async def open(self, path: str) -> float:
        """Goes to an address of the server. Returns how long its page took to arrive, in seconds.

        Raises:
            Failed: it did not answer with a page.
        """
        await self.close()
        began = time.monotonic()
        await self._fetch(path)
        self._life = asyncio.create_task(self._live())
        return time.monotonic() - began

    async def close(self) -> None:
        """Closes the tab."""
        life, self._life = self._life, None
        if life is not None:
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
        await self._hang_up()

    async def fetch_files(self) -> None:
        """What a browser fetches that was never here: scripts, styles, fonts. Its cache keeps them.

        Raises:
            Failed: one was not to be had.
        """
        for file in self._files:
            answer = await self._client.ask("GET", file, headers={"Accept-Encoding": "gzip"})
            if answer.status != 200:
                raise Failed(f"file {answer.status}", file)

    def find(self, testid: str) -> Element | None:
        """The element with this test id, as it is shown now."""
        return self._elements.get(self._by_testid.get(testid, ""))

    def text(self, testid: str) -> str:
        """What the element says."""
        return str((self.find(testid) or {}).get("text") or "")

    def status(self, testid: str) -> str:
        """The element's ``data-status``."""
        return str((self.find(testid) or {}).get("props", {}).get("data-status") or "")

    def hidden(self, name: str) -> str:
        """The value of a form's hidden field."""
        fields = (element.get("props", {}) for element in self._elements.values() if element.get("tag") == "input")
        return next((str(each.get("value", "")) for each in fields if each.get("name") == name), "")

    async def until(self, fact: Callable[[], object], *, within_s: float, what: str) -> None:
        """Waits until something is shown.

        Raises:
            Failed: it was not in time.
        """
        try:
            async with asyncio.timeout(within_s):
                while not fact():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Failed(f"not shown: {what}", f"{self.path}: not within {within_s:.0f} s") from None

    async def act(self, testid: str, event: str, value: Any, *, within_s: float = CONNECT_S) -> None:
        """Does something to an element, as a browser tells it once its socket is there: ``event`` with ``value``.

        Raises:
            Failed: there is no such element, or no connection.
        """
        await self.until(lambda: self.is_connected, within_s=within_s, what="a connection")
        element_id = self._by_testid.get(testid, "")
        await self._emit_event(element_id, event, value)

    async def answer_question(self, *, within_s: float) -> None:
        """Says yes in the dialog that the page has just opened.

        Raises:
            Failed: it did not open.
        """
        await self.until(lambda: "ask" in self._asked, within_s=within_s, what="a question")
        await self._emit_event(str(self._asked.pop("ask")[0]), "answer", True)

    async def lose_network(self, for_s: float) -> None:
        """Hears and says nothing for a while; then what was connected is dead, as after a change of Wi-Fi."""
        self._was_cut = True
        self._network.clear()
        try:
            # Nothing but time makes an outage of this length.
            await asyncio.sleep(for_s)
        finally:
            self.is_connected = False
            if self._socket is not None:
                self._socket.transport.abort()
            self._network.set()

    async def _fetch(self, path: str) -> None:
        for _ in range(MAX_HOPS):
            answer = await self._client.ask("GET", path, headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
            if answer.status not in REDIRECTS:
                break
            there = urlsplit(urljoin(self._client.target.origin + path, answer.headers.get("location", "/")))
            path = there.path + (f"?{there.query}" if there.query else "")
        self.path = path
        self._read(answer)

    def _read(self, answer: Answer) -> None:
        place = "/".join(self.path.partition("?")[0].split("/")[:3])
        if answer.status != 200:
            raise Failed(f"page {answer.status}", f"{place}: {answer.problem()}")
        html = answer.content().decode(errors="replace")
        elements, query, prefix = _ELEMENTS.search(html), _QUERY.search(html), _PREFIX.search(html)
        if elements is None or query is None:
            raise Failed("no page", f"{place} is none of ours")
        raw = elements[1]
        for escaped, plain in _ESCAPES:
            raw = raw.replace(escaped, plain)
        self._elements, self._by_testid, self._asked = {}, {}, {}
        self._take_elements(json.loads(raw))
        # NiceGUI writes it as Python and has its script know the words True and False.
        self._query = ast.literal_eval(query[1]) | {
            "document_id": str(uuid.uuid4()),
            "tab_id": self._tab,
            "old_tab_id": self._tab,
        }
        self._prefix = prefix[1] if prefix else ""
        self._next_id, self._acked_id = int(self._query["next_message_id"]), -1
        self._files = sorted(set(_FILE.findall(html)))
        self._notice()

    async def _live(self) -> None:
        """Connects, listens, and comes back whenever the connection is lost."""
        pause_s = FIRST_RETRY_S
        while True:
            try:
                await self._network.wait()
                await self._connect()
                pause_s = FIRST_RETRY_S
                await self._listen()
            except _Reload as exc:
                await self._hang_up()
                try:
                    await self._fetch(exc.path or self.path)
                except Failed as failed:
                    self._on_problem(failed)
                else:
                    continue
            # Failed: what it had just heard could not be acknowledged any more.
            except (OSError, TimeoutError, WebSocketException, Failed) as exc:
                if not self._was_cut:
                    self._on_problem(Failed("socket", f"{self.path}: {exc or type(exc).__name__}"))
            await self._hang_up()
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause_s)  # noqa: S311 - jitter, not a secret
            pause_s = min(2 * pause_s, LAST_RETRY_S)

    async def _connect(self) -> None:
        client, target = self._client, self._client.target
        query = {**self._query, "next_message_id": self._next_id, "EIO": 4, "transport": "websocket"}
        words = {key: json.dumps(value) if isinstance(value, bool) else value for key, value in query.items()}
        self._socket = await connect(
            f"{'wss' if target.is_secure else 'ws'}://{target.netloc}{self._prefix}/_nicegui_ws/socket.io/?{urlencode(words)}",
            host=target.addresses[0],
            port=target.port,
            ssl=client.tls,
            origin=target.origin,  # type: ignore[arg-type]
            additional_headers={"Cookie": client.cookie_header()},
            compression=None,
            proxy=None,
            ping_interval=None,
            open_timeout=CONNECT_S,
            close_timeout=1,
            max_size=None,
        )

    async def _listen(self) -> None:
        assert self._socket is not None
        while True:
            message = await self._receive(self._socket)
            await self._network.wait()
            if self._socket.transport.is_closing():
                raise OSError("what had come before the cut is of no use")
            if message == "2":
                await self._socket.send("3")
            elif message.startswith("42"):
                await self._hear(message)
            elif message.startswith("40"):
                self.is_connected, self._was_cut = True, False
                self._notice()
            elif message.startswith("0"):
                await self._socket.send("40")
            elif message.startswith("44"):
                # The server knows this page no longer; its browser loads it anew.
                raise _Reload
            elif message.startswith(("1", "41")):
                return

    async def _receive(self, socket: ClientConnection) -> str:
        """The next message. What came before it is acknowledged after some silence: until then the server keeps it."""
        while self.is_connected and self._network.is_set() and self._next_id != self._acked_id:
            try:
                async with asyncio.timeout(ACK_S):
                    return str(await socket.recv())
            except TimeoutError:
                await self._acknowledge()
        return str(await socket.recv())

    async def _hear(self, message: str) -> None:
        event, number = _EVENT.match(message), _ID.search(message)
        if number is not None:
            if int(number[1]) < self._next_id:
                return
            self._next_id = int(number[1]) + 1
        self.updates += 1
        name = event[1] if event else ""
        if name == "update":
            update = json.loads(message[2:])[1]
            update.pop("_id", None)
            self._take_elements(update)
        elif name == "run_javascript":
            self._run(message)
        elif name == "open":
            raise _Reload(str(json.loads(message[2:])[1].get("path", "/")))
        elif name == "try_reconnect":
            raise _Reload
        self._notice()
        await self._acknowledge()

    def _run(self, message: str) -> None:
        """Of the scripts that a server sends, those that lead elsewhere or ask a question."""
        if "runMethod(" in message and '\\"ask\\"' in message:
            code = json.loads(message[2:])[1]["code"]
            found = re.search(r'runMethod\((\d+), "ask", (\[.*\])\)', code, re.DOTALL)
            if found:
                self._asked["ask"] = [found[1]]
        elif _RELOADS.search(message):
            raise _Reload
        elif "lablink.leave(" in message:
            found = _LEAVES.search(json.loads(message[2:])[1]["code"])
            if found:
                raise _Reload(json.loads(found[1]))

    async def _acknowledge(self) -> None:
        now = time.monotonic()
        if now - self._acked_at > ACK_S and self._next_id != self._acked_id:
            self._acked_at, self._acked_id = now, self._next_id
            await self._send("ack", {"client_id": self._query["client_id"], "next_message_id": self._next_id})

    async def _emit_event(self, element_id: str, event: str, value: Any) -> None:
        for listener in self._elements.get(element_id, {}).get("events", ()):
            if listener["type"] == event:
                args: Sequence[str] = [json.dumps(value)]
                await self._send(
                    "event",
                    {
                        "id": int(element_id),
                        "client_id": self._query["client_id"],
                        "listener_id": listener["listener_id"],
                        "args": args,
                    },
                )
                return
        raise Failed("no such button", f"{self.path}: nothing takes '{event}' there")

    async def _send(self, name: str, content: Element) -> None:
        if self._socket is None:
            raise Failed("socket", f"{self.path}: no connection")
        try:
            await self._socket.send(f"42{json.dumps([name, content])}")
        except (OSError, WebSocketException) as exc:
            raise Failed("socket", f"{self.path}: {exc}") from None

    def _take_elements(self, elements: dict[str, Element | None]) -> None:
        for element_id, element in elements.items():
            if element is None:
                self._elements.pop(element_id, None)
                continue
            self._elements[element_id] = element
            testid = element.get("props", {}).get("data-testid")
            if testid:
                self._by_testid[testid] = element_id

    async def _hang_up(self) -> None:
        self.is_connected = False
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def _notice(self) -> None:
        self._changed.set()


class _Reload(Exception):
    """The page is to be loaded anew, or another one in its place."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__(path)
        self.path = path
