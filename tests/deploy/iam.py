"""A small reader of IAM policies: what one allows, by actions, resources and plain conditions; a deny wins.

It knows what our policies use (docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html), and refuses
what it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

_TESTS = {"StringEquals", "StringLike", "Bool"}


class Policy:
    """One or more policy documents, read together."""

    def __init__(self, *documents: Mapping[str, Any]) -> None:
        self.statements = [each for document in documents for each in document["Statement"]]

    def allows(self, action: str, resource: str, **context: str) -> bool:
        """Whether it allows ``action`` on ``resource`` (an ARN).

        Keys of the context: ``aws__RequestTag__Name`` stands for ``aws:RequestTag/Name``.
        """
        told = {name.replace("__", ":", 1).replace("__", "/"): value for name, value in context.items()}
        effects = {each["Effect"] for each in self.statements if _fits(each, action, resource, told)}
        return effects == {"Allow"}

    def names(self, action: str) -> bool:
        """Whether it allows ``action`` on anything at all."""
        return any(action in listed(each["Action"]) for each in self.statements if each["Effect"] == "Allow")

    def actions(self) -> Iterator[str]:
        """Every action that is named."""
        for statement in self.statements:
            yield from listed(statement["Action"])


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _fits(statement: Mapping[str, Any], action: str, resource: str, told: Mapping[str, str]) -> bool:
    conditions = statement.get("Condition", {})
    assert set(conditions) <= _TESTS, conditions
    return (
        any(fnmatchcase(action, each) for each in listed(statement["Action"]))
        and any(fnmatchcase(resource, each) for each in listed(statement["Resource"]))
        and all(
            any(fnmatchcase(told.get(key, ""), value) for value in listed(values))
            for wanted in conditions.values()
            for key, values in wanted.items()
        )
    )
