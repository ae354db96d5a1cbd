"""Input on its way to a running task, as far as it concerns the workshop itself."""

import pytest

from koubou_panel.core.commands import SendInput
from koubou_panel.errors import Refused
from koubou_panel.shop.inputs import MOST_INPUT_BYTES, check_input


def test_too_much_at_once_is_refused_by_the_name_that_clients_know() -> None:
    """The protocol's `send_input` has `text`, and its bytes are what is counted."""
    check_input(SendInput("t", b"x" * MOST_INPUT_BYTES))
    with pytest.raises(Refused, match="at most 65536 bytes of input at a time, not 65538") as refusal:
        check_input(SendInput("t", ("é" * (MOST_INPUT_BYTES // 2 + 1)).encode()))
    assert refusal.value.field == "text"
