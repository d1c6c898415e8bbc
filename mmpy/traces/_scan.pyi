from typing import Any

import numpy as np

EVENT_DTYPE: np.dtype[np.void]
EXTRA_DTYPE: np.dtype[np.void]
HEADER: bytes
EVENT_NAMES: dict[int, str]
NONE_PFN: int
NONE_GFP: int
NONE_BYTE: int
DEPTH_MASK: int
SOFTIRQ: int
HARDIRQ: int
REFILL: int
IRQS_OFF: int
FIRST_OTHER: int

class Block: ...

class EventColumns:
    def __len__(self) -> int: ...
    def take(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, bytes]: ...

class EventScanner(EventColumns):
    def __init__(self, source: str = ..., max_rows: int = ..., *, expected: int = ...) -> None: ...
    @property
    def other_names(self) -> tuple[str, ...]: ...
    def feed(self, data: Any) -> None: ...
    def finish(self) -> None: ...
