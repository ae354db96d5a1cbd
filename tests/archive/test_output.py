"""Output logs: appended to within a quota, read by offset, never cut within a character."""

from __future__ import annotations

import resource
import threading

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from koubou_panel.archive.output import OutputLog, output_path, read_output, read_output_bytes
from koubou_panel.core.ports import OutputPage
from koubou_panel.errors import Refused

EVERYTHING = 1 << 30


@pytest.fixture
def path(tmp_path):
    """Where a log may be made, in a folder that is not there yet."""
    return tmp_path / "output" / "zz" / "task.log"


# -- writing --------------------------------------------------------------------------------------------------


def test_a_silent_task_leaves_no_file(path):
    """The log is made at the first byte, with its folder, and only its owner reads it."""
    log = OutputLog(path)
    log.write(b"")
    assert log.size == 0
    assert not path.parent.exists()
    log.write(b"hello")
    assert path.read_bytes() == b"hello"
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()


def test_writes_are_appended_and_counted(path):
    """The size is that of the file after every write."""
    log = OutputLog(path)
    for piece in (b"one\n", b"\xff\x00", b"three"):
        log.write(piece)
        assert log.size == path.stat().st_size
    log.close()
    assert path.read_bytes() == b"one\n\xff\x00three"
    assert log.lost == 0


def test_a_second_run_goes_on_in_the_same_log(path):
    """What an earlier attempt printed stays, and counts."""
    first = OutputLog(path)
    first.write(b"first run\n")
    first.close()
    second = OutputLog(path)
    assert second.size == 10
    second.write(b"second run\n")
    second.close()
    assert path.read_bytes() == b"first run\nsecond run\n"


def test_a_write_after_close_opens_it_again(path):
    """A late piece of output is not lost."""
    log = OutputLog(path)
    log.write(b"a")
    log.close()
    log.close()
    log.write(b"b")
    log.close()
    assert path.read_bytes() == b"ab"


def on_disk(path):
    """Bytes that a log takes, in all of its files."""
    return sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())


def numbered(begin, end):
    """Ten bytes for each number."""
    return b"".join(b"%09d\n" % number for number in range(begin, end))


@pytest.mark.parametrize("piece", [1, 7, 100, 999, 1_000, 1_001, 5_000])
@pytest.mark.parametrize("quota", [1, 5, 100, 1_000, 1_003])
def test_a_full_log_keeps_the_end(path, piece, quota):
    """However it is written, the newest bytes are held at their own places, and the files stay within the quota."""
    everything = numbered(0, 600 if quota > 10 else 30)
    log = OutputLog(path, quota)
    for at in range(0, len(everything), piece):
        log.write(everything[at : at + piece])
        assert on_disk(path) <= quota
    log.close()
    found = read_output_bytes(path, 0, EVERYTHING)
    assert (found.end, found.size, log.size) == (len(everything),) * 3
    assert found.offset == found.start
    assert found.data == everything[found.start :]
    assert found.size - found.start >= min(len(everything), quota * 7 // 8)
    assert log.lost == 0


def test_a_retry_goes_on_in_a_full_log(path):
    """The next run, in another process, appends behind the last byte and keeps to the quota."""
    for run in range(5):
        log = OutputLog(path, quota_bytes=1_000)
        assert log.size == run * 3_000
        log.write(numbered(run * 300, run * 300 + 300))
        log.close()
        assert on_disk(path) <= 1_000
    found = read_output_bytes(path, -500, EVERYTHING)
    assert (found.offset, found.size) == (14_500, 15_000)
    assert found.data == numbered(1_450, 1_500)


def test_what_is_skipped_counts(path):
    """Bytes that would not be held anyway need not be written to be counted."""
    log = OutputLog(path, quota_bytes=1_000)
    log.write(b"x" * 500)
    log.skip(10_000)
    log.write(b"the end")
    log.close()
    found = read_output_bytes(path, 0, EVERYTHING)
    assert (found.data, found.start, found.size) == (b"the end", 10_500, 10_507)


def test_a_log_of_one_file_is_larger_than_a_segment(path):
    """A log that was written when all was one file is read as it is, and gone on with."""
    logged(path, b"x" * 800)
    log = OutputLog(path, quota_bytes=1_000)
    log.write(b"y" * 50)
    log.close()
    found = read_output_bytes(path, 790, EVERYTHING)
    assert (found.data, found.size) == (b"x" * 10 + b"y" * 50, 850)


@pytest.mark.parametrize("quota", [64, 4_096])
def test_a_reader_that_races_gets_no_wrong_byte(path, quota):
    """While segments come and go, every page holds what was printed at its place."""
    everything = numbered(0, 200 * min(quota, 100) // 4)
    log = OutputLog(path, quota)
    is_over = threading.Event()

    def write():
        for at in range(0, len(everything), 50):
            log.write(everything[at : at + 50])
        is_over.set()

    writer = threading.Thread(target=write)
    writer.start()
    at = seen = 0
    while not is_over.is_set():
        found = read_output_bytes(path, at, 3_000)
        assert found.data == everything[found.offset : found.end]
        assert found.start <= found.offset <= found.end <= found.size
        assert found.size >= seen
        at, seen = found.end, found.size
    writer.join()
    log.close()


def test_text_of_a_full_log_begins_at_a_character(path):
    """Where the oldest byte held is within a character, the text begins behind it."""
    log = OutputLog(path, quota_bytes=100)
    for _ in range(100):
        log.write("工房😀".encode())
    log.close()
    page = read_output(path, 0, EVERYTHING)
    assert "\ufffd" not in page.text
    assert page.start <= page.offset <= page.start + 3
    assert page.end == page.size == 1_000


def test_a_full_disk_drops_and_goes_on(path):
    """What the disk does not take is counted; once it takes more, the log says so and goes on."""
    log = OutputLog(path)
    log.write(b"a" * 100)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, old[1]))
    try:
        log.write(b"b" * 100)
        log.write(b"not taken")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (log.size, log.lost) == (150, 59)
    log.write(b"c")
    log.close()
    said = b"\n[koubou] 59 bytes of output could not be stored here: File too large\n"
    assert path.read_bytes() == b"a" * 100 + b"b" * 50 + said + b"c"


