"""Readers and writers of traces, and their conversion into operations.

Recording.open(directory) reads a recording, convert(recording) makes operations of it; read_ftrace(path) and convert_ftrace(trace) do
the same for the text of ftrace, perf script and trace-cmd report. read_access_trace(path) reads a program's accesses to memory.
"""

from mmpy.traces.access import AccessTrace, access_sample_path, read_access_trace
from mmpy.traces.convert import OpStream, convert, convert_events
from mmpy.traces.errors import TraceFormatError
from mmpy.traces.events import Events
from mmpy.traces.ftrace import ForeignTrace, convert_ftrace, parse_ftrace, read_ftrace, write_ftrace
from mmpy.traces.recording import Recording, Snapshot, sample_path
from mmpy.traces.state import AllocState, parse_state

__all__ = [
    "AccessTrace",
    "AllocState",
    "Events",
    "ForeignTrace",
    "OpStream",
    "Recording",
    "Snapshot",
    "TraceFormatError",
    "access_sample_path",
    "convert",
    "convert_events",
    "convert_ftrace",
    "parse_ftrace",
    "parse_state",
    "read_access_trace",
    "read_ftrace",
    "sample_path",
    "write_ftrace",
]
