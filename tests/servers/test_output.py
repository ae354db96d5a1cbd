"""A task's output as a file to keep, on the dashboard's port."""

from pathlib import Path

import pytest

from koubou_panel.archive.output import output_path
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.servers import output
from koubou_panel.servers.output import file_name
from koubou_panel.testing import open_shop, submit, until
from tests.servers.test_dashboard import BEARER, get, open_dashboard


async def test_all_of_it_is_downloaded(tmp_path: Path) -> None:
    """The file is what was printed, byte for byte, over many pieces; it is called after the task, and never shown."""
    async with open_shop(tmp_path / "home", workers=1) as shop, open_dashboard(shop, tmp_path) as dashboard:
        task_id = await submit(shop, "true", name='../"evil"\r\n name')
        await until(lambda: shop.state.tasks[task_id].is_finished)
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
