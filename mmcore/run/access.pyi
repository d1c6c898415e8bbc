import numpy as np

from mmcore.base.state import State

def access(
    state: State,
    handle: int,
    vpns: np.ndarray,
    writes: np.ndarray | bool | None = ...,
    cpu: int = ...,
    codes: np.ndarray | None = ...,
) -> tuple[int, np.ndarray]: ...
