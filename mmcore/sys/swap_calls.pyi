from mmcore.base.state import State

MAX_PRIORITY: int
LEAST_PAGES: int

def swapon(
    state: State,
    pages: int,
    priority: int = -1,
    rotational: bool = False,
    synchronous: bool = False,
    name: str = "",
    partition: bool = True,
) -> int: ...
def swapoff(state: State, area: int, cpu: int = 0) -> int: ...
def drain(state: State) -> None: ...
def alloc_slot(state: State, pfn: int, cpu: int = 0) -> tuple[int, int] | None: ...
def slot_op(state: State, op: str, area: int, offset: int, nr: int = 1, cpu: int = 0) -> None: ...
