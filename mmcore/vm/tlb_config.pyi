from typing import Any

import numpy as np

ARRAYS: tuple[str, ...]
DEFAULTS: dict[str, Any]
KINDS: dict[str, int]
MIN_LOG: int
PAGES: dict[str, int]
PART_KEYS: set[str]
PRESETS: dict[str, dict[str, Any]]

TLB_BLOCK_DTYPE: np.dtype
TLB_CONFIG_DTYPE: np.dtype
TLB_CPU_DTYPE: np.dtype
TLB_PART_DTYPE: np.dtype
TLB_STATS_DTYPE: np.dtype
TLB_TABLE_DTYPE: np.dtype

def struct_sizes() -> dict[str, int]: ...
def described(config: str | dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]: ...
def config_record(d: dict[str, Any], nr_cpus: int) -> tuple[np.ndarray, np.ndarray]: ...
def shapes_of(g: Any) -> dict[str, tuple[int, np.dtype]]: ...
def check_config(g: Any) -> None: ...
def check_parts(g: Any, parts: np.ndarray) -> None: ...
def check_contents(g: Any, arrays: dict[str, np.ndarray]) -> None: ...
