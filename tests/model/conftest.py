"""Every test here runs on the core and on its twin."""

import pytest

from tests.model.backends import BACKENDS


@pytest.fixture(params=sorted(BACKENDS))
def backend(request):
    """A class with boot(shape) and load(AllocState)."""
    if request.param == "core":
        pytest.importorskip("mmcore.alloc.page_alloc", reason="the core is not built")
    return BACKENDS[request.param]
