"""A slow, obvious twin of the core's page allocator: the same specification, no shared code."""

from .alloc_state import differences
from .machine import TwinMachine
from .plan import Plan, make_plan
from .state_text import format_state, parse_state

__all__ = ["Plan", "TwinMachine", "differences", "format_state", "make_plan", "parse_state"]
