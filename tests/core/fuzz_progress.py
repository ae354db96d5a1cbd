"""Feeds the progress reader what nobody would print: `python tests/core/fuzz_progress.py SECONDS [SEED]`.

Guided by coverage where atheris is installed, else recordings are cut, joined and changed by chance. Either way no
input may raise, give a number that makes no sense, or take long; the first that does is written to `/tmp`.
"""

from __future__ import annotations

import math
import random
import sys
import time
from pathlib import Path

from koubou_panel.core.progress.reader import KEPT_BYTES, ProgressReader
from koubou_panel.core.records import Progress

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.bin"))
# Seconds of the processor: most look at less than a hundredth of it.
LIMIT_S = 0.5
TOKENS = [
    *(
        b"::koubou progress ",
        b"::koubou progress 12/80 x\n",
        b"::koubou progress clear\n",
        b"\x1b]9;4;1;37\x07",
    ),
    *(
        b"\x1b]9;4;0;\x1b\\",
        b"37%",
        b"37 %",
        b"12/80",
        b" 12 of 80",
        b"%|",
        b"| 3/4 [00:01<00:02, 3.1it/s]",
        b"\r",
    ),
    *(
        b"\n",
        b"\x1b[A",
        b"\x1b[99999999999B",
        b"\x1b[24;0f",
        b"\x1b7",
        b"\x1b8",
        b"\x08\x08",
        "━━━━━━".encode(),
    ),
    *(
        b"[====>    ]",
        b"1e308",
        b"9" * 40,
        b"0",
        b"/",
        b".",
        b",",
        b"--:--:--",
        b"eta 0:00:05",
        b"1.5MB/s",
        b"\x1b[",
    ),
    *(b"1 day, 2:03:04", b"nan", b"inf", b"1234567 bytes (1 MB) copied, 1 s, 2 GB/s", b"dlstatus:1:33.3:x\n"),
    *(
        b"| 3/4 | 50% |\n",
        b"80MB/512MB",
        b"1MB / 2MB",
        b" 99%    5.80ms\n",
        b"Nov 11/2026: ",
        b"::koubou progress 37 %\n",
    ),
    *(
        b"::koubou progress 12 / 80km/h x\n",
        b"\r  3,960,000   6%   28.68MB/s    0:00:00 (xfr#198, to-chk=28/30)",
    ),
    *(b"Epoch 3/10", b"Progress: [ 37%]", "３７%".encode(), "²/³".encode(), b"\xff\xfe", b"\x00"),
]


def check(progress: Progress | None) -> None:
    """Raise where it makes no sense."""
    if progress is None:
        return
    assert progress.fraction is None or 0 <= progress.fraction <= 1, progress
    assert progress.total is None or progress.total > 0, progress
    for value in (progress.fraction, progress.done, progress.total, progress.eta_s, progress.rate_per_s):
        assert value is None or (isinstance(value, float) and math.isfinite(value) and value >= 0), progress
    assert len(progress.message) <= 200, progress
    assert len(progress.unit) <= 16, progress
    assert (progress.message + progress.unit).isprintable(), progress


def one(data: bytes) -> None:
    """Feed `data` in pieces, whose sizes and times it gives itself."""
    chance = random.Random(len(data) * 31 + sum(data[:64]))
    reader, now_s, at = ProgressReader(), 0.0, 0
    started = time.process_time()
    looks = 0
    while at < len(data):
        size = chance.choice((1, 7, 80, 500, 5_000, KEPT_BYTES + 1))
        reader.feed(data[at : at + size])
        at += size
        now_s += chance.choice((0.0, 0.05, 1.0, 40.0))
        if chance.random() < 0.5:
            check(reader.latest(now_s))
            looks += 1
    for _ in range(3):
        check(reader.latest(now_s))
        now_s += 6.0
    spent_s = time.process_time() - started
    assert spent_s < LIMIT_S * (1 + looks / 20), f"took {spent_s:.2f} s for {len(data)} bytes, {looks} looks"


def changed(chance: random.Random, seeds: list[bytes]) -> bytes:
    """A recording, or two, with a few things wrong."""
    data = bytearray(chance.choice(seeds))
    if chance.random() < 0.3:
        other = chance.choice(seeds)
        cut = chance.randrange(len(data) + 1)
        data[cut:] = other[chance.randrange(len(other)) :]
    for _ in range(chance.randrange(1, 12)):
        at = chance.randrange(len(data) + 1)
        way = chance.randrange(5)
        if way == 0 and data:
            data[min(at, len(data) - 1)] = chance.randrange(256)
        elif way == 1:
            data[at:at] = chance.choice(TOKENS)
        elif way == 2:
            del data[at : at + chance.randrange(1, 30)]
        elif way == 3:
            data[at:at] = data[at : at + chance.randrange(1, 200)] * chance.randrange(1, 20)
        else:
            data[at:at] = b"%d" % chance.choice((0, 1, 9, 99, 100, 101, 10**9, 10**20, 2**63))
    return bytes(data[:40_000])


def seeds() -> list[bytes]:
    """The recordings, and all tokens in a row."""
    return [*(path.read_bytes() for path in CORPUS), b"".join(TOKENS)]


def by_chance(seconds: float, seed: int) -> int:
    """How many inputs were tried."""
    chance, known, count = random.Random(seed), seeds(), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = changed(chance, known)
        try:
            one(data)
        except BaseException:
            Path("/tmp/progress-crash").write_bytes(data)
            raise
        count += 1
    return count


def by_coverage(seconds: float) -> None:
    """Until libFuzzer says that the time is over; it prints how many it tried."""
    import tempfile

    import atheris

    atheris.instrument_all()
    folder = Path(tempfile.mkdtemp())
    for number, data in enumerate(seeds()):
        (folder / str(number)).write_bytes(data[:3_000])
    flags = [
        f"-max_total_time={seconds:g}",
        "-max_len=3000",
        "-artifact_prefix=/tmp/progress-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], str(folder), *flags], one)
    atheris.Fuzz()


def main() -> None:
    """Run for the seconds given."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    try:
        import atheris  # noqa: F401
    except ImportError:
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
        print(f"{by_chance(seconds, seed)} inputs, seed {seed}")  # noqa: T201
    else:
        by_coverage(seconds)


if __name__ == "__main__":
    main()
