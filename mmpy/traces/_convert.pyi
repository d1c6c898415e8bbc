from typing import Any

import numpy as np

TIMER_DTYPE: np.dtype[np.void]
TICK: int

class Converter: ...

def find_roles(rows: np.ndarray, tick_gap_us: int) -> np.ndarray: ...
def convert_rows(
    rows: np.ndarray,
    extras: np.ndarray,
    pages: np.ndarray,
    role: np.ndarray,
    gfp_bits: np.ndarray,
    timers: np.ndarray,
    marks: tuple[Any, Any],
    victims: tuple[Any, Any],
    *,
    first: int,
    resync: bool,
    adopt: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, int]]: ...
