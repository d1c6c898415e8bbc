"""The one place where codes of the core become exceptions.

Models: the distinction between a failed allocation (an outcome) and misuse (an error). Simplifies: the kernel prints
"Bad page state" and goes on; here misuse raises and leaves the machine unchanged. Omits: nothing.
"""


class PageAllocFailure(MemoryError):
    """alloc_pages() found no page: order, flags and the free pages of the preferred zone are in the text (mm/page_alloc.c: warn_alloc)."""


class OutOfMemory(MemoryError):
    """The OOM killer found nothing to kill (mm/oom_kill.c)."""


class SegmentationFault(RuntimeError):
    """An access to an address that is not mapped."""


class ValidationError(AssertionError):
    """A recount from scratch disagrees with what incremental code kept."""


class BadPageError(ValueError):
    """A page that may not be freed, or not in this way: the text names the page frame and its state."""


class GfpError(ValueError):
    """An illegal combination of GFP flags."""


cdef dict _CODES = {
    E_NOENT: (KeyError, "no such object"),
    E_NOMEM: (PageAllocFailure, "page allocation failure"),
    E_BUSY: (RuntimeError, "the machine is busy in another thread"),
    E_INVAL: (ValueError, "invalid argument"),
    E_RANGE: (BadPageError, "page frame lies outside every zone"),
    E_NOT_ALLOCATED: (BadPageError, "page is not allocated (double free?)"),
    E_RESERVED: (BadPageError, "page is a hole or was reserved at boot"),
    E_WRONG_ORDER: (BadPageError, "block was allocated with another order"),
    E_TAIL: (BadPageError, "page lies inside a larger allocated block"),
    E_BAD_PAGE: (BadPageError, "page still has flags or mappings that forbid freeing it"),
    E_GFP: (GfpError, "illegal combination of GFP flags"),
    E_ORDER: (ValueError, "order exceeds MAX_PAGE_ORDER (10)"),
    E_CPU: (ValueError, "no such CPU"),
    E_NODE: (ValueError, "no such node, or node without memory"),
}


def codes():
    """Every code of the core with its exception type and text, as a dict (tests walk it)."""
    return dict(_CODES)


cpdef object check(long long rc, object what=None):
    """Return `rc` if it is no error; raise the exception that stands for it otherwise. `what` (text) is put behind the message."""
    if rc >= 0:
        return rc
    kind, text = _CODES.get(-rc, (RuntimeError, "unknown error"))
    raise kind(f"{text}: {what}" if what else f"{text} (code {rc})")
