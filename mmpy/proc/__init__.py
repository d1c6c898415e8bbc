"""/proc texts: writers for a machine, parsers for text of real ones, and the machine that such text describes."""

from mmpy.proc.buddyinfo import BuddyRow, parse_buddyinfo, write_buddyinfo
from mmpy.proc.errors import ProcFormatError, ProcInferenceError
from mmpy.proc.infer import InferredMachine, infer_machine
from mmpy.proc.meminfo import format_meminfo, parse_meminfo, write_meminfo
from mmpy.proc.pagetypeinfo import PageTypeInfo, parse_pagetypeinfo, write_pagetypeinfo
from mmpy.proc.proc import Proc
from mmpy.proc.vmstat import format_vmstat, parse_vmstat, write_vmstat
from mmpy.proc.zoneinfo import NodeInfo, PcpInfo, ZoneInfo, ZoneinfoText, parse_zoneinfo, write_zoneinfo

__all__ = [
    "BuddyRow",
    "InferredMachine",
    "NodeInfo",
    "PageTypeInfo",
    "PcpInfo",
    "Proc",
    "ProcFormatError",
    "ProcInferenceError",
    "ZoneInfo",
    "ZoneinfoText",
    "format_meminfo",
    "format_vmstat",
    "infer_machine",
    "parse_buddyinfo",
    "parse_meminfo",
    "parse_pagetypeinfo",
    "parse_vmstat",
    "parse_zoneinfo",
    "write_buddyinfo",
    "write_meminfo",
    "write_pagetypeinfo",
    "write_vmstat",
    "write_zoneinfo",
]
