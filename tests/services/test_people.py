"""The people of the console: invites, roles, passwords, the second step, sessions and tokens."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pyotp
import pytest

from backend.db.engine import Database
from backend.errors import Conflict, Forbidden, InvalidInput, LabLinkError, NotFound, Throttled, Unauthenticated
from backend.keys import KeyRing, new_key
from backend.models import User
from backend.oidc import Vouched
from backend.services.actor import Actor
from backend.services.admin_sessions import end_admin_session, end_admin_sessions, find_roles, list_admin_sessions
from backend.services.api_tokens import create_api_token, list_api_tokens, revoke_api_token
from backend.services.invites import (
    accept_invite,
    create_invite,
    create_reset,
    find_invite,
    list_invites,
    revoke_invite,
)
from backend.services.oidc_sign_in import sign_in_by_oidc
from backend.services.people import (
    change_password,
    disable_user,
    enable_user,
    get_user,
    get_user_row,
    list_users,
    set_role,
)
from backend.services.second_step import begin_second_step, confirm_second_step, end_own_second_step, reset_second_step
from backend.services.sign_in import (
    AdminIdentity,
    SecondStep,
    authenticate_api_token,
    ensure_first_admin,
    find_session,
    finish_sign_in,
    open_session,
    sign_in,
)
from backend.services.throttles import Throttle
from backend.setting_keys import OidcSettings
from backend.states import Role
from tests.harness.quick_passwords import QUICK
from tests.services.worlds import ADMIN

KEYS = KeyRing([new_key()])
PASSWORD = "correct horse battery"
STRICT = Throttle(attempts=3, window_s=300)
GROUPS = OidcSettings(admin_groups=["lab-admins"], operator_groups=["operators"], viewer_groups=["staff"])
HASH = QUICK.hash(PASSWORD)

pytestmark = pytest.mark.usefixtures("quick_passwords")


async def make_user(db: Database, name: str, role: Role = Role.ADMIN) -> int:
    """A user with ``PASSWORD``; returns the id."""
    async with db.transaction() as session:
        session.add(User(name=name, password_hash=HASH, role=role, created_at=db.now()))
    return (await get_user(db, name)).id


async def enter(db: Database, name: str, password: str = PASSWORD, throttle: Throttle = STRICT) -> str | SecondStep:
    return await sign_in(
        db, name, password, keys=KEYS, throttle=throttle, session_hours=12, address="192.0.2.1", user_agent="Firefox"
    )


async def enter_fully(db: Database, name: str) -> str:
    """A session, without the password's slow check."""
    async with db.transaction() as session:
        user = await get_user_row(session, name)
        return open_session(session, db, user, hours=12, address="192.0.2.1", user_agent="Firefox")


async def who(db: Database, secret: str) -> AdminIdentity:
    found = await find_session(db, secret)
    assert found is not None
    return found


async def code_of(db: Database, code: str, ticket: SecondStep, throttle: Throttle = STRICT) -> str:
    return await finish_sign_in(db, ticket.ticket, code, keys=KEYS, throttle=throttle, session_hours=12)


async def turn_on(db: Database, clock, user_id: int, actor: Actor) -> pyotp.TOTP:
    """Sets the second step up; returns the app."""
    setup = await begin_second_step(db, user_id, PASSWORD, keys=KEYS, throttle=STRICT, actor=actor)
    app = pyotp.TOTP(setup.secret)
    await confirm_second_step(db, user_id, app.at(clock()), keys=KEYS, throttle=STRICT, actor=actor)
    return app


async def test_an_invite_makes_a_user_once(db: Database) -> None:
    view, secret = await create_invite(db, "kim", Role.OPERATOR, actor=ADMIN)
    assert [each.id for each in await list_invites(db)] == [view.id]
    assert await accept_invite(db, secret, PASSWORD) == "kim"
    entered = await enter(db, "kim")
    assert isinstance(entered, str)
    assert (await who(db, entered)).role is Role.OPERATOR
    with pytest.raises(Unauthenticated):
        await accept_invite(db, secret, "another password entirely")
    assert await find_invite(db, secret) is None
    assert await list_invites(db) == []


