"""What a TLB is made of: the presets, the checked configuration of a model, dtypes of its records.

Models: two processors' data TLBs (spec 16), as hardware documents give them. Simplifies: entries that do not divide by the ways are
left out. Omits: instruction TLBs. Nothing here runs during accesses.
"""
import numpy as np

from mmcore.base.args cimport as_int
from mmcore.vm.tlb_records cimport (
    MAX_CPUS, MAX_ENTRIES, MAX_LOG, TLB_MAX_ASIDS, TLB_MAX_PARTS, TLB_MAX_WALK_LEVELS, TLB_OFF, TLB_SETS, TLB_SLOTS, TLB_UNBOUNDED,
    TlbBlock, TlbConfig, TlbCpu, TlbPart, TlbStats, TlbTable,
)

cdef TlbConfig _config
cdef TlbPart _part
cdef TlbCpu _cpu
cdef TlbStats _stats
cdef TlbTable _table
cdef TlbBlock _block

cdef TlbConfig[::1] _config_view = <TlbConfig[:1]>&_config
cdef TlbPart[::1] _part_view = <TlbPart[:1]>&_part
cdef TlbCpu[::1] _cpu_view = <TlbCpu[:1]>&_cpu
cdef TlbStats[::1] _stats_view = <TlbStats[:1]>&_stats
cdef TlbTable[::1] _table_view = <TlbTable[:1]>&_table
cdef TlbBlock[::1] _block_view = <TlbBlock[:1]>&_block

TLB_CONFIG_DTYPE = np.asarray(_config_view).dtype
TLB_PART_DTYPE = np.asarray(_part_view).dtype
TLB_CPU_DTYPE = np.asarray(_cpu_view).dtype
TLB_STATS_DTYPE = np.asarray(_stats_view).dtype
TLB_TABLE_DTYPE = np.asarray(_table_view).dtype
TLB_BLOCK_DTYPE = np.asarray(_block_view).dtype


def struct_sizes():
    """sizeof() of every record in bytes, by dtype name: a test holds the derived dtypes against them."""
    return {
        "TLB_CONFIG_DTYPE": sizeof(TlbConfig), "TLB_PART_DTYPE": sizeof(TlbPart), "TLB_CPU_DTYPE": sizeof(TlbCpu),
        "TLB_STATS_DTYPE": sizeof(TlbStats), "TLB_TABLE_DTYPE": sizeof(TlbTable), "TLB_BLOCK_DTYPE": sizeof(TlbBlock),
    }


KINDS = {"off": TLB_OFF, "sets": TLB_SETS, "unbounded": TLB_UNBOUNDED}
PAGES = {"4K": 1, "2M": 2, "1G": 4}

# Hardware documents (spec 16). What does not divide by the ways is left out: 2048 entries in 12 ways are 170 sets.
PRESETS = {
    "off": {"kind": "off"},
    "unbounded": {"kind": "unbounded", "walk_entries": 0},
    "zen": {
        "kind": "sets", "walk_entries": 32, "parts": [
            {"level": 1, "pages": ["4K", "2M", "1G"], "entries": 64, "ways": 64},
            {"level": 2, "pages": ["4K", "2M"], "entries": 2048, "ways": 12, "pieces": True},
        ],
    },
    "skylake": {
        "kind": "sets", "walk_entries": 32, "parts": [
            {"level": 1, "pages": ["4K"], "entries": 64, "ways": 4},
            {"level": 1, "pages": ["2M"], "entries": 32, "ways": 4},
            {"level": 1, "pages": ["1G"], "entries": 4, "ways": 4},
            {"level": 2, "pages": ["4K", "2M"], "entries": 1536, "ways": 12},
            {"level": 2, "pages": ["1G"], "entries": 16, "ways": 4},
        ],
    },
}
DEFAULTS = {
    "kind": "sets", "parts": [], "asids": TLB_MAX_ASIDS, "walk_entries": 32, "pt_levels": 4, "pt_bits": 9, "flush_ceiling": 33,
    "max_mms": 1 << 16, "capacity": 3 << 18,
}
PART_KEYS = {"level", "pages", "entries", "ways", "pieces"}
ARRAYS = (
    "config", "parts", "cpus", "stats", "mm_gen", "keys", "stamps", "full_at", "walk_keys", "walk_stamps", "walk_full_at", "table",
    "blocks",
)
MIN_LOG = 8


