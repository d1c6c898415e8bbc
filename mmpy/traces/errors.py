"""The one error of trace readers."""


class TraceFormatError(ValueError):
    """A trace, dump or snapshot file is not what its format says; the message names the file, the line and the value."""
