"""A display of a notebook, as its browser is told of it."""

import json

from koubou_panel.core.commands import Caller, CloseShop
from koubou_panel.reactive.models import ShopModel
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.views.inline import WorkshopShown
from koubou_panel.views.inline_session import InlineSession
from koubou_panel.views.still import workshop_html


async def test_a_workshop_that_shuts_down_says_so() -> None:
    """While what runs may end, which takes up to half a minute; a still as well."""
    posted: list[str] = []
    async with open_inline_shop() as shop:
        session = InlineSession(
            shop, caller=Caller("test"), make=WorkshopShown, post=posted.append, now=shop.clock
        )
        session.frame(is_beat=True)
        assert "link" not in json.loads(posted[-1])
        await shop.do(CloseShop(), Caller("test"))
        await until(lambda: "link" in json.loads(posted[-1]))
        session.close()
    assert json.loads(posted[-1])["link"]["status"] == "closing"
    still = workshop_html(ShopModel(closing=True), [], place="/home/of/it", foot="")
    assert "/home/of/it · shutting down<" in still
