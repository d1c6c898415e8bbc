"""The counters' positions in stat_items.pxd are those of the names."""

import re
from pathlib import Path

import pytest

from mmcore.base import vmstat_names

TEXT = (Path(vmstat_names.__file__).parent / "stat_items.pxd").read_text()


@pytest.mark.parametrize(
    ("prefix", "names"),
    [("VE", vmstat_names.EVENT_ITEMS), ("NS", vmstat_names.NODE_STAT_ITEMS), ("ZS", vmstat_names.ZONE_STAT_ITEMS)],
)
def test_positions_follow_the_names(prefix, names):
    found = re.findall(rf"^    {prefix}_(\w+) = (\d+)$", TEXT, re.M)
    assert found == [(name.upper(), str(i)) for i, name in enumerate(names)]
