"""What every table shares."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, MetaData, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

Id = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
Big = Annotated[int, mapped_column(BigInteger)]
When = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Words = Annotated[str, mapped_column(Text)]
Json = Annotated[dict[str, Any], mapped_column(JSONB)]


class Base(DeclarativeBase):
    """The declarative base; constraint names follow one convention so that services can recognise them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def one_of(column: str, members: Iterable[StrEnum]) -> CheckConstraint:
    """A CHECK that ``column`` holds a member of an enum."""
    return CheckConstraint(f"{column} IN ({quoted(members)})", name=column)


def quoted(members: Iterable[StrEnum]) -> str:
    """The members as a list of SQL literals, sorted, for constraints and partial indexes."""
    return ", ".join(f"'{member}'" for member in sorted(members))