async def test_ten_who_hold_the_same_link_make_one_user(db: Database) -> None:
    _, secret = await create_invite(db, "kim", Role.ADMIN, actor=ADMIN)
    results = await asyncio.gather(
        *(accept_invite(db, secret, f"the password of number {n}") for n in range(10)), return_exceptions=True
    )
    assert [each for each in results if not isinstance(each, LabLinkError)] == ["kim"]
    assert [user.name for user in await list_users(db)] == ["kim"]


@pytest.mark.parametrize("how", ["expired", "withdrawn", "replaced", "made up"])
async def test_a_link_that_does_not_hold_makes_nobody(db: Database, clock, how: str) -> None:
    view, secret = await create_invite(db, "kim", Role.ADMIN, actor=ADMIN)
    if how == "expired":
        clock.advance(3 * 24 * 3_600 + 1)
    elif how == "withdrawn":
        await revoke_invite(db, view.id, actor=ADMIN)
    elif how == "replaced":
        await create_invite(db, "kim", Role.VIEWER, actor=ADMIN)
    else:
        secret = "x" * 43
    with pytest.raises(Unauthenticated):
        await accept_invite(db, secret, PASSWORD)
    assert await list_users(db) == []


async def test_a_name_that_reads_badly_is_refused(db: Database) -> None:
    for name in ("", "Kim", "kim lee", "admin:kim", "k" * 81, "kim\n", "-kim", "kïm", "k\x00m"):
        with pytest.raises(InvalidInput):
            await create_invite(db, name, Role.VIEWER, actor=ADMIN)


async def test_a_weak_password_is_refused_and_the_link_still_works(db: Database) -> None:
    _, secret = await create_invite(db, "kim-of-the-lab", Role.VIEWER, actor=ADMIN)
    for password in ("", "short", "a" * 11, "a" * 1_001, "KIM-OF-THE-LAB", "lone \ud800 surrogate"):
        with pytest.raises(InvalidInput):
            await accept_invite(db, secret, password)
    assert await accept_invite(db, secret, PASSWORD) == "kim-of-the-lab"


async def test_a_name_is_given_once_whatever_its_case(db: Database) -> None:
    await ensure_first_admin(db, PASSWORD)
    with pytest.raises(Conflict):
        await create_invite(db, "admin", Role.VIEWER, actor=ADMIN)


async def test_a_reset_link_sets_a_new_password_and_ends_what_was_open(db: Database) -> None:
    await make_user(db, "kim")
    session = await enter_fully(db, "kim")
    _, other_link = await create_reset(db, "kim", actor=ADMIN)
    _, link = await create_reset(db, "kim", actor=ADMIN)
    assert await accept_invite(db, link, "a brand new password") == "kim"
    assert await find_session(db, session) is None
    assert await find_invite(db, other_link) is None
    with pytest.raises(Unauthenticated):
        await enter(db, "kim")
    assert await enter(db, "kim", "a brand new password")


async def test_a_disabled_user_is_out_at_once_with_all_that_they_made(db: Database) -> None:
    await make_user(db, "kim")
    await make_user(db, "eve")
    session = await enter_fully(db, "eve")
    eve = (await who(db, session)).actor()
    _, door = await create_invite(db, "mallory", Role.ADMIN, actor=eve)
    _, token = await create_api_token(db, "eves", Role.ADMIN, actor=eve)
    by_token = await authenticate_api_token(db, token, throttle=STRICT, address=None)
    _, second = await create_api_token(db, "of-eves", Role.ADMIN, actor=by_token.actor())
    _, third_door = await create_invite(db, "trudy", Role.ADMIN, actor=by_token.actor())
    await create_api_token(db, "kims", Role.ADMIN, actor=Actor.admin("kim"))

    await disable_user(db, "eve", actor=ADMIN)
    assert await find_session(db, session) is None
    assert await find_invite(db, door) is None
    assert await find_invite(db, third_door) is None
    for secret in (token, second):
        with pytest.raises(Unauthenticated):
            await authenticate_api_token(db, secret, throttle=Throttle(), address=None)
    assert [each.name for each in await list_api_tokens(db)] == ["kims"]
    with pytest.raises(Unauthenticated):
        await enter(db, "eve")
    await enable_user(db, "eve", actor=ADMIN)
    assert await find_session(db, session) is None
    assert await enter(db, "eve")


