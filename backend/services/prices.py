"""Prices: what a machine costs an hour, by the pool's own word or by what its provider's machines cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Pool, Price
from backend.services.aws_spec import AwsSpec

POOLS_OWN = "the pool's own price"


@dataclass(frozen=True, slots=True)
class PriceView:
    """US dollars an hour for one VM, where that comes from, and since when it is known (None: it does not age)."""

    per_hour: float
    source: str
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class PriceList:
    """What a provider's machines cost by kind, in US dollars an hour. ``is_snapshot``: until the provider is asked."""

    region: str
    source: str
    as_of: datetime
    prices: Mapping[str, float]
    is_snapshot: bool = False


async def record_prices(db: Database, provider: str, listed: PriceList) -> None:
    """Stores a list. A snapshot fills gaps only, unless it is newer; another region's prices are forgotten."""
    if not listed.prices:
        return
    rows = [
        {
            "provider": provider,
            "kind": kind,
            "region": listed.region,
            "price_per_hour": Decimal(str(price)),
            "source": listed.source,
            "as_of": listed.as_of,
        }
        for kind, price in sorted(listed.prices.items())
    ]
    statement = insert(Price)
    changes = {name: statement.excluded[name] for name in ("region", "price_per_hour", "source", "as_of")}
    newer = statement.excluded.as_of >= Price.as_of
    async with db.transaction() as session:
        await session.execute(delete(Price).where(Price.provider == provider, Price.region != listed.region))
        await session.execute(
            statement.values(rows).on_conflict_do_update(
                index_elements=["provider", "kind"], set_=changes, where=newer if listed.is_snapshot else None
            )
        )


async def list_kinds(db: Database, provider: str) -> list[str]:
    """The kinds of machine that the pools of a provider may be made of."""
    async with db.transaction() as session:
        pools = await session.scalars(select(Pool).where(Pool.provider == provider))
        return sorted({kind for pool in pools for kind in AwsSpec.of(pool.aws).instance_types})


async def find_price(session: AsyncSession, pool: Pool, kind: str | None = None) -> PriceView | None:
    """What one VM of the pool costs: as the pool says, else a machine of its preferred kind; None if unknown."""
    if pool.price_per_hour:
        return PriceView(float(pool.price_per_hour), POOLS_OWN)
    if not pool.aws:
        return None
    wanted = kind or AwsSpec.of(pool.aws).instance_types[0]
    row = await session.get(Price, (pool.provider, wanted))
    if row is None:
        return None
    source = f"{row.source}, on demand: spot costs less" if AwsSpec.of(pool.aws).spot else row.source
    return PriceView(float(row.price_per_hour), source, row.as_of)
