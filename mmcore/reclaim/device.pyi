from mmcore.base.state import State

PRESETS: dict[str, tuple[int, int, int, int, int, int, int, int]]

def create(
    state: State,
    preset: str,
    name: str,
    *,
    latency_ns: int | None = None,
    read_latency_ns: int | None = None,
    write_latency_ns: int | None = None,
    bandwidth: int | None = None,
    read_bandwidth: int | None = None,
    write_bandwidth: int | None = None,
    depth: int | None = None,
    request_kib: int | None = None,
    queue_kib: int | None = None,
    synchronous: bool | None = None,
    rotational: bool | None = None,
    seeks: bool | None = None,
) -> int: ...
def submit(state: State, device: int, write: bool, at: int | None, nr_pages: int) -> tuple[int, bool]: ...
def fail_next(state: State, device: int, *, reads: int | None = None, writes: int | None = None) -> None: ...
def set_file_device(state: State, device: int | None) -> None: ...
