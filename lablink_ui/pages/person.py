"""One of the people: role, password, second step, sessions; admins may change them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.responses import Response

from backend.errors import InvalidInput, NotFound
from backend.live.changes import ChangeSet, Snapshot
from backend.services.actor import Actor
from backend.services.admin_sessions import end_admin_session, end_admin_sessions, list_admin_sessions
from backend.services.invites import create_reset
from backend.services.people import UserView, disable_user, enable_user, get_user, set_role
from backend.services.second_step import reset_second_step
from backend.states import Role
from lablink_ui.forms import Values, form
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.lists import LineList, session_lines
from lablink_ui.pages.people import ROLES, ShownOnce, invite_link
from lablink_ui.parts import Chip, Facts, Field, button, link_button, tag
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login
from lablink_ui.words import count

Act = Callable[[Actor], Awaitable[str]]
FACTS = {"role": "Role", "second": "Second step", "made": "Made", "seen": "Last seen"}
_DISABLE = (
    "They are signed out everywhere at once and cannot sign in. The invites and API tokens that they made stop working."
)


@page_at("/admin/people/{name}")
async def one_person(request: Request, name: str) -> Response | None:
    """One user's page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    try:
        user = await get_user(visit.house.db, name)
    except NotFound as exc:
        with admin_frame("No such user", active="people", user=visit.admin.name, subtitle=exc.message) as frame:
            link_button("All people", "/admin/people", classes="primary")
            await visit.follow(frame, start=lambda _: None, on_changes=lambda *_: None)
        return None
    with admin_frame(name, active="people", user=visit.admin.name) as frame:
        await _Page(visit, frame, user).draw()
    return None


class _Page:
    """The parts of the page; every one that changes something is drawn for admins only."""

    def __init__(self, visit: Visit, frame: Frame, user: UserView) -> None:
        self._visit, self._frame, self._user = visit, frame, user
        self._db = visit.house.db

    async def draw(self) -> None:
        """Draws and follows."""
        may = self._visit.may_administer
        if may:
            self._draw_buttons()
        with tag("div", "row"):
            self._chip = Chip("user-status")
        with tag("div", "grid2"):
            with tag("section", "card pad", aria_label="Facts"):
                tag("h2", "", "Facts")
                self._facts = Facts(FACTS, moments=("made", "seen"))
            with tag("div", "stack"):
                if may:
                    self._draw_role_form()
                    self._draw_reset()
                else:
                    tag("p", "note", f"As {self._visit.admin.role} you may look. Admins change roles and end sessions.")
        with tag("section", "card pad", aria_label="Signed in"):
            tag("h2", "", "Where they are signed in")
            self._sessions = LineList("Signed in", "Nowhere.", on_act=self._end_session)
            if may:
                button("Sign out everywhere", self._end_all, classes="danger start", testid="user-end-sessions")
        self._show(self._user)
        reader = Reader(self._read)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.touches("users") or changes.has_sessions:
                reader.ask()

        await self._visit.follow(self._frame, start=lambda _: reader.ask(), on_changes=change)

    async def _read(self) -> None:
        self._show(await get_user(self._db, self._user.name))
        found = await list_admin_sessions(self._db, self._user.id)
        own_id, may = self._visit.admin.session_id, self._visit.may_administer
        self._sessions.show(session_lines(found, own_id=own_id, may_end=may))

    def _show(self, user: UserView) -> None:
        self._user = user
        is_active = user.disabled_at is None
        self._chip.show(
            "active" if is_active else "disabled", ("Active", "good") if is_active else ("Disabled", "idle")
        )
        self._frame.subtitle.say(f"{user.role.capitalize()} · {count(user.sessions, 'browser')} signed in")
        self._facts.show(
            role=user.role.capitalize(),
            second="on" if user.has_second_step else "off",
            made=user.created_at,
            seen=user.last_seen_at,
        )
        if self._visit.may_administer:
            self._disable.set_visibility(is_active)
            self._enable.set_visibility(not is_active)
            self._reset_step.set_visibility(user.has_second_step)

    def _draw_buttons(self) -> None:
        with self._frame.buttons:
            self._reset_step = button("Reset second step", self._on_reset_step, testid="user-reset-step")
            self._enable = button("Enable", self._on_enable, testid="user-enable")
            self._disable = button("Disable", self._on_disable, classes="danger", testid="user-disable")

    def _draw_role_form(self) -> None:
        with form("Role", aria_label="Role") as card:
            Field("Role", name="role", kind="select", testid="user-role", value=self._user.role, options=ROLES)
            card.finish("Change role", testid="user-role-submit")

        async def change(values: Values) -> str:
            actor = await self._visit.actor(Role.ADMIN)
            if values.get("role") not in set(Role):
                raise InvalidInput("Choose a role.")
            await set_role(self._db, self._user.name, Role(values["role"]), actor=actor)
            return f"{self._user.name} is {values['role']} now"

        card.on_send(change)

    def _draw_reset(self) -> None:
        with form("Forgotten password", aria_label="Forgotten password") as card:
            tag("p", "sub", "A link with which they choose a new one; the present one works until then.")
            card.finish("Make the link", testid="user-reset")
            link = ShownOnce("Send this link; it works once, for a day, and is shown this once:", "user-reset-link")

        async def make(values: Values) -> str:
            actor = await self._visit.actor(Role.ADMIN)
            _, secret = await create_reset(self._db, self._user.name, actor=actor)
            link.show(invite_link(self._visit, secret))
            return "The link was made"

        card.on_send(make)

    async def _do(self, act: Act, *, title: str = "", body: str = "", verb: str = "") -> None:
        if title and not await self._frame.ask.ask(title, body, verb=verb):
            return

        async def do() -> str:
            return await act(await self._visit.actor(Role.ADMIN))

        await attempt(do)

    async def _on_disable(self) -> None:
        async def act(actor: Actor) -> str:
            await disable_user(self._db, self._user.name, actor=actor)
            return f"{self._user.name} is disabled"

        await self._do(act, title=f"Disable {self._user.name}?", body=_DISABLE, verb="Disable")

    async def _on_enable(self) -> None:
        async def act(actor: Actor) -> str:
            await enable_user(self._db, self._user.name, actor=actor)
            return f"{self._user.name} may sign in again"

        await self._do(act)

    async def _on_reset_step(self) -> None:
        async def act(actor: Actor) -> str:
            await reset_second_step(self._db, self._user.name, actor=actor)
            return "The second step is off"

        body = "They sign in with the password alone until they set it up again."
        await self._do(act, title=f"Reset the second step of {self._user.name}?", body=body, verb="Reset")

    async def _end_session(self, session_id: int) -> None:
        async def act(actor: Actor) -> str:
            await end_admin_session(self._db, session_id, actor=actor)
            return "Signed out there"

        await self._do(act)

    async def _end_all(self) -> None:
        async def act(actor: Actor) -> str:
            number = await end_admin_sessions(self._db, self._user.name, actor=actor)
            return f"{count(number, 'browser')} signed out"

        await self._do(
            act, title=f"Sign {self._user.name} out everywhere?", body="Open pages end at once.", verb="Sign out"
        )
