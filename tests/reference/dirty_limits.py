"""A slow twin of mmcore.reclaim.dirty_limits in exact integers; C's division rounds towards zero."""

HZ = 250


def quotient(a: int, b: int) -> int:
    return -(-a // b) if (a < 0) != (b < 0) else a // b


def log2(x: int) -> int:
    return max(x.bit_length() - 1, 0)


def limits(dirtyable: int, ratio: int = 20, background: int = 10, bytes_: int = 0, background_bytes: int = 0) -> tuple[int, int, int]:
    thresh = -(-bytes_ // 4096) if bytes_ else ratio * 4096 // 100 * dirtyable // 4096
    bg = -(-background_bytes // 4096) if background_bytes else background * 4096 // 100 * dirtyable // 4096
    if bg >= thresh:
        bg = thresh // 2
    return thresh, bg, (thresh + bg) // 2


def polynom(setpoint: int, dirty: int, limit: int) -> int:
    x = quotient((setpoint - dirty) << 10, (limit - setpoint) | 1)
    return min(max(((x * x >> 10) * x >> 10) + 1024, 0), 2048)


def position_ratio(thresh: int, freerun: int, limit: int, dirty: int, wb_dirty: int, write_bw: int) -> int:
    if dirty >= limit:
        return 0
    setpoint = (freerun + limit) // 2
    ratio = polynom(setpoint, dirty, limit)
    share = max(thresh, (limit - dirty) // 8)
    x = (share << 16) // (thresh | 1)
    own = setpoint * x >> 16
    span = quotient(thresh - share + 8 * write_bw, 1) * x >> 16
    end = own + span
    ratio = quotient(ratio * (end - wb_dirty), (end - own) | 1) if wb_dirty < end - quotient(span, 4) else ratio // 4
    ratio = min(ratio, 1 << 20)
    low = share // 2
    if wb_dirty < low:
        ratio = ratio * low // wb_dirty if wb_dirty > low // 8 else ratio * 8
    return ratio


def poll_interval(dirty: int, thresh: int) -> int:
    return 1 << (log2(thresh - dirty) >> 1) if thresh > dirty else 1


def pauses(wb_dirty: int, avg_bw: int, task_rate: int, rate: int) -> tuple[int, int, int]:
    longest = min(wb_dirty // (1 + avg_bw // 32) + 1, HZ // 5)
    t = 2 + max(log2(avg_bw) - log2(rate), 0) * 10 * HZ // 1024
    t = min(t, 1 + longest // 2)
    pages = rate * t // 256
    if pages < 32:
        t, pages = longest, rate * longest // 256
        if pages > 32:
            t, pages = HZ * 32 // rate, 32
    if HZ * pages // (task_rate + 1) > longest:
        t, pages = longest, task_rate * longest // 256
    return longest, 1 + t // 2 if pages >= 32 else t, pages
