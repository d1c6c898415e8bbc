"""/proc/PID texts: their shape is that of the kernel this test runs on (the lines that 6.12 has too), their figures add up."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest

from mmpy import Machine, Madv, Map, MmapError, Prot, Vm
from mmpy.proc import parse_meminfo, parse_vmstat, pid
from mmpy.proc.meminfo import commit_limit
from mmpy.vmviews import VmaView
from tests.core import fake_calls

FAKE = fake_calls.install()
PAGE = 4096

MAPS = re.compile(r"([0-9a-f]{8,16})-([0-9a-f]{8,16}) ([r-][w-][x-][sp]) ([0-9a-f]{8,}) ([0-9a-f]{2}):([0-9a-f]{2,}) (\d+) (?: *(\S.*))?")
SMAPS = [
    "Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty", "Private_Clean",
    "Private_Dirty", "Referenced", "Anonymous", "KSM", "LazyFree", "AnonHugePages", "ShmemPmdMapped", "FilePmdMapped",
    "Shared_Hugetlb", "Private_Hugetlb", "Swap", "SwapPss", "Locked",
]  # fmt: skip
ROLLUP = [*SMAPS[3:6], "Pss_Anon", "Pss_File", "Pss_Shmem", *SMAPS[6:]]
VM = [
    "VmPeak", "VmSize", "VmLck", "VmPin", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData", "VmStk", "VmExe", "VmLib",
    "VmPTE", "VmSwap", "HugetlbPages",
]  # fmt: skip
STATUS = [
    "Name", "Umask", "State", "Tgid", "Ngid", "Pid", "PPid", "TracerPid", "Uid", "Gid", "FDSize", "Groups", "NStgid", "NSpid",
    "NSpgid", "NSsid", "Kthread", *VM, "CoreDumping", "THP_enabled", "untag_mask", "Threads", "SigQ", "SigPnd", "ShdPnd",
    "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
    "Speculation_Store_Bypass", "SpeculationIndirectBranch", "Cpus_allowed", "Cpus_allowed_list", "Mems_allowed",
    "Mems_allowed_list", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches",
]  # fmt: skip
# what kernels and configurations after 6.12 add
NEWER = {"ProtectionKey", "x86_Thread_features", "x86_Thread_features_locked"}


@pytest.fixture
def machine():
    return Machine("64M", cpus=2, sysctl={"kernel.mm.transparent_hugepage.enabled": "never"})


@pytest.fixture
def process(machine):
    """A program with memory of every kind."""
    p = machine.spawn("cat", exec=True)
    anon = p.mmap("1M")
    p.touch(range(anon, anon + 100 * PAGE, PAGE), write=True)
    p.touch(range(anon + 100 * PAGE, anon + 120 * PAGE, PAGE))
    file = machine.open("/usr/lib/libc.so.6", "256K")
    text = p.mmap("256K", file=file, prot=Prot.READ | Prot.EXEC)
    p.touch(range(text, text + 30 * PAGE, PAGE))
    data = p.mmap("64K", file=file, offset="64K")
    p.touch(range(data, data + 5 * PAGE, PAGE), write=True)
    p.madvise(p.mmap("64K"), "64K", Madv.NOHUGEPAGE)
    return p


def own(name):
    path = Path("/proc/self") / name
    if not path.exists():
        pytest.skip("no /proc here")
    return path.read_text()


def blocks(smaps):
    """(line of maps, {label: line}) for each mapping."""
    out = []
    for line in smaps.splitlines():
        if MAPS.fullmatch(line):
            out.append((line, {}))
        else:
            out[-1][1][line.partition(":")[0]] = line
    return out


def kb(line):
    """The number of a line of smaps; its width is the kernel's."""
    match = re.fullmatch(r"(\w+:) +(\d+) kB", line)
    assert match, line
    assert line == f"{match[1]:<16}{match[2]:>8} kB"
    return int(match[2])


