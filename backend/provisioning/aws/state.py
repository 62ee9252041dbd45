"""Terraform's states in an S3 bucket: whether it can be used, and their versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from backend.provisioning.aws.clients import DENIED, AwsClients, error_code, said
from backend.provisioning.checks import Check, ok, problem, warning
from backend.provisioning.state_files import Content, StateFile
from backend.services.views import PoolView

STATE = "State"
_ABSENT = {"404", "NoSuchKey", "NotFound"}


@dataclass(frozen=True)
class StateBucket:
    """The bucket of all pools' states. ``key_of`` names a pool's, as its backend does."""

    clients: AwsClients
    name: str
    environment: str

    def key_of(self, pool: PoolView) -> str:
        """Where a pool's state is."""
        return f"pools/{self.environment}/{pool.id}-{pool.name}.tfstate"

    def check(self, pool: PoolView) -> Check:
        """Whether the bucket and the pool's lock can be reached."""
        s3 = self.clients.get("s3")
        try:
            s3.head_bucket(Bucket=self.name)
        except ClientError as exc:
            return _no_bucket(self.name, exc)
        lock = self._read_lock(pool)
        if lock:
            who, since = lock.get("Who", "somebody"), str(lock.get("Created", "an unknown time"))[:19]
            remedy = "Wait for it to end. If it is dead: terraform force-unlock, in the pool's directory."
            return warning(STATE, f"The state is locked by {who} since {since} ({lock.get('Operation', '')}).", remedy)
        if s3.get_bucket_versioning(Bucket=self.name).get("Status") != "Enabled":
            remedy = "Turn on versioning, so that a damaged state has former versions."
            return warning(STATE, f"The bucket {self.name} keeps no former versions.", remedy)
        return ok(STATE, f"The bucket {self.name} is there, and nobody holds the pool's lock.")

    def list_files(self, pool: PoolView) -> list[StateFile]:
        """The state and its former versions, the newest first."""
        key = self.key_of(pool)
        pages = self.clients.get("s3").get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=key)
        found = [each for page in pages for each in page.get("Versions", []) if each["Key"] == key]
        found.sort(key=lambda each: each["LastModified"], reverse=True)
        return [
            StateFile(
                str(each["VersionId"]), each["LastModified"], int(each["Size"]), is_current=bool(each["IsLatest"])
            )
            for each in found
        ]

    def read(self, pool: PoolView, name: str | None = None) -> Content:
        """The state, or a former version; None where there is none."""
        chosen = {"VersionId": name} if name else {}
        try:
            answer = self.clients.get("s3").get_object(Bucket=self.name, Key=self.key_of(pool), **chosen)
        except ClientError as exc:
            if error_code(exc) in _ABSENT | {"NoSuchVersion", "InvalidArgument"}:
                return None
            raise
        content: bytes = answer["Body"].read()
        return content

    def put_aside(self, pool: PoolView, suffix: str) -> None:
        """Moves a state that cannot be used out of the way, beside where it was."""
        s3, key = self.clients.get("s3"), self.key_of(pool)
        source = {"Bucket": self.name, "Key": key}
        s3.copy_object(Bucket=self.name, Key=f"{key}.{suffix}", CopySource=source, ServerSideEncryption="AES256")
        s3.delete_object(**source)

    def _read_lock(self, pool: PoolView) -> Mapping[str, Any]:
        try:
            answer = self.clients.get("s3").get_object(Bucket=self.name, Key=f"{self.key_of(pool)}.tflock")
            lock: Mapping[str, Any] = json.loads(answer["Body"].read())
        except ClientError as exc:
            if error_code(exc) in _ABSENT:
                return {}
            raise
        except ValueError:
            return {"Who": "something that is not Terraform"}
        return lock


def _no_bucket(name: str, exc: ClientError) -> Check:
    code = error_code(exc)
    if code in _ABSENT:
        return problem(STATE, f"There is no bucket {name}.", "Make it (lablink deploy does), or set aws.state_bucket.")
    if code in DENIED:
        return problem(STATE, f"The server may not use the bucket {name}.", "Attach the README's policy to its role.")
    return problem(STATE, f"The bucket {name} cannot be reached: {said(exc)}.", "Look at its name and region.")
