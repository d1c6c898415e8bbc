"""Exceptions of the /proc texts: one for what cannot be read, one for what cannot be turned into a machine."""

_SHOWN = 60


class ProcFormatError(ValueError):
    """A text is not what its file in /proc looks like.

    Attributes: ``file`` (its name in /proc), ``line`` (1-based number of the offending line; one past the
    last line if the text ends too early), ``expected`` (what should have stood there).
    """

    def __init__(self, file: str, line: int, expected: str, found: str | None) -> None:
        self.file, self.line, self.expected = file, line, expected
        if found is None:
            what = "the text ends"
        else:
            what = f"found {found[:_SHOWN]!r}" + ("..." if len(found) > _SHOWN else "")
        super().__init__(f"{file}: line {line}: expected {expected}, {what}")


class ProcInferenceError(ValueError):
    """A readable dump does not hold what a machine of ours needs; the message names the value and the limit."""
