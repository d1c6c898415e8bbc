"""A slow, obvious twin of virtual memory: the same specification, no shared code."""

from .machine import TwinMachine, TwinProcess

__all__ = ["TwinMachine", "TwinProcess"]
