"""What EC2 instances cost, as a snapshot: dollars an hour, on demand, Linux, shared tenancy; no disks, no traffic.

Source: AWS's public list prices (aws.amazon.com/ec2/pricing/on-demand), as of AS_OF. They change; where the account may
ask AWS's price list, its answer takes their place. What is not listed here was not known for certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

AS_OF = date(2025, 6, 1)
_US = ("us-east-1", "us-east-2", "us-west-2")
_SIZES = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8}
# Alike in the three large regions of the United States.
_IN_US: Mapping[str, float] = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.8xlarge": 2.176,
    "g4dn.12xlarge": 3.912,
    "g4dn.16xlarge": 4.352,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.8xlarge": 2.448,
    "g5.12xlarge": 5.672,
    "g5.16xlarge": 4.096,
    "g5.24xlarge": 8.144,
    "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.8xlarge": 2.0144,
    "g6.12xlarge": 4.6016,
    "g6.16xlarge": 3.3968,
    "g6.24xlarge": 6.6752,
    "g6.48xlarge": 13.3504,
    "p3.2xlarge": 3.06,
    "p3.8xlarge": 12.24,
    "p3.16xlarge": 24.48,
}
# Families whose price doubles from size to size, from ``large`` on.
_LARGE: Mapping[str, Mapping[str, float]] = {
    "t3": {**dict.fromkeys(_US, 0.0832), "eu-west-1": 0.0912, "eu-central-1": 0.096},
    "m5": {**dict.fromkeys(_US, 0.096), "eu-west-1": 0.107, "eu-central-1": 0.115},
}


def list_prices(region: str) -> dict[str, float]:
    """The prices of a region by instance type; empty where none is known."""
    listed = dict(_IN_US) if region in _US else {}
    for family, regions in _LARGE.items():
        if region in regions:
            sizes = {size: factor for size, factor in _SIZES.items() if family != "t3" or size != "4xlarge"}
            listed |= {f"{family}.{size}": round(regions[region] * factor, 4) for size, factor in sizes.items()}
    return listed