async def test_who_loses_a_role_loses_the_tokens_that_were_above_the_new_one(db: Database) -> None:
    await make_user(db, "kim")
    await make_user(db, "lee")
    for role in Role:
        await create_api_token(db, f"t-{role}", role, actor=Actor.admin("lee"))
    await set_role(db, "lee", Role.OPERATOR, actor=ADMIN)
    assert [each.name for each in await list_api_tokens(db)] == ["t-operator", "t-viewer"]


async def test_what_the_organisations_groups_take_away_ends_what_was_made_with_it(db: Database) -> None:
    async def arrive(*groups: str) -> Actor:
        vouched = Vouched("https://id.lab.org", "s-1", "lee@lab.org", "lee", frozenset(groups))
        return (await who(db, await sign_in_by_oidc(db, vouched, settings=GROUPS, session_hours=12))).actor()

    lee = await arrive("lab-admins")
    for role in Role:
        await create_api_token(db, f"t-{role}", role, actor=lee)
    _, door = await create_invite(db, "mallory", Role.ADMIN, actor=lee)
    assert (await arrive("operators", "staff")).role is Role.OPERATOR
    assert [each.name for each in await list_api_tokens(db)] == ["t-operator", "t-viewer"]
    assert await find_invite(db, door) is None
    with pytest.raises(Forbidden):
        await arrive("gardeners")
    assert await list_api_tokens(db) == []
    assert await list_admin_sessions(db) == []


async def test_the_last_admin_stays_one(db: Database) -> None:
    await make_user(db, "kim")
    await make_user(db, "lee", Role.OPERATOR)
    for change in (disable_user(db, "kim", actor=ADMIN), set_role(db, "kim", Role.VIEWER, actor=ADMIN)):
        with pytest.raises(Conflict) as refusal:
            await change
        assert refusal.value.error_code == "last_admin"
    await set_role(db, "lee", Role.ADMIN, actor=ADMIN)
    await disable_user(db, "kim", actor=ADMIN)
    with pytest.raises(Conflict):
        await disable_user(db, "lee", actor=ADMIN)


async def test_admins_who_demote_each_other_at_once_leave_one(db: Database) -> None:
    names = [f"admin-{n}" for n in range(6)]
    for name in names:
        await make_user(db, name)
    for _ in range(3):
        results = await asyncio.gather(
            *(set_role(db, name, Role.VIEWER, actor=ADMIN) for name in names), return_exceptions=True
        )
        assert all(result is None or isinstance(result, Conflict) for result in results), results
        assert [user.role for user in await list_users(db)].count(Role.ADMIN) == 1
        for name in names:
            await set_role(db, name, Role.ADMIN, actor=ADMIN)


async def test_a_changed_password_ends_all_other_sessions(db: Database) -> None:
    user_id = await make_user(db, "kim")
    mine, other = await enter_fully(db, "kim"), await enter_fully(db, "kim")
    me = await who(db, mine)
    for old, new in (("wrong", "a new password here"), (PASSWORD, "short"), (PASSWORD, PASSWORD)):
        with pytest.raises(InvalidInput):
            await change_password(
                db, user_id, old, new, kept_session_id=me.session_id, throttle=STRICT, actor=me.actor()
            )
    assert await find_session(db, other) is not None
    await change_password(
        db, user_id, PASSWORD, "a new password here", kept_session_id=me.session_id, throttle=STRICT, actor=me.actor()
    )
    assert await find_session(db, mine) is not None
    assert await find_session(db, other) is None
    assert await enter(db, "kim", "a new password here")


async def test_a_hijacked_page_cannot_guess_the_password(db: Database) -> None:
    user_id = await make_user(db, "kim")

    async def guess(old: str) -> None:
        await change_password(
            db, user_id, old, "a new password here", kept_session_id=None, throttle=STRICT, actor=Actor.admin("kim")
        )

    for number in range(3):
        with pytest.raises(InvalidInput):
            await guess(f"guess {number}")
    with pytest.raises(Throttled) as refusal:
        await guess(PASSWORD)
    assert refusal.value.retry_after_s


