"""What a browser may do with our pages: a script policy with a nonce of its own for each response.

`'unsafe-eval'` and `blob:` are what Bokeh's and Panel's own loaders need; neither lets text become a script.
"""

from __future__ import annotations

import secrets

from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform

_HEADERS = (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"))


class PagePolicy(OutputTransform):
    """Puts the policy on every page, and the nonce on the scripts that it came with.

    For `Application.add_transform`. Nothing that people wrote is in a page as it is served: all of it comes
    later, as data.
    """

    def __init__(self, request: HTTPServerRequest) -> None:
        """Draw a nonce."""
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
            headers["Content-Security-Policy"] = policy(self._nonce)
            chunk = chunk.replace(b"<script", b'<script nonce="' + self._nonce.encode() + b'"')
            if "Content-Length" in headers:
                headers["Content-Length"] = str(len(chunk))
        return status_code, headers, chunk


def policy(nonce: str) -> str:
    """The Content-Security-Policy of one page."""
    return (
        f"script-src 'self' 'unsafe-eval' blob: 'nonce-{nonce}'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )
