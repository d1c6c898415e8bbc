from typing import Any

from mmpy.traces._scan import EventColumns

class FtraceScanner(EventColumns):
    lines: int
    other: int
    malformed: int
    lost: int
    nr_cpus: int
    gfp_texts: list[str]
    bad_lines: list[int]
    def __init__(self, source: str = ..., max_rows: int = ..., *, expected: int = ...) -> None: ...
    def feed(self, data: Any) -> None: ...
    def finish(self) -> None: ...