def test_a_full_disk_is_said_at_the_end(path):
    """Lost output is told of even where nothing is printed after it."""
    log = OutputLog(path)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, old[1]))
    try:
        log.write(b"b" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    log.close()
    assert b"95 bytes of output could not be stored" in path.read_bytes()


def test_threads_do_not_mix_their_writes(path):
    """The thread that runs the task and the one that moves prints may write at once."""
    log = OutputLog(path)

    def write(letter):
        for _ in range(200):
            log.write(letter * 50 + b"\n")

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = path.read_bytes().splitlines()
    assert len(lines) == 600
    assert set(lines) == {b"a" * 50, b"b" * 50, b"c" * 50}


# -- where it is ----------------------------------------------------------------------------------------------


def test_logs_are_spread_over_folders(tmp_path):
    """The last two characters of the id, which vary most, name the folder."""
    assert output_path(tmp_path, "0123456789abcz") == tmp_path / "cz" / "0123456789abcz.log"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc/passwd", "a/b", "a\x00b", "a\n", "x" * 65, "工房", "a.b"]
)
def test_a_name_that_is_no_id_leads_nowhere(tmp_path, name):
    """Ids come from clients: what could be another path is no task."""
    with pytest.raises(Refused) as refusal:
        output_path(tmp_path, name)
    assert refusal.value.code == "not_found"


# -- reading --------------------------------------------------------------------------------------------------