def described(object config, dict overrides):
    # The dict of a configuration, all keys set.
    if isinstance(config, str):
        if config not in PRESETS:
            raise ValueError(f"no TLB {config!r}; there are {', '.join(PRESETS)}")
        config = PRESETS[config]
    elif not isinstance(config, dict):
        raise TypeError(f"a TLB is described by a name or a dict, not {type(config).__name__}")
    unknown = sorted({str(k) for k in (*config, *overrides)} - DEFAULTS.keys())
    if unknown:
        raise ValueError(f"a TLB has no {', '.join(unknown)}; it has {', '.join(DEFAULTS)}")
    return DEFAULTS | config | overrides


def config_record(dict d, object nr_cpus):
    # The checked TlbConfig and its parts.
    record = np.zeros(1, TLB_CONFIG_DTYPE)
    g = record[0]
    if d["kind"] not in KINDS:
        raise ValueError(f"kind is {d['kind']!r}; it must be one of {', '.join(KINDS)}")
    g["kind"] = KINDS[d["kind"]]
    g["nr_cpus"] = as_int(nr_cpus, "nr_cpus", 1, MAX_CPUS)
    g["nr_asids"] = as_int(d["asids"], "asids", 1, TLB_MAX_ASIDS)
    g["walk_entries"] = as_int(d["walk_entries"], "walk_entries", 0, 1024)
    g["pt_levels"] = as_int(d["pt_levels"], "pt_levels", 2, TLB_MAX_WALK_LEVELS + 1)
    g["pt_bits"] = as_int(d["pt_bits"], "pt_bits", 9, 10)
    g["flush_ceiling"] = as_int(d["flush_ceiling"], "flush_ceiling", 0, 1 << 20)
    g["nr_mms"] = as_int(d["max_mms"], "max_mms", 1, 1 << 22) + 1
    parts = d["parts"] if d["kind"] == "sets" else []
    if d["kind"] == "sets" and not parts:
        raise ValueError("a TLB of sets and ways needs parts")
    if len(parts) > TLB_MAX_PARTS:
        raise ValueError(f"{len(parts)} parts are too many (limit: {TLB_MAX_PARTS})")
    g["nr_parts"] = len(parts)
    rows = np.zeros(len(parts), TLB_PART_DTYPE)
    first = 0
    for i, part in enumerate(sorted(parts, key=lambda part: part.get("level", 0) if isinstance(part, dict) else 0)):
        if not isinstance(part, dict) or not PART_KEYS - {"pieces"} <= part.keys() <= PART_KEYS:
            raise ValueError(f"part {part!r} must be a dict of {', '.join(sorted(PART_KEYS))}")
        p = rows[i]
        p["level"] = as_int(part["level"], "level", 1, 2)
        if not part["pages"] or set(part["pages"]) - PAGES.keys():
            raise ValueError(f"pages are {part['pages']!r}; they must be some of {', '.join(PAGES)}")
        p["sizes"] = sum(PAGES[name] for name in set(part["pages"]))
        entries = as_int(part["entries"], "entries", 1, 1 << 20)
        p["ways"] = as_int(part["ways"], "ways", 1, entries)
        p["sets"] = entries // p["ways"]
        p["first"] = first
        p["pieces"] = bool(part.get("pieces", False))
        if p["pieces"] and p["sizes"] & 6 != 2:
            raise ValueError("pieces of 1 GiB pages need a part for 2M pages that has none for 1G")
        first += int(p["sets"] * p["ways"])
    g["entries"] = first
    if first * int(g["nr_cpus"]) > MAX_ENTRIES:
        raise ValueError(f"{first} entries on {nr_cpus} CPUs are too many (limit: {MAX_ENTRIES} in all)")
    if d["kind"] == "unbounded":
        capacity = as_int(d["capacity"], "capacity", 1, 3 << (MAX_LOG - 3))
        g["min_log"] = MIN_LOG
        g["max_log"] = max(MIN_LOG, (capacity * 8 // 3 - 1).bit_length())
    return record, rows


def shapes_of(object g):
    # Length and dtype of each array but `blocks`.
    nr_cpus = int(g["nr_cpus"])
    walks = nr_cpus * TLB_MAX_WALK_LEVELS * int(g["walk_entries"])
    entries = nr_cpus * int(g["entries"])
    return {
        "config": (1, TLB_CONFIG_DTYPE), "parts": (int(g["nr_parts"]), TLB_PART_DTYPE),
        "cpus": (nr_cpus, TLB_CPU_DTYPE), "stats": (nr_cpus, TLB_STATS_DTYPE),
        "mm_gen": (int(g["nr_mms"]), np.dtype(np.uint64)), "keys": (entries, np.dtype(np.uint64)), "stamps": (entries, np.dtype(np.uint64)),
        "full_at": (entries, np.dtype(np.uint64)),
        "walk_keys": (walks, np.dtype(np.uint64)), "walk_stamps": (walks, np.dtype(np.uint64)),
        "walk_full_at": (walks, np.dtype(np.uint64)), "table": (1, TLB_TABLE_DTYPE),
    }


def check_config(object g):
    # A record that config_record() cannot have made would lead the core outside its arrays.
    limits = {
        "kind": (0, 2), "nr_cpus": (1, MAX_CPUS), "nr_parts": (0, TLB_MAX_PARTS), "nr_asids": (1, TLB_MAX_ASIDS), "walk_entries": (0, 1024),
        "pt_levels": (2, TLB_MAX_WALK_LEVELS + 1), "pt_bits": (9, 10), "flush_ceiling": (0, 1 << 20), "nr_mms": (2, (1 << 22) + 1),
        "min_log": (MIN_LOG, MIN_LOG) if g["kind"] == TLB_UNBOUNDED else (0, 0),
        "max_log": (MIN_LOG, MAX_LOG) if g["kind"] == TLB_UNBOUNDED else (0, 0),
    }
    for name, (low, high) in limits.items():
        as_int(g[name], name, low, high)


def check_parts(object g, object parts):
    first = 0
    for p in parts:
        for name, (low, high) in {"level": (1, 2), "sizes": (1, 7), "sets": (1, 1 << 20), "ways": (1, 1 << 20), "first": (first, first),
                                  "pieces": (0, 1)}.items():
            as_int(p[name], name, low, high)
        first += int(p["sets"]) * int(p["ways"])
    as_int(g["entries"], "entries", first, first)
    if first * int(g["nr_cpus"]) > MAX_ENTRIES:
        raise ValueError(f"{first} entries on {g['nr_cpus']} CPUs are too many (limit: {MAX_ENTRIES} in all)")


def check_contents(object g, object arrays):
    cpus, blocks, log = arrays["cpus"], arrays["blocks"], int(arrays["table"]["log"][0])
    for name, limit in (("slot", TLB_SLOTS - 1), ("next_asid", int(g["nr_asids"])), ("loaded_mm", int(g["nr_mms"]) - 1),
                        ("slot_mm", int(g["nr_mms"]) - 1), ("lazy", 1), ("sizes", 7), ("pieces", 1)):
        if cpus[name].max() > limit:
            raise ValueError(f"cpus.{name} is {cpus[name].max()}; it must lie in 0..{limit}")
    as_int(log, "table.log", int(g["min_log"]), int(g["max_log"]))
    n = 2 << log if g["kind"] == TLB_UNBOUNDED else 0
    if not isinstance(blocks, np.ndarray) or blocks.dtype != TLB_BLOCK_DTYPE or blocks.shape != (n,):
        raise ValueError(f"blocks must be an array of {n} blocks")
    if n:
        space = blocks["space"][n // 2:]
        used = int(np.count_nonzero(space))
        if used != int(arrays["table"]["used"][0]) or used * 2 > n // 2:
            raise ValueError(f"table.used is {arrays['table']['used'][0]}, {used} blocks are; at most {n // 4} may be")
        most = int((space >> np.uint64(3) & np.uint64(MAX_CPUS - 1)).max())
        if most >= int(g["nr_cpus"]):
            raise ValueError(f"a block belongs to CPU {most}; there are {g['nr_cpus']}")
