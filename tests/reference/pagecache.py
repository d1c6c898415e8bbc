"""A slow, obvious page cache: which pages of a file are cached and marked after any sequence of calls, from the specification alone.

Models: section 10 of the virtual memory specification. Simplifies: memory never runs out. Omits: which page frames are used.
"""

SEQ_READ, RAND_READ, HUGEPAGE = 0x8000, 0x10000, 0x20000000
SHMEM, RAM = 1, 2


def pages(size: int) -> int:
    return -(-size // 4096)


class TwinFile:
    """One file: `cached` maps page index -> dirty, `marks` holds the marked ones."""

    def __init__(self, size: int, flags: int = 0, ra_pages: int = 32):
        self.size, self.flags, self.bdi = size, flags, 0 if flags else ra_pages
        self.cached: dict[int, bool] = {}
        self.marks: set[int] = set()
        self.start = self.ra_size = self.ra_async = self.mmap_miss = self.majors = 0
        self.prev = -1
        self.random = self.sequential = False

    @property
    def window(self) -> int:
        return self.bdi * 2 if self.sequential else self.bdi

    def state(self) -> tuple:
        return self.start, self.ra_size, self.ra_async, self.prev, self.mmap_miss

    def fetch(self, start: int, n: int, lookahead: int = 0) -> None:
        end = min(start + n, pages(self.size))
        mark = end - lookahead if lookahead and end - start >= lookahead else None
        for index in range(start, end):
            if index not in self.cached:
                self.cached[index] = False
                if index == mark:
                    self.marks.add(index)

    def submit(self, start: int, size: int, lookahead: int) -> None:
        self.start, self.ra_size, self.ra_async = start, size, lookahead
        self.fetch(start, size, lookahead)

    def first_size(self, req: int) -> int:
        if req > self.window:
            return self.window
        p = 1 << (req - 1).bit_length()
        return 4 * p if p <= self.window // 32 else 2 * p if p <= self.window // 4 else self.window

    def next_size(self, size: int) -> int:
        return 4 * size if size < self.window // 16 else 2 * size if size <= self.window // 2 else self.window

    def miss(self, index: int, req: int) -> None:
        r = self.window
        if not r:
            self.fetch(index, 1)
        elif self.random:
            self.fetch(index, min(req, r))
        elif index == 0 or req > r or (self.prev >= 0 and 0 <= index - self.prev // 4096 <= 1):
            size = self.first_size(req)
            self.submit(index, size, size - req if size > req else size // 2)
        else:
            count = 0
            while count < min(r, index) and index - count - 1 in self.cached:
                count += 1
            if count <= req:
                self.fetch(index, req)
            else:
                self.submit(index, min(count * (2 if count == index else 1) + req, r), 1)

    def hit(self, index: int, req: int) -> None:
        if index not in self.marks or not self.window:
            return
        self.marks.discard(index)
        if index == self.start + self.ra_size - self.ra_async:
            size = max(self.ra_size, self.next_size(self.ra_size))
            self.submit(self.start + self.ra_size, size, size)
            return
        free = next((i for i in range(index + 1, index + 1 + self.window) if i not in self.cached), None)
        if free is not None:
            size = self.next_size(free - index + req)
            self.submit(free, size, size)

    def read(self, offset: int, length: int) -> tuple[int, int]:
        end, misses = min(offset + length, self.size), 0
        if offset >= self.size or not length:
            return 0, 0
        last = pages(offset + length)
        for index in range(offset // 4096, pages(end)):
            if index not in self.cached:
                misses += 1
                if self.flags & SHMEM:
                    continue
                self.miss(index, last - index)
                self.cached.setdefault(index, False)
            self.hit(index, last - index)
        self.prev = end
        return pages(end) - offset // 4096, misses

    def write(self, offset: int, length: int) -> int:
        if not length:
            return 0
        for index in range(offset // 4096, pages(offset + length)):
            self.cached[index] = True
        self.size = max(self.size, offset + length)
        return pages(offset + length) - offset // 4096

    def fault(self, index: int, vm_flags: int = 0) -> int:
        if index >= pages(self.size):
            return -5
        if index in self.cached:
            if self.window and not vm_flags & RAND_READ:
                self.mmap_miss = max(0, self.mmap_miss - 1)
                self.hit(index, self.window)
            return 0
        if self.flags & SHMEM:
            self.cached[index] = False
            return 0
        self.majors += 1
        r = self.window
        if vm_flags & HUGEPAGE:
            self.ra_size, self.ra_async = 512 if vm_flags & RAND_READ else 1024, 512
            self.fetch(index // 512 * 512, self.ra_size, 512)
        elif vm_flags & RAND_READ or not r:
            pass
        elif vm_flags & SEQ_READ:
            self.miss(index, r)
        else:
            self.mmap_miss = min(1000, self.mmap_miss + 1)
            if self.mmap_miss <= 100:
                self.submit(max(0, index - r // 2), r, r // 4)
        self.cached.setdefault(index, False)
        return 1

    def map_pages(self, first: int, end: int) -> list[int]:
        found = [i for i in range(first, min(end, pages(self.size))) if i in self.cached and i not in self.marks]
        self.mmap_miss = max(0, self.mmap_miss - len(found))
        return found

    def forget(self, indices) -> int:
        indices = list(indices)
        for index in indices:
            del self.cached[index]
            self.marks.discard(index)
        return len(indices)

    def truncate(self, size: int) -> None:
        if size < self.size and size % 4096 and size // 4096 in self.cached and not self.flags:
            self.cached[size // 4096] = True  # its tail is cleared
        self.size = size
        self.forget([i for i in self.cached if i >= pages(size)])

    def drop(self) -> int:
        return self.forget([i for i, dirty in self.cached.items() if not dirty and not self.flags])

    def fadvise(self, offset: int, length: int, advice: int) -> None:
        end = offset + length if length else 1 << 62
        if advice == 0:
            self.random = self.sequential = False
        elif advice == 1:
            self.random = True
        elif advice == 2:
            self.random, self.sequential = False, True
        elif advice == 3 and not self.flags:
            self.fetch(offset // 4096, pages(end) - offset // 4096)
        elif advice == 4 and not self.flags:
            last = pages(self.size) if end >= self.size else end // 4096
            self.forget([i for i, dirty in self.cached.items() if not dirty and pages(offset) <= i < last])

    def fsync(self) -> int:
        dirty = 0 if self.flags else sum(self.cached.values())
        if not self.flags:
            self.cached = dict.fromkeys(self.cached, False)
        return dirty


def fault_around(i: int, v: int, vma_pages: int, n: int) -> tuple[int, int]:
    start = max(i // n * n, i - min(i, v))
    return start, min(start + n, 512, i + vma_pages - v) - 1
