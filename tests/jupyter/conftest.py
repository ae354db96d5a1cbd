"""A real Jupyter server for all tests here, with JupyterLab 4 and Notebook 7, and a Chromium that looks at them."""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
import pytest_asyncio

from tests.browser.chromium import launched, mark
from tests.jupyter.lab import Notebook, Server

START_LIMIT_S = 90.0
# No questions, and every cell in the page, however far down.
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false"}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here, to run in one loop."""
    mark(items, Path(__file__).parent, loop_scope="session", limit_s=400)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server; every process below it ends with it."""
    root = tmp_path_factory.mktemp("jupyter")
    token = secrets.token_hex(16)
    folders = {
        name: str(root / name) for name in ("runtime", "config", "data", "settings", "workspaces", "home")
    }
    environ = os.environ | {
        "JUPYTER_RUNTIME_DIR": folders["runtime"],
        "JUPYTER_CONFIG_DIR": folders["config"],
        "JUPYTER_DATA_DIR": folders["data"],
        "JUPYTERLAB_SETTINGS_DIR": folders["settings"],
        "JUPYTERLAB_WORKSPACES_DIR": folders["workspaces"],
        "KOUBOU_HOME": folders["home"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    for name, text in SETTINGS.items():
        file = Path(folders["settings"], "@jupyterlab", f"{name}.jupyterlab-settings")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    notebooks = root / "notebooks"
    notebooks.mkdir()
    flags = [
        *("--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--ServerApp.token={token}"),
        *("--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True"),
        *(f"--ServerApp.root_dir={notebooks}", "--LabApp.news_url=", "--LabApp.extension_manager=readonly"),
    ]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *flags], env=environ, stdout=log, stderr=log
        )
    try:
        yield Server(_address(process, Path(folders["runtime"]), root / "log"), token, notebooks)
    finally:
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        psutil.wait_procs(below, 10)
        for left in below:
            if left.is_running():
                left.kill()


def _address(process: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Where the server answers, once it does."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            try:
                url = json.loads(file.read_text())["url"].rstrip("/")
                urllib.request.urlopen(f"{url}/api", timeout=5).close()
            except (ValueError, KeyError, OSError, urllib.error.URLError):
                continue
            return url
        time.sleep(0.2)
    raise AssertionError(f"no Jupyter server came up:\n{log.read_text()[-2000:]}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium():
    """The browser."""
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def open_notebook(server, chromium):
    """Opens a notebook, of these cells or a file, in one of the two; at the end it has asked no other host."""
    opened: list[Notebook] = []

    async def open_one(cells: list[str] | Path, *, where: str = "lab", **options: object) -> Notebook:
        name = f"{secrets.token_hex(4)}.ipynb"
        if isinstance(cells, Path):
            made = nbformat.read(cells, 4)
        else:
            made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, server.folder / name)
        notebook = await Notebook.open(chromium, server, name, where=where, **options)
        opened.append(notebook)
        return notebook

    yield open_one
    for notebook in opened:
        await notebook.close()
