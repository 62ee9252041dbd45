"""Files that come with the product: inside the wheel when installed, else in the checkout."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def terraform_dir(provider: str) -> Path:
    """The Terraform module of a provider."""
    return _find("_terraform", "terraform") / provider


def assets_dir() -> Path:
    """Our fonts, style sheet and components."""
    return _find("_assets", "assets")


def requirements_dir() -> Path:
    """The locks of what is installed beside us."""
    return _find("_requirements", "requirements")


def _find(packed: str, plain: str) -> Path:
    return _HERE / packed if (_HERE / packed).is_dir() else _HERE.parent / plain
