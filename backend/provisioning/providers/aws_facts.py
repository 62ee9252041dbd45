"""What is to be known of EC2 beside Terraform. Only reads, but for one machine that an admin wants gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from backend.provisioning.aws.clients import AwsClients, said
from backend.provisioning.aws.ec2 import AwsFailed
from backend.provisioning.aws.failures import find_failure
from backend.provisioning.aws.imports import find_shared
from backend.provisioning.aws.machines import list_machines
from backend.provisioning.aws.preflight import Preflight
from backend.provisioning.aws.price_list import find_price_list, get_snapshot
from backend.provisioning.aws.state import StateBucket
from backend.provisioning.checks import Check
from backend.provisioning.machines import Machine
from backend.provisioning.providers.facts import Imports
from backend.provisioning.providers.local_facts import LocalFacts
from backend.provisioning.state_files import Content, StateFile
from backend.services.prices import PriceList
from backend.services.views import PoolView

# However slow AWS is: sweeps and pages do not wait longer for one answer.
PATIENCE_S = 60
_T = TypeVar("_T")


class AwsFacts:
    """One account and region. ``tags``: what marks machines as this server's."""

    def __init__(
        self, clients: AwsClients, *, tags: Mapping[str, str], server_url: str, bucket: StateBucket | None, pools: Path
    ) -> None:
        self._clients, self._tags, self._bucket = clients, dict(tags), bucket
        self._preflight = Preflight(clients, self._tags, server_url, bucket)
        self._files = LocalFacts(pools)

    async def preflight(self, pool: PoolView, count: int) -> list[Check]:
        """Credentials, permissions, type, AMI, addresses, quota, state, and the way back to the server."""
        return await self._preflight.look(pool, count)

    @property
    def price_snapshot(self) -> PriceList | None:
        """AWS's list prices of the day that this version was made."""
        return get_snapshot(self._clients.region)

    async def find_prices(self, kinds: Collection[str]) -> PriceList | None:
        """AWS's price list, where the account may ask for it."""
        return await asyncio.to_thread(find_price_list, self._clients, kinds)

    async def find_machines(self, ids: Collection[str] = ()) -> list[Machine] | None:
        """The instances with all of this server's tags, and those with these ids.

        Raises:
            AwsFailed
        """
        return await _ask(lambda: list_machines(self._clients, self._tags, ids))

    async def remove_machine(self, machine_id: str) -> None:
        """Terminates an instance that bears this server's tags.

        Raises:
            AwsFailed
        """

        def remove() -> None:
            if not any(each.id == machine_id and each.is_ours for each in list_machines(self._clients, self._tags)):
                raise AwsFailed(f"{machine_id} is not there, or is not this server's: it is left alone.")
            self._clients.get("ec2").terminate_instances(InstanceIds=[machine_id])

        await _ask(remove)

    async def find_imports(self, pool: PoolView, machines: Sequence[Machine]) -> Imports:
        """The instances, what they share, and the AMI that the pool holds.

        Raises:
            AwsFailed
        """
        shared = await _ask(lambda: find_shared(self._clients, self._tags, pool))
        ids = {f'aws_instance.vm["{each.hostname}"]': each.id for each in machines} | shared
        newest = max(machines, key=lambda each: each.started_at, default=None)
        return Imports(ids, {"held_ami": newest.image} if newest else {})

    async def list_states(self, pool: PoolView) -> list[StateFile]:
        """The versions in the bucket, or the files in the data directory.

        Raises:
            AwsFailed
        """
        bucket = self._bucket
        return await (_ask(lambda: bucket.list_files(pool)) if bucket else self._files.list_states(pool))

    async def read_state(self, pool: PoolView, name: str | None = None) -> Content:
        """One of them.

        Raises:
            AwsFailed
        """
        bucket = self._bucket
        return await (_ask(lambda: bucket.read(pool, name)) if bucket else self._files.read_state(pool, name))

    async def put_state_aside(self, pool: PoolView, suffix: str) -> None:
        """Beside where it was.

        Raises:
            AwsFailed
        """
        bucket = self._bucket
        await (_ask(lambda: bucket.put_aside(pool, suffix)) if bucket else self._files.put_state_aside(pool, suffix))


async def _ask(call: Callable[[], _T]) -> _T:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(call)
    except TimeoutError as exc:
        raise AwsFailed(f"AWS did not answer within {PATIENCE_S} s.") from exc
    except (ClientError, BotoCoreError) as exc:
        raise AwsFailed(str(find_failure(str(exc)) or f"AWS: {said(exc)}.")) from exc
