"""The LabLink agent: runs on a VM, reports its health, does what the server asks, and only ever dials out."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lablink")
except PackageNotFoundError:  # run from a bare checkout
    __version__ = "0.0.0"
