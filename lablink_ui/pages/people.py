"""The people: who may use the console, the invites that are out, and the tokens that act for scripts."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from backend.errors import InvalidInput
from backend.live.changes import ChangeSet, Snapshot
from backend.services.api_tokens import ApiTokenView, create_api_token, list_api_tokens, revoke_api_token
from backend.services.invites import InviteView, create_invite, list_invites, revoke_invite
from backend.services.people import list_users
from backend.states import Role
from lablink_ui.components import Column, CopyButton, Empty, LiveTable
from lablink_ui.forms import Values, form
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.lists import Detail, Line, LineList
from lablink_ui.parts import Field, tag, text
from lablink_ui.people_rows import user_row
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login
from lablink_ui.words import count, person

COLUMNS = (
    Column("user", "Name", "link"),
    Column("state", "State", "chip"),
    Column("role", "Role"),
    Column("sessions", "Signed in", wide=1),
    Column("seen", "Last seen", "ago", wide=1),
)
ROLES: dict[str, str] = {
    Role.VIEWER: "Viewer: may look",
    Role.OPERATOR: "Operator: launches, repairs, releases, destroys",
    Role.ADMIN: "Admin: all of that, and pools, people and tokens",
}
LIVES = {"30": "30 days", "90": "90 days", "365": "A year", "": "No end"}
_TABLES = ("users", "invites", "api_tokens", "admin_sessions")


@page_at("/admin/people")
async def people(request: Request) -> Response | None:
    """The people page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house = visit.house
    with admin_frame("People", active="people", user=visit.admin.name) as frame:
        if not visit.may_administer:
            tag("p", "note", f"As {visit.admin.role} you may look. Admins invite people and make tokens.")
        table = LiveTable("People", COLUMNS, empty=Empty("Nobody", "That cannot be."), searchable=False)
        with tag("div", "grid2"):
            with tag("div", "stack"):
                if visit.may_administer:
                    _draw_invite_form(visit)
                invites = _draw_list(visit, frame, "Open invites", "No invite is out.", _Withdraw)
            with tag("div", "stack"):
                if visit.may_administer:
                    _draw_token_form(visit)
                tokens = _draw_list(visit, frame, "API tokens", "There is no token.", _Revoke)

        async def read() -> None:
            users = await list_users(house.db)
            table.show([user_row(user) for user in users])
            active = sum(user.disabled_at is None for user in users)
            frame.subtitle.say(f"{count(active, 'user')} of this console; researchers need no account")
            invites.show([_invite_line(each, visit) for each in await list_invites(house.db)])
            tokens.show([_token_line(each, visit) for each in await list_api_tokens(house.db)])

        reader = Reader(read)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if any(changes.touches(name) for name in _TABLES):
                reader.ask()

        await visit.follow(frame, start=lambda _: reader.ask(), on_changes=change)
    return None


class ShownOnce:
    """The place for a secret that is shown this once, hidden until there is one."""

    def __init__(self, label: str, testid: str) -> None:
        with tag("div", "stack", role="status") as self._box:
            tag("span", "sub", label)
            self._text = text("pre", "", "mono secret", data_testid=testid)
            self._copy = CopyButton("Copy")
        self._box.set_visibility(False)

    def show(self, secret: str) -> None:
        """Shows it."""
        self._text.say(secret)
        self._copy.hold(secret)
        self._box.set_visibility(True)


def invite_link(visit: Visit, secret: str) -> str:
    """The link of an invite."""
    return f"{visit.house.settings.public_url}/invite/{secret}"


