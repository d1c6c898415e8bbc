import numpy as np

POOL_DTYPE: np.dtype
TABLE_INFO_DTYPE: np.dtype
VMA_DTYPE: np.dtype
ANON_VMA_DTYPE: np.dtype
AVC_DTYPE: np.dtype
MM_DTYPE: np.dtype
FILE_DTYPE: np.dtype
XNODE_DTYPE: np.dtype
VM_AREA_DTYPE: np.dtype
VM_PAGES_DTYPE: np.dtype
VMAP_NODE_DTYPE: np.dtype
KMAP_DTYPE: np.dtype
KMAP_LOCAL_DTYPE: np.dtype
CPU_DTYPE: np.dtype
LRUVEC_DTYPE: np.dtype
MEMCG_DTYPE: np.dtype[np.void]
SWAP_AREA_DTYPE: np.dtype[np.void]
SWAP_SLOT_DTYPE: np.dtype[np.void]
SWAP_CLUSTER_DTYPE: np.dtype[np.void]
EVENT_DTYPE: np.dtype[np.void]
DEVICE_DTYPE: np.dtype[np.void]
VM_GLOBALS_DTYPE: np.dtype

def struct_sizes() -> dict[str, int]: ...