async def test_the_second_step_asks_for_a_code_and_takes_each_once(db: Database, clock) -> None:
    user_id = await make_user(db, "kim")
    app = await turn_on(db, clock, user_id, Actor.admin("kim"))
    ticket = await enter(db, "kim")
    assert isinstance(ticket, SecondStep)
    # The code that confirmed the set-up is spent.
    with pytest.raises(Unauthenticated):
        await code_of(db, app.at(clock()), ticket)
    clock.advance(30)
    code = app.at(clock())
    assert await find_session(db, await code_of(db, f" {code[:3]} {code[3:]} ", ticket))
    with pytest.raises(Unauthenticated):
        await code_of(db, code, ticket)
    clock.advance(30)
    again = await enter(db, "kim")
    assert isinstance(again, SecondStep)
    results = await asyncio.gather(
        *(code_of(db, app.at(clock()), again, Throttle(attempts=100)) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, str) for result in results) == 1


async def test_a_code_from_far_away_in_time_is_refused(db: Database, clock) -> None:
    user_id = await make_user(db, "kim")
    app = await turn_on(db, clock, user_id, Actor.admin("kim"))
    clock.advance(120)
    ticket = await enter(db, "kim")
    assert isinstance(ticket, SecondStep)
    for drift_s in (-90, -61, 61, 90):
        with pytest.raises(Unauthenticated):
            await code_of(db, app.at(int(clock().timestamp()) + drift_s), ticket, Throttle())


async def test_guessing_codes_is_stopped(db: Database, clock) -> None:
    user_id = await make_user(db, "kim")
    app = await turn_on(db, clock, user_id, Actor.admin("kim"))
    clock.advance(60)
    ticket = await enter(db, "kim")
    assert isinstance(ticket, SecondStep)
    right = {app.at(clock() + timedelta(seconds=30 * step)) for step in (-1, 0, 1)}
    wrong = next(f"{number:06}" for number in range(4) if f"{number:06}" not in right)
    results = await asyncio.gather(*(code_of(db, wrong, ticket) for _ in range(10)), return_exceptions=True)
    kinds = sorted(type(result).__name__ for result in results)
    assert kinds == ["Throttled"] * 7 + ["Unauthenticated"] * 3
    with pytest.raises(Throttled):
        await code_of(db, app.at(clock()), ticket)


@pytest.mark.parametrize("how", ["late", "forged", "of another", "new password", "disabled", "nonsense"])
async def test_a_ticket_that_does_not_hold_opens_nothing(db: Database, clock, how: str) -> None:
    user_id = await make_user(db, "kim")
    await make_user(db, "lee")
    app = await turn_on(db, clock, user_id, Actor.admin("kim"))
    clock.advance(60)
    ticket = await enter(db, "kim")
    assert isinstance(ticket, SecondStep)
    if how == "late":
        clock.advance(301)
    elif how == "forged":
        ticket = SecondStep(ticket.ticket[:-4] + "AAAA")
    elif how == "of another":
        ticket = SecondStep(ticket.ticket.replace(f"{user_id}.", f"{user_id + 1}.", 1))
    elif how == "new password":
        _, link = await create_reset(db, "kim", actor=ADMIN)
        await accept_invite(db, link, "a brand new password")
    elif how == "disabled":
        await disable_user(db, "kim", actor=ADMIN)
    else:
        ticket = SecondStep("٣.٤.x")
    with pytest.raises(Unauthenticated) as refusal:
        await code_of(db, app.at(clock()), ticket)
    assert refusal.value.error_code == "step_expired"


async def test_the_second_step_is_sealed_and_needs_the_password_to_change(db: Database, clock) -> None:
    from sqlalchemy import text

    user_id = await make_user(db, "kim")
    kim = Actor.admin("kim")
    with pytest.raises(InvalidInput):
        await begin_second_step(db, user_id, "wrong", keys=KEYS, throttle=STRICT, actor=kim)
    app = await turn_on(db, clock, user_id, kim)
    async with db.transaction() as session:
        stored = await session.scalar(text("SELECT totp_secret FROM users"))
    assert app.secret not in stored
    with pytest.raises(Conflict):
        await begin_second_step(db, user_id, PASSWORD, keys=KEYS, throttle=STRICT, actor=kim)
    with pytest.raises(InvalidInput):
        await end_own_second_step(db, user_id, "wrong", throttle=STRICT, actor=kim)
    await end_own_second_step(db, user_id, PASSWORD, throttle=STRICT, actor=kim)
    assert isinstance(await enter(db, "kim"), str)


