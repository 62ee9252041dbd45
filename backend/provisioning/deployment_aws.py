"""What `lablink deploy` asks of AWS beside Terraform: the buckets and the secret that outlive a deployment."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from backend.errors import LabLinkError, NotFound
from backend.provisioning.aws.clients import make_client

_P = ParamSpec("_P")
_T = TypeVar("_T")


class AwsRefused(LabLinkError):
    """AWS did not do what it was asked; says which call and why."""

    code = "aws_refused"


def _told_plainly(ask: Callable[_P, _T]) -> Callable[_P, _T]:
    @wraps(ask)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return ask(*args, **kwargs)
        except ClientError as exc:
            said = exc.response["Error"]
            raise AwsRefused(f"AWS ({exc.operation_name}): {said.get('Message') or said['Code']}") from exc
        except BotoCoreError as exc:
            raise AwsRefused(f"AWS cannot be asked: {exc}") from exc

    return asked


class Account:
    """The account that the environment's credentials belong to, in one region. Blocking: to be called in a thread."""

    def __init__(self, region: str) -> None:
        self.region = region

    @cached_property
    def number(self) -> str:
        """The account's number."""
        return str(self._client("sts").get_caller_identity()["Account"])

    @_told_plainly
    def check(self) -> str:
        """The account's number, once AWS has let us in.

        Raises:
            AwsRefused
        """
        return self.number

    def state_bucket(self, environment: str) -> str:
        """The name of the bucket for Terraform's state."""
        return f"lablink-state-{self.number}-{self.region}-{environment}"

    def backup_bucket(self, environment: str) -> str:
        """The name of the bucket for backups (terraform/allocator/backup.tf)."""
        return f"lablink-backup-{self.number}-{self.region}-{environment}"

    @_told_plainly
    def ensure_state_bucket(self, environment: str) -> str:
        """Makes the bucket for Terraform's state, versioned, encrypted and private; returns its name.

        Raises:
            AwsRefused
        """
        name, s3 = self.state_bucket(environment), self._client("s3")
        if not self._has_bucket(name):
            # The oldest region takes no location (docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html).
            place = {} if self.region == "us-east-1" else {"LocationConstraint": self.region}
            s3.create_bucket(Bucket=name, **({"CreateBucketConfiguration": place} if place else {}))
        s3.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
        return name

    @_told_plainly
    def get_state_bucket(self, environment: str) -> str:
        """The name of the bucket for Terraform's state.

        Raises:
            NotFound: it was not made yet.
            AwsRefused
        """
        name = self.state_bucket(environment)
        if not self._has_bucket(name):
            raise NotFound(f"There is no bucket for the state yet: lablink deploy bootstrap {environment}")
        return name

    @_told_plainly
    def list_kept(self, environment: str) -> dict[str, str]:
        """The bucket for backups and the secret's ARN, by their addresses in Terraform, where they are.

        Raises:
            AwsRefused
        """
        bucket, secret = self.backup_bucket(environment), self._find_secret(environment)
        kept = {"aws_s3_bucket.backup": bucket} if self._has_bucket(bucket) else {}
        return kept | ({"aws_secretsmanager_secret.server": secret} if secret else {})

    @_told_plainly
    def empty_backup_bucket(self, environment: str) -> None:
        """Deletes every backup, in all its versions.

        Raises:
            AwsRefused
        """
        name, s3 = self.backup_bucket(environment), self._client("s3")
        if not self._has_bucket(name):
            return
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=name):
            found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if found:
                which = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
                s3.delete_objects(Bucket=name, Delete={"Objects": which, "Quiet": True})

    @_told_plainly
    def remove_kept(self, environment: str) -> None:
        """Deletes what an earlier destroy left: the bucket, which must be empty by now, and the secret.

        Raises:
            AwsRefused
        """
        bucket, secret = self.backup_bucket(environment), self._find_secret(environment)
        if self._has_bucket(bucket):
            self._client("s3").delete_bucket(Bucket=bucket)
        if secret:
            self._client("secretsmanager").delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)

    def _find_secret(self, environment: str) -> str | None:
        try:
            found = self._client("secretsmanager").describe_secret(SecretId=f"lablink-allocator-{environment}")
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "ResourceNotFoundException":
                return None
            raise
        return None if found.get("DeletedDate") else str(found["ARN"])

    def _has_bucket(self, name: str) -> bool:
        try:
            self._client("s3").head_bucket(Bucket=name)
        except ClientError as exc:
            if exc.response["Error"]["Code"] == "404":
                return False
            raise
        return True

    def _client(self, service: str) -> Any:
        return make_client(service, self.region)
