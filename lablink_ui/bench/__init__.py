"""Measures the product's shared paths, each as a ratio to a limit of this machine measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence


def run_bench(names: Sequence[str]) -> int:
    """Runs the named scenarios (all without a name); returns the exit status."""
    print(f"lablink bench: no scenario is there yet ({', '.join(names) or 'all'} asked for)")
    return 1
