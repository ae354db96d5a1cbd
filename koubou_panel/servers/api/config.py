"""`/api/config`: every setting, and the file that keeps them. The token is none, and is never here."""

from __future__ import annotations

import asyncio

from msgspec.structs import asdict

from koubou_panel.config import change_settings, in_use, setting_records
from koubou_panel.errors import Refused
from koubou_panel.servers.api.handler import ApiHandler


class ConfigHandler(ApiHandler):
    """`GET` shows every setting, `PUT` writes some of them to the home's settings file."""

    async def get(self) -> None:
        """Show them."""
        self.check_query()
        api = self.api
        records = await asyncio.to_thread(setting_records, api.home, api.environ)
        used = self._in_use()
        settings = [asdict(record) | {"in_use": used.get(record.name)} for record in records]
        self.answer({"settings": settings, "file": str(api.home.root / "settings.toml")})

    def _in_use(self) -> dict[str, object]:
        """What the workshop goes by now; nothing while it is away."""
        try:
            return in_use(self.api.shop.state)
        except Refused:
            return {}

    async def put(self) -> None:
        """Write `{NAME: value, …}`, all or none; null takes a setting out of the file."""
        self.check_query()
        body = self.body()
        if not body:
            raise Refused("invalid", 'nothing to change: send {"NAME": value}', field="body")
        api = self.api
        change = await asyncio.to_thread(change_settings, api.home, body, api.environ)
        records = await asyncio.to_thread(setting_records, api.home, api.environ)
        self.answer(
            {
                "settings": [record for record in records if record.name in body],
                "changed": change.changed,
                "needs_restart": change.needs_restart,
                "overridden": change.overridden,
            }
        )
