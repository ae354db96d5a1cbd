"""Progress from output: what is believed, what is not, what a script says itself, and what is worked out."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koubou_panel.core.progress.rate import Rate
from koubou_panel.core.progress.reader import HELD_S, KEPT_BYTES, ProgressReader
from koubou_panel.core.progress.told import MOST_MESSAGE, told
from koubou_panel.core.records import Progress
from tests.core import fuzz_progress


def read(*texts: str, step_s: float = 1.0) -> Progress | None:
    """What is told when these came, one a second."""
    reader, progress = ProgressReader(), None
    for number, text in enumerate(texts):
        reader.feed(text.encode())
        progress = reader.latest(number * step_s)
    reader.latest(len(texts) * step_s)
    return reader.latest(len(texts) * step_s) or progress


def lines(form: str, *values: object) -> str:
    """One line for each value."""
    return "".join(form.replace("#", str(value)) + "\n" for value in values)


# What looks like progress and is none: each a whole output.
NOTHING = {
    "dates": lines("2026/11/# INFO started", 19, 20, 21, 22),
    "american dates": lines("11/#/2025 done", 19, 20, 21, 22),
    "dates with times": lines("11/# 15:46:32 processed a file", 19, 20, 21, 22),
    "european dates": lines("0#/12 loading", 1, 2, 3, 4),
    "paths": lines("reading a/#/80/x and data/#/80", 1, 2, 3, 4),
    "absolute paths": lines("GET /jobs/#/80 HTTP/1.1", 1, 2, 3, 4),
    "addresses": lines("fetching http://example.org/12/80?page=#%20of", 1, 2, 3, 4),
    "networks": lines("10.0.0.#/24 is up", 1, 2, 3, 4),
    "ports": "22/443\n" + lines("#/tcp open", 22, 80, 443),
    "versions": lines("Python 3.#/3.13", 10, 11, 12),
    "a share of a disk": lines("disk #% used", 91, 92, 93, 94),
    "df": "Filesystem Size Used Avail Use% Mounted on\n/dev/sda1 100G 50G 45G 52% /\n/dev/sdb1 100G 60G 35G 62% /home\n"
    "/dev/sdc1 100G 70G 25G 72% /data\n/dev/sdd1 100G 90G 5G 95% /old\n",
    "df -h of one": lines("tmpfs            12G     0   12G   #% /dev/shm", 0, 1, 2, 3),
    "top": lines("%Cpu(s):  #.1 us,  1.2 sy,  0.0 ni, 95.7 id,  0.0 wa", 3, 4, 5, 6),
    "top's rows": lines("  812 root  20  0  1.2g  80m  12m S  #.0  0.5  0:12.34 python", 3, 4, 5, 6),
    "processor load": lines("#% CPU", 10, 50, 90, 100) + lines("CPU usage: #%", 10, 50, 90, 100),
    "docker stats": lines("abc  web  #.50%  12.3MiB / 1.9GiB  0.64%  1.2kB / 0B", 1, 2, 3, 4),
    "nvidia-smi": lines(
        "| #%   45C    P2    70W / 250W |   1234MiB /  8192MiB |     12%      Default |", 30, 31, 32, 33
    ),
    "coverage": "Name      Stmts   Miss  Cover\na.py         10      5    50%\nb.py         20      5    75%\n"
    "c.py        100     10    90%\nd.py        100      1    99%\nTOTAL       230     21    91%\n",
    "coverage in words": lines("coverage #%", 80, 85, 90, 95),
    "istanbul": "Statements   : 75.5% ( 30/40 )\nBranches     : 80% ( 32/40 )\nFunctions    : 85% ( 34/40 )\n"
    "Lines        : 90% ( 36/40 )\n",
    "test summary": "Tests: 12/80 passed\n",
    "recipe": "take 3/4 cup of flour\n",
    "one count": "12/80\n",
    "one percentage": "37%\n",
    "one bar of a chart": "apples ██████ 37%\npears ████████ 12%\n",
    "falling": lines("#% of it", 90, 80, 70, 60),
    "more than all": lines("processed #/10", 11, 12, 13, 14) + lines("done #%", 101, 110, 120),
    "of nothing": lines("done #/0", 0, 0, 0),
    "tries": lines("attempt #/5 failed", 1, 2, 3, 4),
    "scores": lines("epoch finished, accuracy #%", 80, 85, 90, 95),
    "git diff --stat": " a.py | 12 ++++-----\n rename {a => b}/c.py (97%)\n rename {a => b}/d.py (98%)\n",
    "ls -l": lines("drwxr-xr-x # root root 4096 Nov 21 15:54 .", 1, 2, 3, 4),
    "kubectl": "web-1 0/1 Pending 0 3s\nweb-1 0/1 ContainerCreating 0 4s\nweb-1 1/1 Running 0 6s\n",
    "ping": lines("64 bytes from 10.0.0.1: icmp_seq=# ttl=64 time=0.0#2 ms", 1, 2, 3, 4) + "0% packet loss\n",
    "pages of a book": "12 of 80\n",
    "numbers alone": lines("#", *range(100)),
    "a log": lines("2026-11-21 15:46:#,123 INFO worker.py:80 took 12.5 ms (3/4 slots, 62% busy)", 10, 10, 10),
    "json": lines('{"id": #, "ratio": "3/4", "share": "75%"}', 1, 2, 3, 4),
    "a diff": "@@ -12,80 +13,81 @@\n-12/80\n+13/80\n",
    "css": "a { width: 37%; }\nb { width: 50%; }\nc { width: 62%; }\nd { width: 100%; }\n",
    "format strings": "printf('%d/%d %3d%%')\n" * 4,
    "a table": "━━━━━━━━━┳━━━━━━━━━\n a ┃ b\n━━━━━━━━━╇━━━━━━━━━\n 1 │ 2\n",
    "nvidia-smi -l": lines(
        "|   0  NVIDIA A100-SXM4-40GB          On  | 00000000:05:00.0 Off |                    0 |\n"
        "| N/A   34C    P0              7#W / 400W |   #00MiB / 40960MiB |     #%   E. Process |",
        *range(1, 9),
    ),
    "nvidia-smi -l before": lines(
        "| N/A   34C    P0    70W / 300W |   #00MiB / 16160MiB |      #%      Default |", 1, 2, 3, 4
    ),
    "gpustat": lines("[0] NVIDIA A100 | 45'C,  #0 % |  #024 / 40960 MB | a(#002M)", 1, 2, 3, 4),
    "docker stats of several": "CONTAINER ID   NAME   CPU %   MEM USAGE / LIMIT   MEM %   NET I/O   BLOCK I/O   PIDS\n"
    + lines(
        "b95a83497c91   worker-1  0.2#%     #5.6MiB / 1.952GiB   0.28%     916B / 0B     147kB / 0B    9",
        1,
        2,
        3,
        4,
    ),
    "podman stats of memory": lines("b95a83497c91  sync-1  #.6MB / 1.952GB  916B / 1kB", 1, 2, 3, 4),
    "a heap": lines("Heap: #0MB/512MB", 1, 2, 3, 4) + lines("heap #0 MB / 512 MB", 1, 2, 3, 4),
    "memory of a process": lines("app[812]: #0MB/512MB", 1, 2, 3, 4)
    + lines("at #0 MB of 512 MB, used", 1, 2, 3),
    "room on a disk": lines("loading: #0 GB of 512 GB free", 1, 2, 3, 4),
    "kubectl get hpa": lines("web    Deployment/web   #%/80%   1   10   3   5m", 10, 20, 30, 40),
    "pm2 list": lines("│ 0  │ api   │ fork   │ #   │ 0/4   │ #%   │ 60.0mb │", 1, 2, 3, 4),
    "psql": lines(" | part | #/12 | #0% |", 1, 2, 3, 4),
    "ab": "Percentage of the requests served within a certain time (ms)\n  50%     12\n  66%     14\n  75%     15\n"
    "  80%     16\n  90%     20\n  95%     30\n  98%     35\n  99%     40\n 100%     60 (longest request)\n",
    "wrk": "  Latency Distribution\n     50%  250.00us\n     75%  491.00us\n     90%    1.12ms\n     99%    5.80ms\n",
    "hey": "Latency distribution:\n" + lines("  #% in 0.0012 secs", 10, 25, 50, 75, 90, 95, 99),
    "redis-benchmark": lines("#.00% <= 0.# milliseconds", 50, 75, 87, 93) + "100.00% <= 1 milliseconds\n",
    "percentiles in words": lines("p# latency #% within 12 ms", 50, 90, 95, 99),
    "days of a year": lines("Nov #/2026: item", *range(9, 20)),
    "months of a year": lines("report of #/2026 is missing", *range(1, 13))
    + lines("loading 0#/2026", 1, 2, 3),
    "months": lines("#/21 temperature 12", *range(1, 12)),
    "networks without dots": lines("route #/24", 1, 2, 3, 4) + lines("subnet #/24 is up", 1, 2, 3, 4),
    "drills": lines("#/16 inch drill", 1, 3, 5, 7),
    "several counts": lines("a #/80 b 3/4 c", 1, 2, 3, 4),
    "rates": lines("interest rate now #%", 1, 2, 3, 4),
    "a lot of nothing": "." * 20_000,
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_no_progress_is_taken_for_none(name):
    """Dates, paths, shares of a disk, coverage, charts: nothing of it is progress, in whatever pieces it comes."""
    text = NOTHING[name]
    assert read(text) is None
    assert read(*text.splitlines(keepends=True)) is None


SAID = {
    "percentages": (lines("# %", 10, 20, 37), 0.37, ""),
    "percentages in words": (lines("Progress: #%", 10, 37), 0.37, ""),
    "counts alone": (lines("#/80", 10, 11, 12), 0.15, ""),
    "counts": (lines("processed #/80 files", 1, 12), 0.15, "processed"),
    "of": (lines("Downloaded # of 80", 1, 12), 0.15, "Downloaded"),
    "out of": (lines("rendered frame # out of 80", 1, 12), 0.15, "rendered frame"),
    "step": (lines("step # / 80", 1, 12), 0.15, "step"),
    "epoch": (lines("Epoch #/10 - loss: 0.1234 - acc: 87%", 1, 2, 3), 0.3, "Epoch"),
    "epoch in brackets": (lines("Epoch [#/10], Step [5/100], Loss: 0.3", 1, 2, 3), 0.3, "Epoch"),
    "a log": (
        lines("2026-11-21 15:46:32,123 INFO step #/80", 1, 12),
        0.15,
        "2026-11-21 15:46:32,123 INFO step",
    ),
    "any words": (lines("widget #/80 painted", 10, 11, 12), 0.15, "widget"),
    "thousands": (lines("Reading #,000/80,000 rows", 1, 12), 0.15, "Reading"),
    "a bar in letters": ("\r[===>       ] 30%\r[====>      ] 40%\r", 0.4, ""),
    "keras": (
        "\r  1/938 ━━━━━━━━━━━━━━ 5:00 320ms/step - loss: 2.3\r469/938 ━━━━━━━━━━━━━━ 2s 5ms/step - loss: 0.5\r",
        0.5,
        "",
    ),
    "cargo": (
        "\r   Building [=====>          ] 3/20: serde\r   Building [=====>          ] 6/20: syn\r",
        0.3,
        "Building",
    ),
    "click": ("\rsums  [####------]   40%  00:00:20\r", 0.4, "sums"),
    "progressbar2": ("\r 37% (37 of 100) |####     | Elapsed Time: 0:00:12 ETA:   0:00:20\r", 0.37, ""),
    "conda": (
        "\rnumpy-1.2 | 12.3 MB | #####4   |  54% \rnumpy-1.2 | 12.3 MB | ######   |  60% \r",
        0.6,
        "numpy-1.2 | 12.3 MB",
    ),
    "scp": (
        "\rdata.bin    37%   12MB   1.2MB/s   00:20 ETA\rdata.bin    38%   12MB   1.2MB/s   00:20 ETA\r",
        0.38,
        "data.bin",
    ),
    "a size alone": ("\r 12.0/80.0 MB\r 13.0/80.0 MB\r", 0.1625, ""),
    "sizes": (lines("fetched #.0MB / 80.0MB", 10, 12), 0.15, "fetched"),
    "as many epochs as a year": (lines("Epoch #/2000", 1, 20), 0.01, "Epoch"),
    "as many files as a year": (lines("[#/2000] a.c", 1, 20), 0.01, "a.c"),
    "buildkit": (lines("#5 [#/9] RUN make", 1, 2, 3), 0.333, "RUN make"),
    "percent before another count": (lines("#% 1.2MB/s ETA 0:12 (file 499 of 500)", 10, 37), 0.37, ""),
    "options as counts": (lines("solving: #% done (left=499/500)", 10, 37), 0.37, "solving"),
    "uv": (
        "\rnumpy   ----------------- 4.00 MiB/16.00 MiB\rnumpy   ----------------- 8.00 MiB/16.00 MiB\r",
        0.5,
        "numpy",
    ),
    "docker": (
        "\rabc: Downloading [==>   ]  10.0MB/25.0MB\rabc: Downloading [===>  ]  12.5MB/25.0MB\r",
        0.5,
        "abc: Downloading",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_progress_in_any_output_is_found(name):
    """`37 %`, `12/80`, `12 of 80` and the bars of many tools are found, once they have risen."""
    text, fraction, message = SAID[name]
    progress = read(text)
    assert progress is not None
    assert progress.fraction == pytest.approx(fraction, abs=0.001)
    assert progress.message == message


def test_docker_with_another_total_is_another_bar():
    """Counts of two totals are two meters, and neither has risen."""
    assert read("copied 1/80\n", "copied 2/81\n") is None


def test_a_plain_count_takes_three_rising_values_in_the_same_words():
    """Two may be chance; a third in the same place is not."""
    assert read(lines("widget #/80", 10, 11)) is None
    assert read(lines("widget #/80", 10, 10, 10, 11, 11)) is None
    assert read(lines("widget #/80", 10, 11, 12)).done == 12


def test_a_bar_that_ends_is_shown_for_a_while():
    """A finished bar is shown for seconds, then nothing is known of what the run does after it."""
    reader = ProgressReader()
    reader.feed(b"\rx: 100%|####| 40/40 [00:02<00:00, 19.9it/s]\n")
    assert reader.latest(0.0).fraction == 1
    reader.feed(b"now something long\n")
    assert reader.latest(HELD_S).fraction == 1
    assert reader.latest(HELD_S + 1) == Progress()


def test_a_bar_that_is_wiped_away_is_held_for_a_while():
    """What is drawn over a bar ends it, but not at once: many tools wipe and draw again."""
    reader = ProgressReader()
    reader.feed(b"\rx:  50%|##  | 20/40 [00:02<00:02, 19.9it/s]")
    reader.feed(b"\r                                            \r")
    assert reader.latest(0.0) is None or reader.latest(0.0).fraction == 0.5
    reader.feed(b"\rx:  55%|##  | 22/40 [00:02<00:02, 19.9it/s]\r")
    assert reader.latest(1.0).fraction == 0.55
    reader.feed(b"\rall went well                                \n")
    assert reader.latest(2.0).fraction == 0.55
    assert reader.latest(2.0 + HELD_S) == Progress()


def test_the_outer_of_two_bars_is_told():
    """Nested bars as tqdm draws them: the inner one comes and goes below the outer one."""
    outer = "\repochs:  {0}0%|#   | {0}/10 [00:01<00:09, 1.0it/s]"
    inner = "\n\rbatches:  {0}0%|#   | {0}/10 [00:00<00:00, 9.0it/s]\x1b[A"
    reader = ProgressReader()
    for epoch in range(3):
        reader.feed(outer.format(epoch).encode())
        for batch in range(10):
            reader.feed(inner.format(batch).encode())
            progress = reader.latest(epoch + batch / 10)
            assert (progress.message, progress.done) == ("epochs", epoch)


def test_a_flood_between_two_looks_loses_only_what_is_old():
    """However much came since the last look, its end is read, and no half line is believed."""
    reader = ProgressReader()
    bar = "\rx:  {0}%|##  | {0}/100 [00:02<00:02, 19.9it/s]"
    reader.feed("".join(bar.format(n) for n in range(10, 60)).encode() * 100)
    assert reader.latest(1.0).done >= 58
    reader.feed(b"noise and more noise\n" * 100_000 + bar.format(77).encode() + b"\n")
    assert reader.latest(2.0).done == 77
    assert len(reader._fresh) <= 2 * KEPT_BYTES


def test_half_a_line_is_not_believed_before_its_end():
    """`12/8` may become `12/80`: it waits for the rest, or for a look at which nothing had followed."""
    reader = ProgressReader()
    reader.feed(b"step 1/80\nstep 2/8")
    assert reader.latest(0.0) is None
    reader.feed(b"0")
    assert reader.latest(0.1) is None
    assert reader.latest(0.2).total == 80


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("12/80", Progress(0.15, 12.0, 80.0)),
        ("12/80 reading a.csv", Progress(0.15, 12.0, 80.0, message="reading a.csv")),
        ("12/80files reading", Progress(0.15, 12.0, 80.0, "files", message="reading")),
        ("1.5/3MB", Progress(0.5, 1.5e6, 3e6, "B")),
        ("1/2GiB", Progress(0.5, 2.0**30, 2.0**31, "B")),
        ("12 / 80", Progress(0.15, 12.0, 80.0)),
        ("12 / 80 reading", Progress(0.15, 12.0, 80.0, message="reading")),
        ("12/80 % of it", Progress(0.15, 12.0, 80.0, message="% of it")),
        ("12/80件", Progress(0.15, 12.0, 80.0, "件")),
        ("12/80km/h", Progress(0.15, 12.0, 80.0, "km/h")),
        ("12 /home/a.csv", Progress(None, 12.0, message="/home/a.csv")),
        ("37 %", Progress(0.37)),
        ("37.5 % nearly", Progress(0.375, message="nearly")),
        ("37%", Progress(0.37)),
        ("37.5% nearly", Progress(0.375, message="nearly")),
        ("12", Progress(None, 12.0)),
        ("12rows so far", Progress(None, 12.0, None, "rows", message="so far")),
        ("? warming up", Progress(message="warming up")),
        ("90/80", Progress(1.0, 90.0, 80.0)),
        ("12/0", Progress(None, 12.0)),
        ("1e3/2e3", Progress(0.5, 1e3, 2e3)),
        ("12/80 \x1b[31mred\x1b[0m", Progress(0.15, 12.0, 80.0, message="red")),
    ],
)
def test_a_script_may_say_it_itself(line, expected):
    """`::koubou progress …` gives counts, a percentage, a unit and words."""
    said = read(f"hello\n::koubou progress {line}\n")
    assert (said.fraction, said.done, said.total, said.unit, said.message) == (
        expected.fraction,
        expected.done,
        expected.total,
        expected.unit,
        expected.message,
    )


@pytest.mark.parametrize(
    "line",
    [
        *("", "twelve", "-1/80", "12/-80", "12/eighty", "nan/80", "1e999/80", "1000%", "/80", "%"),
        *("12 / eighty", "12 / -80", "1000 %", "37 %x", "12rows / 80", "12files/80files", "12/80_x"),
    ],
)
def test_what_a_script_says_wrongly_is_passed_over(line):
    """A line that cannot be read changes nothing: what was said before stands."""
    assert read(f"::koubou progress {line}\n") is None
    assert read(f"::koubou progress 3/4 kept\n::koubou progress {line}\n").message == "kept"


def test_what_a_script_says_wrongly_is_no_meter():
    """A line of the protocol is never read as the output of any tool, however often it rises."""
    assert read(lines("::koubou progress about #/80 files", 10, 11, 12)) is None


def test_what_a_script_says_wins_for_the_rest_of_the_run():
    """A bar that is drawn later does not hide it; `clear` gives way again."""
    bar = "\rx:  {0}%|##  | {0}/100 [00:02<00:02, 19.9it/s]\n"
    assert read(bar.format(50), "::koubou progress 1/4\n", bar.format(60)).fraction == 0.25
    assert read("::koubou progress 1/4\n", "::koubou progress clear\n") == Progress()
    assert read("::koubou progress 1/4\n", "::koubou progress clear\n", bar.format(60)).done == 60


def test_nothing_that_a_script_says_is_missed_in_a_flood():
    """A line in the middle of megabytes is found, and one that is cut anywhere by two reads."""
    reader = ProgressReader()
    reader.feed(b"x" * 1_000_000 + b"\n::koubou progress 12/80 found\n" + b"y\n" * 1_000_000)
    assert reader.latest(0.0).message == "found"
    whole = b"before\n::koubou progress 12/80 found it\nafter\n"
    for cut in range(len(whole)):
        reader = ProgressReader()
        reader.feed(whole[:cut])
        reader.feed(whole[cut:])
        assert reader.latest(0.0).message == "found it", cut
    reader = ProgressReader()
    for byte in whole:
        reader.feed(bytes([byte]))
    assert reader.latest(0.0).message == "found it"


def test_every_line_of_the_documentation_is_understood():
    """What docs/progress.md shows can be read, and its value is the one shown."""
    text = (Path(__file__).parents[2] / "docs" / "progress.md").read_text(encoding="utf-8")
    shown = [line.strip() for line in text.splitlines() if line.startswith("    ::koubou progress")]
    said = {
        line: read("::koubou progress 1/2 before\n", f"{line}\n") for line in shown if "VALUE" not in line
    }
    assert len(said) == 7
    assert all(progress is not None and progress.message != "before" for progress in said.values())
    assert [line for line, progress in said.items() if progress == Progress()] == ["::koubou progress clear"]


def test_what_only_shows_the_command_is_not_taken():
    """A listing of the script, where the line stands in quotes, says nothing."""
    assert read("echo '::koubou progress 12/80 x'\n") is None


def test_a_message_is_cut():
    """Words are cut, not refused, and the line may be longer than any that is kept."""
    assert len(read("::koubou progress 1/2 " + "x" * 900 + "\n").message) == MOST_MESSAGE
    assert read("::koubou progress 1/2 " + "x" * 9_000 + "\n").fraction == 0.5


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("\x1b]9;4;1;37\x07", Progress(0.37)),
        ("\x1b]9;4;1;37\x1b\\", Progress(0.37)),
        ("\x1b]9;4;2;50\x07", Progress(0.5)),
        ("\x1b]9;4;4;50\x07", Progress(0.5)),
        ("\x1b]9;4;3;\x07", Progress()),
        ("\x1b]9;4;3\x07", Progress()),
        ("\x1b]9;4;1;37\x07text\x1b]9;4;1;38\x07", Progress(0.38)),
        ("\x1b]9;4;1;250\x07", Progress(1.0)),
    ],
)
def test_a_terminals_own_sequence_is_honoured(sequence, expected):
    """OSC 9;4 sets a percentage, makes it unknown, or takes it away."""
    said = read("a\n" + sequence + "b\n")
    assert (said.fraction, said.done) == (expected.fraction, expected.done)


def test_a_terminals_own_sequence_gives_way_when_taken_away():
    """State 0 ends it: nothing is known, until something else is drawn."""
    bar = "\rx:  60%|##  | 60/100 [00:02<00:02, 19.9it/s]\n"
    assert read("\x1b]9;4;1;37\x07", "\x1b]9;4;0;\x07") == Progress()
    assert read("\x1b]9;4;1;37\x07", "\x1b]9;4;0;\x07", bar).done == 60


def test_a_line_outranks_a_terminals_sequence():
    """What is said in words counts, whatever a tool that is called tells the terminal."""
    assert read("::koubou progress 1/4\n", "\x1b]9;4;1;37\x07").fraction == 0.25
    assert read("\x1b]9;4;1;37\x07", "::koubou progress 1/4\n").fraction == 0.25


def test_a_rate_is_worked_out_where_none_is_said():
    """Ten of a hundred in a second are ten a second, and nine seconds are left."""
    said = read(*(f"::koubou progress {10 * n}/100\n" for n in range(4)))
    assert (said.rate_per_s, said.eta_s) == (pytest.approx(10), pytest.approx(7))


@pytest.mark.parametrize(
    "lines",
    [
        ("12/80files", "1.5/3.2GB downloading"),
        ("12/80files", "1.5/3.2GB downloading", "37.5% solving", "1200rows"),
        ("12/80files", "20/90files"),
        ("12/80files", "20files"),
        ("12files", "20rows"),
        ("12/80files", "7/80files"),
        ("0%", "1/80files"),
        ("10/80files", "90%"),
    ],
)
def test_a_rate_never_spans_two_measures(lines):
    """With another unit or total, or less done than before, nothing is known of the rate and the rest at first."""
    said = read(*(f"::koubou progress {line}\n" for line in lines), step_s=1.2)
    assert (said.rate_per_s, said.eta_s) == (None, None)


def test_a_rate_is_worked_out_anew_in_the_next_unit():
    """What came before in files has no part in what now comes in rows."""
    said = read(
        *(f"::koubou progress {line}\n" for line in ("0/80files", "70/80files", "100/200rows", "105/200rows"))
    )
    assert (said.rate_per_s, said.eta_s) == (pytest.approx(5), pytest.approx(19))


def test_the_rate_of_a_meter_never_spans_two_units():
    """A bar that goes on in another unit is estimated anew; one in percent is not, whatever stands beside it."""
    rate = Rate()
    rate.follow(Progress(0.1, 10.0, 100.0, "it"), 0.0)
    rate.follow(Progress(0.9, 90.0, 100.0, "B"), 1.0)
    assert rate.per_s(1.0) is None
    rate.follow(Progress(0.1, unit="B"), 2.0)
    rate.follow(Progress(0.2), 3.0)
    assert rate.per_s(3.0) == pytest.approx(0.1)


def test_the_last_half_minute_weighs_most():
    """After a slow start the rate is soon that of now."""
    rate = Rate()
    for second in range(60):
        rate.note(second, second)
    for second in range(60):
        rate.note(60 + 10 * second, 60 + second)
    assert 7 < rate.per_s(119.0) < 10


def test_a_run_that_stands_still_has_more_and_more_time_left():
    """Without news the remaining time grows."""
    reader = ProgressReader()
    for second in range(5):
        reader.feed(f"::koubou progress {second}/100\n".encode())
        reader.latest(second)
    assert reader.latest(5.0).eta_s == pytest.approx(96)
    assert reader.latest(60.0).eta_s > 900


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 10**400, 1e300])
def test_numbers_that_make_no_sense_are_unknown(value):
    """NaN, infinity, less than nothing and more than anything are no progress."""
    assert told(value, 80.0).done is None
    assert told(12.0, value).total is None


def test_a_look_at_the_end_of_a_flood_is_quick():
    """Megabytes are taken in, and a look costs what is kept, not what came."""
    reader = ProgressReader()
    chunk = (
        b"".join(b"\r%d%%|##  | %d/100 [00:02<00:02, 19.9it/s] 12 of 80, 3.5/s" % (n, n) for n in range(100))
        * 20
    )
    started = time.process_time()
    for _ in range(50):
        reader.feed(chunk)
    reader.latest(1.0)
    assert time.process_time() - started < 2.0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(data):
    """Whatever is printed, nothing raises, and what is told makes sense."""
    fuzz_progress.one(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0))
def test_no_broken_recording_makes_it_fail(seed):
    """Recordings that were cut, joined and changed by chance: nothing raises, and what is told makes sense."""
    fuzz_progress.one(fuzz_progress.changed(random.Random(seed), fuzz_progress.seeds()))
