"""Who does a thing, and from where: written beside every event."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """``name`` reads as ``admin:kim``, ``agent:default-001``, ``researcher:ada@lab.org``, ``rule:boot_deadline``."""

    name: str
    address: str | None = None

    @classmethod
    def admin(cls, name: str, address: str | None = None) -> Actor:
        """A signed-in admin or an API token."""
        return cls(f"admin:{name}", address)

    @classmethod
    def agent(cls, hostname: str, address: str | None = None) -> Actor:
        """The agent of a VM."""
        return cls(f"agent:{hostname}", address)

    @classmethod
    def researcher(cls, email: str, address: str | None = None) -> Actor:
        """Somebody who claims under this e-mail: a label, not a proof."""
        return cls(f"researcher:{email}", address)

    @classmethod
    def rule(cls, name: str) -> Actor:
        """A rule of ours acting by itself."""
        return cls(f"rule:{name}")

    @classmethod
    def operation(cls, operation_id: int) -> Actor:
        """A Terraform run."""
        return cls(f"operation:{operation_id}")
