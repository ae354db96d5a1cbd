"""Two handles of one workshop for each module: one that holds it, one that is attached to it."""

from __future__ import annotations

import pytest

from koubou_panel import Workshop


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for the module."""
    return tmp_path_factory.mktemp("notebook") / "home"


@pytest.fixture(scope="module")
def shop(request, home):
    """A workshop held by this process, with two workers unless the module names another number of them."""
    with Workshop(home, workers=getattr(request.module, "WORKERS", 2)) as opened:
        yield opened


@pytest.fixture(scope="module")
def attached(shop, home):
    """A second one, attached to the first over the private link."""
    with Workshop(home) as opened:
        yield opened


@pytest.fixture(params=["shop", "attached"])
def either(request):
    """Each of the two: nobody can tell them apart."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def gate(tmp_path):
    """For `shop.submit(wait_for, gate)`, which lasts until `gate.touch()`."""
    return tmp_path / "gate"
