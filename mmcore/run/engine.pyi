from enum import IntEnum

import numpy as np

from mmcore.base.state import State
from mmcore.base.trace import Tracer

class Stop(IntEnum):
    DONE = 0
    BUDGET = 1
    AT_CHECKPOINT = 2

def run(
    state: State,
    ops: np.ndarray,
    rc: np.ndarray,
    value: np.ndarray,
    start: int = 0,
    budget: int | None = None,
    pages_out: np.ndarray | None = None,
    pages_used: int = 0,
    tracer: Tracer | None = None,
) -> tuple[Stop, int, int]: ...
