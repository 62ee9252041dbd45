"""The part of the world that belongs to people: seats with connections, ways into pools, the people of the console."""

from __future__ import annotations

from datetime import timedelta

import pyotp

from backend.keys import KeyRing, new_key
from backend.models import User
from backend.services.actor import Actor
from backend.services.admission import set_access
from backend.services.api_tokens import create_api_token
from backend.services.claims import list_claims
from backend.services.commands import list_commands_for_agent, record_command_result
from backend.services.crd import request_crd
from backend.services.crd_results import record_command_progress
from backend.services.holders import Holder
from backend.services.invites import create_invite, create_reset
from backend.services.join_codes import CodeLimits, find_code, rotate_code
from backend.services.people import disable_user, get_user
from backend.services.pools import PoolSpec, ensure_pool, get_pool
from backend.services.roster_text import RosterLine
from backend.services.rosters import import_roster, list_roster, make_link
from backend.services.second_step import begin_second_step, confirm_second_step
from backend.services.sign_in import ensure_first_admin
from backend.services.terminal_watches import agree_to_watch, request_watch
from backend.services.throttles import Throttle
from backend.services.tokens import hash_token
from backend.services.views import ClaimView
from backend.services.vms import get_vm
from backend.states import Access, Role
from tests.crd.pastes import LINE
from tests.harness.quick_passwords import QUICK
from tests.harness.server import PASSWORD as ADMINS_PASSWORD
from tests.pages.worlds import KIM, LONG_EMAIL, World, beat, claim, launch, obey, wait_for_ever

KEY = new_key()
KEYS = KeyRing([KEY])
PASSWORD = "correct horse battery"
GROUP = "department-of-computational-neuroscience"
CRD_STATES = ("crd-new", "crd-waiting", "crd-starting", "crd-ready", "crd-failed")
_EXPIRED = (
    "Google did not take the code: it was used before, or is some minutes old. Get a new one from Google and paste it "
    "at once."
)


async def furnish_desks(world: World) -> None:
    """Adds to a world."""
    await _desks(world)
    await _terminals(world)
    await _entrances(world)
    await _people(world)
    await wait_for_ever(world.db)


async def _desks(world: World) -> None:
    """A seat at each step of Chrome Remote Desktop."""
    db = world.db
    await ensure_pool(db, "desks", PoolSpec(max=len(CRD_STATES), crd=True), actor=KIM)
    await launch(db, "desks", len(CRD_STATES))
    for state in CRD_STATES:
        seat, holder = await _sit_down(world, "desks", f"{state}@lab.org", state)
        if state == "crd-new":
            continue
        await request_crd(db, KEYS, seat.id, LINE, holder)
        (command,) = await list_commands_for_agent(db, seat.vm_id or 0)
        agent = Actor.agent(seat.hostname or "")
        if state == "crd-starting":
            detail = "Your machine registers with Google."
            await record_command_progress(db, seat.vm_id or 0, command.id, detail=detail, actor=agent)
        elif state != "crd-waiting":
            is_good = state == "crd-ready"
            detail, data = ("Ready", {"host_id": "5ca1ab1e-0000"}) if is_good else (_EXPIRED, {})
            result = {"succeeded": is_good, "detail": detail, "data": data, "actor": agent}
            await record_command_result(db, seat.vm_id or 0, command.id, **result)


async def _terminals(world: World) -> None:
    """Seats with a terminal and every card there is; into one of them somebody looks, into another would like to."""
    db = world.db
    spec = PoolSpec(
        max=3, terminal=True, claim_duration_s=4 * 3_600, url_template="https://files.example.org/{hostname}"
    )
    await ensure_pool(db, "shells", spec, actor=KIM)
    await launch(db, "shells", 3)
    await _sit_down(world, "shells", LONG_EMAIL, "shell")
    for state in ("asked", "watched"):
        seat, holder = await _sit_down(world, "shells", f"{state}@lab.org", state)
        watch = await request_watch(db, seat.id, "admin", may_type=state == "watched", actor=KIM)
        world.words[state] = seat.hostname or ""
        if state == "watched":
            owner = {"owner_hash": holder.owner_hash or b"", "actor": Actor.researcher(seat.email)}
            await agree_to_watch(db, seat.id, watch.id, may_type=True, **owner)


async def _sit_down(world: World, pool: str, email: str, name: str) -> tuple[ClaimView, Holder]:
    holder = Holder(owner_hash=hash_token(await claim(world, pool, email, seat=name)))
    (seat,) = await list_claims(world.db, owner_hash=holder.owner_hash)
    await obey(world, seat.hostname or "")
    await beat(world.db, [seat.hostname or ""])
    vm = await get_vm(world.db, seat.hostname or "")
    assert vm.email == email
    return (await list_claims(world.db, owner_hash=holder.owner_hash))[0], holder


async def _entrances(world: World) -> None:
    """A pool for each way in."""
    db = world.db
    for name, access in (("hall", Access.CODE), ("class", Access.ROSTER), ("members", Access.OIDC)):
        await ensure_pool(db, name, PoolSpec(max=30, terminal=True), actor=KIM)
        await set_access(db, name, access, oidc_group=GROUP if access is Access.OIDC else None, actor=KIM)
    await rotate_code(db, "hall", CodeLimits(max_uses=300, ends_at=db.now() + timedelta(hours=5)), actor=KIM)
    code = await find_code(db, (await get_pool(db, "hall")).id)
    assert code
    world.words["code"] = code.code
    people = [RosterLine("ada@lab.org", "Ada Lovelace"), RosterLine(LONG_EMAIL, None), RosterLine("bob@lab.org", "Bob")]
    await import_roster(db, "class", people, actor=KIM)
    entry, *_ = await list_roster(db, (await get_pool(db, "class")).id)
    world.words["me"] = make_link(KEYS, "", "class", entry).partition("=")[2]


async def _people(world: World) -> None:
    """People of every role, with tokens, invites, and a second step."""
    db, hashed = world.db, QUICK.hash(PASSWORD)
    await ensure_first_admin(db, ADMINS_PASSWORD)
    roles = {"lee": Role.OPERATOR, "sam": Role.VIEWER, "tess": Role.ADMIN, "gone": Role.ADMIN}
    async with db.transaction() as session:
        for name, role in roles.items():
            session.add(User(name=name, password_hash=hashed, role=role, created_at=db.now()))
    await disable_user(db, "gone", actor=KIM)
    tess, me = (await get_user(db, "tess")).id, Actor.admin("tess")
    setup = await begin_second_step(db, tess, PASSWORD, keys=KEYS, throttle=Throttle(), actor=me)
    code = pyotp.TOTP(setup.secret).at(db.now())
    await confirm_second_step(db, tess, code, keys=KEYS, throttle=Throttle(), actor=me)
    await create_api_token(db, "ci", Role.OPERATOR, days=90, actor=KIM)
    await create_api_token(db, "reports-of-the-department", Role.VIEWER, actor=KIM)
    _, world.words["invite"] = await create_invite(db, "noor@lab.org", Role.OPERATOR, actor=KIM)
    _, world.words["reset"] = await create_reset(db, "lee", actor=KIM)
