"""`lablink admin`: the people of the console from the server's own machine, for the day when a password is lost."""

from __future__ import annotations

import argparse
import asyncio
import getpass
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.db.engine import Database
    from backend.services.actor import Actor
    from backend.settings import Settings

ROLES = ("viewer", "operator", "admin")
_VERBS = {
    "list": "everybody who may use the console",
    "invite": "make a link with which somebody becomes a user",
    "reset": "make a link with which a user sets a new password",
    "disable": "end a user's right to sign in, and their sessions, invites and API tokens",
    "enable": "let a disabled user sign in again",
    "revoke-sessions": "sign a user out of every browser",
}


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Adds `list`, `invite` and so on below `lablink admin`."""
    verbs = parser.add_subparsers(dest="admin_verb", required=True, metavar="what")
    for verb, words in _VERBS.items():
        sub = verbs.add_parser(verb, help=words, description=words[0].upper() + words[1:] + ".")
        if verb != "list":
            sub.add_argument("name", help="the user's name")
        if verb == "invite":
            sub.add_argument("--role", choices=ROLES, default="viewer", help="what they may do (default: viewer)")
        if verb == "reset":
            sub.add_argument("--second-step", action="store_true", help="turn the second step off as well")
        sub.add_argument(
            "settings", nargs="*", metavar="key=value", help="settings, such as server.public_url=https://…"
        )
        sub.add_argument("--config", type=Path, help="a YAML file with settings")


def make_runner(given: argparse.Namespace) -> Callable[[Settings], int]:
    """What was asked for, to be run with the settings. Returns the exit status."""
    return lambda settings: asyncio.run(_run(given, settings))


async def _run(given: argparse.Namespace, settings: Settings) -> int:
    from backend.db.borrowed import borrow_database
    from backend.services.actor import Actor

    async with borrow_database(settings) as db:
        await _ACTS[given.admin_verb](db, given, settings, Actor.command_line(getpass.getuser()))
    return 0


async def _list(db: Database, given: argparse.Namespace, settings: Settings, actor: Actor) -> None:
    from backend.services.people import list_users
    from lablink_ui.words import count

    for user in await list_users(db):
        notes = ["disabled"] if user.disabled_at else []
        notes += ["second step"] if user.has_second_step else []
        notes += [f"signed in with {count(user.sessions, 'browser')}"] if user.sessions else []
        seen = f"last seen {user.last_seen_at:%Y-%m-%d %H:%M} UTC" if user.last_seen_at else "never signed in"
        print(f"{user.name:<24} {user.role:<9} {', '.join([*notes, seen])}")


async def _invite(db: Database, given: argparse.Namespace, settings: Settings, actor: Actor) -> None:
    from backend.services.invites import create_invite
    from backend.states import Role

    _, secret = await create_invite(db, given.name, Role(given.role), actor=actor)
    _print_link(settings, secret, f"{given.name} becomes {given.role} with this link, once, within three days:")


async def _reset(db: Database, given: argparse.Namespace, settings: Settings, actor: Actor) -> None:
    from backend.services.invites import create_reset
    from backend.services.people import get_user
    from backend.services.second_step import reset_second_step

    if given.second_step and (await get_user(db, given.name)).has_second_step:
        await reset_second_step(db, given.name, actor=actor)
        print(f"The second step of {given.name} is off.")
    _, secret = await create_reset(db, given.name, actor=actor)
    _print_link(settings, secret, f"{given.name} sets a new password with this link, once, within a day:")


async def _disable(db: Database, given: argparse.Namespace, settings: Settings, actor: Actor) -> None:
    from backend.services.people import disable_user

    await disable_user(db, given.name, actor=actor)
    print(f"{given.name} is disabled.")


async def _enable(db: Database, given: argparse.Namespace, settings: Settings, actor: Actor) -> None:
    from backend.services.people import enable_user

    await enable_user(db, given.name, actor=actor)
    print(f"{given.name} may sign in again.")


async def _revoke_sessions(db: Database, given: argparse.Namespace, settings: Settings, actor: Actor) -> None:
    from backend.services.admin_sessions import end_admin_sessions
    from lablink_ui.words import count

    number = await end_admin_sessions(db, given.name, actor=actor)
    print(f"{given.name} was signed out of {count(number, 'browser')}.")


def _print_link(settings: Settings, secret: str, words: str) -> None:
    print(f"{words}\n\n  {settings.public_url}/invite/{secret}\n")
    if settings.server.public_url is None:
        print("If your server has another address, put it in front of /invite/…, or give server.public_url=….")


_Act = Callable[["Database", argparse.Namespace, "Settings", "Actor"], Awaitable[None]]
_ACTS: dict[str, _Act] = {
    "list": _list,
    "invite": _invite,
    "reset": _reset,
    "disable": _disable,
    "enable": _enable,
    "revoke-sessions": _revoke_sessions,
}
