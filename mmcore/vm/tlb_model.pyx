"""TlbModel: the TLBs of a machine as an object, its arrays, its copies, and single operations for tests and experiments.

Models: nothing by itself; mmcore.vm.tlb does. Simplifies: calls from Python name their CPU. Omits: checks that cost time in
the engine; here every value from outside is checked before it reaches it.
"""
import numpy as np

from libc.string cimport memcmp
from mmcore.base.args cimport as_int
from mmcore.base.state import aligned_zeros
from mmcore.base.state cimport State, mm_try_lock, mm_unlock, sched_yield
from mmcore.base.vm_records cimport POOL_MMS
from mmcore.vm.tlb cimport (
    tlb_batch_add, tlb_batch_flush, tlb_drop_mm, tlb_enter_lazy, tlb_fill, tlb_flush_all, tlb_flush_kernel_range, tlb_flush_mm,
    tlb_lookup, tlb_prefetch, tlb_shootdown, tlb_switch_mm, tlb_walk,
)
from mmcore.vm.tlb_blocks cimport block_alive
from mmcore.vm.tlb_config import (
    ARRAYS, TLB_BLOCK_DTYPE, TLB_CONFIG_DTYPE, TLB_STATS_DTYPE, check_config, check_contents, check_parts, config_record, described,
    shapes_of,
)
from mmcore.vm.tlb_records cimport (
    AHEAD, E_FLAGS, KEY_SHIFT, MAX_CPUS, TLB_CLEAN, TLB_MAX_WALK_LEVELS, TLB_MISS, TLB_UNBOUNDED, TlbBlock, TlbConfig, TlbCpu, TlbPart,
    TlbStats, TlbTable, alive,
)

cnp.import_array()


cdef uint64_t as_u64(object value, str name) except? 0xffffffffffffffff:
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    value = value.__index__()
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{name} is {value}; it must lie in 0..{(1 << 64) - 1}")
    return value


