"""Makes the recordings of this folder by running the real tools: `python record.py [NAME…]`, on Linux, as root.

`NAME.bin` holds the bytes as they came, `NAME.json` when they came (offset, second) and what a reader should make of
them (`points`, written by hand: after the last byte of that text, these fields). Running it again keeps the points.
What is served comes from a slow server on loopback; hosts and folders are replaced by made-up ones.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
import time
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
MOST_BYTES = 6_000
MOST_MARKS = 60
MB = 1_000_000
WHEEL = "sample-1.0-py3-none-any.whl"

TQDM = """
import sys, time
from tqdm import tqdm, trange
"""
RICH = """
import time
from rich.progress import *
"""

# name: (terminal?, command). {url} is the slow server, {py} this interpreter, {data} a file of 8 MB.
RECIPES: dict[str, tuple[bool, list[str]]] = {
    "tqdm": (False, ["{py}", "-c", TQDM + "for _ in tqdm(range(40), desc='train'): time.sleep(0.05)"]),
    "tqdm-terminal": (True, ["{py}", "-c", TQDM + "for _ in tqdm(range(40)): time.sleep(0.05)"]),
    "tqdm-no-total": (False, ["{py}", "-c", TQDM + "for _ in tqdm(iter(range(40))): time.sleep(0.05)"]),
    "tqdm-slow": (False, ["{py}", "-c", TQDM + "for _ in tqdm(range(3), 'slow'): time.sleep(1.2)"]),
    "tqdm-bytes": (
        False,
        [
            "{py}",
            "-c",
            TQDM
            + "bar = tqdm(total=50_000_000, unit='B', unit_scale=True, unit_divisor=1024, desc='model.bin')\n"
            "for _ in range(20): time.sleep(0.1); bar.update(2_500_000)\nbar.close()",
        ],
    ),
    "tqdm-nested": (
        True,
        [
            "{py}",
            "-c",
            TQDM + "for _ in trange(4, desc='epochs'):\n for _ in trange(6, desc='batches', leave=False):\n"
            "  time.sleep(0.11)",
        ],
    ),
    "tqdm-left-early": (
        False,
        [
            "{py}",
            "-c",
            TQDM + "for n in trange(10, desc='search'):\n time.sleep(0.12)\n if n == 4: break\n"
            "for _ in trange(8, desc='refine'): time.sleep(0.12)",
        ],
    ),
    "rich": (
        True,
        ["{py}", "-c", RICH + "for _ in track(range(30), 'Working', update_period=0.3): time.sleep(0.1)"],
    ),
    "rich-pipe": (False, ["{py}", "-c", RICH + "for _ in track(range(20), 'Working'): time.sleep(0.05)"]),
    "rich-download": (
        True,
        [
            "{py}",
            "-c",
            RICH + "columns = (TextColumn('{task.description}'), BarColumn(20), DownloadColumn(),\n"
            " TransferSpeedColumn(), TimeRemainingColumn())\n"
            "with Progress(*columns, refresh_per_second=3) as bars:\n"
            " one = bars.add_task('weights.bin', total=45_600_000)\n"
            " while not bars.finished: time.sleep(0.1); bars.update(one, advance=1_520_000)",
        ],
    ),
    "rich-two": (
        True,
        [
            "{py}",
            "-c",
            RICH + "with Progress(refresh_per_second=3) as bars:\n"
            " one = bars.add_task('Outer', total=4); two = bars.add_task('Inner', total=5)\n"
            " for _ in range(4):\n  bars.reset(two)\n"
            "  for _ in range(5): time.sleep(0.12); bars.update(two, advance=1)\n  bars.update(one, advance=1)",
        ],
    ),
    "pip": (
        True,
        [
            *[
                "{py}",
                "-m",
                "pip",
                "--isolated",
                "--disable-pip-version-check",
                "download",
                "--no-deps",
                "--no-cache-dir",
            ],
            *["--index-url", "{url}/simple/", "sample"],
        ],
    ),
    "pip-pipe": (
        False,
        [
            *[
                "{py}",
                "-m",
                "pip",
                "--isolated",
                "--disable-pip-version-check",
                "download",
                "--no-deps",
                "--no-cache-dir",
            ],
            *["--index-url", "{url}/simple/", "sample"],
        ],
    ),
    "pip-raw": (
        False,
        [
            *[
                "{py}",
                "-m",
                "pip",
                "--isolated",
                "--disable-pip-version-check",
                "download",
                "--no-deps",
                "--no-cache-dir",
            ],
            *["--progress-bar", "raw", "--index-url", "{url}/simple/", "sample"],
        ],
    ),
    "wget": (True, ["wget", "{url}/archive.tar"]),
    "wget-dots": (False, ["wget", "-O", "archive.tar", "{url}/archive.tar?small"]),
    "wget-mega": (False, ["wget", "--progress=dot:mega", "-O", "archive.tar", "{url}/archive.tar"]),
    "wget-no-length": (True, ["wget", "-O", "archive.tar", "{url}/chunked"]),
    "curl": (False, ["curl", "-o", "archive.tar", "{url}/archive.tar"]),
    "curl-bar": (False, ["curl", "-#", "-o", "archive.tar", "{url}/archive.tar"]),
    "curl-bar-terminal": (True, ["curl", "-#", "-o", "archive.tar", "{url}/archive.tar"]),
    "curl-no-length": (False, ["curl", "-o", "archive.tar", "{url}/chunked"]),
    "pv": (True, ["sh", "-c", "pv -f -L 2M -i 0.4 {data} > /dev/null"]),
    "pv-pipe": (False, ["sh", "-c", "pv -f -L 2M -i 0.4 {data} > /dev/null"]),
    "pv-no-total": (False, ["sh", "-c", "cat {data} | pv -f -L 2M -i 0.4 > /dev/null"]),
    "pv-lines": (False, ["sh", "-c", "seq 3000 | pv -f -l -s 3000 -L 1000 -i 0.4 > /dev/null"]),
    "pv-number": (False, ["sh", "-c", "pv -n -f -L 2M -i 0.4 {data} > /dev/null"]),
    "dd": (False, ["sh", "-c", "pv -q -L 2M {data} | dd of=/dev/null bs=64k status=progress"]),
    "apt": (True, ["apt-get", "-y", "--reinstall", "install", "pv", "netcat-openbsd", "tree"]),
    "apt-update": (True, ["apt-get", "update", "-o", "Acquire::http::Dl-Limit=2000"]),
    "apt-fancy": (
        True,
        [
            "apt-get",
            "-y",
            "-o",
            "Dpkg::Progress-Fancy=1",
            "--reinstall",
            "install",
            "pv",
            "netcat-openbsd",
            "tree",
        ],
    ),
    "apt-status": (
        False,
        ["apt-get", "-y", "-o", "APT::Status-Fd=1", "--reinstall", "install", "pv", "tree"],
    ),
    "ninja": (True, ["sh", "-c", "{ninja}"]),
    "ninja-pipe": (False, ["sh", "-c", "{ninja}"]),
    "make": (False, ["sh", "-c", "{make}"]),
    "pytest": (False, ["{py}", "-m", "pytest", "-p", "no:cacheprovider", "{tests}"]),
    "git-clone": (True, ["sh", "-c", "git clone --progress --no-local {repository} copy"]),
    "rsync": (True, ["rsync", "--progress", "--bwlimit=2000", "{data}", "copy.bin"]),
    "rsync-progress2": (
        True,
        ["sh", "-c", "split -n 200 -a 3 {data} part && rsync -a --info=progress2 --bwlimit=2000 part* copy/"],
    ),
}
NINJA = r"""
mkdir n && cd n && { echo 'rule wait'; echo ' command = sleep 0.15 && touch $out'; echo ' description = CC $out'
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "build part$i.o: wait"; done; } > build.ninja && ninja -j2
"""
MAKE = r"""
mkdir m && cd m && for i in 1 2 3 4 5 6; do echo "int f$i(void) { return $i; }" > part$i.c; done
{ echo 'cmake_minimum_required(VERSION 3.10)'; echo 'project(sample C)'
  echo 'add_library(sample part1.c part2.c part3.c part4.c part5.c part6.c)'; } > CMakeLists.txt
cmake . && make
"""


class Slow(http.server.BaseHTTPRequestHandler):
    """Serves 8 MB (`small`: 1 MB) at 2 MB/s, and one wheel with its index page."""

    protocol_version = "HTTP/1.1"
    wheel = b""

    def do_GET(self) -> None:
        if self.path.startswith("/simple"):
            self._send(f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode(), "text/html", 10 * MB)
        elif self.path.endswith(".whl"):
            self._send(self.wheel, "application/octet-stream", 3 * MB)
        elif self.path == "/chunked":
            self._chunked()
        else:
            small = self.path.endswith("small")
            self._send(
                bytes(MB if small else 8 * MB), "application/octet-stream", 400_000 if small else 2 * MB
            )

    def _send(self, body: bytes, kind: str, bytes_per_s: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        step = bytes_per_s // 20
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            time.sleep(0.05 if len(body) > step else 0)

    def _chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n")
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def wheel() -> bytes:
    """A wheel of 9 MB that pip takes."""
    info = "sample-1.0.dist-info"
    files = {
        "sample/data.bin": os.urandom(9 * MB),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(content)}")
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]).encode()
    path = Path(tempfile.mkdtemp()) / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    content = path.read_bytes()
    shutil.rmtree(path.parent)
    return content


def run(command: list[str], folder: Path, *, terminal: bool) -> list[tuple[float, bytes]]:
    """What the command printed: (second since its start, bytes) for each read."""
    env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", "HOME": str(folder)}
    env |= {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    if terminal:
        read_end, write_end = os.openpty()
        termios.tcsetwinsize(write_end, (24, 80))
        login = lambda: os.login_tty(write_end)  # noqa: E731
    else:
        (read_end, write_end), login = os.pipe(), None
    stdin = write_end if terminal else subprocess.DEVNULL
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
        stdin=stdin,
        stdout=write_end,
        stderr=write_end,
        preexec_fn=login,  # noqa: PLW1509
    )
    os.close(write_end)
    chunks = []
    while select.select([read_end], [], [], 60)[0]:
        try:
            data = os.read(read_end, 1 << 16)
        except OSError:
            break
        if not data:
            break
        chunks.append((round(time.monotonic() - started, 2), data))
    process.wait()
    os.close(read_end)
    return chunks


def tidy(chunks: list[tuple[float, bytes]], folder: Path) -> list[tuple[float, bytes]]:
    """Without hosts and folders of this machine, and without what is too much in the middle."""
    clean = []
    places = [
        (rb"https?://[^/\s\x1b]+", b"http://example.org"),
        (rb"127\.0\.0\.1(:\d+)?|localhost", b"example.org"),
        (re.escape(str(folder).encode()), b"/home/a"),
        (re.escape(sys.prefix.encode()), b"/venv"),
        (rb"/(?:root|tmp|work)/[^\s\x1b'\"]*", b"/home/a/x"),
        (rb"[a-z.]*debian\.org", b"example.org"),
    ]
    for at, data in chunks:
        kept = data.partition(b"N: Ignoring")[0]
        for place, other in places:
            kept = re.sub(place, other, kept)
        clean.append((at, kept))
        if b"N: Ignoring" in data:  # apt about its settings on the machine, at its end
            break
    while sum(len(data) for _, data in clean) > MOST_BYTES and len(clean) > 12:
        del clean[len(clean) // 2]
    return clean


def record(name: str, url: str, folder: Path) -> None:
    """Run one recipe and store what came."""
    terminal, command = RECIPES[name]
    words = {
        "{py}": sys.executable,
        "{url}": url,
        "{data}": str(folder / "data.bin"),
        "{ninja}": NINJA,
        "{make}": MAKE,
    }
    words |= {"{tests}": "tests", "{repository}": "repository"}
    for word, text in words.items():
        command = [part.replace(word, text) for part in command]
    chunks = tidy(run(command, folder, terminal=terminal), folder)
    (HERE / f"{name}.bin").write_bytes(b"".join(data for _, data in chunks))
    offset, marks = 0, []
    for at, data in chunks:
        offset += len(data)
        marks.append([offset, at])
    file = HERE / f"{name}.json"
    points = json.loads(file.read_text())["points"] if file.exists() else []
    step = max(1, len(marks) // MOST_MARKS)
    marks = [*marks[:-1:step], *marks[-1:]]
    rows = ",\n  ".join(json.dumps(point, ensure_ascii=False) for point in points)
    file.write_text(
        f'{{"terminal": {json.dumps(terminal)},\n "marks": {json.dumps(marks)},\n "points": [\n  {rows}\n]}}\n'
    )


def prepare(folder: Path) -> None:
    """What the recipes work on."""
    (folder / "data.bin").write_bytes(os.urandom(8_000_000))
    (folder / "tests").mkdir()
    for n in range(6):
        test = "import time\nimport pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_it(n): time.sleep(0.02)\n"
        (folder / "tests" / f"test_part{n}.py").write_text(test)
    repository = folder / "repository"
    subprocess.run(["git", "init", "-q", repository], check=True)
    for n in range(60):
        (repository / f"{n}.bin").write_bytes(os.urandom(300_000))
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)


def main() -> None:
    """Record what is named, or all."""
    Slow.wheel = wheel()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in sys.argv[1:] or RECIPES:
        folder = Path(tempfile.mkdtemp())
        prepare(folder)
        record(name, f"http://127.0.0.1:{server.server_port}", folder)
        shutil.rmtree(folder)
        print(name, (HERE / f"{name}.bin").stat().st_size, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
