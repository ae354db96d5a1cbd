"""The shell of a page, outside of a server."""

import panel as pn

from koubou_panel.views.page import shell


def test_a_page_can_be_made_outside_of_a_session() -> None:
    """A document is made for it, as for any template of Panel."""
    page = shell({"bar": pn.Row()}, boot_id="b", is_fresh=True)
    assert [root.name for root in page.server_doc().roots] == ["bar"]
