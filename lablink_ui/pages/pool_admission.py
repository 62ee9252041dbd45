"""Who may claim in a pool: the part of its page that says so, with the join code; the roster has a file of its own."""

from __future__ import annotations

from backend.errors import InvalidInput
from backend.live.changes import ChangeSet, Snapshot
from backend.services.admission import WORDS, set_access
from backend.services.join_codes import CodeLimits, JoinCodeView, find_code, limit_code, rotate_code
from backend.services.views import PoolView
from backend.states import Access, Role
from lablink_ui.components import CopyButton
from lablink_ui.components.seat_parts import MomentField
from lablink_ui.frame import Frame
from lablink_ui.pages.pool_roster import RosterPart
from lablink_ui.parts import Field, button, link_button, on_submit, tag, text
from lablink_ui.visits import Reader, Visit, attempt
from lablink_ui.words import count, sentence

_NEW_CODE = "The present code stops working at once, on every screen and in every link. Seats stay."


class AdmissionPart:
    """The section "Who may claim" of a pool's page."""

    def __init__(self, visit: Visit, frame: Frame, pool: PoolView) -> None:
        self._visit, self._pool, self._shown = visit, pool, pool.access
        with tag("section", "card pad", aria_label="Who may claim"):
            tag("h2", "", "Who may claim")
            with tag("form", "stack") as form:
                options = {access.value: sentence(words) for access, words in WORDS.items()}
                self._access = Field(
                    "Seats are for",
                    name="access",
                    kind="select",
                    value=pool.access,
                    options=options,
                    testid="pool-access",
                    on_change=self._show_group,
                )
                with tag("div") as self._group_part:
                    self._group = Field(
                        "Only this group of the organisation",
                        name="oidc_group",
                        value=pool.oidc_group or "",
                        hint="Empty: every member",
                        testid="pool-oidc-group",
                    )
                tag("button", "button start", "Save", type="submit", data_testid="pool-access-save")
            on_submit(form, [self._access, self._group], lambda: attempt(self._save))
            self._code = _CodePart(visit, frame, pool)
            self._roster = RosterPart(visit, frame, pool)
            link_button("Show it on a screen", f"/admin/pools/{pool.name}/screen", classes="start")
        self._show_group()

    def show(self, snapshot: Snapshot, changes: ChangeSet | None) -> None:
        """Shows what the pool's access needs."""
        access = snapshot.pools.get(self._pool.id, self._pool).access
        if access is not self._shown:
            # Changed by somebody else, perhaps; what is being chosen here stays otherwise.
            self._shown = access
            self._access.fill(access)
            self._show_group()
        self._code.show(is_shown=access is Access.CODE, changes=changes)
        self._roster.show(is_shown=access is Access.ROSTER, changes=changes)

    def _show_group(self) -> None:
        self._group_part.set_visibility(self._access.value == Access.OIDC)

    async def _save(self) -> str:
        actor = await self._visit.actor(Role.ADMIN)
        access = Access(self._access.value)
        await set_access(self._visit.house.db, self._pool.name, access, oidc_group=self._group.value, actor=actor)
        return f"Seats are for {WORDS[access]}"


class _CodePart:
    """The join code and its limits."""

    def __init__(self, visit: Visit, frame: Frame, pool: PoolView) -> None:
        self._visit, self._frame, self._pool = visit, frame, pool
        self._part = tag("div", "stack")
        with self._part:
            with tag("div", "row"):
                self._code = text("output", "", "code", data_testid="pool-code")
                self._copy = CopyButton("Copy link")
            self._state = text("p", "", "sub", data_testid="pool-code-state")
            with tag("form", "stack") as form:
                with tag("div", "fields"):
                    self._starts = MomentField("Valid from", name="code_starts", testid="pool-code-starts")
                    self._ends = MomentField("Valid until", name="code_ends", testid="pool-code-ends")
                    self._uses = Field(
                        "Number of claims", name="code_uses", kind="number", min=1, testid="pool-code-uses"
                    )
                with tag("div", "row"):
                    tag("button", "button", "Save limits", type="submit", data_testid="pool-code-limit")
                    button("New code", self._ask_to_rotate, classes="danger", testid="pool-code-rotate")
            on_submit(form, [self._uses], lambda: attempt(self._limit))
        self._shown: CodeLimits | None = None
        self._reader = Reader(self._read)

    def show(self, *, is_shown: bool, changes: ChangeSet | None) -> None:
        """Shows the code while it counts. Who may only look gets none: it is for those who may hand it out."""
        is_shown = is_shown and self._visit.admin.role is not Role.VIEWER
        self._part.set_visibility(is_shown)
        if is_shown and (changes is None or changes.pools or changes.touches("join_codes", self._pool.id)):
            self._reader.ask()

    async def _read(self) -> None:
        found = await find_code(self._visit.house.db, self._pool.id)
        if found is None:
            return
        self._code.say(found.code)
        self._copy.hold(f"{self._visit.house.settings.public_url}/join/{self._pool.name}?code={found.code}")
        self._state.say(describe_code(found, found.state(self._visit.house.db.now())))
        # What somebody is typing stays, unless the limits themselves have changed.
        if found.limits != self._shown:
            self._shown = found.limits
            self._starts.show(found.limits.starts_at)
            self._ends.show(found.limits.ends_at)
            self._uses.fill(str(found.limits.max_uses or ""))

    async def _limit(self) -> str:
        actor = await self._visit.actor(Role.OPERATOR, Role.ADMIN)
        await limit_code(self._visit.house.db, self._pool.name, self._limits(), actor=actor)
        return "Saved"

    async def _ask_to_rotate(self) -> None:
        if await self._frame.ask.ask("Make a new join code?", _NEW_CODE, verb="New code"):
            await attempt(self._rotate)

    async def _rotate(self) -> str:
        actor = await self._visit.actor(Role.OPERATOR, Role.ADMIN)
        code = await rotate_code(self._visit.house.db, self._pool.name, self._limits(), actor=actor)
        return f"The join code is {code.code} now"

    def _limits(self) -> CodeLimits:
        typed = self._uses.value.strip()
        if typed and not typed.isdecimal():
            raise InvalidInput("The number of claims must be a whole number, or nothing for no limit.")
        return CodeLimits(self._starts.value, self._ends.value, int(typed) if typed else None)


def describe_code(code: JoinCodeView, why_not: str | None) -> str:
    """How often a code was used, and why it cannot be used now, if so."""
    of = f" of {code.limits.max_uses:,}" if code.limits.max_uses else ""
    used = f"Used for {code.uses:,}{of} claims." if of else f"Used for {count(code.uses, 'claim')}."
    return f"{used} It {why_not}." if why_not else used
