"""The virtual memories under test, by name.

A system has machine(ram_pages, ...) with the arguments of tests.reference.vm.TwinMachine. Its machine has spawn(), open(), committed,
commit_limit, hugetlb (total, free, reserved, surplus, overcommit, resize), events, cow_copies and check(); a process has the methods and
properties of TwinProcess. Calls that fail return a negative errno.
"""

from tests.reference.vm import TwinMachine


class TwinSystem:
    """The twin itself."""

    @staticmethod
    def machine(ram_pages: int = 262144, **kw) -> TwinMachine:
        return TwinMachine(ram_pages, **kw)


SYSTEMS = {"twin": TwinSystem}
