"""Providers: who makes VMs. Each comes with a Terraform module and with what is done beside Terraform."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from backend.provisioning.providers.facts import Facts
from backend.services.views import PoolView

# Where and as what a VM is made, as JSON that only its provider reads.
Place: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ProviderVm:
    """A VM that shall exist; ``token`` is a fresh enrolment token if it is to be made by this run, at ``place``."""

    hostname: str
    token: str | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Backend:
    """Where Terraform keeps a state, if not in its directory: the kind and its arguments."""

    kind: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run gives to Terraform; ``environment`` beside what every command gets.

    Without ``refresh`` Terraform takes its state at its word, and asks nobody what became of the VMs in it.
    """

    tfvars: Mapping[str, Any]
    environment: Mapping[str, str]
    parallelism: int
    refresh: bool = True


class Provider(Protocol):
    """What the steps of an operation need of a provider."""

    name: str
    facts: Facts

    @property
    def module(self) -> Path:
        """The Terraform module."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What every command of Terraform gets in its environment."""

    def backend_of(self, pool: PoolView, /) -> Backend | None:
        """Where the state of a pool is; None for the directory that Terraform runs in."""

    def write_inputs(self, directory: Path, pool: PoolView, vms: Sequence[ProviderVm]) -> Inputs:
        """The variables and environment for exactly these VMs."""

    def explain(self, said: str) -> str:
        """What Terraform said in a sentence with what to do next; as it is where nothing better is known."""

    async def list_places(self, pool: PoolView, /) -> Sequence[Place]:
        """Where VMs of a pool may be made, the preferred first; none where all places are one.

        Raises:
            LabLinkError: it could not be found out.
        """

    def name_place(self, place: Place, /) -> str:
        """A place in people's words."""

    def is_of_place(self, said: str, /) -> bool:
        """Whether a VM that failed with these words may well be made at another place."""

    async def reboot(self, hostname: str) -> None:
        """Boots a VM again, or boots one that is off."""

    async def power_off(self, hostnames: Collection[str]) -> None:
        """Switches VMs off; they keep all they hold."""

    async def power_on(self, hostnames: Collection[str]) -> None:
        """Switches VMs on."""

    async def remove_leftovers(self, hostnames: Collection[str]) -> None:
        """Makes sure that nothing of these VMs remains, whatever Terraform knew of them.

        Raises:
            LabLinkError: something may remain; says why.
        """

    async def remove_strangers(self, known: Collection[str]) -> list[str]:
        """Removes what runs here but is not ``known``, if it can hold nothing of value; returns the names removed."""
