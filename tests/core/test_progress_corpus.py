"""Recordings of real tools, read in pieces of any size; `corpus/record.py` made them."""

from __future__ import annotations

import bisect
import json
import random
import re
from pathlib import Path

import pytest

from koubou_panel.core.progress.reader import ProgressReader
from koubou_panel.core.records import Progress

CORPUS = Path(__file__).parent / "corpus"
NAMES = sorted(path.stem for path in CORPUS.glob("*.bin"))
# Tools that go through several phases, each from 0 to 1.
PHASES = {"apt", "apt-fancy", "apt-status", "apt-update", "git-clone", "tqdm-left-early"}
LINE_END = re.compile(rb"[\r\n]|\x1b\[A|\x1b8")
STYLE = re.compile(rb"\x1b\[[\d;]*m")


class Recording:
    def __init__(self, name: str) -> None:
        self.data = (CORPUS / f"{name}.bin").read_bytes()
        about = json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))
        self.points = about["points"]
        self.offsets = [offset for offset, _ in about["marks"]]
        self.times = [at_s for _, at_s in about["marks"]]

    def at_s(self, offset: int) -> float:
        """When the bytes up to `offset` were there."""
        return self.times[min(bisect.bisect_left(self.offsets, offset), len(self.times) - 1)]

    def end_of(self, text: str) -> int:
        """Where the first line with `text` ends."""
        start = self.data.index(text.encode()) + len(text.encode())
        end = LINE_END.search(self.data, start)
        return end.start() if end else len(self.data)

    def seen(self, end: int, chance: random.Random) -> tuple[Progress | None, list[Progress]]:
        """What is told at `end`, and what was told on the way, read in pieces of chance."""
        reader, told, at = ProgressReader(), [], 0
        largest = chance.choice((3, 40, 300, 5_000))
        while at < end:
            piece = self.data[at : min(end, at + chance.randrange(1, largest + 1))]
            at += len(piece)
            reader.feed(piece)
            if chance.random() < 0.7:
                told.append(reader.latest(self.at_s(at)))
        reader.latest(self.at_s(end))
        last = reader.latest(self.at_s(end))
        return last, [progress for progress in [*told, last] if progress is not None]


@pytest.fixture(params=NAMES)
def recording(request):
    """Each recording."""
    return Recording(request.param)


@pytest.mark.parametrize("seed", range(6))
def test_a_recording_is_read_right_at_every_point(recording, seed):
    """Fraction, counts, unit, rate and remaining time are what the tool shows, however its output was cut."""
    chance = random.Random(seed)
    assert recording.points
    for point in recording.points:
        progress, _ = recording.seen(recording.end_of(point["after"]), chance)
        expected = point["progress"]
        if expected is None:
            assert progress is None
            continue
        assert progress is not None, point
        for field, value in expected.items():
            loose = 0.02 if field in {"fraction", "done", "total"} else 0.25
            found = getattr(progress, field)
            if isinstance(value, int | float) and value:
                assert found == pytest.approx(value, rel=loose), (point, progress)
            else:
                assert found == value, (point, progress)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PHASES])
def test_progress_rises_where_the_tool_is_in_one_phase(name):
    """From one look to the next a fraction never falls."""
    recording = Recording(name)
    for seed in range(4):
        _, told = recording.seen(len(recording.data), random.Random(seed))
        heights = [(p.done or 0.0) if p.fraction is None else p.fraction for p in told]
        assert heights == sorted(heights)


def test_the_remaining_time_is_about_what_it_took(recording):
    """Once a tenth is done, what is left is said within a factor of four and two seconds."""
    _, told = recording.seen(len(recording.data), random.Random(1))
    took_s = recording.times[-1]
    for progress in told:
        if progress.fraction and 0.1 < progress.fraction < 1 and progress.eta_s is not None:
            assert progress.eta_s <= 4 * took_s * (1 - progress.fraction) + 2


def test_a_recording_names_no_machine():
    """No host and no folder of the machine that made them is in the recordings."""
    for name in NAMES:
        data = (CORPUS / f"{name}.bin").read_bytes()
        assert re.search(rb"/root|/tmp/|/work|debian\.org|127\.0\.0\.1|localhost", data) is None, name
        assert len(data) <= 6_500, name
