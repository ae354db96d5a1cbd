"""A task's output as a file to keep, on the dashboard's port."""

import asyncio
from pathlib import Path

import pytest
from tornado.simple_httpclient import HTTPStreamClosedError

from koubou_panel.archive.output import output_path
from koubou_panel.core.ports import OutputBytes
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.servers import output
from koubou_panel.servers.output import OutputHandler, file_name
from koubou_panel.testing import ended, open_inline_shop, open_shop, submit, until
from tests.servers.test_dashboard import BEARER, get, open_dashboard


async def test_all_of_it_is_downloaded(tmp_path: Path) -> None:
    """The file is what was printed, byte for byte, over many pieces; it is called after the task, and never shown."""
    async with open_shop(tmp_path / "home", workers=1) as shop, open_dashboard(shop, tmp_path) as dashboard:
        task_id = await submit(shop, "true", name='../"evil"\r\n name')
        await ended(shop, task_id)
        data = bytes(range(256)) * 8_000
        path = output_path(shop.home.output, task_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        answer = await get(dashboard, f"/output/{task_id}", **BEARER)
        assert (answer.code, answer.body == data) == (200, True)
        assert answer.headers["Content-Disposition"] == f'attachment; filename="evil-name-{task_id}.log"'
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


async def test_it_is_behind_the_guard(tmp_path: Path) -> None:
    """Without credentials, for a page of another site, or under another name of the host there is nothing."""
    async with open_shop(tmp_path / "home", workers=1) as shop, open_dashboard(shop, tmp_path) as dashboard:
        task_id = await submit(shop, "true")
        path = f"/output/{task_id}"
        assert (await get(dashboard, path)).code == 401
        assert (await get(dashboard, path, Origin="http://evil.example", **BEARER)).code == 403
        assert (await get(dashboard, path, Host="evil.example", **BEARER)).code == 403
        assert (await get(dashboard, path, **BEARER)).code == 200


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fkoubou.db", "2pwhe5r7000000", "%00", "x" * 300])
async def test_what_is_no_task_is_not_found(tmp_path: Path, name: str) -> None:
    """Only a task has output: nothing else of the disk can be named."""
    async with open_shop(tmp_path / "home", workers=1) as shop, open_dashboard(shop, tmp_path) as dashboard:
        answer = await get(dashboard, f"/output/{name}", **BEARER)
        assert answer.code == 404


async def test_only_so_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a few downloads at the same time one is told to wait."""
    monkeypatch.setattr(output, "MOST_AT_ONCE", 0)
    async with open_shop(tmp_path / "home", workers=1) as shop, open_dashboard(shop, tmp_path) as dashboard:
        task_id = await submit(shop, "true")
        answer = await get(dashboard, f"/output/{task_id}", **BEARER)
        assert (answer.code, answer.body) == (503, b"0 outputs are downloaded already: try again later.\n")


def page(offset: int, end: int, size: int = 6) -> OutputBytes:
    """A piece of six bytes."""
    return OutputBytes(b"abcdef"[offset:end], offset, end, size)


@pytest.mark.parametrize("second", [page(4, 6), page(3, 3, 0), page(3, 3), page(3, 5, 5)])
async def test_what_is_not_whole_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: OutputBytes
) -> None:
    """Output that is removed, or whose beginning is dropped, while it is sent does not end like a whole file."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        task_id = await submit(shop)
        pages = {0: page(0, 3), 3: second}

        async def read_bytes(_task_id: str, offset: int, _limit: int) -> OutputBytes:
            return pages[offset]

        monkeypatch.setattr(shop, "read_bytes", read_bytes)
        with pytest.raises(HTTPStreamClosedError):
            await get(dashboard, f"/output/{task_id}", **BEARER)
        pages[3] = page(3, 6)
        assert (await get(dashboard, f"/output/{task_id}", **BEARER)).body == b"abcdef"


async def test_who_takes_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that is stuck does not hold a place for ever."""
    monkeypatch.setattr(output, "STUCK_S", 0.05)
    cut: list[OutputHandler] = []

    def note(handler: OutputHandler) -> None:
        cut.append(handler)

    monkeypatch.setattr(OutputHandler, "_cut", note)
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        task_id = await submit(shop)

        async def read_bytes(_task_id: str, offset: int, limit: int) -> OutputBytes:
            return OutputBytes(b"x" * limit, offset, offset + limit, 1 << 40)

        monkeypatch.setattr(shop, "read_bytes", read_bytes)
        _, writer = await asyncio.open_connection("127.0.0.1", dashboard.port, limit=1024)
        writer.write(f"GET /output/{task_id} HTTP/1.1\r\nHost: 127.0.0.1:{dashboard.port}\r\n".encode())
        writer.write(f"Authorization: {BEARER['Authorization']}\r\n\r\n".encode())
        await until(lambda: cut)
        writer.close()
        assert not cut[0]._running


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("train digits", "train-digits-t.log"),
        ("\u5de5\u623f", "t.log"),
        ("a/../b\\c:d", "a-..-b-c-d-t.log"),
        ("", "script-t.log"),
    ],
)
def test_the_files_name_is_safe(name: str, wanted: str) -> None:
    """Whatever a task is called, its file's name is letters, digits, dots and dashes."""
    request = Request(task_id=TaskId("t"), kind="script", created_at=0.0, name=name)
    assert file_name(Task(request=request, order=1)) == wanted
