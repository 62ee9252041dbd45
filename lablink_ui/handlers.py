"""Handlers: NiceGUI asks of each whether it takes arguments, by its signature; here the answer is remembered.

It asks three times for every element of every page, always of the same few functions: a fifth of what a page cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import ismethod
from types import CodeType, FunctionType
from typing import Any

from nicegui import helpers

_ask = helpers.expects_arguments


def remember_handlers() -> None:
    """From here on the signature of each function is looked at once."""
    helpers.expects_arguments = expects_arguments


def expects_arguments(func: Callable[..., Any]) -> bool:
    """Whether a function has parameters that must be given, as NiceGUI's own ``helpers.expects_arguments`` says it."""
    plain = func.__func__ if ismethod(func) else func
    # What says of itself that it is like another (functools.wraps) is asked anew.
    if type(plain) is not FunctionType or plain.__dict__:
        return _ask(func)
    defaults, named = len(plain.__defaults__ or ()), frozenset(plain.__kwdefaults__ or ())
    return _look(plain.__code__, int(ismethod(func)), defaults, named)


@cache
def _look(code: CodeType, bound: int, defaults: int, named_defaults: frozenset[str]) -> bool:
    """By the code, which all closures of one function share."""
    named = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return code.co_argcount - defaults > bound or bool(set(named) - named_defaults)