# ---------------------------------------------------------------- shape


@pytest.mark.parametrize("who", ["kernel", "ours"])
def test_maps(who, process):
    text = own("maps") if who == "kernel" else process.maps()
    assert text.endswith("\n")
    rows = [MAPS.fullmatch(line) for line in text.splitlines()]
    assert rows
    assert all(rows), text
    last = 0
    for row in rows:
        start, end = int(row[1], 16), int(row[2], 16)
        assert last <= start < end
        last = end
        # the name's column, and the blank at the end of a line without one
        assert row.string.find(row[8]) == 73 or len(row.string) > 73 + len(row[8]) if row[8] else row.string.endswith(f"{row[7]} ")
    names = [row[8] for row in rows]
    for name in ("[heap]", "[stack]", "[vdso]"):
        assert name in names


def test_map_lines_are_the_kernels_from_its_fields():
    """The kernel's own lines come out again when their fields are put in."""
    for line in own("maps").splitlines():
        row = MAPS.fullmatch(line)
        flags = sum(bit for char, bit in zip("rwx", (1, 2, 4), strict=True) if char in row[3]) | (0x80 if row[3][3] == "s" else 0)
        offset = int(row[4], 16)
        start, end, device = int(row[1], 16), int(row[2], 16), f"{row[5]}:{row[6]}"
        vma = VmaView(start, end, Vm(flags), offset // PAGE, int(bool(offset)), row[8] or "", 0, 0, int(row[7]), device)
        assert pid.map_line(vma) == line


@pytest.mark.parametrize("who", ["kernel", "ours"])
def test_smaps(who, process):
    found = blocks(own("smaps") if who == "kernel" else process.smaps())
    assert found
    for _head, lines in found:
        labels = [label for label in lines if label not in NEWER]
        assert labels == [label for label in (*SMAPS, "THPeligible", "VmFlags") if who == "ours" or label in lines]
        figures = {label: kb(lines[label]) for label in SMAPS if label in lines}
        assert re.fullmatch(r"THPeligible: {11}[01]", lines["THPeligible"])
        assert re.fullmatch(r"VmFlags: ((\w\w|\?\?) )+", lines["VmFlags"])
        parts = ("Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty")
        assert figures["Rss"] == sum(figures[part] for part in parts)
        assert figures["Pss"] <= figures["Rss"] <= figures["Size"]
        assert figures["Anonymous"] <= figures["Rss"]
        assert figures["Referenced"] <= figures["Rss"]


@pytest.mark.parametrize("who", ["kernel", "ours"])
def test_smaps_rollup(who, process):
    text = own("smaps_rollup") if who == "kernel" else process.smaps_rollup()
    ((head, lines),) = blocks(text)
    assert re.fullmatch(r"[0-9a-f]{8,}-[0-9a-f]{8,} ---p 00000000 00:00 0 +\[rollup\]", head)
    assert head.index("[rollup]") == 73
    assert list(lines) == [label for label in ROLLUP if who == "ours" or label in lines]
    figures = {label: kb(line) for label, line in lines.items()}
    assert abs(figures["Pss"] - figures["Pss_Anon"] - figures["Pss_File"] - figures["Pss_Shmem"]) <= 2


@pytest.mark.parametrize("who", ["kernel", "ours"])
def test_status(who, process):
    text = own("status") if who == "kernel" else process.status()
    lines = dict(re.fullmatch(r"(\w+):\t(.*)", line).groups() for line in text.splitlines())
    assert [label for label in lines if label not in NEWER] == [label for label in STATUS if who == "ours" or label in lines]
    for label in VM:
        assert re.fullmatch(r"[ \d]{8,} kB", lines[label])
        assert lines[label] == f"{int(lines[label][:-3]):>8} kB"
    number = {label: int(lines[label][:-3]) for label in VM}
    assert number["VmRSS"] == number["RssAnon"] + number["RssFile"] + number["RssShmem"]
    assert number["VmPeak"] >= number["VmSize"]
    assert number["VmHWM"] >= number["VmRSS"]
    assert lines["Tgid"] == lines["Pid"]
    assert lines["Groups"].endswith(" ")
    for label in ("SigPnd", "CapEff"):
        assert re.fullmatch(r"[0-9a-f]{16}", lines[label])
    for label in ("Cpus_allowed", "Mems_allowed"):
        assert re.fullmatch(r"[0-9a-f]{1,8}(,[0-9a-f]{8})*", lines[label])


@pytest.mark.parametrize("who", ["kernel", "ours"])
def test_statm(who, process):
    text = own("statm") if who == "kernel" else process.statm()
    size, resident, shared, code, lib, data, dirty = map(int, re.fullmatch(r"(\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)\n", text).groups())
    assert lib == dirty == 0
    assert size >= resident >= shared
    assert size >= code
    assert size >= data


def test_6_1_has_fewer_lines():
    machine = Machine("64M", kernel="6.1")
    p = machine.spawn("old", exec=True)
    _, lines = blocks(p.smaps())[0]
    assert list(lines) == [*(label for label in SMAPS if label != "KSM"), "THPeligible", "VmFlags"]
    assert lines["THPeligible"] == "THPeligible:    0"
    labels = [line.partition(":")[0] for line in p.status().splitlines()]
    assert labels == [label for label in STATUS if label not in ("Kthread", "untag_mask")]


# ---------------------------------------------------------------- figures


def sums(process):
    out = {}
    for _head, lines in blocks(process.smaps()):
        for label in SMAPS:
            out[label] = out.get(label, 0) + kb(lines[label])
    return out


def test_figures_of_one_program(process):
    total, rss = sums(process), process.rss
    assert total["Rss"] == (rss["anon"] + rss["file"] + rss["shmem"]) * 4
    assert total["Anonymous"] == rss["anon"] * 4
    assert rss["anon"] >= 105
    assert total["Size"] == (process.total_vm + 1) * 4  # and the vsyscall page
    assert total["Pss"] == total["Rss"]  # no one shares
    assert total["Private_Dirty"] >= 105 * 4
    assert total["Private_Clean"] >= 30 * 4
    assert total["LazyFree"] == total["Swap"] == total["Locked"] == 0
    rollup = {label: kb(line) for label, line in blocks(process.smaps_rollup())[0][1].items()}
    assert {label: n for label, n in total.items() if label in ROLLUP} == {label: rollup[label] for label in ROLLUP if label in total}
    assert rollup["Pss_File"] == rss["file"] * 4
    status = dict(line.split(":\t", 1) for line in process.status().splitlines())
    size, resident, shared, _, _, _, _ = map(int, process.statm().split())
    assert status["VmSize"] == f"{size * 4:>8} kB"
    assert status["VmRSS"] == f"{resident * 4:>8} kB"
    assert shared == rss["file"] + rss["shmem"]
    assert status["VmPTE"] == f"{process.page_table_bytes // 1024:>8} kB"
    assert (status["Name"], status["Pid"], status["Cpus_allowed"], status["Cpus_allowed_list"]) == ("cat", str(process.pid), "3", "0-1")


def test_zero_pages_count_nowhere(machine):
    p = machine.spawn()
    addr = p.mmap("64K")
    p.touch(range(addr, addr + 65536, PAGE))
    assert sums(p)["Rss"] == 0
    p.touch([addr], write=True)
    assert sums(p)["Rss"] == sums(p)["Private_Dirty"] == 4


def test_shares(machine):
    parent = machine.spawn()
    addr = parent.mmap("1M")
    parent.touch(range(addr, addr + (1 << 20), PAGE), write=True)
    child = parent.fork()
    for p in (parent, child):
        total = sums(p)
        assert (total["Rss"], total["Pss"], total["Shared_Dirty"], total["Private_Dirty"]) == (1024, 512, 1024, 0)
    child.touch(range(addr, addr + (1 << 19), PAGE), write=True)
    for p in (parent, child):
        total = sums(p)
        assert (total["Rss"], total["Pss"], total["Shared_Dirty"], total["Private_Dirty"]) == (1024, 768, 512, 512)
    third = parent.fork()
    assert sums(third)["Pss"] == (512 // 4 * (4096 << 12) // 2 + 512 // 4 * ((4096 << 12) // 3)) >> 22
    child.exit()
    third.exit()
    assert sums(parent)["Pss"] == 1024


def test_shared_file_pages(machine):
    a, b = machine.spawn(), machine.spawn()
    file = machine.open("/lib", "64K")
    for p in (a, b):
        addr = p.mmap("64K", file=file, prot=Prot.READ, flags=Map.SHARED)
        p.touch(range(addr, addr + 65536, PAGE))
    total = sums(a)
    assert (total["Rss"], total["Pss"], total["Shared_Clean"], total["Anonymous"]) == (64, 32, 64, 0)
    (line,) = [line for line in a.maps().splitlines() if "/lib" in line]
    assert MAPS.fullmatch(line)[3] == "r--s"
    assert "sh mr mw me ms" in a.smaps() or "sh" in a.smaps()


def test_locked(machine):
    p = machine.spawn()
    addr = p.mmap("64K")
    p.mlock(addr, "32K")
    head, lines = blocks(p.smaps())[0]
    assert (kb(lines["Locked"]), kb(lines["Size"])) == (32, 32)
    assert " lo " in lines["VmFlags"]
    assert head.startswith(f"{addr:08x}-")
    assert "VmLck:\t      32 kB\n" in p.status()


def test_terabytes_cost_what_is_in_them(machine):
    p = machine.spawn()
    machine.sysctl["vm.overcommit_memory"] = 1
    addr = p.mmap(1 << 45, flags=Map.PRIVATE | Map.ANONYMOUS | Map.NORESERVE)
    p.touch([addr, addr + (1 << 44), addr + (1 << 45) - 1], write=True)
    total = sums(p)
    assert (total["Size"], total["Rss"]) == ((1 << 35) + 4, 12)
    ranges = pid.populated(machine, p.mm)
    assert (ranges[:, 1] - ranges[:, 0]).tolist() == [512] * 3


def test_populated_joins_neighbours(machine):
    p = machine.spawn()
    addr = p.mmap("16M")
    p.touch(range(addr, addr + (16 << 20), 1 << 20))
    ranges = pid.populated(machine, p.mm)
    assert len(ranges) == 1
    assert ranges[0, 0] * PAGE <= addr
    assert ranges[0, 1] * PAGE >= addr + (16 << 20)
    assert len(pid.populated(machine, machine.spawn().mm)) == 0


def test_account_reads_every_bit():
    """Entries made by hand: PROT_NONE, zero page, swap, huge, lazily freed, shared, dirty by the page's flag."""
    machine = Machine("256M")
    first = machine.alloc_pages(9, 0x1C24CA)
    small = machine.alloc_pages_many(6).astype(np.int64)
    flags, meta = machine.state.pages["flags"], machine.state.meta
    flags[first] |= np.uint32(pid.PG_ANON | 1 << 13)
    anon, file = pid.PG_ANON, pid.PG_FILE
    for pfn, bits in zip(small, (anon | 1 << 13, anon, file, file | 1 << 13, file | 1 << 4, 0), strict=True):
        flags[pfn] |= np.uint32(bits)
    meta["mapcount"][small[2]] = 3
    young, dirty, present = 32, 64, 1
    machine.swapon("1M")
    first_slot = int(machine.state.get("swap_areas")["first_slot"][0])
    machine.state.get("swap_slots")["count"][first_slot + 7] = 1
    entries = [
        int(small[0]) << 12 | 256 | dirty,  # PROT_NONE
        int(small[1]) << 12 | present,  # lazily freed, clean
        int(small[2]) << 12 | present | young,
        int(small[3]) << 12 | present | 1 << 58,
        int(small[4]) << 12 | present,
        1 << 12 | present | 512 | young,  # zero page
        0, (first_slot + 8) << 12, 0xF << 60,  # nothing, swap, what is no entry of ours
    ]  # fmt: skip
    entries += [(first + i) << 12 | present | 128 | young | dirty for i in range(512)]
    m = pid.account(machine, np.array(entries, np.uint64), locked=True)
    n = PAGE
    assert (m.resident, m.anonymous, m.lazyfree, m.anonymous_thp) == (517 * n, 514 * n, n, 512 * n)
    assert (m.private_dirty, m.private_clean, m.shared_clean, m.shared_dirty) == (515 * n, n, n, 0)
    assert (m.referenced, m.swap, m.swap_pss >> 12) == (513 * n, n, n)
    assert (m.pss_anon >> 12, m.pss_shmem >> 12) == (514 * n, n)
    assert m.pss_file == (n << 12) + (n << 12) // 3
    assert m.pss == m.pss_locked == m.pss_anon + m.pss_shmem + m.pss_file
    # a large folio that has counts: two PMDs, and one further mapping of its first and of its last page
    meta["mapcount"][first], meta["index_lo"][first + 2], meta["index_lo"][first + 1], meta["mapcount"][first + 511] = 4, 2, 1, 1
    huge = pid.account(machine, np.array(entries[-512:], np.uint64))
    assert huge.pss == 510 * (n << 12) // 2 + 2 * ((n << 12) // 3)
    assert huge.shared_dirty == 512 * n
    pools = pid.account(machine, np.array(entries[-512:], np.uint64), hugetlb=True)
    assert (pools.shared_hugetlb, pools.private_hugetlb, pools.resident) == (512 * n, 0, 0)


@pytest.mark.skipif(FAKE, reason="the stand-ins know no huge pages")
def test_huge_pages_show():
    """Cases 2 and 3 of the specification (a read, then a write; a page unmapped inside), as the texts tell them."""
    machine = Machine("1G")
    p = machine.spawn()
    keep = p.mmap(4096)
    p.write(keep)

    def events():
        names = ("thp_fault_alloc", "thp_zero_page_alloc", "thp_split_pmd", "thp_deferred_split_page", "thp_split_page")
        return {name: n for name in names if (n := machine.vmstat[name])}

    addr = p.mmap("2M")
    assert addr % (2 << 20) == 0
    tables, faults = p.page_table_bytes, p.minflt
    p.read(addr + 5)
    assert (p.minflt - faults, p.page_table_bytes - tables, events()) == (1, 4096, {"thp_zero_page_alloc": 1})
    assert sums(p)["Rss"] == 4
    p.write(addr + 5)
    assert (p.minflt - faults, events()) == (2, {"thp_zero_page_alloc": 1, "thp_split_pmd": 1})
    assert (sums(p)["Rss"], sums(p)["AnonHugePages"]) == (8, 0)
    huge = p.mmap("2M", prot=Prot.READ | Prot.WRITE)
    p.write(huge)
    total = sums(p)
    assert (total["Rss"], total["AnonHugePages"], total["Pss"], total["Private_Dirty"]) == (2056, 2048, 2056, 2056)
    assert events()["thp_fault_alloc"] == 1
    assert "AnonHugePages:      2048 kB\n" in machine.proc.meminfo()
    levels = p.walk(range(huge, huge + (2 << 20), PAGE))[1]
    assert (levels == 1).all()
    child = p.fork()
    assert (sums(p)["Pss"], sums(child)["Pss"], sums(p)["Shared_Dirty"]) == (1028, 1028, 2056)
    child.exit()
    assert sums(p)["Pss"] == 2056
    before = events()
    p.munmap(huge + 5 * PAGE, PAGE)
    total, after = sums(p), events()
    assert (total["Rss"], total["AnonHugePages"], total["Pss"]) == (2052, 0, 2052)
    assert after["thp_split_pmd"] - before["thp_split_pmd"] == 1
    assert (after.get("thp_deferred_split_page"), after.get("thp_split_page")) == (1, None)
    p.exit()
    assert machine.vmstat["nr_anon_pages"] == 0


@pytest.mark.skipif(FAKE, reason="the stand-ins merge no mappings")
@pytest.mark.parametrize("thp", ["never", "always"])
@pytest.mark.parametrize("seed", range(3))
def test_figures_hold_under_random_calls(seed, thp):
    """Every program's Rss is what its counters say, and all Pss together are the pages that exist."""
    rng = np.random.default_rng(seed)
    machine = Machine("1G", cpus=2)
    machine.thp["enabled"] = thp
    programs = [machine.spawn()]
    ranges = {programs[0].pid: []}
    for step in range(150):
        p = programs[rng.integers(len(programs))]
        own = ranges[p.pid]
        start, n = own[rng.integers(len(own))] if own else (0, 0)
        at = start + int(rng.integers(n + 1)) * PAGE if n else 0
        part = int(rng.integers(1, 600)) * PAGE
        match int(rng.integers(9)) if own else 0:
            case 0:
                pages = int(rng.choice([1, 17, 512, 700, 1536]))
                own.append((p.mmap(pages * PAGE), pages))
            case 1 | 2 | 3:
                where = start + rng.integers(0, n, 200) * PAGE
                p.touch(where, rng.random(200) < 0.6)
            case 4:
                p.touch(range(start, start + n * PAGE, PAGE), write=True)
            case 5:
                p.munmap(at, part)
            case 6:
                try:
                    p.mprotect(at, part, int(rng.choice([0, 1, 3])))
                except MmapError as error:
                    assert error.errno == errno.ENOMEM  # noqa: PT017
            case 7:
                try:
                    p.madvise(at, part, int(rng.choice([Madv.DONTNEED, Madv.NOHUGEPAGE, Madv.HUGEPAGE])))
                except MmapError as error:
                    assert error.errno == errno.ENOMEM  # noqa: PT017
            case _ if len(programs) < 5:
                child = p.fork()
                programs.append(child)
                ranges[child.pid] = list(own)
            case _:
                programs.remove(p)
                p.exit()
                programs = programs or [machine.spawn()]
                ranges.setdefault(programs[0].pid, [])
        if step % 10:
            continue
        pss, seen = 0, set()
        for q in programs:
            sizes = pid.gather(q, q.vmas)
            assert sum(size.resident for size in sizes) == q.rss_pages * PAGE
            assert sum(size.anonymous for size in sizes) == q.rss["anon"] * PAGE
            pss += sum(size.pss for size in sizes)
            for vma in q.vmas:
                pages = q.pagemap(vma.start, vma.nr_pages)
                entries = q.walk(range(vma.start, vma.end, PAGE))[2]
                real = (pages & np.uint64(pid.PM_PRESENT) != 0) & (entries & np.uint64(512) == 0)
                seen.update((pages[real] & np.uint64(pid.PM_PFN_MASK)).tolist())
        assert len(seen) - 1 <= pss / (PAGE << 12) <= len(seen) + 1e-9
        assert machine.vmstat["nr_anon_pages"] == len(seen)
    for q in programs:
        q.exit()
    assert machine.vmstat["nr_anon_pages"] == machine.vmstat["nr_page_table_pages"] == machine.committed_as == 0


def test_flag_words():
    flags = Vm.READ | Vm.WRITE | Vm.MAYREAD | Vm.MAYWRITE | Vm.MAYEXEC | Vm.GROWSDOWN | Vm.ACCOUNT
    assert pid.vma_flags_text(int(flags)) == "rd wr mr mw me gd ac "
    assert pid.vma_flags_text(1 << 11) == "?? "
    assert pid.vma_flags_text(int(Vm.HUGEPAGE | Vm.SEALED)) == "hg sl "


def test_thp_eligible():
    machine = Machine("1G")
    assert machine.thp["enabled"] == "always"
    at = 4 << 20

    def eligible(start, end, flags=0, file=0):
        return pid.thp_eligible(machine, VmaView(start, end, Vm(0x73 | flags), 0, file, "", 0, 0))

    assert eligible(at, at + (2 << 20))
    assert not eligible(at, at + (2 << 20) - PAGE)
    assert not eligible(at + PAGE, at + (4 << 20) - PAGE)
    assert not eligible(at, at + (2 << 20), int(Vm.NOHUGEPAGE))
    assert not eligible(at, at + (2 << 20), file=1)
    machine.thp["enabled"] = "madvise"
    assert not eligible(at, at + (2 << 20))
    assert eligible(at, at + (2 << 20), int(Vm.HUGEPAGE))
    machine.thp["hugepages-64kB/enabled"] = "always"
    assert eligible(at, at + 65536)
    assert not eligible(at, at + 32768)


# ---------------------------------------------------------------- the machine's files


def test_meminfo_and_vmstat_follow(machine):
    before = parse_meminfo(machine.proc.meminfo())
    p = machine.spawn()
    addr = p.mmap("4M")
    p.touch(range(addr, addr + (2 << 20), PAGE), write=True)
    after, events = parse_meminfo(machine.proc.meminfo()), parse_vmstat(machine.proc.vmstat())
    assert after["AnonPages"] - before["AnonPages"] == 2048
    assert after["Committed_AS"] - before["Committed_AS"] == 4096
    assert after["PageTables"] - before["PageTables"] == p.page_table_bytes // 1024 + 4
    assert events["pgfault"] == machine.vmstat["pgfault"] == p.minflt == 512
    machine.state.vm_globals["events"][0, 79] = 5  # VE_THP_SPLIT_PMD
    assert machine.vmstat["thp_split_pmd"] == 5
    assert "thp_split_pmd 5\n" in machine.proc.vmstat()
    p.exit()
    assert parse_meminfo(machine.proc.meminfo())["Committed_AS"] == before["Committed_AS"]


def test_commit_limit(machine):
    total = parse_meminfo(machine.proc.meminfo())
    assert total["CommitLimit"] == total["MemTotal"] // 4 * 50 // 100 * 4 == machine.commit_limit * 4
    machine.sysctl["vm.overcommit_ratio"] = 80
    assert machine.commit_limit == machine.totalram_pages * 80 // 100
    machine.sysctl["vm.overcommit_kbytes"] = 1001
    assert (machine.commit_limit, machine.sysctl["vm.overcommit_ratio"]) == (250, 0)
    assert parse_meminfo(machine.proc.meminfo())["CommitLimit"] == 1000
    machine.sysctl["vm.overcommit_ratio"] = 50
    assert machine.sysctl["vm.overcommit_kbytes"] == 0
    # recorded: 1466196 kB and three huge pages of 2 MiB; 988500 kB
    assert commit_limit(1466196 // 4, hugetlb_pages=1536) * 4 == 730024
    assert commit_limit(988500 // 4) * 4 == 494248


def test_hugetlb_lines(machine):
    machine.state.vm_globals["hugetlb"][0, :4] = 5, 4, 3, 2
    machine.state.vm_globals["hugetlb_pages"] = 5 * 512
    found = parse_meminfo(machine.proc.meminfo())
    assert [found[f"HugePages_{name}"] for name in ("Total", "Free", "Rsvd", "Surp")] == [5, 4, 3, 2]
    assert found["Hugetlb"] == 10240
    assert found["CommitLimit"] == (machine.totalram_pages - 2560) * 50 // 100 * 4


SYSCTLS = {
    "vm.overcommit_memory": (0, 2), "vm.max_map_count": (0, 2**31 - 1), "vm.page-cluster": (0, 31), "vm.mmap_min_addr": (0, 2**47),
    "vm.stack_guard_gap": (0, 2**20), "vm.user_reserve_kbytes": (0, 2**63 - 1), "vm.admin_reserve_kbytes": (0, 2**63 - 1),
    "vm.overcommit_ratio": (0, 2**31 - 1),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSCTLS)
def test_sysctls_have_limits(machine, name):
    before = machine.fork()
    for bad in (SYSCTLS[name][0] - 1, SYSCTLS[name][1] + 1, "many", 1.5, True, [1, 2]):
        with pytest.raises(ValueError, match=name):
            machine.sysctl[name] = bad
    assert machine == before
    for good in SYSCTLS[name]:
        machine.sysctl[name] = good
        assert machine.sysctl[name] == good
    assert machine != before
    machine.restore(before)
    assert machine.sysctl[name] == before.sysctl[name]


def test_sysctl_defaults(machine):
    found = {name: machine.sysctl[name] for name in ("vm.max_map_count", "vm.mmap_min_addr", "vm.stack_guard_gap", "vm.overcommit_ratio")}
    assert found == {"vm.max_map_count": 65530, "vm.mmap_min_addr": 65536, "vm.stack_guard_gap": 256, "vm.overcommit_ratio": 50}
    assert len(machine.sysctl) == len(list(machine.sysctl))
    assert all(name in machine.sysctl for name in machine.sysctl)


def test_thp_settings(machine):
    thp = machine.thp
    assert len(thp) == len(list(thp))
    assert thp.text("enabled") == "always madvise [never]\n"
    assert thp.text("defrag") == "always defer defer+madvise [madvise] never\n"
    assert thp.text("hugepages-2048kB/enabled") == "always [inherit] madvise never\n"
    assert thp.text("khugepaged/pages_to_scan") == "4096\n"
    for name, value in {
        "enabled": "madvise", "defrag": "defer+madvise", "use_zero_page": 0, "hugepages-64kB/enabled": "inherit",
        "khugepaged/max_ptes_none": 0, "khugepaged/scan_sleep_millisecs": 100,
    }.items():  # fmt: skip
        thp[name] = value
        assert thp[name] == machine.thp[name] == value
    assert machine.state.vm_globals["mthp_on"][0]
    thp["hugepages-64kB/enabled"] = "never"
    assert not machine.state.vm_globals["mthp_on"][0]
    assert thp["hugepages-64kB/stats/anon_fault_alloc"] == 0
    assert machine.sysctl["kernel.mm.transparent_hugepage.enabled"] == "madvise"
    thp["defrag"] = "always\n"
    thp["khugepaged/pages_to_scan"] = "512\n"
    assert (thp["defrag"], thp["khugepaged/pages_to_scan"]) == ("always", 512)
    for name, value in (
        ("enabled", "sometimes"), ("defrag", "defer-madvise"), ("use_zero_page", 2), ("hugepages-64kB/enabled", 3),
        ("khugepaged/max_ptes_none", 512), ("khugepaged/pages_to_scan", 0), ("khugepaged/full_scans", 0), ("hpage_pmd_size", 4096),
        ("hugepages-64kB/stats/nr_anon", 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            thp[name] = value
    for name in ("hugepages-48kB/enabled", "hugepages-8kB/enabled", "hugepages-4M/enabled", "khugepaged/", "hugepages-64kB/x", "On", ""):
        with pytest.raises(KeyError, match="no setting"):
            thp[name]
    with pytest.raises(TypeError):
        del thp["enabled"]
    assert "defrag" in repr(thp)
    assert [name for name in Machine("64M", kernel="6.1").thp if name.startswith("huge")] == []