async def test_another_admin_resets_the_second_step_of_a_lost_phone(db: Database, clock) -> None:
    user_id = await make_user(db, "kim")
    await turn_on(db, clock, user_id, Actor.admin("kim"))
    await reset_second_step(db, "kim", actor=ADMIN)
    assert isinstance(await enter(db, "kim"), str)
    with pytest.raises(Conflict):
        await reset_second_step(db, "kim", actor=ADMIN)


async def test_sessions_are_listed_and_end_one_by_one_or_all(db: Database, clock) -> None:
    user_id = await make_user(db, "kim", Role.VIEWER)
    stranger_id = await make_user(db, "lee", Role.VIEWER)
    first, second, third = [await enter_fully(db, "kim") for _ in range(3)]
    ids = [each.id for each in await list_admin_sessions(db, user_id)]
    assert len(ids) == 3
    viewer = Actor.admin("lee", role=Role.VIEWER)
    with pytest.raises(NotFound):
        await end_admin_session(db, ids[0], actor=viewer, owner_id=stranger_id)
    with pytest.raises(Forbidden):
        await end_admin_session(db, ids[0], actor=viewer)
    mine = (await who(db, first)).session_id
    assert mine is not None
    await end_admin_session(db, mine, actor=viewer, owner_id=user_id)
    assert await find_session(db, first) is None
    assert set(await find_roles(db, ids)) == set(ids) - {mine}
    assert await end_admin_sessions(db, "kim", actor=ADMIN) == 2
    assert [await find_session(db, each) for each in (second, third)] == [None, None]
    late = await enter_fully(db, "kim")
    clock.advance(12 * 3_600 + 1)
    assert await find_session(db, late) is None
    assert await list_admin_sessions(db) == []


async def test_last_seen_and_last_used_are_written_at_most_once_a_minute(db: Database, clock) -> None:
    await make_user(db, "kim")
    session = await enter_fully(db, "kim")
    _, token = await create_api_token(db, "ci", Role.VIEWER, actor=ADMIN)

    async def use() -> tuple[object, object]:
        await find_session(db, session)
        await authenticate_api_token(db, token, throttle=STRICT, address=None)
        return (await list_admin_sessions(db))[0].last_seen_at, (await list_api_tokens(db))[0].last_used_at

    first = await use()
    clock.advance(50)
    assert await use() == first
    clock.advance(20)
    assert all(now > then for now, then in zip(await use(), first, strict=True))  # type: ignore[operator]


async def test_a_token_ends_when_its_time_is_over_or_it_is_revoked(db: Database, clock) -> None:
    _, short = await create_api_token(db, "short", Role.VIEWER, days=1, actor=ADMIN)
    view, long = await create_api_token(db, "long", Role.OPERATOR, actor=ADMIN)
    assert (await authenticate_api_token(db, long, throttle=STRICT, address=None)).role is Role.OPERATOR
    clock.advance(24 * 3_600 + 1)
    assert [each.name for each in await list_api_tokens(db)] == ["long"]
    await revoke_api_token(db, view.id, actor=ADMIN)
    for secret in (short, long):
        with pytest.raises(Unauthenticated):
            await authenticate_api_token(db, secret, throttle=STRICT, address=None)
    with pytest.raises(Conflict):
        await create_api_token(db, "long", Role.VIEWER, actor=ADMIN)


async def test_a_token_that_cannot_be_is_refused(db: Database) -> None:
    for name, days in (("", None), ("a b", None), ("ci", 0), ("ci", 3_651), ("UP", 1)):
        with pytest.raises(InvalidInput):
            await create_api_token(db, name, Role.VIEWER, days=days, actor=ADMIN)
