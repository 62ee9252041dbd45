"""What was really asked of the local AWS, as the actions that a policy would have to allow."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from botocore.session import get_session

# Where S3's action is not named like its operation
# (docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html).
_S3_ACTIONS = {
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "HeadObject": "GetObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetBucketLifecycle": "GetLifecycleConfiguration",
    "PutBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "AbortMultipartUpload": "DeleteObject",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketAccelerateConfiguration": "GetAccelerateConfiguration",
    "GetBucketCors": "GetBucketCORS",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
}


def read_actions(recording: Path, key: str) -> set[str]:
    """The actions that were asked for with this access key, by a recording of moto's."""
    return {action for entry in _read_entries(recording.read_text()) if (action := _action(entry, key))}


def _read_entries(text: str) -> Iterator[dict[str, Any]]:
    """One object after another: two requests at once may end up on the same line, since moto ends it separately."""
    decoder, at = json.JSONDecoder(), 0
    while start := re.compile(r"\S").search(text, at):
        entry, at = decoder.raw_decode(text, start.start())
        yield entry


def _action(entry: dict[str, Any], key: str) -> str | None:
    headers = {name.lower(): value for name, value in entry["headers"].items()}
    signed = re.search(rf"Credential={key}/\d+/[^/]+/([^/]+)/aws4_request", headers.get("authorization", ""))
    if signed is None:
        return None
    service = signed[1]
    if "x-amz-target" in headers:
        return f"{service}:{headers['x-amz-target'].rpartition('.')[2]}"
    if service == "s3":
        operation = _s3_operation(entry)
        return f"s3:{_S3_ACTIONS.get(operation, operation)}"
    body = entry["body"] or ""
    text = base64.b64decode(body).decode() if entry["body_encoded"] else body
    return f"{service}:{parse_qs(text)['Action'][0]}"


def _s3_operation(entry: dict[str, Any]) -> str:
    """The operation of a REST request, by botocore's own model of S3: the one that fits most closely."""
    url = urlsplit(entry["url"])
    parts = [part for part in url.path.split("/") if part]
    asked = set(parse_qs(url.query, keep_blank_values=True))
    headers = {name.lower() for name in entry["headers"]}
    best, depth = "", -1
    for name, method, length, wanted in _s3_operations():
        if (name == "CopyObject") != ("x-amz-copy-source" in headers) or name == "WriteGetObjectResponse":
            continue
        is_there = method == entry["method"] and length == max(len(parts[:2]), 1)
        if is_there and wanted <= asked and len(wanted) > depth:
            best, depth = name, len(wanted)
    return best


@cache
def _s3_operations() -> list[tuple[str, str, int, set[str]]]:
    """Name, method, number of parts of the path, and what the query holds."""
    model = get_session().get_service_model("s3")
    operations = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, query = http["requestUri"].partition("?")
        wanted = set(parse_qs(query, keep_blank_values=True))
        operations.append((name, http["method"], len(path.strip("/").split("/")), wanted))
    return operations
