"""What instances cost in a region: by AWS's price list where the account may ask for it, else by the snapshot."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from backend import aws_prices
from backend.provisioning.aws.clients import AwsClients, said
from backend.services.prices import PriceList

# The price list is served from here for all regions (docs.aws.amazon.com/general/latest/gr/billing.html).
PRICES_REGION = "us-east-1"
_WHICH = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}

logger = logging.getLogger(__name__)


def get_snapshot(region: str) -> PriceList:
    """The prices that this version of LabLink came with."""
    as_of = datetime.combine(aws_prices.AS_OF, time(), UTC)
    return PriceList(region, "snapshot of AWS's list prices", as_of, aws_prices.list_prices(region), is_snapshot=True)


def find_price_list(clients: AwsClients, kinds: Collection[str]) -> PriceList | None:
    """What AWS says now about these instance types; None where it does not tell. Waits for AWS."""
    prices: dict[str, float] = {}
    try:
        for kind in kinds:
            prices |= _read_price(clients, kind)
    except (ClientError, BotoCoreError) as exc:
        logger.info("AWS's price list could not be asked, so the snapshot is used: %s", said(exc))
        return None
    return PriceList(clients.region, "AWS's price list", datetime.now(UTC), prices)


def _read_price(clients: AwsClients, kind: str) -> dict[str, float]:
    wanted = {**_WHICH, "regionCode": clients.region, "instanceType": kind}
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in wanted.items()]
    pages = clients.get("pricing", PRICES_REGION).get_paginator("get_products")
    found = [
        price
        for page in pages.paginate(ServiceCode="AmazonEC2", Filters=filters)
        for product in page["PriceList"]
        for price in _prices_of(json.loads(product))
    ]
    return {kind: max(found)} if found else {}


def _prices_of(product: Mapping[str, Any]) -> Iterator[float]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            price = float(dimension["pricePerUnit"].get("USD", 0))
            if dimension["unit"] == "Hrs" and price > 0:
                yield price
