"""Small real HTTP servers that answer as some model server would: without usage, with an error, cut in the middle."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler, dict], None]


def stream(handler: BaseHTTPRequestHandler, *pieces: bytes) -> None:
    """Answer 200 with these bytes, piece by piece; the connection's end is the stream's."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()
    for piece in pieces:
        handler.wfile.write(piece)
        handler.wfile.flush()


def send_json(handler: BaseHTTPRequestHandler, document: object, status: int = 200) -> None:
    """Answer with one document, or these bytes in its place."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def event(content: str | None = None, **more: object) -> bytes:
    """One event of a stream: a piece of an answer, or its end."""
    finish = more.pop("finish", None)
    delta = {} if content is None else {"content": content}
    document = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


@contextmanager
def serving(answers: dict[str, Answer]) -> Iterator[tuple[str, list[tuple[str, dict]]]]:
    """A server by path, its address, and what it was asked: (path, body); any other path is 404."""
    asked: list[tuple[str, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict) -> None:
            asked.append((self.path, body))
            answer = answers.get(self.path)
            if answer is None:
                send_json(self, {"detail": "Not Found"}, 404)
            else:
                answer(self, body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def models(*names: str) -> Answer:
    """The list of models that a server has."""
    return lambda handler, body: send_json(handler, {"data": [{"id": name} for name in names]})


def chat(*pieces: bytes) -> dict[str, Answer]:
    """A server with one model, `odd`, that answers every prompt with these bytes."""
    return {
        "/v1/models": models("odd"),
        "/v1/chat/completions": lambda handler, body: stream(handler, *pieces),
    }


def refusing(status: int, document: object) -> dict[str, Answer]:
    """A server with one model, `odd`, that answers every prompt with an error."""
    return {
        "/v1/models": models("odd"),
        "/v1/chat/completions": lambda handler, body: send_json(handler, document, status),
    }
