from typing import Any

from mmcore.base.state import State

def validate(s: State) -> dict[str, Any]: ...
