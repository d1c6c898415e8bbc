"""Random numbers by position: splitmix64, whose n-th number is a function of seed and n, and numbers below a limit.

Models: splitmix64 and the multiply-shift reduction that the recorded access sequences are made with. Omits: nothing of them.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

STEP = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_MIX1, _MIX2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = (np.uint64(n) for n in (27, 30, 31, 32))
_LOW = np.uint64(0xFFFFFFFF)


class Stream:
    """The numbers that splitmix64 gives from one seed. `take(n)` gives the next n as uint64."""

    __slots__ = ("position", "seed")

    def __init__(self, seed: int) -> None:
        self.seed, self.position = seed & _MASK, 0

    def take(self, n: int) -> Array:
        """The next `n` numbers."""
        first = (self.seed + (self.position + 1) * STEP) & _MASK
        self.position += n
        # The state moves by a constant: all states at once. Unsigned arithmetic wraps, as it must.
        z = np.arange(n, dtype=np.uint64)
        z *= np.uint64(STEP)
        z += np.uint64(first)
        z ^= z >> _S30
        z *= _MIX1
        z ^= z >> _S27
        z *= _MIX2
        z ^= z >> _S31
        return z


def below(r: Array, n: int | Array) -> Array:
    """(r * n) >> 64 for uint64 `r`: numbers below `n` (one limit, or one for each), from the upper bits of r."""
    high, low = r >> _S32, r & _LOW
    if n <= 0xFFFFFFFF if isinstance(n, int) else n.dtype == np.uint32:
        limit = np.uint64(n) if isinstance(n, int) else n.astype(np.uint64)
        low *= limit
        low >>= _S32
        high *= limit
        high += low
        high >>= _S32
        return high
    limit = np.uint64(n) if isinstance(n, int) else n
    top, bottom = limit >> _S32, limit & _LOW
    # Schoolbook multiplication of 32-bit halves; no sum of the middle column exceeds 64 bits.
    middle = high * bottom + (low * bottom >> _S32)
    other = low * top + (middle & _LOW)
    return high * top + (middle >> _S32) + (other >> _S32)
