from collections.abc import Callable
from typing import TypeVar

from mmcore.base.state import State
from mmcore.base.trace import Tracer

EVENTS: dict[str, int]

_T = TypeVar("_T")

def watched(state: State, tracer: Tracer, call: Callable[[], _T]) -> _T: ...
