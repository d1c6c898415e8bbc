# Operations of address spaces: see vm_ops.pyx.

from libc.stdint cimport int64_t, uint64_t
from mmcore.base.records cimport Mm
from mmcore.run.ops cimport OpRecord

# One op of SPAWN .. CONTEXT_SWITCH with its address space and address resolved: rc, and a result in value[0].
cdef int64_t run_vm_op(Mm* mm, const OpRecord* o, uint64_t handle, uint64_t address, uint64_t* value) noexcept nogil
