"""`ollama serve` on a leash: what it is given, and what counts as an Ollama."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys

import pytest

from koubou_panel.servers.ollama import is_ollama, listens

# A fake Ollama that tells its environment, and answers.
FAKE = """#!{python}
import http.server, json, os
host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{{"version": "0.0-fake"}}')
    def log_message(self, *args): pass
server = http.server.HTTPServer((host, int(port)), Handler)
print(json.dumps(dict(os.environ)), flush=True)
server.serve_forever()
"""


async def test_ollama_is_told_nothing_of_ours(tmp_path, unused_tcp_port) -> None:
    """It has the environment without our own variables, a token among them, and its address."""
    program = tmp_path / "ollama"
    program.write_text(FAKE.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    argv = ["-m", "koubou_panel.servers.ollama", "--program", str(program), "--port", str(unused_tcp_port)]
    ours = {"KOUBOU_TOKEN": "hush", "KOUBOU_HOME": str(tmp_path), "OLLAMA_MODELS": "/models"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE, env=os.environ | ours
    )
    try:
        told = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    finally:
        process.terminate()
        await process.communicate()
    assert [name for name in told if name.startswith("KOUBOU_")] == []
    assert told["OLLAMA_MODELS"] == "/models"
    assert told["OLLAMA_HOST"] == f"127.0.0.1:{unused_tcp_port}"


@pytest.mark.parametrize("body", [b"[" * 60_000, b"{}", b"[1]", b'{"version": 3}', b"\xff"])
async def test_what_answers_nonsense_is_no_ollama(body: bytes) -> None:
    """Whatever is sent where a version is due, it is no Ollama, and nothing fails."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        assert not await is_ollama("127.0.0.1", server.sockets[0].getsockname()[1])


async def test_address_that_is_none_is_no_ollama() -> None:
    """A name that cannot be looked up at all is as one at which nobody answers."""
    assert not await is_ollama("127..1", 1)
    assert not await listens("127..1", 1)
