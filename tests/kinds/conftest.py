"""The real small model, served once for all tests of a run, and what a kind is given to run with."""

from __future__ import annotations

import pytest

from koubou_panel.kinds.model import Guide, leave_word
from tests.servers.models import serving_model


class Sink:
    """Output kept in memory; `on_write` is called with each piece."""

    def __init__(self) -> None:
        self.data = b""
        self.on_write = lambda data: None

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data
        self.on_write(data)

    @property
    def text(self) -> str:
        return self.data.decode()


class Context:
    """What a kind is given."""

    def __init__(self, home) -> None:
        self.output = Sink()
        self.home = str(home)
        self.told: list[tuple] = []

    def progress(self, done, total, unit="", message="") -> None:
        self.told.append((done, total, unit, message))


@pytest.fixture(scope="session")
def model_home(tmp_path_factory):
    """A home whose embedded model server runs, and where prompts go to it alone."""
    home = tmp_path_factory.mktemp("model")
    (home / "runtime").mkdir(mode=0o700)
    with serving_model(home):
        leave_word(home, Guide(url="embedded"))
        yield home


@pytest.fixture
def context(model_home):
    """A run's context in that home."""
    return Context(model_home)


@pytest.fixture
def bare(tmp_path):
    """A run's context in a home where nothing was ever started."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    return Context(tmp_path)
