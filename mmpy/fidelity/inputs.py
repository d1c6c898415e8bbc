"""The one table of what a comparison takes from a recording instead of predicting it. `mmpy compare --inputs` prints it.

What stands here is not scored. Everything else that a row compares is derived by the simulator.
"""

from __future__ import annotations

from typing import NamedTuple


class Input(NamedTuple):
    """One input: which kinds of case take it (`kinds`), what it is, where the recording has it, and why it cannot be derived."""

    kinds: str
    what: str
    source: str
    why: str


INPUTS: tuple[Input, ...] = (
    Input(
        "machine trace",
        "memory ranges and the node of each",
        "boot log: 'Early memory node ranges'; else iomem: System RAM",
        "the firmware made them",
    ),
    Input(
        "machine trace",
        "managed pages of each zone at the end of the boot",
        "zoneinfo: managed",
        "present minus what the boot reserved for the kernel image, struct pages, hash tables, firmware",
    ),
    Input(
        "machine trace",
        "pages freed after the watermarks were set: how many, and in which zone",
        "boot log: 'Freeing initrd', 'Freeing unused ...' (not 'SMP alternatives', which is earlier); RAMDISK; iomem: Kernel data",
        "they depend on the kernel image and the initrd; the watermarks were computed without them",
    ),
    Input("machine trace", "architecture", "zoneinfo: which zones there are", "chosen by who built the kernel"),
    Input("machine trace", "kernel version", "boot log: 'Linux version'", "6.12 and 6.1 follow different rules"),
    Input("machine", "end of low memory (32-bit)", "boot log: 'Zone ranges', HighMem", "a constant of the kernel's build"),
    Input("machine", "CPUs and the node of each", "nodeN.cpulist, nproc", "hardware"),
    Input("machine", "distances between nodes", "nodeN.distance", "the firmware made them"),
    Input(
        "machine trace",
        "boot parameters kernelcore, movablecore, transparent_hugepage",
        "cmdline, or the boot log's 'Command line'",
        "chosen by who booted the machine",
    ),
    Input(
        "machine",
        "sysctl writes: each variation's own sysctl, and the one before set back",
        "VARIATION/sysctls",
        "chosen by the experiment; which sysctl a variation is about follows from its name (min_free_, wsf_, lowmem_, pcphf_, combo_)",
    ),
    Input(
        "machine",
        "one read of vm.lowmem_reserve_ratio after the boot's zoneinfo was read",
        "boot/sysctl_vm is there",
        "reading this file recomputes the protections from the managed pages of that moment",
    ),
    Input(
        "machine",
        "sysctls that already differ from the kernel's defaults in the first dump",
        "boot/sysctl_vm: watermark_scale_factor, lowmem_reserve_ratio, percpu_pagelist_high_fraction",
        "chosen by who runs the machine (none in the reference set)",
    ),
    Input(
        "machine",
        "for MemAvailable: MemFree, Active(file), Inactive(file), KReclaimable",
        "meminfo",
        "what ran on the machine; totalreserve and the low watermarks are ours",
    ),
    Input("machine trace", "watermark boost of each zone (subtracted from printed watermarks)", "zoneinfo: boost", "what ran"),
    Input(
        "trace",
        "huge pages switched off by a write to their 'enabled' file before tracing",
        "the format's description ('huge pages off')",
        "chosen by the experiment; recomputes min_free_kbytes, watermarks and per-CPU sizes, not the protections",
    ),
    Input("trace", "the allocator's whole state at snapshot 0", "state0.*.txt", "the start; re-synchronised runs also take the later ones"),
    Input(
        "trace",
        "requests: allocations (order, flags, type, task), frees, bulk requests and what they got",
        "events: alloc, free, free_batched, bulk, bulkret",
        "the workload; page frames, blocks, drains and fallbacks are predicted",
    ),
    Input(
        "trace",
        "when kswapd wakes and sleeps, when a task is in direct reclaim or compaction",
        "events: mm_vmscan_*, mm_compaction_*",
        "no reclaim yet",
    ),
    Input(
        "trace",
        "ticks of the statistics worker",
        "events: pcp_drain at preemption depth 2; the silent ones between by the timer's arithmetic",
        "the phase of a timer",
    ),
    Input(
        "reclaim evict",
        "what was run: memory, limit, swappiness, mode, pattern and seed, flush, prefill, mlock, advice, read-ahead, fault-around, devices",
        "runs.csv, or the index and the head of the snapshots",
        "chosen by the experiment; the accesses follow from the pattern, their fingerprint is checked",
    ),
    Input("reclaim evict", "after which accesses memory.stat was read", "checkpoints: t", "reading it folds lagged statistics"),
    Input(
        "reclaim",
        "without a group: free pages and anonymous pages at the start",
        "checkpoints: start",
        "what else was resident in the guest",
    ),
    Input(
        "reclaim evict",
        "kernel pages charged to the group at the start (0-8), pages of others in the add batch (0-30), the place of one periodic fold",
        "searched: the same search for every case, by the figures of equal runs; rows chosen.* say what it chose",
        "not recorded",
    ),
    Input("trace", "the OOM victim and when it was killed", "boot log: 'Killed process'", "no reclaim yet"),
)


def table(kind: str | None = None) -> list[dict[str, str]]:
    """The table as plain rows, all of it or that of one kind of case."""
    return [row._asdict() for row in INPUTS if kind is None or kind in row.kinds.split()]
