"""Who does a thing, and from where: written beside every event."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import Forbidden
from backend.states import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """``name`` reads as ``admin:kim``, ``agent:default-001``, ``researcher:ada@lab.org``, ``rule:boot_deadline``.

    ``role`` is an admin's; all others have none, and may do nothing that asks for one.
    """

    name: str
    address: str | None = None
    role: Role | None = None

    @classmethod
    def admin(cls, name: str, address: str | None = None, role: Role = Role.ADMIN) -> Actor:
        """A signed-in admin or an API token."""
        return cls(f"admin:{name}", address, role)

    @classmethod
    def command_line(cls, user: str) -> Actor:
        """Whoever may run `lablink admin` on the server's own machine: this is a matter of its file permissions."""
        return cls(f"cli:{user}", None, Role.ADMIN)

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

    def must_operate(self) -> None:
        """Refuses whoever may only look.

        Raises:
            Forbidden: neither an operator nor an admin.
        """
        self._must_be(Role.OPERATOR, Role.ADMIN)

    def must_administer(self) -> None:
        """Refuses whoever is no admin.

        Raises:
            Forbidden: no admin.
        """
        self._must_be(Role.ADMIN)

    def _must_be(self, *roles: Role) -> None:
        if self.role not in roles:
            raise Forbidden(f"This needs the role {' or '.join(roles)}; yours is {self.role or 'none'}.")