def logged(path, content):
    """A log with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pages_of(path, limit, offset=0):
    """All pages from `offset` on."""
    pages = [read_output(path, offset, limit)]
    while pages[-1].end < pages[-1].size:
        pages.append(read_output(path, pages[-1].end, limit))
        assert pages[-1].offset == pages[-2].end
        assert pages[-1].end > pages[-1].offset
    return pages


def test_no_log_is_an_empty_page(path):
    """A task that printed nothing has an empty output, not an error."""
    assert read_output(path, 0, 100) == OutputPage("", 0, 0, 0)
    assert read_output(path, -5, 100) == OutputPage("", 0, 0, 0)


@pytest.mark.parametrize(
    ("offset", "limit", "page"),
    [
        (0, 100, OutputPage("0123456789", 0, 10, 10)),
        (0, 4, OutputPage("0123", 0, 4, 10)),
        (4, 4, OutputPage("4567", 4, 8, 10)),
        (8, 4, OutputPage("89", 8, 10, 10)),
        (10, 4, OutputPage("", 10, 10, 10)),
        (99, 4, OutputPage("", 10, 10, 10)),
        (-3, 100, OutputPage("789", 7, 10, 10)),
        (-99, 4, OutputPage("0123", 0, 4, 10)),
        (2, 0, OutputPage("2345", 2, 6, 10)),
        (2, -7, OutputPage("2345", 2, 6, 10)),
    ],
)
def test_reads_by_offset(path, offset, limit, page):
    """From a byte, or that many before the end; at most so many, but enough for any character."""
    assert read_output(logged(path, b"0123456789"), offset, limit) == page


def test_a_page_ends_between_characters(path):
    """A character that does not fit begins the next page."""
    log = logged(path, "abcd工房".encode())
    assert read_output(log, 0, 5) == OutputPage("abcd", 0, 4, 10)
    assert read_output(log, 4, 5) == OutputPage("工", 4, 7, 10)


def test_a_character_at_the_end_is_waited_for(path):
    """Half a character at the end of a growing log comes once its rest is there; alone it is given as it is."""
    log = logged(path, b"abc\xe5\xb7")
    first = read_output(log, 0, 100)
    assert (first.text, first.end) == ("abc", 3)
    assert read_output(log, first.end, 100) == OutputPage("\ufffd", 3, 5, 5)
    log.write_bytes(b"abc\xe5\xb7\xa5")
    assert read_output(log, first.end, 100).text == "工"


@pytest.mark.parametrize("back", range(1, 9))
def test_reading_from_the_end_begins_at_a_character(path, back):
    """Bytes of a character that begins before are skipped."""
    text = "a工😀b"
    log = logged(path, text.encode())
    page = read_output(log, -back, 100)
    assert "\ufffd" not in page.text
    assert text.endswith(page.text)
    assert page.end == page.size


def test_binary_output_is_text_with_marks(path):
    """Bytes that are no text are U+FFFD each, and lose no neighbour."""
    assert read_output(logged(path, b"ok\xff\xfe\x80!\x00"), 0, 100).text == "ok\ufffd\ufffd\ufffd!\x00"


broken = st.lists(
    st.sampled_from(
        [b"a", "é".encode(), "工".encode(), "😀".encode(), b"\xe5", b"\x80", b"\xf0\x9f", b"\xff", b"\r\n"]
    ),
    max_size=30,
).map(b"".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=broken | st.binary(max_size=60), limit=st.integers(0, 20))
@example(content=b"\xf0\x9f\x98", limit=4)
@example(content=b"\x80\x80\x80\x80\x80", limit=4)
def test_pages_joined_are_the_whole(path, content, limit):
    """However it is cut, and whatever bytes it has, reading on from each end gives the whole text once."""
    pages = pages_of(logged(path, content), limit)
    assert "".join(page.text for page in pages) == content.decode(errors="replace")
    assert all(page.end - page.offset <= max(limit, 4) for page in pages)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30), offset=st.integers(-100, 100), limit=st.integers(0, 20))
def test_text_is_never_broken(path, text, offset, limit):
    """Wherever one begins to read sound text, every page is a piece of it."""
    log = logged(path, text.encode())
    pages = pages_of(log, limit, offset)
    assert text.endswith("".join(page.text for page in pages))
    assert text.encode()[pages[0].offset :].decode() == "".join(page.text for page in pages)


def test_output_is_read_by_its_bytes(tmp_path) -> None:
    """A piece of a log as it was printed: from an offset, from the end, beyond the end, of no log."""
    log = tmp_path / "log"
    log.write_bytes(bytes(range(256)))
    assert read_output_bytes(log, 250, 100).data == bytes(range(250, 256))
    assert read_output_bytes(log, -2, 100).data == b"\xfe\xff"
    beyond = read_output_bytes(log, 999, 100)
    assert (beyond.data, beyond.offset, beyond.end, beyond.size) == (b"", 256, 256, 256)
    assert read_output_bytes(tmp_path / "none", 0, 100).size == 0
