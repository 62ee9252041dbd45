"""Provider ``local``: VMs are agent processes on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from backend.provisioning.local_vms import LocalVms
from backend.provisioning.providers import Backend, Inputs, Place, ProviderVm
from backend.provisioning.providers.facts import Facts
from backend.provisioning.providers.local_facts import LocalFacts
from backend.provisioning.runner import write_private
from backend.resources import terraform_dir
from backend.services.views import PoolView
from backend.settings import Settings

# Starting a Python process is work for one core; more at once than this only take longer each.
AT_ONCE = 2 * (os.cpu_count() or 1)


class LocalProvider:
    """Starts, stops and finds local VMs under the data directory."""

    name = "local"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._vms = LocalVms(settings.home / "vms")
        self.facts: Facts = LocalFacts(settings.home / "pools")

    @property
    def module(self) -> Path:
        """The Terraform module."""
        return terraform_dir(self.name)

    @property
    def environment(self) -> Mapping[str, str]:
        """Nothing: only what is made or ended needs to know where."""
        return {}

    def backend_of(self, _: PoolView) -> Backend | None:
        """None: what runs on this machine is written down on this machine."""
        return None

    def write_inputs(self, directory: Path, pool: PoolView, vms: Sequence[ProviderVm]) -> Inputs:
        """Tokens go into a file beside the state, for this user's eyes alone; Terraform itself never sees them."""
        inputs = directory / "vm-inputs.json"
        options = {}
        for name, text, variable in (
            ("startup.sh", pool.startup_script, "LABLINK_STARTUP_SCRIPT_FILE"),
            ("cleaning.sh", pool.cleaning_script, "LABLINK_CLEANING_SCRIPT_FILE"),
        ):
            if text:
                write_private(directory / name, text)
                options[variable] = str(directory / name)
        if pool.repository:
            options["LABLINK_REPOSITORY"] = pool.repository
        tokens = {vm.hostname: vm.token for vm in vms if vm.token}
        write_private(
            inputs, json.dumps({"server_url": self._settings.public_url, "tokens": tokens, "options": options})
        )
        return Inputs(
            tfvars={"hostnames": [vm.hostname for vm in vms]},
            environment={**self._environment(), "LABLINK_VM_INPUTS": str(inputs)},
            parallelism=AT_ONCE,
        )

    def explain(self, said: str) -> str:
        """As it is: what fails here fails in words of our own."""
        return said

    async def list_places(self, _: PoolView) -> Sequence[Place]:
        """None: there is this machine."""
        return []

    def name_place(self, _: Place) -> str:
        """There is one."""
        return "this machine"

    def is_of_place(self, _: str) -> bool:
        """There is no other."""
        return False

    async def reboot(self, hostname: str) -> None:
        """Ends the agent and starts it again, with a new boot id."""
        await asyncio.to_thread(self._vms.power_off, hostname)
        await self._start(hostname)

    async def power_off(self, hostnames: Collection[str]) -> None:
        """Ends the agents; the machines keep all they hold."""
        await asyncio.gather(*(asyncio.to_thread(self._vms.power_off, hostname) for hostname in hostnames))

    async def power_on(self, hostnames: Collection[str]) -> None:
        """Starts the agents of the machines that are here."""
        limit = asyncio.Semaphore(AT_ONCE)

        async def start(hostname: str) -> None:
            async with limit:
                await self._start(hostname)

        here = set(await asyncio.to_thread(self._vms.list_existing))
        await asyncio.gather(*(start(hostname) for hostname in hostnames if hostname in here))

    async def remove_leftovers(self, hostnames: Collection[str]) -> None:
        """Ends agents and removes directories."""
        for hostname in hostnames:
            await asyncio.to_thread(self._vms.stop, hostname)

    async def remove_strangers(self, known: Collection[str]) -> list[str]:
        """Ends what runs here though no row knows it."""
        running = await asyncio.to_thread(self._vms.list_running)
        existing = await asyncio.to_thread(self._vms.list_existing)
        strangers = sorted({*running, *existing} - set(known))
        await self.remove_leftovers(strangers)
        return strangers

    async def _start(self, hostname: str) -> None:
        # By a process of its own, so that the agent is nobody's child here and outlives this server. Our secrets stay.
        passed = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "backend.provisioning.local_vms",
            "power-on",
            env={**passed, **self._environment(), "LABLINK_VM": hostname},
            stdout=asyncio.subprocess.DEVNULL,
        )
        if await process.wait() != 0:
            raise RuntimeError(f"{hostname} could not be started")

    def _environment(self) -> dict[str, str]:
        """Where our own Python and packages are, for the command that local-exec runs."""
        packages = str(Path(__file__).parents[3])
        return {
            "LABLINK_VMS_ROOT": str(self._settings.home / "vms"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": packages,
        }
