"""One's own account: the password, the second step, and the browsers that are signed in."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from backend.errors import InvalidInput
from backend.live.changes import ChangeSet, Snapshot
from backend.services.admin_sessions import end_admin_session, list_admin_sessions
from backend.services.passwords import MIN_PASSWORD
from backend.services.people import change_password, get_user
from backend.states import Role
from lablink_ui.forms import Values, form, password_field
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.lists import LineList, session_lines
from lablink_ui.pages.account_second_step import SecondStepCard
from lablink_ui.parts import tag
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login


@page_at("/admin/account")
async def account(request: Request) -> Response | None:
    """The account page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house, user_id = visit.house, visit.admin.user_id
    with admin_frame("Your account", active="account", user=visit.admin.name) as frame:
        user = await get_user(house.db, visit.admin.name)
        frame.subtitle.say(f"{user.name} · {user.role}")
        with tag("div", "grid2"):
            if user.has_password:
                _draw_password(visit)
            else:
                with tag("section", "card pad", aria_label="Password"):
                    tag("h2", "", "Password")
                    tag("p", "sub", "You have none here: you sign in with your organisation.")
            second_step = SecondStepCard(visit, user)
        with tag("section", "card pad", aria_label="Signed in"):
            tag("h2", "", "Where you are signed in")

            async def end(session_id: int) -> None:
                await attempt(lambda: do_end(session_id))

            async def do_end(session_id: int) -> str:
                await end_admin_session(house.db, session_id, actor=await visit.actor(*Role), owner_id=user_id)
                return "Signed out there"

            sessions = LineList("Signed in", "Nowhere.", on_act=end)

        async def read() -> None:
            found = await list_admin_sessions(house.db, user_id)
            sessions.show(session_lines(found, own_id=visit.admin.session_id, may_end=True))
            second_step.show(await get_user(house.db, visit.admin.name))

        reader = Reader(read)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.has_sessions or changes.touches("users"):
                reader.ask()

        await visit.follow(frame, start=lambda _: reader.ask(), on_changes=change)
    return None


def _draw_password(visit: Visit) -> None:
    with form("Password", aria_label="Password") as card:
        tag("p", "sub", "A change signs you out everywhere else.")
        password_field("Present password", "old", testid="password-old")
        hint = f"{MIN_PASSWORD} characters or more"
        password_field("New password", "new", testid="password-new", is_new=True, hint=hint)
        password_field("The same again", "again", testid="password-again", is_new=True)
        card.finish("Change password", testid="password-submit")

    async def change(values: Values) -> str:
        actor = await visit.actor(*Role)
        if values.get("new") != values.get("again"):
            raise InvalidInput("The two new passwords are not the same.")
        await change_password(
            visit.house.db,
            visit.admin.user_id or 0,
            values.get("old", ""),
            values.get("new", ""),
            kept_session_id=visit.admin.session_id,
            throttle=visit.house.throttle,
            actor=actor,
        )
        return "Your password was changed; all other browsers were signed out"

    card.on_send(change)
