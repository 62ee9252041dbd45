"""What machines cost: the pool's own word, AWS's price list where it may be asked, else the snapshot with its date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from backend import aws_prices
from backend.db.engine import Database
from backend.db.notices import NoticeListener
from backend.live.read_model import ReadModel
from backend.provisioning.aws.price_list import find_price_list, get_snapshot
from backend.services.aws_spec import AwsSpec
from backend.services.costs import get_costs, preview_launch
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, ensure_pool, get_pool
from backend.services.prices import PriceList, record_prices
from backend.services.vms import list_vms
from backend.tasks.reconcile import Reconciler
from tests.aws.stubs import StubbedClients, denied, prices
from tests.aws.test_ec2 import make_provider
from tests.harness.local_aws import LocalAws
from tests.services.worlds import ADMIN

TYPES = ("g4dn.xlarge", "g5.xlarge")


async def make_pool(db: Database, name: str, **figures: object) -> None:
    spec = PoolSpec(provider="aws", providers=("aws",), aws=AwsSpec(instance_types=TYPES), **figures)  # type: ignore[arg-type]
    await ensure_pool(db, name, spec, actor=ADMIN)


def at(day: int) -> datetime:
    return datetime(2026, 1, day, tzinfo=UTC)


def test_the_snapshot_has_a_date_and_prices_that_grow_with_the_size() -> None:
    listed = aws_prices.list_prices("us-east-1")
    assert aws_prices.AS_OF.year >= 2025
    assert listed["g4dn.xlarge"] == 0.526
    assert listed["t3.2xlarge"] == 0.3328
    assert aws_prices.list_prices("eu-central-1")["m5.4xlarge"] == 0.92
    assert "t3.4xlarge" not in listed
    assert aws_prices.list_prices("xx-nowhere-1") == {}
    assert get_snapshot("us-east-1").is_snapshot


async def test_a_launch_costs_what_the_snapshot_says_and_its_date_is_told(
    db: Database, aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The local AWS has no price list, as an account may have none that it may ask."""
    await make_pool(db, "gpu")
    assert (await preview_launch(db, "gpu", 1)).price is None
    provider = make_provider(tmp_path, aws, monkeypatch)
    await Reconciler(db, {"aws": provider}, ReadModel(db, NoticeListener(db.conninfo))).read_prices()
    seen = await preview_launch(db, "gpu", 4, hours=8)
    assert seen.price is not None
    assert (seen.price.per_hour, seen.price.source) == (0.526, "snapshot of AWS's list prices")
    assert seen.price.as_of is not None
    assert seen.price.as_of.date() == aws_prices.AS_OF
    assert (round(seen.per_hour, 4), round(seen.planned, 4)) == (2.104, 16.832)


async def test_vms_keep_the_price_of_the_day_they_were_launched_unless_their_pool_names_one(
    db: Database, clock
) -> None:
    await make_pool(db, "gpu")
    await make_pool(db, "own", price_per_hour=0.4)
    await record_prices(db, "aws", PriceList("us-east-1", "AWS's price list", at(1), {"g4dn.xlarge": 0.5}))
    await request_launch(db, "gpu", 2, actor=ADMIN)
    await request_launch(db, "own", 1, actor=ADMIN)
    await record_prices(db, "aws", PriceList("us-east-1", "AWS's price list", at(2), {"g4dn.xlarge": 0.7}))
    await request_launch(db, "gpu", 1, actor=ADMIN)
    assert {vm.hostname: vm.price_per_hour for vm in await list_vms(db)} == {
        "gpu-001": 0.5,
        "gpu-002": 0.5,
        "gpu-003": 0.7,
        "own-001": 0.4,
    }
    costs, ids = await get_costs(db), {name: (await get_pool(db, name)).id for name in ("gpu", "own")}
    assert round(costs.per_hour, 4) == 2.1
    assert {name: round(costs.by_pool[number].per_hour, 4) for name, number in ids.items()} == {"gpu": 1.7, "own": 0.4}
    clock.advance(60)
    assert (await get_costs(db)).today >= costs.today
    assert Decimal("0.4") == Decimal(str((await preview_launch(db, "own", 1)).per_hour))


async def test_a_snapshot_never_takes_the_place_of_what_aws_said_later_and_a_region_has_its_own(db: Database) -> None:
    await make_pool(db, "gpu")

    async def price() -> float | None:
        seen = (await preview_launch(db, "gpu", 1)).price
        return seen.per_hour if seen else None

    said = PriceList("us-east-1", "AWS's price list", at(10), {"g4dn.xlarge": 0.5})
    snapshot = PriceList("us-east-1", "snapshot", at(5), {"g4dn.xlarge": 0.6}, is_snapshot=True)
    await record_prices(db, "aws", snapshot)
    assert await price() == 0.6
    await record_prices(db, "aws", said)
    await record_prices(db, "aws", snapshot)
    assert await price() == 0.5
    newer = PriceList("us-east-1", "snapshot", at(10) + timedelta(days=1), {"g4dn.xlarge": 0.55}, is_snapshot=True)
    await record_prices(db, "aws", newer)
    assert await price() == 0.55
    await record_prices(db, "aws", PriceList("eu-west-1", "AWS's price list", at(1), {"g5.xlarge": 1.1}))
    assert await price() is None


def test_the_price_list_is_read_as_aws_writes_it_and_a_refusal_is_no_error(aws: LocalAws) -> None:
    told = find_price_list(StubbedClients(aws, pricing=prices(g4dn_xlarge=0.526)), ["g4dn.xlarge"])
    assert told is not None
    assert (told.prices, told.is_snapshot) == ({"g4dn.xlarge": 0.526}, False)
    assert find_price_list(StubbedClients(aws, pricing=denied("get_products")), ["g4dn.xlarge"]) is None
    unknown = find_price_list(
        StubbedClients(aws, pricing=lambda stubber: stubber.add_response("get_products", {"PriceList": []})), ["q9"]
    )
    assert unknown is not None
    assert unknown.prices == {}
