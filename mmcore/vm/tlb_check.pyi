from mmcore.base.state import State
from mmcore.vm.tlb_model import TlbModel

def validate_tlb(s: State, model: TlbModel | None) -> dict[str, int]: ...
