"""What AWS says when it refuses, in sentences: what is wrong, and what to do next.

The codes: docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, and of every service:
docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# How Terraform's provider, botocore, and an instance that did not come up name a code.
_CODE = re.compile(r"api error ([\w.]+)|An error occurred \(([\w.]+)\)|Server\.(Insufficient\w+)")
_CALL = re.compile(r"operation error ([\w ]+): (\w+)|when calling the (\w+) operation")
# What they say where AWS was not even asked.
_NO_CREDENTIALS = ("No valid credential sources", "Unable to locate credentials", "no EC2 IMDS role found")
_NO_ANSWER = ("Could not connect to the endpoint", "Connect timeout on endpoint", "dial tcp")


@dataclass(frozen=True, slots=True)
class Failure:
    """``sentence`` and ``next_step`` are for people; ``is_of_place``: in another zone or of another type it may do."""

    code: str
    sentence: str
    next_step: str
    is_of_place: bool = False

    def __str__(self) -> str:
        return f"{self.sentence} ({self.code}). {self.next_step}"


def find_failure(said: str) -> Failure | None:
    """What is known of the first AWS error that a message of Terraform or botocore holds; None if nothing is."""
    for code in _list_codes(said):
        if code in _FAILURES:
            sentence, next_step, is_of_place = _FAILURES[code]
            return Failure(code, sentence.format(call=_call(said)), next_step, is_of_place)
    return None


def _list_codes(said: str) -> Iterator[str]:
    for match in _CODE.finditer(said):
        yield next(group for group in match.groups() if group)
    if any(each in said for each in _NO_CREDENTIALS):
        yield "NoCredentials"
    if any(each in said for each in _NO_ANSWER):
        yield "NoAnswer"


def _call(said: str) -> str:
    """What AWS was asked for, such as ``ec2:RunInstances``."""
    match = _CALL.search(said)
    if match is None:
        return "this"
    service, action, alone = match.groups()
    return alone or f"{service.lower().replace(' ', '')}:{action}"


_TRY_LATER = "Name more zones or instance types in the pool, or launch again later"
_RENEW = (
    "Renew the credentials that the server runs with (its role, its profile or its environment), then ask again. "
    "What exists stays as it is, and so does Terraform's state"
)
_QUOTA = "Ask for a higher one in AWS's Service Quotas, or destroy machines that nobody needs"
_ALLOW = "Add it to the policy of the server's role (README, permissions), then ask again"
_WAIT = "Ask again in a few minutes; whatever was made is kept"
_IN_POOL = "Correct the pool's specification, then launch again"

# What AWS says to credentials that it does not take.
REFUSED_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "AuthFailure",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
    }
)

# By code: what is wrong, what to do, and whether it is so only in this zone and for this type.
_GROUPS: tuple[tuple[tuple[str, ...], str, str, bool], ...] = (
    (
        (
            "InsufficientInstanceCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientCapacity",
        ),
        "AWS has no room for a machine of this type in this zone at the moment",
        _TRY_LATER,
        True,
    ),
    (("SpotMaxPriceTooLow",), "AWS sells no spot machine of this type in this zone at the moment", _TRY_LATER, True),
    (("Unsupported",), "AWS does not offer this instance type in this zone", _IN_POOL, True),
    (
        ("InsufficientFreeAddressesInSubnet",),
        "The subnet has no free address left",
        "Name another subnet or zone in the pool, or enlarge the network",
        True,
    ),
    (("VcpuLimitExceeded", "InstanceLimitExceeded"), "The account's quota for this type is used up", _QUOTA, False),
    (("MaxSpotInstanceCountExceeded",), "The account's quota for spot machines is used up", _QUOTA, False),
    (("VolumeLimitExceeded",), "The account's quota for volumes is used up", _QUOTA, False),
    (
        ("RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException", "SlowDown"),
        "AWS takes no more requests from this account for the moment, however often it was asked again",
        _WAIT,
        False,
    ),
    (
        ("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
        "AWS takes the server's credentials no longer: they have expired",
        _RENEW,
        False,
    ),
    (
        (
            "AuthFailure",
            "InvalidClientTokenId",
            "InvalidAccessKeyId",
            "UnrecognizedClientException",
            "SignatureDoesNotMatch",
        ),
        "AWS does not know the server's credentials",
        _RENEW,
        False,
    ),
    (("NoCredentials",), "The server has no credentials for AWS", _RENEW, False),
    (
        ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
        "AWS does not allow the server {call}",
        _ALLOW,
        False,
    ),
    (
        ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable", "ParameterNotFound"),
        "The pool's AMI is not there in this region",
        _IN_POOL,
        False,
    ),
    (("InvalidSubnetID.NotFound",), "The pool's subnet is not there in this region", _IN_POOL, False),
    (("InvalidVpcID.NotFound",), "The pool's VPC is not there in this region", _IN_POOL, False),
    (
        ("OptInRequired", "PendingVerification", "Blocked"),
        "AWS has not opened the account for this",
        "Sign in to AWS as the account's owner: it says there what is missing",
        False,
    ),
    (
        ("NoSuchBucket",),
        "The bucket that Terraform's states are in is not there",
        "Make it anew or correct aws.state_bucket; a lost state can be rebuilt",
        False,
    ),
    (
        ("InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable"),
        "AWS has a failure of its own",
        _WAIT,
        False,
    ),
    (("NoAnswer",), "AWS does not answer", "Look at the server's way to the internet, then ask again", False),
)
_FAILURES = {
    code: (sentence, f"{next_step}.", is_of_place)
    for codes, sentence, next_step, is_of_place in _GROUPS
    for code in codes
}
