"""numpy dtypes of the core's records, derived from the C structs of records.pxd.

Models: struct page split into a hot and a cold part, struct zone, struct per_cpu_pages, pg_data_t (include/linux/mmzone.h).
Simplifies: links are 32-bit indices. Omits: fields no room of this core uses yet.
"""
import numpy as np

cdef Page _page
cdef PageMeta _meta
cdef Pageblock _block
cdef LazyRange _lazy
cdef PresentRange _present
cdef Zone _zone
cdef Pcp _pcp
cdef Node _node
cdef Globals _globals
cdef TraceRow _trace

cdef Page[::1] _page_view = <Page[:1]>&_page
cdef PageMeta[::1] _meta_view = <PageMeta[:1]>&_meta
cdef Pageblock[::1] _block_view = <Pageblock[:1]>&_block
cdef LazyRange[::1] _lazy_view = <LazyRange[:1]>&_lazy
cdef PresentRange[::1] _present_view = <PresentRange[:1]>&_present
cdef Zone[::1] _zone_view = <Zone[:1]>&_zone
cdef Pcp[::1] _pcp_view = <Pcp[:1]>&_pcp
cdef Node[::1] _node_view = <Node[:1]>&_node
cdef Globals[::1] _globals_view = <Globals[:1]>&_globals
cdef TraceRow[::1] _trace_view = <TraceRow[:1]>&_trace

PAGE_DTYPE = np.asarray(_page_view).dtype
META_DTYPE = np.asarray(_meta_view).dtype
PAGEBLOCK_DTYPE = np.asarray(_block_view).dtype
LAZY_DTYPE = np.asarray(_lazy_view).dtype
PRESENT_DTYPE = np.asarray(_present_view).dtype
ZONE_DTYPE = np.asarray(_zone_view).dtype
PCP_DTYPE = np.asarray(_pcp_view).dtype
NODE_DTYPE = np.asarray(_node_view).dtype
GLOBALS_DTYPE = np.asarray(_globals_view).dtype
TRACE_DTYPE = np.asarray(_trace_view).dtype


def struct_sizes():
    """sizeof() of every record in bytes, by dtype name: a test holds the derived dtypes against them."""
    return {
        "PAGE_DTYPE": sizeof(Page), "META_DTYPE": sizeof(PageMeta), "PAGEBLOCK_DTYPE": sizeof(Pageblock),
        "LAZY_DTYPE": sizeof(LazyRange), "PRESENT_DTYPE": sizeof(PresentRange), "ZONE_DTYPE": sizeof(Zone),
        "PCP_DTYPE": sizeof(Pcp), "NODE_DTYPE": sizeof(Node), "GLOBALS_DTYPE": sizeof(Globals), "TRACE_DTYPE": sizeof(TraceRow),
    }
