"""What a viewer or an operator may not do is refused by the services themselves, whatever page or route asked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import backend.services
from backend.db.engine import Database
from backend.errors import Forbidden
from backend.services.actor import Actor
from backend.services.enrolments import create_vm_enrolments
from backend.services.people import change_password, check_own_password
from backend.services.pools import ensure_pool
from backend.services.second_step import begin_second_step, confirm_second_step, end_own_second_step
from backend.states import Role

# Everybody may, with what is their own; each of these asks for the password or a code.
OWN = {change_password, check_own_password, begin_second_step, confirm_second_step, end_own_second_step}
# Called by our own rules and steps, or for a seat's holder who was found to be one, never for an admin who asks.
OURS = {create_vm_enrolments, ensure_pool}
OURS_BY_NAME = {
    "record_command_result",
    "record_command_progress",
    "record_exit",
    "request_terminal",
    "end_terminal",
    "agree_to_watch",
    "end_watch",
    "request_crd",
}
FOR_ADMINS = {
    "end_admin_session",
    "end_admin_sessions",
    "create_api_token",
    "revoke_api_token",
    "create_enrolments",
    "create_invite",
    "create_reset",
    "revoke_invite",
    "disable_user",
    "enable_user",
    "set_role",
    "create_pool",
    "set_pool_open",
    "update_pool",
    "reset_second_step",
    "record_state_download",
    "set_budget",
    "remove_budget",
    "lift_fuse",
}


def list_actions() -> list[Callable[..., Any]]:
    """Every service function that acts for somebody, in whatever module it stands."""
    found = []
    for each in pkgutil.iter_modules(backend.services.__path__):
        module = importlib.import_module(f"backend.services.{each.name}")
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction):
            parameters = list(inspect.signature(function).parameters)
            is_ours = function in OURS | OWN or name in OURS_BY_NAME
            if function.__module__ == module.__name__ and "actor" in parameters and parameters[0] == "db":
                found += [] if name.startswith("_") or is_ours else [function]
    return found


async def call(function: Callable[..., Any], db: Database, actor: Actor) -> None:
    """Calls it with nothing of use: who may not act is refused before anything else is looked at."""
    required = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.default is inspect.Parameter.empty and each.name not in {"db", "actor"}
    ]
    await function(db, **dict.fromkeys(required), actor=actor)


async def test_a_viewer_and_whoever_has_no_role_is_refused_every_action(db: Database) -> None:
    actions = list_actions()
    assert len(actions) >= 20
    for actor in (Actor.admin("val", role=Role.VIEWER), Actor.rule("any"), Actor.researcher("ada@lab.org")):
        for action in actions:
            with pytest.raises(Forbidden):
                await call(action, db, actor)


async def test_an_operator_is_refused_what_is_for_admins(db: Database) -> None:
    actions = {action.__name__: action for action in list_actions()}
    assert set(actions) >= FOR_ADMINS
    for name in FOR_ADMINS:
        with pytest.raises(Forbidden):
            await call(actions[name], db, Actor.admin("oli", role=Role.OPERATOR))