def _draw_invite_form(visit: Visit) -> None:
    with form("Invite somebody", aria_label="Invite somebody") as card:
        Field(
            "Name",
            name="name",
            testid="invite-name",
            hint="Lower-case, such as kim",
            autocapitalize="none",
            required=True,
        )
        Field("Role", name="role", kind="select", testid="invite-role", value=Role.VIEWER, options=ROLES)
        card.finish("Make the link", testid="invite-create", tone="primary")
        link = ShownOnce("Send this link; it works once, for three days, and is shown this once:", "invite-link")

    async def make(values: Values) -> str:
        actor = await visit.actor(Role.ADMIN)
        name = values.get("name", "").strip()
        _, secret = await create_invite(visit.house.db, name, _role(values), actor=actor)
        link.show(invite_link(visit, secret))
        return f"{name} is invited"

    card.on_send(make)


def _draw_token_form(visit: Visit) -> None:
    with form("New API token", aria_label="New API token") as card:
        Field(
            "Name",
            name="token",
            testid="token-name",
            hint="What it is for, such as ci",
            autocapitalize="none",
            required=True,
        )
        Field("Role", name="token-role", kind="select", testid="token-role", value=Role.VIEWER, options=ROLES)
        Field("Ends after", name="days", kind="select", testid="token-days", value="90", options=LIVES)
        card.finish("Make the token", testid="token-create")
        shown = ShownOnce("Copy it now, it is shown this once:", "token-secret")

    async def make(values: Values) -> str:
        actor = await visit.actor(Role.ADMIN)
        name, days = values.get("token", "").strip(), values.get("days", "")
        if days not in LIVES:
            raise InvalidInput("Choose when the token ends.")
        lives = int(days) if days else None
        _, secret = await create_api_token(visit.house.db, name, _role(values, "token-role"), days=lives, actor=actor)
        shown.show(secret)
        return f"The token {name} was made"

    card.on_send(make)


def _role(values: Values, name: str = "role") -> Role:
    try:
        return Role(values.get(name, ""))
    except ValueError:
        raise InvalidInput("Choose a role.") from None


class _Withdraw:
    title, body, verb = "Withdraw this invite?", "Its link stops working at once.", "Withdraw"

    @staticmethod
    async def act(visit: Visit, number: int) -> str:
        await revoke_invite(visit.house.db, number, actor=await visit.actor(Role.ADMIN))
        return "The invite was withdrawn"


class _Revoke:
    title, verb = "Revoke this token?", "Revoke"
    body = "Whatever uses it is refused at once, and so are the tokens and invites that were made with it."

    @staticmethod
    async def act(visit: Visit, number: int) -> str:
        await revoke_api_token(visit.house.db, number, actor=await visit.actor(Role.ADMIN))
        return "The token was revoked"


def _draw_list(visit: Visit, frame: Frame, label: str, nothing: str, what: type[_Withdraw | _Revoke]) -> LineList:
    async def act(number: int) -> None:
        if await frame.ask.ask(what.title, what.body, verb=what.verb):
            await attempt(lambda: what.act(visit, number))

    with tag("section", "card pad", aria_label=label):
        tag("h2", "", label)
        return LineList(label, nothing, on_act=act)


def _invite_line(invite: InviteView, visit: Visit) -> tuple[int, Line]:
    what = "sets a new password" if invite.is_reset else f"as {invite.role}"
    details = (what, f"by {person(invite.created_by)}", f"until {invite.expires_at:%Y-%m-%d %H:%M} UTC")
    verb = _Withdraw.verb if visit.may_administer else ""
    return invite.id, Line(f"invite-{invite.name}", invite.name, details, verb, f"invite-revoke-{invite.name}")


def _token_line(token: ApiTokenView, visit: Visit) -> tuple[int, Line]:
    details: tuple[Detail, ...] = (
        token.role.capitalize(),
        f"by {person(token.created_by)}" if token.created_by else "from the environment",
        f"until {token.expires_at:%Y-%m-%d}" if token.expires_at else "no end",
        ("used", token.last_used_at) if token.last_used_at else "never used",
    )
    verb = _Revoke.verb if visit.may_administer else ""
    return token.id, Line(f"token-{token.name}", token.name, details, verb, f"token-revoke-{token.name}")
