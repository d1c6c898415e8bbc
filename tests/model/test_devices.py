"""Block devices against their twin, the presets, and what callers may get wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcore.reclaim import device as core
from mmpy import Machine
from tests.reference.device import Device


@pytest.fixture(scope="module")
def fresh():
    return Machine("64M")


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 300_000),  # time that passes before
        st.booleans(),
        st.one_of(st.none(), st.sampled_from(["next"]), st.integers(0, 20)),
        st.integers(1, 40),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(
    REQUESTS, st.integers(1, 8), st.integers(0, 100_000), st.integers(0, 100_000), st.booleans(), st.booleans(), st.integers(0, 3),
    st.integers(0, 3), st.sampled_from([4, 16, 64, 1280]),
)  # fmt: skip
def test_as_the_twin(fresh, requests, depth, read_ns, write_ns, seeks, synchronous, fail_read, fail_write, request_kib):
    m = fresh.fork()
    d = m.add_device(
        "nvme", read_latency_ns=read_ns, write_latency_ns=write_ns, read_bandwidth=4_096_000, write_bandwidth=40_960_000, depth=depth,
        seeks=seeks, synchronous=synchronous, request_kib=request_kib,
    )  # fmt: skip
    d.fail_next(read=fail_read, write=fail_write)
    twin = Device(read_ns, write_ns, 1_000_000, 100_000, depth, request_kib // 4, seeks, synchronous, {False: fail_read, True: fail_write})
    pages, behind = {False: 0, True: 0}, 0
    for wait, write, at, n in requests:
        m._one_op(engine_op="ADVANCE", a=wait)
        at = behind if at == "next" else at
        assert core.submit(m.state, d.handle, write, at, n) == twin.submit(m.now_ns, write, at, n)
        pages[write] += n
        behind = (at or 0) + n
    assert d.stat == {
        "nr_reads": twin.requests[False], "read_merges": twin.merges[False], "pages_read": pages[False],
        "nr_writes": twin.requests[True], "write_merges": twin.merges[True], "pages_written": pages[True],
        "nr_failed": twin.failed, "nr_inflight": 0,
    }  # fmt: skip
    assert (m.vmstat["pgpgin"], m.vmstat["pgpgout"]) == (4 * pages[False], 4 * pages[True])


def test_neighbours_become_one_request(fresh):
    """320 pages of a file, one by one in one instant: one request of 1280 KiB, then the next."""
    m = fresh.fork()
    d = m.add_device("virtio")
    ends = [core.submit(m.state, d.handle, True, 1000 + i, 1)[0] for i in range(321)]
    assert (d.stat["nr_writes"], d.stat["write_merges"]) == (2, 319)
    assert ends[0] == d.write_latency_ns + d.ns_per_page_write
    assert ends[319] == d.write_latency_ns + 320 * d.ns_per_page_write
    assert ends == sorted(ends)


def test_latencies_overlap_and_transfers_do_not(fresh):
    m = fresh.fork()
    d = m.add_device("nvme", depth=2, latency_ns=1000, bandwidth=4_096_000_000)
    assert [core.submit(m.state, d.handle, False, at, 1)[0] for at in (0, 100, 200)] == [2000, 3000, 4000]


def test_presets(fresh):
    m = fresh.fork()
    names = ["ram0", "vda", "nvme0n1", "sda", "vdb", "ram1"]
    assert [m.add_device(p).name for p in ("ram", "virtio", "nvme", "hdd", "virtio", "ram")] == names
    devices = m.devices
    assert list(devices) == names
    assert [n for n in devices if devices[n].synchronous] == ["ram0", "ram1"]
    assert [n for n in devices if devices[n].rotational] == ["vda", "sda", "vdb"]
    assert all(d.request_kib == 1280 for d in devices.values())
    done, failed = core.submit(m.state, devices["ram0"].handle, True, 0, 1000)
    assert (done, failed) == (m.now_ns, False)
    assert "rotational" in repr(devices["vda"])


def test_file_device(fresh):
    m = fresh.fork()
    assert m.file_device is None
    d = m.add_device("nvme", files=True)
    assert m.file_device == d
    m.file_device = None
    assert m.file_device is None
    m.file_device = "nvme0n1"
    assert m.file_device == d
    with pytest.raises(ValueError, match="another machine"):
        fresh.fork().file_device = d
    with pytest.raises(KeyError, match="no device 'sdx'"):
        m.file_device = "sdx"


@pytest.mark.parametrize(
    ("args", "figures", "error"),
    [
        (("floppy",), {}, ValueError), (("virtio", ""), {}, ValueError), (("virtio", "a\nb"), {}, ValueError),
        (("virtio", "x" * 256), {}, ValueError), (("virtio", 3), {}, TypeError), (("virtio",), {"depth": 0}, ValueError),
        (("virtio",), {"depth": 9}, ValueError), (("virtio",), {"depth": 1.0}, TypeError), (("virtio",), {"latency_ns": -1}, ValueError),
        (("virtio",), {"bandwidth": 0}, ValueError), (("virtio",), {"bandwidth": 10**16}, ValueError),
        (("virtio",), {"seeks": 1}, TypeError), (("virtio",), {"request_kib": 0}, ValueError),
        (("virtio",), {"queue_kib": 2**40}, ValueError), (("virtio",), {"speed": 1}, TypeError),
    ],
)  # fmt: skip
def test_what_no_device_can_be(fresh, args, figures, error):
    m = fresh.fork()
    with pytest.raises(error):
        m.add_device(*args, **figures)
    assert m == fresh


def test_misuse(fresh):
    m = fresh.fork()
    with pytest.raises(ValueError, match="no such device"):
        core.submit(m.state, 1, False, 0, 1)
    d = m.add_device("virtio", "disk")
    with pytest.raises(ValueError, match="already"):
        m.add_device("nvme", "disk")
    for bad in (0, -1, 2**31):
        with pytest.raises(ValueError):
            core.submit(m.state, d.handle, False, 0, bad)
    with pytest.raises(ValueError):
        d.fail_next(read=-1)
    with pytest.raises(ValueError, match="does not exist"):
        type(d)(fresh, 1).name  # noqa: B018
    for _ in range(63):
        m.add_device("ram")
    with pytest.raises(ValueError, match="no more fit"):
        m.add_device("ram")


def test_time_ends(fresh):
    """A device that is slower than time lasts."""
    m = fresh.fork()
    d = m.add_device("hdd", bandwidth=4096, latency_ns=10**12, queue_kib=1 << 30)
    for _ in range(400):
        done, _ = core.submit(m.state, d.handle, True, None, 1 << 24)
    assert done == 2**62


def test_costs(fresh):
    m = fresh.fork()
    assert m.costs["minor_fault"] == 500
    assert dict(m.costs) == dict(fresh.costs)
    m.costs["minor_fault"] = 700
    assert (m.costs["minor_fault"], fresh.costs["minor_fault"]) == (700, 500)
    assert m != fresh
    wrong = (("minor_fault", -1, ValueError), ("minor_fault", 2 * 10**9, ValueError), ("nothing", 1, KeyError), ("access", 1.5, TypeError))
    for name, value, error in wrong:
        with pytest.raises(error):
            m.costs[name] = value
    with pytest.raises(TypeError):
        del m.costs["access"]
