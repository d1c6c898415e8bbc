import numpy as np

from mmcore.base.state import State

READ_BIT: int

def access(
    state: State,
    handle: int,
    vpns: np.ndarray,
    writes: np.ndarray | bool | None = ...,
    cpu: int = ...,
    codes: np.ndarray | None = ...,
    flush: int = ...,
    first: int = ...,
    reads: bool = ...,
) -> tuple[int, np.ndarray]: ...
def read_pages(
    state: State,
    handle: int,
    file: int,
    indices: np.ndarray,
    cpu: int = ...,
    codes: np.ndarray | None = ...,
    flush: int = ...,
    first: int = ...,
    reads: bool = ...,
) -> tuple[int, int]: ...