cdef class TlbModel:
    """The TLBs of a machine with `nr_cpus` CPUs.

    config: a name of PRESETS ("zen", "skylake", "unbounded", "off") or a dict of the same form; keyword arguments override its keys:
    asids (ids that a CPU deals out; 1: no PCID), walk_entries (of the walk cache of each upper level, 0: none), pt_levels, pt_bits,
    flush_ceiling, max_mms, capacity (of an unbounded one: blocks of 64 pages), parts.

    Address spaces are numbers from 1; 0 is the kernel, whose translations are global. All state is in arrays().
    """

    def __init__(self, config="zen", nr_cpus=1, **overrides):
        record, parts = config_record(described(config, overrides), nr_cpus)
        self.make(record, parts)

    cdef int make(self, object config, object parts) except -1:
        g = config[0]
        arrays = {name: aligned_zeros(n, dtype) for name, (n, dtype) in shapes_of(g).items()}
        arrays["config"][:] = config
        arrays["parts"][:] = parts
        # a generation is never 0
        for name in ("gen", "walk_gen"):
            arrays["cpus"][name] = 1
        arrays["cpus"]["flushes"] = 1
        arrays["cpus"]["missed"] = (1 << 64) - 1
        arrays["table"]["log"] = g["min_log"]
        arrays["blocks"] = aligned_zeros(2 << int(g["max_log"]) if g["kind"] == TLB_UNBOUNDED else 0, TLB_BLOCK_DTYPE)
        self.config, self.parts, self.cpus, self.cpu_stats = arrays["config"], arrays["parts"], arrays["cpus"], arrays["stats"]
        self.mm_gen, self.keys, self.stamps = arrays["mm_gen"], arrays["keys"], arrays["stamps"]
        self.walk_keys, self.walk_stamps = arrays["walk_keys"], arrays["walk_stamps"]
        self.full_at, self.walk_full_at = arrays["full_at"], arrays["walk_full_at"]
        self.table, self.blocks = arrays["table"], arrays["blocks"]
        return self.bind()

    cdef int bind(self) except -1:
        # The only place that takes addresses.
        self.c.g = <TlbConfig*>cnp.PyArray_DATA(self.config)
        self.c.parts = <TlbPart*>cnp.PyArray_DATA(self.parts)
        self.c.cpus = <TlbCpu*>cnp.PyArray_DATA(self.cpus)
        self.c.stats = <TlbStats*>cnp.PyArray_DATA(self.cpu_stats)
        self.c.mm_gen = <uint64_t*>cnp.PyArray_DATA(self.mm_gen)
        self.c.keys = <uint64_t*>cnp.PyArray_DATA(self.keys)
        self.c.stamps = <uint64_t*>cnp.PyArray_DATA(self.stamps)
        self.c.full_at = <uint64_t*>cnp.PyArray_DATA(self.full_at)
        self.c.walk_full_at = <uint64_t*>cnp.PyArray_DATA(self.walk_full_at)
        self.c.walk_keys = <uint64_t*>cnp.PyArray_DATA(self.walk_keys)
        self.c.walk_stamps = <uint64_t*>cnp.PyArray_DATA(self.walk_stamps)
        self.c.table = <TlbTable*>cnp.PyArray_DATA(self.table)
        self.c.blocks = <TlbBlock*>cnp.PyArray_DATA(self.blocks)
        self.lock = 0
        return 0

    cdef void enter(self) noexcept:
        cdef int* lock = &self.lock
        while not mm_try_lock(lock):
            with nogil:
                sched_yield()

    cdef void leave(self) noexcept:
        mm_unlock(&self.lock)

    cdef unsigned cpu_of(self, object cpu) except? 0xffffffff:
        return <unsigned>as_int(cpu, "cpu", 0, self.c.g.nr_cpus - 1)

    cdef uint32_t mm_of(self, object mm, uint32_t least) except? 0xffffffff:
        return <uint32_t>as_int(mm, "mm", least, self.c.g.nr_mms - 1)

    cdef unsigned shift_of_page(self, object page_shift) except? 0xffffffff:
        cdef unsigned shift = <unsigned>as_int(page_shift, "page_shift", 12, 32), bits = self.c.g.pt_bits
        if (shift - 12) % bits or (shift - 12) // bits > 2 or (shift - 12) // bits >= self.c.g.pt_levels:
            some = [12 + bits * i for i in range(min(3, self.c.g.pt_levels))]
            raise ValueError(f"page_shift is {shift}; it must be one of {', '.join(map(str, some))}")
        return shift

    # one access

    def lookup(self, cpu, mm, vpn, write=False):
        """0 miss, 1 hit in L1, 2 hit in L2, 3 cached but a write must walk. Switches `cpu` to `mm` if need be."""
        cdef unsigned on = self.cpu_of(cpu)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef uint64_t page = <uint64_t>as_int(vpn, "vpn", 0, (<int64_t>1 << 52) - 1)
        cdef bint w = bool(write)
        self.enter()
        try:
            return tlb_lookup(&self.c, on, m, page, w)
        finally:
            self.leave()

    def fill(self, cpu, mm, vpn, page_shift=12, writable=True, dirty=True):
        """The walk that follows a miss, and its entry; returns the memory accesses of the walk."""
        cdef unsigned on = self.cpu_of(cpu), shift = self.shift_of_page(page_shift)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef uint64_t page = <uint64_t>as_int(vpn, "vpn", 0, (<int64_t>1 << 52) - 1)
        cdef bint w = bool(writable), d = bool(dirty)
        self.enter()
        try:
            return tlb_fill(&self.c, on, m, page, shift, w, d)
        finally:
            self.leave()

    def walk(self, cpu, mm, vpn, page_shift=12):
        """A walk that leaves no entry (it ended in a fault); returns its memory accesses."""
        cdef unsigned on = self.cpu_of(cpu), shift = self.shift_of_page(page_shift)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef uint64_t page = <uint64_t>as_int(vpn, "vpn", 0, (<int64_t>1 << 52) - 1)
        self.enter()
        try:
            return tlb_walk(&self.c, on, m, page, shift)
        finally:
            self.leave()

    def access_many(self, cpu, mm, vpns, writes=None, *, page_shift=12, dirty=True):
        """Look up pages `vpns` (uint64 array) in order, fill what misses, and return what each lookup found (uint8 array).

        writes: None (all read), or an array of uint8 or bool. dirty: the pages are dirty already; False: an entry is only known to be
        dirty when a write brought it. The GIL is not held meanwhile.
        """
        cdef unsigned on = self.cpu_of(cpu), shift = self.shift_of_page(page_shift)
        cdef uint32_t m = self.mm_of(mm, 0)
        cdef cnp.ndarray v = checked(vpns, np.uint64, "vpns"), w
        cdef int64_t n = cnp.PyArray_SIZE(v), i
        cdef const uint64_t* vp = <const uint64_t*>cnp.PyArray_DATA(v)
        cdef const uint8_t* wp = NULL
        cdef uint64_t most = 0
        cdef uint8_t* out
        cdef bint write, all_dirty = bool(dirty)
        cdef Tlb* t = &self.c
        cdef int found
        if writes is not None:
            w = checked(writes.view(np.uint8) if getattr(writes, "dtype", None) == np.bool_ else writes, np.uint8, "writes")
            if cnp.PyArray_SIZE(w) != n:
                raise ValueError(f"writes has {cnp.PyArray_SIZE(w)} elements for {n} accesses")
            wp = <const uint8_t*>cnp.PyArray_DATA(w)
        for i in range(n):
            most |= vp[i]
        if most >> 52:
            raise ValueError(f"vpns holds {max(vpns)}; page numbers must lie in 0..{(1 << 52) - 1}")
        result = np.empty(n, np.uint8)
        out = <uint8_t*>cnp.PyArray_DATA(result)
        self.enter()
        try:
            with nogil:
                for i in range(n):
                    if i + AHEAD < n:
                        tlb_prefetch(t, on, m, vp[i + AHEAD])
                    write = wp != NULL and wp[i]
                    found = tlb_lookup(t, on, m, vp[i], write)
                    out[i] = <uint8_t>found
                    if found == TLB_MISS or found == TLB_CLEAN:
                        tlb_fill(t, on, m, vp[i], shift, True, all_dirty or write)
        finally:
            self.leave()
        return result

    # address spaces and flushes

    def switch_mm(self, cpu, mm):
        """Load address space `mm` (0: none) on `cpu`; whether that flushed its id."""
        cdef unsigned on = self.cpu_of(cpu)
        cdef uint32_t m = self.mm_of(mm, 0)
        self.enter()
        try:
            return bool(tlb_switch_mm(&self.c, on, m))
        finally:
            self.leave()

    def enter_lazy(self, cpu):
        """`cpu` runs a kernel thread or idles, its address space stays loaded."""
        cdef unsigned on = self.cpu_of(cpu)
        self.enter()
        tlb_enter_lazy(&self.c, on)
        self.leave()

    def drop_mm(self, mm):
        """Address space `mm` is no more."""
        cdef uint32_t m = self.mm_of(mm, 1)
        self.enter()
        tlb_drop_mm(&self.c, m)
        self.leave()

    def flush_range(self, cpu, mm, start, end, stride_shift=12, freed_tables=False, cpus=None):
        """Flush [start, end) (bytes) of `mm` on every CPU that has it loaded, or on the CPUs named; returns the IPIs sent."""
        cdef unsigned on = self.cpu_of(cpu), shift = <unsigned>as_int(stride_shift, "stride_shift", 12, 48), sent
        cdef uint32_t m = self.mm_of(mm, 1)
        cdef uint64_t low = as_u64(start, "start"), high = as_u64(end, "end")
        cdef bint freed = bool(freed_tables)
        cdef cnp.ndarray mask = self.mask_of(cpus)
        cdef uint32_t* bits = NULL if cpus is None else <uint32_t*>cnp.PyArray_DATA(mask)
        if low > high:
            raise ValueError(f"start is {low:#x}; it must not exceed end, {high:#x}")
        self.enter()
        sent = tlb_shootdown(&self.c, on, bits, m, low, high, shift, freed)
        self.leave()
        return sent

    def flush_mm(self, cpu, mm):
        """Flush all of `mm`, page tables included; returns the IPIs sent."""
        cdef unsigned on = self.cpu_of(cpu), sent
        cdef uint32_t m = self.mm_of(mm, 1)
        self.enter()
        sent = tlb_flush_mm(&self.c, on, m)
        self.leave()
        return sent

    def batch_add(self, mm):
        """Reclaim unmapped something from `mm`."""
        cdef uint32_t m = self.mm_of(mm, 1)
        self.enter()
        tlb_batch_add(&self.c, m)
        self.leave()

    def batch_flush(self, cpu, cpus=None):
        """Flush what batch_add() noted, everywhere or on the CPUs named; returns the IPIs sent."""
        cdef unsigned on = self.cpu_of(cpu), sent
        cdef cnp.ndarray mask = self.mask_of(cpus)
        cdef uint32_t* bits = NULL if cpus is None else <uint32_t*>cnp.PyArray_DATA(mask)
        self.enter()
        sent = tlb_batch_flush(&self.c, on, bits)
        self.leave()
        return sent

    def flush_kernel_range(self, cpu, start, end):
        """Flush [start, end) of the kernel on every CPU."""
        cdef unsigned on = self.cpu_of(cpu)
        cdef uint64_t low = as_u64(start, "start"), high = as_u64(end, "end")
        if low > high:
            raise ValueError(f"start is {low:#x}; it must not exceed end, {high:#x}")
        self.enter()
        tlb_flush_kernel_range(&self.c, on, low, high)
        self.leave()

    def flush_all(self, cpu):
        """Flush everything on every CPU, global entries too."""
        cdef unsigned on = self.cpu_of(cpu)
        self.enter()
        tlb_flush_all(&self.c, on)
        self.leave()

    def mask_of(self, cpus):
        """CPUs as an array of bits, 32 to a word."""
        mask = np.zeros((int(self.c.g.nr_cpus) + 31) // 32, np.uint32)
        for cpu in cpus or ():
            on = self.cpu_of(cpu)
            mask[on >> 5] |= np.uint32(1 << (on & 31))
        return mask

    # what it holds

    def stats(self, cpu=None):
        """Counters of one CPU, or of all together: hits, misses_4k and so on, walk_steps, nr_tlb_*."""
        rows = self.cpu_stats if cpu is None else self.cpu_stats[self.cpu_of(cpu):][:1]
        out = {}
        for name in TLB_STATS_DTYPE.names:
            if name == "misses":
                out.update(zip(("misses_4k", "misses_2m", "misses_1g"), rows[name].sum(axis=0).tolist(), strict=True))
            else:
                out[name] = int(rows[name].sum())
        return out

    def entries(self, cpu):
        """What `cpu` has cached, live entries only: for each part {set: [(slot, size, page, flags)]}, least recently used first.

        flags: 1 writable, 2 dirty, 4 piece of a larger page. Of an unbounded TLB: one part, one set, ordered by number, flags 3 or 0.
        """
        cdef unsigned on = self.cpu_of(cpu)
        cdef TlbCpu* c = &self.c.cpus[on]
        cdef TlbPart* part
        cdef TlbBlock* b
        cdef uint64_t at, key, i
        self.enter()
        try:
            out = []
            if self.c.g.kind == TLB_UNBOUNDED:
                found = []
                for i in range(<uint64_t>1 << self.c.table.log, <uint64_t>2 << self.c.table.log):
                    b = &self.c.blocks[i]
                    if block_alive(&self.c, b) and (b.space >> 3 & (MAX_CPUS - 1)) == on:
                        found += [(int(b.space & 7), int(b.page & 3), int(b.page >> 2 << 6 | bit), 3 if b.writes >> bit & 1 else 0)
                                  for bit in range(64) if b.present >> bit & 1]
                return [{0: sorted(found)}]
            for p in range(self.c.g.nr_parts):
                part = &self.c.parts[p]
                sets = {}
                for s in range(part.sets):
                    found = []
                    at = <uint64_t>on * self.c.g.entries + part.first + s * <uint64_t>part.ways
                    for i in range(at, at + part.ways):
                        key = self.c.keys[i]
                        if alive(c.gen, key):
                            found.append((int(self.c.stamps[i]), (int(key & 7), int(key >> KEY_SHIFT & 3), int(key >> (KEY_SHIFT + 2)),
                                                                  int(self.c.stamps[i] & E_FLAGS))))
                    if found:
                        sets[s] = [entry for _, entry in sorted(found)]
                out.append(sets)
            return out
        finally:
            self.leave()

    def walk_entries(self, cpu):
        """The walk caches of `cpu`: for each level from 1 up [(slot, page-table index bits)], least recently used first."""
        cdef unsigned on = self.cpu_of(cpu), n = self.c.g.walk_entries
        cdef uint64_t at, i, key
        self.enter()
        try:
            out = []
            for level in range(1, self.c.g.pt_levels):
                found = []
                at = (<uint64_t>on * TLB_MAX_WALK_LEVELS + level - 1) * n
                for i in range(at, at + n):
                    key = self.c.walk_keys[i]
                    if alive(self.c.cpus[on].walk_gen, key):
                        found.append((int(self.c.walk_stamps[i]), (int(key & 7), int(key >> KEY_SHIFT))))
                out.append([entry for _, entry in sorted(found)])
            return out
        finally:
            self.leave()

    @property
    def nr_cpus(self):
        """CPUs that have TLBs here."""
        return int(self.c.g.nr_cpus)

    @property
    def nbytes(self):
        """Bytes of all arrays, as addressed."""
        return sum(a.nbytes for a in self.arrays().values()) - self.arrays()["blocks"].nbytes + self.blocks.nbytes

    # saving and copying

    def arrays(self):
        """The arrays by name (not copies); of `blocks` the part that can differ from zero."""
        return {
            "config": self.config, "parts": self.parts, "cpus": self.cpus, "stats": self.cpu_stats, "mm_gen": self.mm_gen,
            "keys": self.keys, "stamps": self.stamps, "full_at": self.full_at, "walk_keys": self.walk_keys, "walk_stamps": self.walk_stamps,
            "walk_full_at": self.walk_full_at, "table": self.table,
            "blocks": self.blocks[:2 << int(self.table["log"][0])] if len(self.blocks) else self.blocks,
        }

    @staticmethod
    def from_arrays(arrays):
        """A model with copies of what arrays() gave; ValueError on anything that it cannot have given."""
        cdef TlbModel model = TlbModel.__new__(TlbModel)
        if set(arrays) != set(ARRAYS):
            raise ValueError(f"the arrays of a TLB are {', '.join(ARRAYS)}; these are {', '.join(map(str, arrays))}")
        config = arrays["config"]
        if not isinstance(config, np.ndarray) or config.dtype != TLB_CONFIG_DTYPE or config.shape != (1,):
            raise ValueError("config must be one record of TLB_CONFIG_DTYPE")
        check_config(config[0])
        for name, (n, dtype) in shapes_of(config[0]).items():
            a = arrays[name]
            if not isinstance(a, np.ndarray) or a.dtype != dtype or a.shape != (n,):
                raise ValueError(f"{name} must be an array of {n} {dtype}")
        check_parts(config[0], arrays["parts"])
        check_contents(config[0], arrays)
        model.make(config, arrays["parts"])
        for name in shapes_of(config[0]).keys() - {"config", "parts"}:
            (model.cpu_stats if name == "stats" else getattr(model, name))[:] = arrays[name]
        if len(arrays["blocks"]):
            half = len(arrays["blocks"]) // 2
            model.blocks[half:2 * half] = arrays["blocks"][half:]
        return model

    def copy(self):
        """An independent model in the same state."""
        self.enter()
        try:
            return TlbModel.from_arrays(self.arrays())
        finally:
            self.leave()

    def assign(self, TlbModel other not None):
        """Take over the contents of `other`, which has the same configuration."""
        if not same(self.config, other.config) or not same(self.parts, other.parts):
            raise ValueError("the TLBs of the two are not alike")
        if other is self:
            return
        old = 1 << int(self.table["log"][0])
        if len(self.blocks):
            self.blocks[old:2 * old] = np.zeros((), TLB_BLOCK_DTYPE)
        theirs = other.arrays()
        for name, array in self.arrays().items():
            if name != "blocks":
                array[:] = theirs[name]
        if len(theirs["blocks"]):
            half = len(theirs["blocks"]) // 2
            self.blocks[half:2 * half] = theirs["blocks"][half:]

    def bind_to(self, State state not None):
        """Become the TLBs of a machine (State.attach)."""
        fits = {"nr_cpus": state.c.g.nr_cpus, "pt_levels": state.c.vm.levels, "pt_bits": state.c.vm.bits}
        for name, value in fits.items():
            if int(self.config[name][0]) != value:
                raise ValueError(f"the TLBs are made for {name} {self.config[name][0]}, the machine has {value}")
        if self.c.g.nr_mms <= state.c.vm.pools[<int>POOL_MMS].capacity:
            raise ValueError(f"the TLBs know {self.c.g.nr_mms - 1} address spaces, the machine has {state.c.vm.pools[<int>POOL_MMS].capacity}")
        state.c.vm.tlb = &self.c

    def same_bytes(self, TlbModel other not None):
        """Whether every array holds the same bytes."""
        mine, others = self.arrays(), other.arrays()
        return all(same(mine[name], others[name]) for name in ARRAYS)


cdef bint same(cnp.ndarray a, cnp.ndarray b):
    return cnp.PyArray_NBYTES(a) == cnp.PyArray_NBYTES(b) and memcmp(cnp.PyArray_DATA(a), cnp.PyArray_DATA(b), cnp.PyArray_NBYTES(a)) == 0


cdef cnp.ndarray checked(object array, object dtype, str name):
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1 or not array.flags.c_contiguous:
        raise TypeError(f"{name} must be a one-dimensional contiguous array of {np.dtype(dtype)}, not "
                        + (f"{array.ndim}-dimensional {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__))
    return array
