"""What is remembered of a handler is what NiceGUI itself would find out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from nicegui import helpers, observables

from lablink_ui import handlers


class Thing:
    def none(self) -> None: ...

    def one(self, event: object) -> None: ...

    def one_of_old(self, event: object = None) -> None: ...

    def any(self, *events: object, **more: object) -> None: ...

    def named(self, *, event: object) -> None: ...

    def named_of_old(self, *, event: object = None) -> None: ...

    @classmethod
    def of_class(cls, event: object) -> None: ...

    @staticmethod
    def of_nobody(event: object) -> None: ...

    def __call__(self, event: object) -> None: ...


@functools.wraps(Thing.none)
def like_another(*given: object) -> None: ...


THING = Thing()
HANDLERS: list[Callable[..., Any]] = [
    *(getattr(THING, name) for name in vars(Thing) if not name.startswith("__")),
    *(vars(Thing)[name] for name in ("none", "one", "one_of_old", "any", "named", "named_of_old")),
    THING,
    like_another,
    functools.partial(THING.one, 1),
    functools.partial(THING.one),
    lambda: None,
    lambda event: None,
    lambda event=None: None,
    print,
]


@pytest.mark.parametrize("handler", HANDLERS)
def test_it_is_the_answer_that_nicegui_gives(handler: Callable[..., Any]) -> None:
    assert handlers.expects_arguments(handler) == handlers._ask(handler)
    # And again, from memory.
    assert handlers.expects_arguments(handler) == handlers._ask(handler)


def test_nicegui_asks_here(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(handlers, "_look", lambda *about: asked.append(about) or False)
    monkeypatch.setattr(helpers, "expects_arguments", helpers.expects_arguments)
    handlers.remember_handlers()
    observables.ObservableList(on_change=THING.none)
    assert len(asked) == 1
