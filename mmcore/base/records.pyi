import numpy as np

PAGE_DTYPE: np.dtype
META_DTYPE: np.dtype
PAGEBLOCK_DTYPE: np.dtype
LAZY_DTYPE: np.dtype
PRESENT_DTYPE: np.dtype
ZONE_DTYPE: np.dtype
PCP_DTYPE: np.dtype
NODE_DTYPE: np.dtype
GLOBALS_DTYPE: np.dtype
TRACE_DTYPE: np.dtype

def struct_sizes() -> dict[str, int]: ...
