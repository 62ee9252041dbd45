"""Where the VMs of one run are tried: each at the preferred place, then at the next for as long as there is no room."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from backend.provisioning.providers import Place, Provider


class Places:
    """``places``: where a VM may be made, the preferred first; none where all places are one."""

    def __init__(self, provider: Provider, places: Sequence[Place], hostnames: Iterable[str]) -> None:
        self._provider, self._places = provider, places
        self._tried = dict.fromkeys(hostnames, 0) if places else {}

    @property
    def now(self) -> dict[str, Place]:
        """Where each VM is tried now, by hostname."""
        return {hostname: self._places[number] for hostname, number in self._tried.items()}

    def name_tried(self) -> str:
        """The places tried by now, such as ``g4dn.xlarge in us-west-2a, g4dn.xlarge in us-west-2b``."""
        furthest = max(self._tried.values(), default=-1)
        return ", ".join(self._provider.name_place(each) for each in self._places[: furthest + 1])

    def find_next(self, failures: Mapping[str, str]) -> dict[str, str]:
        """Sends the VMs that failed for want of room on to the next place, if there is one.

        ``failures``: what was said of each that failed. Returns, by hostname, the sentences that tell where to.
        """
        return {hostname: self._move(hostname) for hostname, said in failures.items() if self._has_next(hostname, said)}

    def is_full(self, failures: Mapping[str, str]) -> bool:
        """Whether it is for want of room that VMs failed."""
        return any(hostname in self._tried and self._provider.is_of_place(said) for hostname, said in failures.items())

    def _has_next(self, hostname: str, said: str) -> bool:
        number = self._tried.get(hostname)
        return number is not None and number + 1 < len(self._places) and self._provider.is_of_place(said)

    def _move(self, hostname: str) -> str:
        number = self._tried[hostname]
        self._tried[hostname] = number + 1
        was, to = (self._provider.name_place(each) for each in self._places[number : number + 2])
        return f"no {was} at the moment; trying {to}"
