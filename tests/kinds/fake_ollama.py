"""A fake Ollama: what is Ollama's alone (`/api/…`), as its documentation has it, without a model behind it.

Source: Ollama's API reference, "List local models", "List running models", "Pull a model" and "Version".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.kinds.odd_server import chat, send_json, serving

GB = 1_000_000_000


class FakeOllama:
    """Its models by name and size, those that are loaded, and how far a pull goes before it waits."""

    def __init__(self) -> None:
        """With one model, loaded, and pulls that go on to their end."""
        self.models = {"smollm2:latest": GB}
        self.loaded = ["smollm2:latest"]
        self.go_on = threading.Event()
        self.go_on.set()
        self.hung_up = threading.Event()
        self.url = ""

    def pull(self, handler: BaseHTTPRequestHandler, body: dict) -> None:
        """Stream a pull of two layers; one of `nonsense` fails as Ollama has it."""
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.end_headers()
        try:
            if body["model"] == "nonsense":
                self._say(handler, error="pull model manifest: file does not exist")
                return
            self._say(handler, status="pulling manifest")
            self._say(handler, status="pulling aaa", digest="sha256:aaa", total=3 * GB)
            self._say(handler, status="pulling aaa", digest="sha256:aaa", total=3 * GB, completed=GB)
            while not self.go_on.wait(0.02):
                self._say(handler, status="pulling aaa", digest="sha256:aaa", total=3 * GB, completed=GB)
            self._say(handler, status="pulling aaa", digest="sha256:aaa", total=3 * GB, completed=3 * GB)
            self._say(handler, status="pulling bbb", digest="sha256:bbb", total=GB, completed=GB)
            self._say(handler, status="verifying sha256 digest")
            self.models[f"{body['model']}:latest"] = 4 * GB
            self._say(handler, status="success")
        except OSError:
            self.hung_up.set()

    def _say(self, handler: BaseHTTPRequestHandler, **document: object) -> None:
        handler.wfile.write(json.dumps(document).encode() + b"\n")
        handler.wfile.flush()

    def list(self, names: list[str]) -> list[dict[str, object]]:
        """Models as it lists them."""
        return [{"name": name, "model": name, "size": self.models[name]} for name in names]


@contextmanager
def fake_ollama(*pieces: bytes) -> Iterator[FakeOllama]:
    """A fake Ollama that answers every prompt with these pieces of a stream."""
    fake = FakeOllama()
    answers = chat(*pieces) | {
        "/api/version": lambda handler, _: send_json(handler, {"version": "0.0.0-fake"}),
        "/api/tags": lambda handler, _: send_json(handler, {"models": fake.list(list(fake.models))}),
        "/api/ps": lambda handler, _: send_json(handler, {"models": fake.list(fake.loaded)}),
        "/v1/models": lambda handler, _: send_json(handler, {"data": [{"id": name} for name in fake.models]}),
        "/api/pull": fake.pull,
    }
    with serving(answers) as (fake.url, _):
        yield fake
        fake.go_on.set()
