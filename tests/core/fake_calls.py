"""Stand-ins for the core's entries of virtual memory, for trees in which they are not built: the records are real, the rules are few.

VMAs never merge, files are cached whole at the first touch, a fault has one of four outcomes. install() does nothing where the core's own
entries exist.
"""

import importlib
import importlib.util
import sys
import types

import numpy as np

from mmcore.alloc import page_alloc, page_free
from mmcore.base.state import POOLS

ENTRIES = ("mmcore.vm.pgtable", "mmcore.sys.calls", "mmcore.sys.file_calls", "mmcore.run.access")
USER = 0x7FFFFFFFF000
ANON, FILE, SWAPBACKED, DIRTY, META = 1 << 17, 1 << 23, 1 << 13, 1 << 4, 1 << 21
PRESENT, RW, ACCESSED, DIRTIED, SPECIAL, NX = 1, 2, 32, 64, 512, 1 << 63
FRAME = (1 << 52) - 4096


def install() -> bool:
    """Put the stand-ins in place; False where the real entries are there."""
    if any(getattr(sys.modules.get(name), "stand_in", False) for name in ENTRIES):
        return True
    missing = [name for name in ENTRIES if importlib.util.find_spec(name) is None]
    if not missing:
        return False
    for name in ENTRIES if "mmcore.sys.calls" in missing or "mmcore.run.access" in missing else missing:
        if name == "mmcore.vm.pgtable" and name not in missing:
            continue
        module = types.ModuleType(name)
        module.stand_in = True
        for entry in NAMES[name]:
            setattr(module, entry, globals()[f"{entry}_"] if entry in ("fork", "access") else globals()[entry])
        sys.modules[name] = module
        package, _, last = name.rpartition(".")
        setattr(importlib.import_module(package), last, module)
    return True


NAMES = {
    "mmcore.vm.pgtable": ("walk", "ptes", "pagemap"),
    "mmcore.run.access": ("access",),
    "mmcore.sys.calls": (
        "spawn", "fork", "exec_", "exit_", "mmap", "munmap", "mprotect", "mremap", "brk", "madvise", "mlock", "munlock", "mlockall",
        "munlockall", "prlimit",
    ),
    "mmcore.sys.file_calls": ("create_file", "unlink"),
}  # fmt: skip


def take(state, name):
    """A record of a pool: index + 1."""
    info = state.pools[POOLS[name]]
    info["used"] += 1
    info["live"] += 1
    return int(info["used"])


def table(state, mm, level, base, parent):
    slot = take(state, "tables") - 1
    row = state.get("table_info")[slot]
    row["pfn"], row["mm"], row["level"], row["base"], row["parent"] = page_alloc.alloc_pages(state, 0xCC0), mm, level, base, parent
    if level < 3:
        state.get("mms")[mm - 1]["pgtables_bytes"] += 4096
    state.nodes["vm_stat"][0, 38] += 1
    return slot


def entry(state, mm, vpn, make=False):
    """(table, index) of the PTE of a page; None where no table reaches it."""
    slot = int(state.get("mms")[mm - 1]["root"]) - 1
    for level in (3, 2, 1):
        at = vpn >> 9 * level & 511
        e = int(state.get("tables")[slot, at])
        if not e:
            if not make:
                return None
            below = table(state, mm, level - 1, vpn & ~((1 << 9 * level) - 1), slot + 1)
            state.get("tables")[slot, at] = e = below << 12 | 0x67
        slot = e >> 12
    return slot, vpn & 511


def ptes(state, mm, start, n):
    out = np.zeros(n, np.uint64)
    for i in range(n):
        where = entry(state, mm, start + i)
        if where:
            out[i] = state.get("tables")[where]
    return out


def walk(state, mm, vaddrs):
    entries = np.array([ptes(state, mm, int(v) >> 12, 1)[0] for v in vaddrs], np.uint64)
    pfns = np.where(entries & np.uint64(1), (entries & np.uint64(FRAME)) >> np.uint64(12), 0).astype(np.int64)
    return np.where(entries & np.uint64(1), pfns, -1), np.zeros(len(entries), np.uint8), entries


def pagemap(state, mm, start, n):
    e = ptes(state, mm, start, n)
    return np.where(e & np.uint64(1), (e & np.uint64(FRAME)) >> np.uint64(12) | np.uint64(1 << 63), 0).astype(np.uint64)


def spawn(state, name="", cpu=0, exec_image=False, privileged=False):
    mm = take(state, "mms")
    row, g = state.get("mms")[mm - 1], state.vm_globals
    row["pid"], row["task_size"], row["mmap_base"], row["cpu"] = g["next_pid"][0], USER, 0x7FFFF7FFF000, cpu
    g["next_pid"] += 1
    state.names.append(name)
    row["name"] = len(state.names)
    row["root"] = table(state, mm, 3, 0, 0) + 1
    if exec_image:
        image(state, mm)
    return 0


def image(state, mm):
    row = state.get("mms")[mm - 1]
    file = create_file(state, "/bin/a.out", 0x5000, 0)
    for start, n, prot, flags, handle in (
        (0x400000, 1, 1, 2, file), (0x401000, 3, 5, 2, file), (0x405000, 1, 3, 2, file), (0x406000, 33, 3, 0x22, 0),
        (0x7FFFF7FF9000, 4, 1, 0x22, 0), (0x7FFFF7FFD000, 2, 5, 0x22, 0), (0x7FFFFFFDE000, 33, 3, 0x122, 0),
    ):  # fmt: skip
        mmap(state, mm, start, n * 4096, prot, flags | 0x10, handle, 0, 0)
    row["start_brk"], row["brk"], row["start_stack"] = 0x406000, 0x427000, 0x7FFFFFFFE000
    vmas = state.get("vmas")
    for start, name in ((0x7FFFF7FF9000, "[vvar]"), (0x7FFFF7FFD000, "[vdso]")):
        state.names.append(name)
        vmas["name"][(vmas["mm"] == mm) & (vmas["start"] == start)] = len(state.names)


def fork_(state, mm, cpu=0):
    child = spawn(state, cpu=cpu)
    mms = state.get("mms")
    for field in ("start_brk", "brk", "start_stack", "total_vm", "data_vm", "stack_vm", "exec_vm", "map_count", "rss"):
        mms[child - 1][field] = mms[mm - 1][field]
    mms[child - 1]["parent_pid"], mms[child - 1]["name"] = mms[mm - 1]["pid"], mms[mm - 1]["name"]
    for vma in state.get("vmas")[state.get("vmas")["mm"] == mm].copy():
        index = take(state, "vmas") - 1
        state.get("vmas")[index] = vma
        state.get("vmas")[index]["mm"] = child
        for vpn in range(int(vma["start"]) >> 12, int(vma["end"]) >> 12):
            where = entry(state, mm, vpn)
            e = int(state.get("tables")[where]) if where else 0
            if e:
                e &= ~RW
                state.get("tables")[where] = e
                new = entry(state, child, vpn, True)
                state.get("tables")[new] = e & ~ACCESSED
                if not e & SPECIAL:
                    pfn = (e & FRAME) >> 12
                    state.meta["mapcount"][pfn] = max(int(state.meta["mapcount"][pfn]), 1) + 1
    return child


def exec_(state, mm, cpu=0, name=None):
    if name is not None:
        state.names.append(name)
        state.get("mms")["name"][mm - 1] = len(state.names)
    for vma in state.get("vmas")[state.get("vmas")["mm"] == mm].copy():
        munmap(state, mm, int(vma["start"]), int(vma["end"] - vma["start"]), cpu)
    image(state, mm)
    return 0


def exit_(state, mm, cpu=0):
    for vma in state.get("vmas")[state.get("vmas")["mm"] == mm].copy():
        munmap(state, mm, int(vma["start"]), int(vma["end"] - vma["start"]), cpu)
    info = state.get("table_info")
    for slot in np.flatnonzero(info["mm"] == mm).tolist():
        page_free.free_pages(state, int(info[slot]["pfn"]))
        state.get("tables")[slot] = 0
        state.nodes["vm_stat"][0, 38] -= 1
        info[slot] = np.zeros((), info.dtype)
    state.get("mms")[mm - 1] = np.zeros((), state.get("mms").dtype)


def overlapping(state, mm, start, end):
    v = state.get("vmas")
    return np.flatnonzero((v["mm"] == mm) & (v["start"] < end) & (v["end"] > start))


def mmap(state, mm, addr, length, prot, flags, file, offset, cpu=0):
    if not length or offset & 4095 or (flags & 0x10 and addr & 4095):
        return -22
    length = -(-length // 4096) * 4096
    row = state.get("mms")[mm - 1]
    if length > USER - 65536:
        return -12
    if not flags & 0x100010:
        own = np.sort(state.get("vmas")[state.get("vmas")["mm"] == mm], order="start")
        addr = int(row["mmap_base"]) - length
        for vma in own[::-1].tolist():
            start, end = vma[2], vma[3]
            if start < addr + length and end > addr:
                addr = start - length
        if addr < 65536:
            return -12
    elif len(overlapping(state, mm, addr, addr + length)):
        if flags & 0x100000:
            return -17
        munmap(state, mm, addr, length, cpu)
    if state.vm_globals["overcommit_memory"][0] == 0 and length // 4096 > int(state.globals["totalram_pages"][0]) and not flags & 0x4000:
        return -12
    index = take(state, "vmas") - 1
    v = state.get("vmas")[index]
    v["mm"], v["start"], v["end"], v["file"] = mm, addr, addr + length, file
    v["pgoff"] = offset // 4096 if file else addr // 4096
    v["flags"] = prot & 7 | 0x70 | (0x88 if flags & 1 else 0) | (0x100 if flags & 0x100 else 0) | (0x100000 if prot & 2 else 0)
    pages = length // 4096
    row["total_vm"] += pages
    row["map_count"] += 1
    kind = "stack_vm" if flags & 0x100 else "exec_vm" if prot & 6 == 4 else "data_vm" if prot & 2 and not flags & 1 else None
    if kind:
        row[kind] += pages
    if prot & 2:
        state.vm_globals["committed"] += pages
    return addr


def split(state, index, at):
    """Cut a VMA in two; the index of the upper part."""
    above = take(state, "vmas") - 1
    v = state.get("vmas")
    v[above] = v[index]
    v[above]["start"] = v[index]["end"] = at
    v[above]["pgoff"] += (at - int(v[index]["start"])) // 4096
    state.get("mms")[int(v[index]["mm"]) - 1]["map_count"] += 1
    return above


def isolate(state, mm, start, end):
    for index in overlapping(state, mm, start, end).tolist():
        if state.get("vmas")[index]["start"] < start:
            index = split(state, index, start)
        if state.get("vmas")[index]["end"] > end:
            split(state, index, end)
    return overlapping(state, mm, start, end)


def zap(state, mm, start, end):
    for vpn in range(start >> 12, end >> 12):
        where = entry(state, mm, vpn)
        e = int(state.get("tables")[where]) if where else 0
        if not e:
            continue
        state.get("tables")[where] = 0
        if e & SPECIAL:
            continue
        pfn = (e & FRAME) >> 12
        anon = int(state.pages["flags"][pfn]) & ANON
        state.get("mms")[mm - 1]["rss"][1 if anon else 0] -= 1
        count = max(int(state.meta["mapcount"][pfn]), 1) - 1
        state.meta["mapcount"][pfn] = count
        if not count and anon:
            state.pages["flags"][pfn] &= np.uint32(~(ANON | SWAPBACKED | DIRTY | META) & 0xFFFFFFFF)
            state.meta[pfn] = np.zeros((), state.meta.dtype)
            page_free.free_pages(state, pfn)
            state.nodes["vm_stat"][0, 17] -= 1


def munmap(state, mm, addr, length, cpu=0):
    if addr & 4095 or not length:
        return -22
    end = addr + -(-length // 4096) * 4096
    for index in isolate(state, mm, addr, end).tolist():
        v = state.get("vmas")[index]
        zap(state, mm, int(v["start"]), int(v["end"]))
        row = state.get("mms")[mm - 1]
        row["total_vm"] -= (v["end"] - v["start"]) // 4096
        row["map_count"] -= 1
        if v["flags"] & 2:
            state.vm_globals["committed"] -= int(v["end"] - v["start"]) // 4096
        state.get("vmas")[index] = np.zeros((), state.get("vmas").dtype)
    return 0


def mprotect(state, mm, addr, length, prot, cpu=0):
    if addr & 4095:
        return -22
    found = isolate(state, mm, addr, addr + length)
    for index in found.tolist():
        v = state.get("vmas")[index]
        v["flags"] = int(v["flags"]) & ~7 | prot & 7
    return 0 if len(found) else -12


def mremap(state, mm, old, old_len, new_len, flags, new_addr, cpu=0):
    if not len(overlapping(state, mm, old, old + old_len)):
        return -14
    return -12 if new_len > old_len else munmap(state, mm, old + new_len, old_len - new_len) or old if new_len < old_len else old


def brk(state, mm, addr, cpu=0):
    row = state.get("mms")[mm - 1]
    if addr >= row["start_brk"]:
        row["brk"] = addr
    return int(row["brk"])


def madvise(state, mm, addr, length, advice, cpu=0):
    if addr & 4095 or advice not in (0, 1, 2, 3, 4, 14, 15):
        return -22
    for index in isolate(state, mm, addr, addr + length).tolist():
        v = state.get("vmas")[index]
        if advice in (14, 15):
            v["flags"] = int(v["flags"]) & ~0x60000000 | 1 << 15 + advice
        if advice == 4:
            zap(state, mm, int(v["start"]), int(v["end"]))
    return 0


def mlock(state, mm, addr, length, onfault, cpu=0):
    for index in isolate(state, mm, addr, addr + length).tolist():
        v = state.get("vmas")[index]
        v["flags"] |= np.uint64(0x2000)
        pages = np.arange(int(v["start"]) >> 12, int(v["end"]) >> 12, dtype=np.uint64)
        state.get("mms")[mm - 1]["locked_vm"] += len(pages)
        access_(state, mm, pages, np.ones(len(pages), np.uint8), cpu)
    return 0


def munlock(state, mm, addr, length, cpu=0):
    for index in isolate(state, mm, addr, addr + length).tolist():
        v = state.get("vmas")[index]
        v["flags"] = int(v["flags"]) & ~0x2000
        state.get("mms")[mm - 1]["locked_vm"] -= (v["end"] - v["start"]) // 4096
    return 0


def mlockall(state, mm, flags, cpu=0):
    return 0 if 1 <= flags <= 7 else -22


def munlockall(state, mm, cpu=0):
    return 0


def create_file(state, name, size, flags):
    file = take(state, "files")
    row, g = state.get("files")[file - 1], state.vm_globals
    row["id"], row["size"], row["flags"] = g["next_file"][0], size, flags
    g["next_file"] += 1
    state.names.append(name)
    row["name"] = len(state.names)
    return file


def unlink(state, file):
    state.get("files")[file - 1] = np.zeros((), state.get("files").dtype)


def prlimit(state, mm, resource, limit=None):
    field = f"rlimit_{resource}"
    if field not in state.get("mms").dtype.names:
        raise ValueError(f"resource is {resource!r}")
    if limit is not None:
        state.get("mms")[field][mm - 1] = limit
    return int(state.get("mms")[field][mm - 1])


def file_page(state, file, index):
    """A page of a file, found by a linear search: the page cache of a fake."""
    flags, meta = state.pages["flags"], state.meta
    tagged = np.flatnonzero((flags & FILE) != 0)
    for pfn in tagged.tolist():
        if meta[pfn]["index_lo"] == index and meta[pfn]["index_hi"] == file:
            return pfn, False
    pfn = page_alloc.alloc_pages(state, 0xCC0)
    flags[pfn] |= np.uint32(FILE)
    meta[pfn]["index_lo"], meta[pfn]["index_hi"] = index, file
    state.get("files")[file - 1]["nr_pages"] += 1
    return pfn, True


def fault(state, mm, vpn, write):
    found = overlapping(state, mm, vpn << 12, (vpn + 1) << 12)
    if not len(found):
        return 3
    v = state.get("vmas")[found[0]]
    f = int(v["flags"])
    if (write and not f & 2) or not f & 7:
        return 4
    where = entry(state, mm, vpn)
    e = int(state.get("tables")[where]) if where else 0
    if e and (not write or e & RW):
        state.get("tables")[where] = e | ACCESSED | (DIRTIED if write else 0)
        return 2
    row, result = state.get("mms")[mm - 1], 0
    old = (e & FRAME) >> 12 if e and not e & SPECIAL else None
    if v["file"] and (not write or f & 8):
        index = int(v["pgoff"]) + vpn - (int(v["start"]) >> 12)
        if index >= -(-int(state.get("files")[int(v["file"]) - 1]["size"]) // 4096):
            return 5
        pfn, missing = file_page(state, int(v["file"]), index)
        result = int(missing)
        if old is None:
            row["rss"][0] += 1
            state.meta["mapcount"][pfn] += 1
        e = pfn << 12 | PRESENT | ACCESSED | (DIRTIED | RW if write else 0)
    elif not write:
        e = int(state.vm_globals["zero_page"][0]) << 12 | PRESENT | ACCESSED | SPECIAL
    elif old is not None and state.meta["mapcount"][old] <= 1 and int(state.pages["flags"][old]) & ANON:
        e |= RW | DIRTIED | ACCESSED
    else:
        pfn = page_alloc.alloc_pages(state, 0xCC0)
        state.pages["flags"][pfn] |= np.uint32(ANON | SWAPBACKED)
        state.nodes["vm_stat"][0, 17] += 1
        if old is not None:
            state.meta["mapcount"][old] -= 1
            row["rss"][1 if int(state.pages["flags"][old]) & ANON else 0] -= 1
        row["rss"][1] += 1
        e = pfn << 12 | PRESENT | RW | ACCESSED | DIRTIED
    where = entry(state, mm, vpn, True)
    state.get("tables")[where] = e | NX
    row["majflt" if result else "minflt"] += 1
    state.vm_globals["events"][0, 8] += 1
    state.vm_globals["events"][0, 9] += result
    return result


def access_(state, mm, vpns, writes, cpu=0, codes=None):
    counts = np.zeros(8, np.int64)
    for i, vpn in enumerate(vpns.tolist()):
        code = fault(state, mm, vpn, bool(writes[i]) if isinstance(writes, np.ndarray) else bool(writes))
        counts[code] += 1
        if codes is not None:
            codes[i] = code
    return len(vpns), counts
