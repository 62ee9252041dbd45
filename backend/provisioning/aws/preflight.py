"""Before a launch on AWS: everything that can be asked without making anything, side by side, within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as AwsConnectionError

from backend.provisioning.aws.capacity import Capacity, Places
from backend.provisioning.aws.clients import DENIED, AwsClients, error_code, said
from backend.provisioning.aws.state import StateBucket
from backend.provisioning.checks import Check, ok, problem, warning
from backend.services.views import PoolView

# For all of them together: a page waits for this.
PATIENCE_S = 20
CREDENTIALS, PERMISSIONS, ADDRESS = "Credentials", "Permissions", "Server address"
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_NETWORK = "Look at the network between here and AWS, and at aws.region."
_LATE = "AWS did not answer in time."
_READ = "Allow what the README's policy lists to read, or launch without knowing."


@dataclass(frozen=True)
class Preflight:
    """Looks at one account and region. ``tags``: what marks machines as this server's."""

    clients: AwsClients
    tags: Mapping[str, str]
    server_url: str
    bucket: StateBucket | None

    async def look(self, pool: PoolView, count: int) -> list[Check]:
        """One line for each thing that a launch of ``count`` VMs depends on. Changes nothing, on AWS neither."""
        credentials = await _within(CREDENTIALS, self._check_credentials)
        if credentials.status != "ok":
            # Nothing else can be asked; and whoever mends them is not told of the former ones once more.
            self.clients.forget()
            return [credentials]
        places = Places(self.clients, pool.aws)
        capacity = Capacity(self.clients, pool.aws, places, count)
        found = await asyncio.gather(
            _within(PERMISSIONS, lambda: self._check_permissions(pool, places)),
            *(_within(name, check) for name, check in capacity.checks.items()),
            _within("State", lambda: self._check_state(pool)),
        )
        return [credentials, *found, self._check_address()]

    def _check_credentials(self) -> Check:
        try:
            who = self.clients.get("sts").get_caller_identity()
        except (HTTPClientError, AwsConnectionError) as exc:
            return problem(CREDENTIALS, f"AWS cannot be reached: {said(exc)}.", _NETWORK)
        except (ClientError, BotoCoreError) as exc:
            return problem(
                CREDENTIALS,
                f"AWS does not take the server's credentials: {said(exc)}.",
                "Give the server a role, a profile or keys that are valid (aws sts get-caller-identity shows whether "
                "they are), and restart it if they come from its environment.",
            )
        return ok(CREDENTIALS, f"The server acts as {who['Arn']} in account {who['Account']}.")

    def _check_permissions(self, pool: PoolView, places: Places) -> Check:
        """AWS says of a dry run whether it would have been allowed (…/APIReference/API_RunInstances.html, DryRun)."""
        denied = []
        for action, dry_run in {
            "ec2:RunInstances": lambda: self._try_run(pool, places),
            "ec2:CreateSecurityGroup": lambda: self.clients.get("ec2").create_security_group(
                GroupName=f"lablink-{pool.name}-preflight", Description="LabLink", DryRun=True
            ),
        }.items():
            code, message = _try(dry_run)
            if code in DENIED:
                denied.append(action)
            elif code not in {"", "DryRunOperation"}:
                remedy = "Mend what it names, in the pool's specification or in the account."
                return warning(PERMISSIONS, f"Whether {action} is allowed could not be tried: {message}.", remedy)
        if denied:
            remedy = "Attach the policy in the README's deployment guide to the server's role."
            return problem(PERMISSIONS, f"The server may not use {' or '.join(denied)}.", remedy)
        return ok(PERMISSIONS, "A dry run says that machines may be made. (IAM offers none for roles and profiles.)")

    def _try_run(self, pool: PoolView, places: Places) -> None:
        placement, subnets = places.first
        tags = [{"Key": name, "Value": value} for name, value in {**self.tags, "Pool": pool.name}.items()]
        self.clients.get("ec2").run_instances(
            ImageId=places.image["ImageId"],
            InstanceType=placement.instance_type,
            MinCount=1,
            MaxCount=1,
            DryRun=True,
            TagSpecifications=[{"ResourceType": each, "Tags": tags} for each in ("instance", "volume")],
            **({"SubnetId": subnets[0]["SubnetId"]} if subnets else {}),
        )

    def _check_state(self, pool: PoolView) -> Check:
        if self.bucket is None:
            return ok("State", "Terraform's state is kept in the server's data directory; back that up.")
        return self.bucket.check(pool)

    def _check_address(self) -> Check:
        host = urlsplit(self.server_url).hostname or ""
        if host in _LOCAL_HOSTS or host.startswith("127."):
            remedy = "Set server.public_url to an address that machines on AWS can reach."
            return warning(
                ADDRESS, f"Agents will be told to report to {self.server_url}, which is this computer.", remedy
            )
        return ok(ADDRESS, f"Agents will report to {self.server_url}.")


async def _within(name: str, check: Callable[[], Check]) -> Check:
    """The check's line; a warning if AWS will not tell: what cannot be known does not stop a launch."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.to_thread(check)
    except TimeoutError:
        return warning(name, _LATE, _NETWORK)
    except ClientError as exc:
        if error_code(exc) in DENIED:
            return warning(name, f"The server may not look at this ({exc.operation_name}).", _READ)
        return warning(name, f"AWS would not tell: {said(exc)}.", "Look again in a moment.")
    except BotoCoreError as exc:
        return warning(name, f"AWS could not be asked: {said(exc)}.", "Look again in a moment.")


def _try(call: Callable[[], object]) -> tuple[str, str]:
    """AWS's word and sentence for what came of a call."""
    try:
        call()
    except ClientError as exc:
        return error_code(exc), said(exc)
    return "", ""
