"""Answers of AWS that a local one does not give: real clients with botocore's Stubber."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore.stub import Stubber

from backend.provisioning.aws.clients import AwsClients, make_client
from tests.harness.local_aws import REGION, LocalAws

Prepare = Callable[[Stubber], None]


class StubbedClients(AwsClients):
    """The local AWS's clients; some services answer as told instead, each from the start whenever it is asked for."""

    def __init__(self, aws: LocalAws, **services: Prepare) -> None:
        super().__init__(REGION, endpoint_url=aws.url)
        self._services = {name.replace("_", "-"): prepare for name, prepare in services.items()}

    def get(self, service: str, region: str | None = None) -> Any:
        prepare = self._services.get(service)
        if prepare is None:
            return super().get(service, region)
        secrets = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        client = make_client(service, region or REGION, **secrets)
        stubber = Stubber(client)
        prepare(stubber)
        stubber.activate()
        return client


def quota(value: float, code: str = "L-DB2E81BA") -> Prepare:
    """One of EC2's quotas."""

    def prepare(stubber: Stubber) -> None:
        wanted = {"ServiceCode": "ec2", "QuotaCode": code}
        stubber.add_response("get_service_quota", {"Quota": {"QuotaCode": code, "Value": value}}, wanted)

    return prepare


def denied(call: str, code: str = "AccessDeniedException") -> Prepare:
    """AWS refuses to tell."""
    return lambda stubber: stubber.add_client_error(call, code, "You may not", 400)


def prices(**by_type: float) -> Prepare:
    """Products of the price list, as AWS writes them; ``g4dn_xlarge`` is ``g4dn.xlarge``."""

    def prepare(stubber: Stubber) -> None:
        for name, price in sorted(by_type.items()):
            dimension = {"unit": "Hrs", "pricePerUnit": {"USD": f"{price:.10f}"}}
            terms = {"OnDemand": {"T.1": {"priceDimensions": {"T.1.1": dimension}}}}
            product = {"product": {"attributes": {"instanceType": name.replace("_", ".")}}, "terms": terms}
            stubber.add_response("get_products", {"PriceList": [json.dumps(product)]})

    return prepare
