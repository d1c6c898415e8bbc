"""mmcore: the compiled core of a Linux memory-management simulator (reference: Linux 6.12, x86-64).

Rooms, each importing only those before it: base, phys, vm, reclaim, alloc, sys, run.
"""
__version__ = "0.1.0"
