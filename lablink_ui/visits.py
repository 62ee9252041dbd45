"""One visit to a page: who looks, what they may do, and how the page stays true while it is open."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from nicegui import Client, background_tasks, ui

from backend.api.auth import get_address, get_house, is_secure
from backend.api.cookies import session_cookie
from backend.errors import Forbidden, LabLinkError, Unauthenticated, Unavailable
from backend.house import House
from backend.live.changes import ChangeSet, Snapshot
from backend.live.read_model import Audience
from backend.request_ids import begin_request
from backend.services.actor import Actor
from backend.services.sign_in import AdminIdentity, find_session
from backend.states import Role
from lablink_ui.frame import Frame

RETRY_S, LEAVE_S = 1.0, 2.0

logger = logging.getLogger(__name__)


def _nothing(*_: object) -> None:
    """For pages that show nothing of the snapshot but whether it is true."""


@dataclass(frozen=True)
class Visit:
    """A signed-in admin looking at a page."""

    house: House
    admin: AdminIdentity
    secret: str
    address: str | None

    @property
    def may_operate(self) -> bool:
        """Whether the page shows what operators may do; services ask again."""
        return self.admin.role.rank >= Role.OPERATOR.rank

    @property
    def may_administer(self) -> bool:
        """Whether the page shows what admins alone may do; services ask again."""
        return self.admin.role is Role.ADMIN

    async def actor(self, *roles: Role) -> Actor:
        """Who acts, checked again now: sockets outlive sign-outs.

        Raises:
            Unauthenticated: the session has ended.
            Forbidden: the role does not allow it (default: operators and admins may).
        """
        # What is done by a click comes over a socket: it is a request of its own.
        begin_request()
        admin = await find_session(self.house.db, self.secret)
        if admin is None:
            raise Unauthenticated("Your session has ended. Sign in again.")
        if admin.role not in (roles or (Role.OPERATOR, Role.ADMIN)):
            raise Forbidden(f"As {admin.role} you may not do this.")
        return admin.actor(self.address)

    async def follow(
        self,
        frame: Frame,
        *,
        start: Callable[[Snapshot], object] = _nothing,
        on_changes: Callable[[Snapshot, ChangeSet], object] = _nothing,
    ) -> None:
        """Like ``follow``; the page ends as soon as its session has ended, and is drawn anew if its role changes."""
        client = ui.context.client
        forget = await follow(self.house, frame, start=start, on_changes=on_changes, audience=Audience.ADMINS)
        client.on_delete(self.house.admin_pages.watch(self.admin, lambda role: _leave(client, forget, role)))


async def find_visit(request: Request) -> Visit | None:
    """The signed-in admin, if the browser's cookie is one's session."""
    house = get_house(request)
    secret = request.cookies.get(session_cookie(secure=is_secure(house)), "")
    admin = await find_session(house.db, secret) if secret else None
    return Visit(house, admin, secret, get_address(request)) if admin else None


def to_login(request: Request) -> Response:
    """Sends whoever is not signed in to the sign-in page, and back here afterwards."""
    return RedirectResponse(f"/login?next={_back_to(request)}", status_code=303)


def _back_to(request: Request) -> str:
    return quote(_place(request))


def _place(request: Request) -> str:
    url = request.url
    return f"{url.path}?{url.query}" if url.query else url.path


async def follow(
    house: House,
    frame: Frame,
    *,
    start: Callable[[Snapshot], object] = _nothing,
    on_changes: Callable[[Snapshot, ChangeSet], object] = _nothing,
    audience: Audience = Audience.RESEARCHERS,
) -> Callable[[], None]:
    """Waits for the browser, shows the snapshot, then every change until the page is gone. Call it last.

    Returns what ends it earlier.

    Raises:
        CancelledError: the page was given up before its browser came.
    """
    client, snapshot = ui.context.client, house.live.snapshot
    await client.connected(timeout=60)
    if client.is_deleted:
        # What begins here ends with the page: of one that has ended already it would go on for ever.
        raise asyncio.CancelledError

    def take(changes: ChangeSet) -> bool:
        frame.set_live(is_live=snapshot.is_live)
        frame.ring(snapshot.ringing)
        with client:
            on_changes(snapshot, changes)
        return bool(client.outbox.updates or client.outbox.messages)

    # No await between the first picture and the subscription: nothing falls between them.
    start(snapshot)
    frame.set_live(is_live=snapshot.is_live)
    frame.ring(snapshot.ringing)
    forget = house.live.subscribe(take, audience)
    client.on_delete(forget)
    return forget


def _leave(client: Client, forget: Callable[[], None], role: Role | None) -> None:
    """Ends a page: it is told nothing more, its browser goes on, and then nothing of it is left to act on."""
    forget()
    target = _place(client.request) if role else f"/login?error=ended&next={_back_to(client.request)}"
    # By our own script: in the tab that is signing out right now its own way must not be cut off.
    client.run_javascript(f"window.lablink.leave({json.dumps(target)})")
    # Not at once, or a browser that means well would show an empty page; after that nobody can make it do anything.
    asyncio.get_running_loop().call_later(LEAVE_S, client.remove_all_elements)


class Reader:
    """Reads something for a page whenever asked: one reading at a time, and once more if asked meanwhile."""

    def __init__(self, read: Callable[[], Awaitable[None]]) -> None:
        self._read: Callable[[], Awaitable[None]] | None = read
        self._is_wanted = False
        self._is_reading = False
        self._client: Client | None = ui.context.client
        self._client.on_delete(self._end)

    def ask(self) -> None:
        """Asks for a (further) reading."""
        self._is_wanted = True
        if not self._is_reading:
            self._is_reading = True
            background_tasks.create(self._run())

    async def _run(self) -> None:
        try:
            while self._is_wanted and self._read and self._client:
                self._is_wanted = False
                try:
                    with self._client:
                        await self._read()
                except Unavailable:
                    self._is_wanted = True
                    await asyncio.sleep(RETRY_S)
        finally:
            self._is_reading = False

    def _end(self) -> None:
        """Holds on to nothing of a page that has gone."""
        self._read = self._client = None


async def attempt(action: Callable[[], Awaitable[str | None]]) -> bool:
    """Does something for a person and says what came of it. Returns whether it went well."""
    try:
        said = await action()
    except LabLinkError as exc:
        tell(exc.message, is_bad=True)
        return False
    except Exception:
        logger.exception("an action of a page failed")
        tell("Something went wrong here. It was logged.", is_bad=True)
        return False
    if said:
        tell(said)
    return True


def tell(message: str, *, is_bad: bool = False) -> None:
    """Says something in passing."""
    ui.notify(message, position="bottom", timeout=6_000 if is_bad else 3_000, classes="told bad" if is_bad else "told")
