"""Machine shapes: one normal form, plain data and back, and a clear word on every value that cannot be."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpy.config import MachineConfig


def test_the_default_machine():
    config = MachineConfig()
    assert config == MachineConfig("4G", nodes=["4G"], cpus=[1]) == MachineConfig(4 << 30, cpus=[[0]])
    assert (config.nr_pages, config.node_pages, config.cpu_node, config.highmem_pages) == (1 << 20, (1 << 20,), (0,), None)


@pytest.mark.parametrize(
    "given_, normal",
    [
        ({"nodes": 2}, {"nodes": ("2G", "2G")}),
        ({"memory": "1G", "nodes": 3}, {"nodes": ("336M", "336M", "352M")}),
        ({"memory": "24M", "nodes": 5}, {"nodes": ("4M", "4M", "4M", "4M", "8M")}),
        ({"nodes": ["1024M", 3 << 30]}, {"nodes": ("1G", "3G")}),
        ({"nodes": 2, "cpus": 5}, {"cpus": ((0, 1, 2), (3, 4))}),
        ({"nodes": ["4G", 0], "cpus": [1, 1]}, {"nodes": ("4G", "0"), "cpus": ((0,), (1,))}),
        ({"nodes": 2, "cpus": [0, 2]}, {"cpus": ((), (0, 1))}),
        ({"nodes": 2, "cpus": [[1, 3], [2, 0]]}, {"cpus": ((1, 3), (0, 2))}),
        ({"nodes": 2, "distances": np.array([[10, 30], [20, 10]])}, {"distances": ((10, 30), (20, 10))}),
        ({"kernelcore": " 25% "}, {"kernelcore": "25%"}),
        ({"movablecore": 1 << 30}, {"movablecore": "1G"}),
        ({"arch": "i386", "highmem": "1024M"}, {"highmem": "1G"}),
        ({"reserved": [[0x1000, 0x2000]]}, {"reserved": ((0x1000, 0x2000),)}),
        ({"reserved": {"Normal": 7, "node0.DMA32": 9}}, {"reserved": {"node0.Normal": 7, "node0.DMA32": 9}}),
        ({"reserved": []}, {"reserved": ()}),
        ({"sysctl": {"vm.lowmem_reserve_ratio": [256, 256, 32]}}, {"sysctl": {"vm.lowmem_reserve_ratio": (256, 256, 32)}}),
        ({"seed": np.uint64(7)}, {"seed": 7}),
        ({"memory": np.int64(1 << 30)}, {"memory": "1G"}),
    ],
)
def test_the_normal_form(given_, normal):
    config = MachineConfig(**given_)
    assert {name: getattr(config, name) for name in normal} == normal
    assert MachineConfig(**config.to_dict()) == config


def test_cpus_know_their_nodes():
    assert MachineConfig(nodes=2, cpus=[[1, 3], [2, 0]]).cpu_node == (1, 0, 1, 0)
    assert MachineConfig(nodes=4, cpus=6).cpu_node == (0, 0, 1, 1, 2, 3)
    assert MachineConfig(nodes=["4G", "0", "0"], cpus=[1, 2, 1]).cpu_node == (0, 1, 1, 2)


BAD_VALUES = [
    ({"memory": "0"}, "memory is '0'"),
    ({"memory": "4097"}, "page size, 4096"),
    ({"memory": "9T"}, "limit is .* .8T"),
    ({"memory": "65G", "arch": "i386"}, "at most 64G"),
    ({"nodes": 0}, "nodes is 0"),
    ({"nodes": 1025}, "1..1024"),
    ({"nodes": []}, "0 nodes"),
    ({"nodes": ["1G", "2G"]}, "add up to 3G; memory is 4G"),
    ({"nodes": ["4095M", "1M"]}, "node 1 has 256 pages"),
    ({"memory": "32M", "nodes": 9}, "node 0 has 512 pages"),
    ({"memory": "4M", "nodes": 1000}, "node 0 has 0 pages"),
    ({"nodes": 2, "arch": "i386"}, "i386 has 1..1"),
    ({"nodes": ["4G", "0"]}, "node 1 has neither memory nor CPUs"),
    ({"nodes": 2, "distances": [[10, 20]]}, "1 rows; the machine has 2"),
    ({"nodes": 2, "distances": [[10, 20], [20]]}, "row 1 of distances has 1"),
    ({"nodes": 2, "distances": [[10, 10], [20, 10]]}, "from node 0 to 1 is 10; it must lie in 11..254"),
    ({"nodes": 2, "distances": [[10, 255], [20, 10]]}, "255; it must lie in 11..254"),
    ({"nodes": 2, "distances": [[10, 20], [20, 20]]}, "node 1 to itself is 20"),
    ({"cpus": 0}, "cpus is 0"),
    ({"cpus": 8193}, "1..8192"),
    ({"cpus": 33, "arch": "i386"}, "1..32"),
    ({"cpus": [1, 1]}, "2 entries; the machine has 1"),
    ({"cpus": [0]}, "0 CPUs"),
    ({"cpus": [-1]}, "-1 CPUs"),
    ({"cpus": [[0, 2]]}, "each of CPUs 0..1 once"),
    ({"cpus": [[0, 0]]}, "each of CPUs 0..1 once"),
    ({"nodes": 1024, "cpus": 1025}, "1..1024 on x86_64"),
    ({"arch": "arm64"}, "arch is 'arm64'"),
    ({"kernel": "5.10"}, "'6.12', '6.1'"),
    ({"chipset": "microvm"}, "'pc', 'q35'"),
    ({"thp": "sometimes"}, "'always', 'madvise', 'never'"),
    ({"lru": "lru"}, "'mglru', 'classic'"),
    ({"kernelcore": "101%"}, "0% to 100%"),
    ({"kernelcore": "2.5%"}, "whole number"),
    ({"kernelcore": "mirror"}, "mirror is not supported"),
    ({"movablecore": "mirror"}, "mirror is not supported"),
    ({"movablecore": "-1G"}, "movablecore is '-1G'"),
    ({"highmem": "1G"}, "arch='i386'"),
    ({"highmem": "x", "arch": "i386"}, "highmem is 'x'"),
    ({"reserved": [(5, 5)]}, "0x5-0x5"),
    ({"reserved": [(-1, 5)]}, "begin at 0"),
    ({"reserved": [(0, (1 << 31) + 1)]}, "0x80000000"),
    ({"reserved": {"HighMem": 1}}, "reserved names zone 'HighMem'"),
    ({"reserved": {"node1.Normal": 1}}, "nodes 0..0"),
    ({"reserved": {"Normal": -1}}, "must not be negative"),
    ({"reserved": {"Normal": 1, "node0.Normal": 1}}, "twice"),
    ({"reserved": {"0/Normal": 1}}, "'node0.Normal'"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 1 << 64}, "0..18446744073709551615"),
]


@pytest.mark.parametrize("bad, message", BAD_VALUES, ids=[str(bad)[:60] for bad, _ in BAD_VALUES])
def test_values_that_no_machine_has(bad, message):
    with pytest.raises(ValueError, match=message):
        MachineConfig(**bad)


WRONG_KINDS = {
    "memory": [None, 1.5, True, b"4G"],
    "nodes": ["2", 1.0, None, [None], True],
    "distances": [20, "10", [10], ["10"], [[10.0]], {0: [10]}],
    "cpus": [None, "1", [None], [1.0], [["0"]], {0: 1}],
    "arch": [64],
    "kernel": [6.12],
    "thp": [True],
    "lru": [None],
    "chipset": [[]],
    "kernelcore": [0.5],
    "movablecore": [[1]],
    "reserved": [7, "7", [7], [(1, 2, 3)], [("1", "2")], {0: 1}, {"Normal": "1"}],
    "sysctl": [None, {1: 1}, {"a": 1.5}, {"a": [1.5]}],
    "seed": [None, "0"],
}


@pytest.mark.parametrize("name, bad", [(name, value) for name, values in WRONG_KINDS.items() for value in values])
def test_values_of_the_wrong_kind(name, bad):
    with pytest.raises(TypeError):
        MachineConfig(**{name: bad})


def test_cpus_are_counts_or_lists():
    with pytest.raises(TypeError, match="a number for each node, or a list"):
        MachineConfig(nodes=2, cpus=[1, [0]])
    with pytest.raises(TypeError, match="highmem must be"):
        MachineConfig(arch="i386", highmem=1.0)


def test_plain_data_is_checked():
    with pytest.raises(ValueError, match="no 'colour'; known are memory, nodes"):
        MachineConfig.from_dict({"colour": "red"})
    with pytest.raises(TypeError, match="must be a mapping"):
        MachineConfig.from_dict([("memory", "4G")])
    with pytest.raises(ValueError, match="no 'node_pages'"):
        MachineConfig.from_dict({"node_pages": [1]})
    assert MachineConfig.from_dict({}) == MachineConfig()


@st.composite
def configs(draw):
    count = draw(st.integers(1, 5))
    sizes = [draw(st.integers(8, 2048)) for _ in range(count)]
    kw = {
        "memory": f"{4 * sum(sizes)}M",
        "nodes": [f"{4 * n}M" for n in sizes],
        "cpus": draw(
            st.one_of(st.integers(1, 9), st.lists(st.integers(0, 3), min_size=count, max_size=count).map(lambda c: [c[0] + 1, *c[1:]]))
        ),
        "kernel": draw(st.sampled_from(["6.12", "6.1"])),
        "chipset": draw(st.sampled_from(["pc", "q35"])),
        "thp": draw(st.sampled_from(["always", "madvise", "never"])),
        "lru": draw(st.sampled_from(["mglru", "classic"])),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "kernelcore": draw(st.sampled_from([None, "25%", "64M", 0])),
        "movablecore": draw(st.sampled_from([None, "100%", "1G"])),
        "reserved": draw(st.sampled_from([None, [], [(4096, 5000)], {"node0.DMA": 100}])),
        "distances": draw(st.sampled_from([None, [[10 if a == b else 11 + abs(a - b) for a in range(count)] for b in range(count)]])),
    }
    return MachineConfig(**kw)


@given(configs())
def test_a_configuration_survives_json(config):
    data = json.loads(json.dumps(config.to_dict()))
    again = MachineConfig.from_dict(data)
    assert again == config
    assert again.to_dict() == data
    assert (again.node_pages, again.cpu_node) == (config.node_pages, config.cpu_node)
    assert sum(zone.present for zone in config.plan().zones) == config.plan().memmap.nr_pages
