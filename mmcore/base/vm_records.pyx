"""numpy dtypes of the records of virtual memory, derived from the C structs of vm_records.pxd.

Models: mm_struct, vm_area_struct, anon_vma, anon_vma_chain, ptdesc, address_space, xa_node, vm_struct, vmap_area, vmap_node, lruvec,
mem_cgroup, swap_info_struct
(include/linux/mm_types.h, mm/vmalloc.c).
Simplifies: links are 32-bit indices; an address space has one task. Omits: fields no room of this core uses yet.
"""
import numpy as np

cdef PoolInfo _pool
cdef TableInfo _table
cdef Vma _vma
cdef AnonVma _anon_vma
cdef Avc _avc
cdef AddressSpace _mm
cdef File _file
cdef XNode _xnode
cdef VmArea _area
cdef VmPages _vm_pages
cdef VmapNode _vmap_node
cdef Kmap _kmap
cdef KmapLocal _kmap_local
cdef Cpu _cpu
cdef Lruvec _lruvec
cdef Memcg _memcg
cdef SwapArea _swap_area
cdef SwapSlot _swap_slot
cdef SwapCluster _swap_cluster
cdef Event _event
cdef Device _device
cdef VmGlobals _vmg

cdef PoolInfo[::1] _pool_view = <PoolInfo[:1]>&_pool
cdef TableInfo[::1] _table_view = <TableInfo[:1]>&_table
cdef Vma[::1] _vma_view = <Vma[:1]>&_vma
cdef AnonVma[::1] _anon_vma_view = <AnonVma[:1]>&_anon_vma
cdef Avc[::1] _avc_view = <Avc[:1]>&_avc
cdef AddressSpace[::1] _mm_view = <AddressSpace[:1]>&_mm
cdef File[::1] _file_view = <File[:1]>&_file
cdef XNode[::1] _xnode_view = <XNode[:1]>&_xnode
cdef VmArea[::1] _area_view = <VmArea[:1]>&_area
cdef VmPages[::1] _vm_pages_view = <VmPages[:1]>&_vm_pages
cdef VmapNode[::1] _vmap_node_view = <VmapNode[:1]>&_vmap_node
cdef Kmap[::1] _kmap_view = <Kmap[:1]>&_kmap
cdef KmapLocal[::1] _kmap_local_view = <KmapLocal[:1]>&_kmap_local
cdef Cpu[::1] _cpu_view = <Cpu[:1]>&_cpu
cdef Lruvec[::1] _lruvec_view = <Lruvec[:1]>&_lruvec
cdef Memcg[::1] _memcg_view = <Memcg[:1]>&_memcg
cdef SwapArea[::1] _swap_area_view = <SwapArea[:1]>&_swap_area
cdef SwapSlot[::1] _swap_slot_view = <SwapSlot[:1]>&_swap_slot
cdef SwapCluster[::1] _swap_cluster_view = <SwapCluster[:1]>&_swap_cluster
cdef Event[::1] _event_view = <Event[:1]>&_event
cdef Device[::1] _device_view = <Device[:1]>&_device
cdef VmGlobals[::1] _vmg_view = <VmGlobals[:1]>&_vmg

POOL_DTYPE = np.asarray(_pool_view).dtype
TABLE_INFO_DTYPE = np.asarray(_table_view).dtype
VMA_DTYPE = np.asarray(_vma_view).dtype
ANON_VMA_DTYPE = np.asarray(_anon_vma_view).dtype
AVC_DTYPE = np.asarray(_avc_view).dtype
MM_DTYPE = np.asarray(_mm_view).dtype
FILE_DTYPE = np.asarray(_file_view).dtype
XNODE_DTYPE = np.asarray(_xnode_view).dtype
VM_AREA_DTYPE = np.asarray(_area_view).dtype
VM_PAGES_DTYPE = np.asarray(_vm_pages_view).dtype
VMAP_NODE_DTYPE = np.asarray(_vmap_node_view).dtype
KMAP_DTYPE = np.asarray(_kmap_view).dtype
KMAP_LOCAL_DTYPE = np.asarray(_kmap_local_view).dtype
CPU_DTYPE = np.asarray(_cpu_view).dtype
LRUVEC_DTYPE = np.asarray(_lruvec_view).dtype
MEMCG_DTYPE = np.asarray(_memcg_view).dtype
SWAP_AREA_DTYPE = np.asarray(_swap_area_view).dtype
SWAP_SLOT_DTYPE = np.asarray(_swap_slot_view).dtype
SWAP_CLUSTER_DTYPE = np.asarray(_swap_cluster_view).dtype
EVENT_DTYPE = np.asarray(_event_view).dtype
DEVICE_DTYPE = np.asarray(_device_view).dtype
VM_GLOBALS_DTYPE = np.asarray(_vmg_view).dtype


def struct_sizes():
    """sizeof() of every record in bytes, by dtype name: a test holds the derived dtypes against them."""
    return {
        "POOL_DTYPE": sizeof(PoolInfo), "TABLE_INFO_DTYPE": sizeof(TableInfo), "VMA_DTYPE": sizeof(Vma), "ANON_VMA_DTYPE": sizeof(AnonVma),
        "AVC_DTYPE": sizeof(Avc), "MM_DTYPE": sizeof(AddressSpace), "FILE_DTYPE": sizeof(File), "XNODE_DTYPE": sizeof(XNode),
        "VM_AREA_DTYPE": sizeof(VmArea), "CPU_DTYPE": sizeof(Cpu), "LRUVEC_DTYPE": sizeof(Lruvec), "VM_GLOBALS_DTYPE": sizeof(VmGlobals),
        "VM_PAGES_DTYPE": sizeof(VmPages), "VMAP_NODE_DTYPE": sizeof(VmapNode), "KMAP_DTYPE": sizeof(Kmap), "KMAP_LOCAL_DTYPE": sizeof(KmapLocal),
        "MEMCG_DTYPE": sizeof(Memcg), "SWAP_AREA_DTYPE": sizeof(SwapArea), "SWAP_SLOT_DTYPE": sizeof(SwapSlot), "SWAP_CLUSTER_DTYPE": sizeof(SwapCluster),
        "EVENT_DTYPE": sizeof(Event), "DEVICE_DTYPE": sizeof(Device),
    }
