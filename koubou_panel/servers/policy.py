"""What a browser may do with our pages: it asks no other host, and runs no script but those named by a nonce.

`'unsafe-eval'` and `blob:` are what Bokeh's and Panel's own loaders need; neither lets text become a script. Bokeh and
the code editor write styles into the page, hence `'unsafe-inline'` for these; pictures and fonts that stand in a style
itself are `data:`. The host's own WebSocket is named, since not every browser takes `'self'` for it.
"""

from __future__ import annotations

import re
import secrets

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

#: A name or an address, with a port or without: nothing that could end a word of the policy.
_HOST = re.compile(r"(?:[a-zA-Z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?")
_HEADERS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))


class PagePolicy(OutputTransform):
    """Puts the policy on every page, and the nonce on the scripts that it came with.

    For `Application.add_transform`. Nothing that people wrote is in a page as it is served: all of it comes
    later, as data.
    """

    def __init__(self, request: HTTPServerRequest) -> None:
        """Draw a nonce."""
        self._host = request.host
        self._nonce = secrets.token_urlsafe(16)

    def transform_first_chunk(
        self,
        status_code: int,
        headers: HTTPHeaders,
        chunk: bytes,
        finishing: bool,  # noqa: FBT001 - Tornado's own signature
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Add the headers; in a page, name its own scripts."""
        for name, value in _HEADERS:
            headers[name] = value
        if headers.get("Content-Type", "").startswith("text/html"):
            headers["Content-Security-Policy"] = policy(self._nonce, self._host)
            chunk = chunk.replace(b"<script", b'<script nonce="' + self._nonce.encode() + b'"')
            if "Content-Length" in headers:
                headers["Content-Length"] = str(len(chunk))
        return status_code, headers, chunk


def policy(nonce: str, host: str) -> str:
    """The Content-Security-Policy of one page of this `host` (with its port)."""
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return (
        f"default-src 'none'; script-src 'self' 'unsafe-eval' blob: 'nonce-{nonce}'; "
        f"connect-src 'self' blob:{sockets}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )
