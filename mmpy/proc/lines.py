"""Lines of a /proc text, with their numbers, for the parsers of this package.

Models: nothing of the kernel. Blank lines are passed over (people trim dumps); white space at the ends of
lines is not looked at (it gets lost in mail and in editors).
"""

import re
from collections.abc import Iterator
from typing import NoReturn

from mmpy.proc.errors import ProcFormatError

MAX_VALUE = (1 << 64) - 1
MAX_NODE = 1023
MAX_CPU = 65535

_NUMBER = re.compile(r"[0-9]{1,20}")


class Lines:
    """The lines of `text` that are not blank, one at a time.

    ``line`` is the current line, stripped (None past the end), ``number`` its 1-based number.
    """

    def __init__(self, file: str, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"{file}: the text must be a str, not {type(text).__name__}")
        self.file = file
        # Not splitlines(): it would also split at form feeds and other separators that no /proc file has.
        self._lines: Iterator[tuple[int, str]] = iter(
            [(n, s) for n, raw in enumerate(text.split("\n"), 1) if (s := raw.strip())]
        )
        self._last = text.count("\n") + (text[-1:] not in ("", "\n"))
        self.number = 0
        self.line: str | None = None
        self.advance()

    def advance(self) -> None:
        """Go to the next line."""
        self.number, self.line = next(self._lines, (self._last + 1, None))

    def fail(self, expected: str) -> NoReturn:
        """Raise ProcFormatError at the current line."""
        raise ProcFormatError(self.file, self.number, expected, self.line)

    def number_of(self, digits: str, what: str, limit: int = MAX_VALUE) -> int:
        """`digits` as a number from 0 to `limit`; `what` names it in the error."""
        if _NUMBER.fullmatch(digits) is None:
            self.fail(f"{what} as a decimal number")
        value = int(digits)
        if value > limit:
            self.fail(f"{what} of at most {limit}")
        return value
