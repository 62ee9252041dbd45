"""What a local AWS (moto) is used with: region, credentials, and where Terraform finds its real AWS provider."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REGION = "us-east-1"
# One that moto knows without being told.
AMI_PARAMETER = "/aws/service/ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    # Nobody's profile, and no look at a metadata address that is not there.
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
MIRROR_VARIABLE = "LABLINK_TERRAFORM_MIRROR"
_PROVIDER = Path("registry.terraform.io/hashicorp/aws")
# Where Terraform itself looks (developer.hashicorp.com/terraform/cli/config/config-file, "Implied Local Mirror").
_OWN_FOLDERS = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
)
_SEARCHED, _DEEP = ("/opt", "/usr/local", "/usr/lib", "/usr/share", "/srv", "/var/lib", "/var/cache", "~"), 4


def write_cli_config(directory: Path) -> Path:
    """Terraform's CLI configuration: providers from a mirror on this disk, where there is one, else the registry."""
    mirror, file = find_mirror(), directory / "terraform.rc"
    cache_dir = directory.parent / "terraform-plugins"
    cache_dir.mkdir(exist_ok=True)
    file.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'
        if mirror
        else f'plugin_cache_dir = "{cache_dir}"\n',
        encoding="utf-8",
    )
    return file


@cache
def find_mirror() -> Path | None:
    """A folder with the AWS provider for this machine: ``registry.terraform.io/hashicorp/aws/VERSION/OS_ARCH``."""
    named = os.environ.get(MIRROR_VARIABLE)
    candidates = [Path(each).expanduser() for each in ((named,) if named else ()) + _OWN_FOLDERS]
    return next((each for each in (*candidates, *_search()) if _holds_provider(each)), None)


def _holds_provider(mirror: Path) -> bool:
    return any((mirror / _PROVIDER).glob(f"*/{_platform()}"))


def _search() -> Iterator[Path]:
    """Every parent of a ``registry.terraform.io`` in the usual places, not too deep."""
    for root in (Path(each).expanduser() for each in _SEARCHED):
        for here, folders, _ in os.walk(root):
            if _PROVIDER.parts[0] in folders:
                yield Path(here)
            if len(Path(here).relative_to(root).parts) >= _DEEP:
                folders.clear()


def _platform() -> str:
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    return f"{platform.system().lower()}_{machine.get(platform.machine().lower(), 'unknown')}"
