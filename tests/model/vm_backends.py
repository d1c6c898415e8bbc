"""The virtual memories under test, by name.

A system has machine(ram_pages, ...) with the arguments of tests.reference.vm.TwinMachine. Its machine has spawn(), open(), committed,
commit_limit, hugetlb (total, free, reserved, surplus, overcommit, resize), events, nr_mlock, cow_copies,
charged(file) and check(); a process has the methods and properties of TwinProcess. Calls that fail return a negative errno.
"""

import pytest

from tests.model.vm_sharp import SharpMachine
from tests.reference.vm import TwinMachine


class TwinSystem:
    """The twin itself."""

    @staticmethod
    def machine(ram_pages: int = 262144, **kw) -> TwinMachine:
        return TwinMachine(ram_pages, **kw)


class CoreSystem:
    """The core behind the same interface."""

    @staticmethod
    def machine(ram_pages: int = 262144, **kw) -> SharpMachine:
        return SharpMachine(ram_pages, **kw)


SYSTEMS = {"core": CoreSystem, "twin": TwinSystem}


def twin_only(system: type, reason: str) -> None:
    """What follows cannot be asked of the core."""
    if system is not TwinSystem:
        pytest.skip(reason)
