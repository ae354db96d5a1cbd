"""Scripts in a real workshop: their texts, what is read from those, their schedules, and what their runs printed."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from koubou_panel.archive.output import output_path
from koubou_panel.archive.text import version_of
from koubou_panel.core.catalogue import save_script
from koubou_panel.core.commands import (
    Caller,
    EnableScript,
    RemoveScript,
    RetryTask,
    RunScript,
    SaveScript,
)
from koubou_panel.core.events import ScheduleFired, ScriptEdited, ScriptSaved
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.script import Parameter, Schedule, Script
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop import definition, rotation, scripts
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.shop.schedules import LONGEST_S, TURN_SCRIPTS, Schedules
from koubou_panel.shop.scripts import MOST_SEARCHES
from koubou_panel.testing import Collector, ManualClock, ended, open_inline_shop, open_shop, until

ME = Caller("me")

ARGPARSE = """\
import argparse
parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
parser.add_argument("--epochs", type=int, default=3, help="how many")
parser.add_argument("data")
print(parser.parse_args())
"""
HEADED = """\
#!/usr/bin/env -S sh -e
# /// script
# [tool.koubou]
# timeout = 30
# description = "Says hello"
# [tool.koubou.parameters.who]
# default = "you"
# flag = ""
# ///
echo "hello $1"
"""


@pytest.fixture
async def shop(tmp_path):
    """A real workshop."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        yield shop


@pytest.fixture
async def remote(shop, tmp_path):
    """The same, over its private link."""
    path = Home(tmp_path / "home").socket
    server = PrivateServer(shop, path)
    await server.start()
    try:
        async with await RemoteShop.connect(path, by="test") as remote:
            yield remote
    finally:
        await server.close()


async def inline(shop, text=HEADED, name="hello", path_name="", **fields):
    """Add a script whose text the home keeps."""
    await shop.do(SaveScript(Script(name=name, path=path_name, **fields), text=text), ME)
    return entry_of(shop, name)


def entry_of(shop, name="hello"):
    """A script as it stands."""
    return shop.state.scripts[name]


async def run(shop, name="hello", **parameters):
    """Run a script to its end; its task."""
    task_id = shop.next_id()
    await shop.do(RunScript(name, task_id, parameters), ME)
    return await ended(shop, task_id)


async def printed(shop, task):
    """What a task printed."""
    return (await shop.read_output(task.task_id, 0, 1 << 20)).text


# -- texts ----------------------------------------------------------------------------------------------------


async def test_an_inline_script_runs(shop, tmp_path):
    """Its text is a private file in the home; its first line and header say the rest."""
    script = (await inline(shop)).script
    assert script.is_inline
    assert script.path.startswith(str(tmp_path / "home" / "scripts"))
    assert Path(script.path).stat().st_mode & 0o777 == 0o600
    assert (script.interpreter, script.timeout_s, script.description) == (("sh", "-e"), 30.0, "Says hello")
    task = await run(shop, who="all")
    assert (task.status, await printed(shop, task)) == ("completed", "hello all\n")
    assert task.request.timeout_s == 30.0


async def test_texts_are_read_saved_and_restored_over_the_link(shop, remote):
    """The answers are those of the workshop itself."""
    await inline(shop)
    before = await remote.read_script("hello")
    assert before.text == HEADED
    version = await remote.save_script_text("hello", "#!/bin/sh\necho two\n", before.version, ME)
    assert await printed(shop, await run(shop)) == "two\n"
    assert [one.version for one in await remote.script_versions("hello")] == [version, before.version]
    assert (await remote.read_script("hello", before.version)).text == HEADED
    assert await remote.restore_script("hello", before.version[:8], version, ME) == before.version
    assert (await shop.read_script("hello")).text == HEADED
    with pytest.raises(Refused) as refusal:
        await remote.save_script_text("hello", "#!/bin/sh\n", version, ME)
    assert refusal.value.code == "conflict"
    assert [one.is_refused for one in await remote.script_versions("hello")].count(True) == 1


async def test_a_saved_text_is_told(shop):
    """As a fact, with who saved it; a save of the same text is none."""
    await inline(shop)
    told = Collector()
    shop.subscribe(told)
    text = await shop.read_script("hello")
    version = await shop.save_script_text("hello", HEADED + "\n", text.version, ME)
    await shop.save_script_text("hello", HEADED + "\n", version, ME)
    await shop.save_script_text("hello", HEADED, version, ME)

    def edits():
        facts = [folded.fact for folded in told.facts]
        return [(fact.name, fact.version, fact.by) for fact in facts if type(fact) is ScriptEdited]

    await until(lambda: edits()[-2:] == [("hello", version, "me"), ("hello", text.version, "me")])
    assert edits().count(("hello", version, "me")) == 1


async def test_a_definition_that_is_refused_leaves_no_text(shop, tmp_path):
    """Neither a new file nor a changed one."""
    folder = tmp_path / "home" / "scripts"
    with pytest.raises(Refused):
        await inline(shop, schedule=Schedule(every_s=0.1))
    with pytest.raises(Refused):
        await inline(shop, text="no first line")
    assert not folder.exists()
    path = (await inline(shop)).script.path
    with pytest.raises(Refused, match="already"):
        await inline(shop, text="#!/bin/sh\necho other\n")
    assert Path(path).read_text() == HEADED


async def test_a_definition_that_loses_a_race_leaves_the_text_as_it_was(shop, monkeypatch):
    """It was decided after its text was written, and refused."""
    entry = await inline(shop)
    first = SaveScript(replace(entry.script, description="first"), revision=1)
    second = SaveScript(entry.script, revision=1, text="#!/bin/sh\necho second\n")
    completed = shop._scripts._completed

    async def overtaken(script, text):
        monkeypatch.undo()
        assert "second" in (await shop.read_script("hello")).text
        await shop.do(first, ME)
        return await completed(script, text)

    monkeypatch.setattr(shop._scripts, "_completed", overtaken)
    with pytest.raises(Refused) as refusal:
        await shop.do(second, ME)
    assert refusal.value.code == "conflict"
    await until(lambda: not shop._scripts._work)
    assert (await shop.read_script("hello")).text == HEADED
    assert entry_of(shop).script.path == entry.script.path


async def test_equal_adds_at_once_leave_one_script_with_its_file(shop):
    """Those that are refused take nothing away from the one that was accepted."""
    for count in range(20):
        adds = [SaveScript(Script(name=f"s{count}", path="x.sh"), text=HEADED) for _ in range(4)]
        answers = await asyncio.gather(*(shop.do(add, ME) for add in adds), return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", *["Refused"] * 3]
    await until(lambda: not shop._scripts._work)
    assert all(Path(entry.script.path).read_text() == HEADED for entry in shop.state.scripts.values())


async def test_a_file_that_another_definition_names_meanwhile_is_not_taken_away(shop, monkeypatch):
    """A text whose own definition is refused stays where the catalogue has come to name its file."""
    completed = shop._scripts._completed

    async def overtaken(script, text):
        monkeypatch.undo()
        await shop.do(SaveScript(Script(name="hello", path=script.path)), ME)
        return await completed(script, text)

    monkeypatch.setattr(shop._scripts, "_completed", overtaken)
    with pytest.raises(Refused, match="already"):
        await inline(shop)
    await until(lambda: not shop._scripts._work)
    assert Path(entry_of(shop).script.path).read_text() == HEADED


SLOW = """\
import argparse, pathlib, time
here = pathlib.Path(__file__).parent
(here / "asked").touch()
while not (here / "go").exists():
    time.sleep(0.01)
parser = argparse.ArgumentParser()
parser.add_argument("--new")
parser.parse_args()
"""


@pytest.mark.parametrize("is_added", [True, False])
async def test_a_save_goes_on_when_whoever_asked_goes_away(shop, tmp_path, is_added):
    """Text and definition follow each other all the same."""
    folder = tmp_path / "home" / "scripts"
    if is_added:
        work = inline(shop, SLOW, path_name="x.py")
    else:
        path = (await inline(shop, "print(1)\n", path_name="x.py")).script.path
        text = await shop.read_script("hello")
        assert Path(path).exists()
        work = shop.save_script_text("hello", SLOW, text.version, ME)
    asked = asyncio.ensure_future(work)
    await until(lambda: list(folder.glob("*/asked")))
    asked.cancel()
    (place,) = folder.glob("*/asked")
    (place.parent / "go").touch()
    await until(lambda: "hello" in shop.state.scripts and entry_of(shop).script.parameters)
    assert [parameter.name for parameter in entry_of(shop).script.parameters] == ["new"]
    assert (await shop.read_script("hello")).text == SLOW


async def test_saving_the_same_text_again_completes_its_definition(shop):
    """A definition that had not followed its text does so then."""
    path = Path((await inline(shop)).script.path)
    path.write_text(HEADED.replace("30", "7"))
    present = await shop.read_script("hello")
    await shop.save_script_text("hello", present.text, present.version, ME)
    await until(lambda: entry_of(shop).script.timeout_s == 7.0)


async def test_a_text_that_was_listed_comes_back_after_it_was_overwritten_from_outside(shop, tmp_path):
    """Both texts are versions, of nobody in the workshop; nothing is written for what is kept."""
    path = tmp_path / "v.sh"
    path.write_text(HEADED)
    await shop.do(SaveScript(Script(name="v", path=str(path))), ME)
    (first,) = await shop.script_versions("v")
    path.write_text("#!/bin/sh\necho outside\n")
    for _ in range(2):
        second, kept = await shop.script_versions("v")
        assert (second.is_current, second.by) == (True, "")
        assert (kept.version, kept.is_current, kept.by) == (first.version, False, "")
    files = list(shop.home.scripts.glob("v-*/versions/*"))
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
    assert await shop.restore_script("v", first.version, second.version, ME) == first.version
    assert path.read_text() == HEADED


@pytest.mark.parametrize("is_read", [False, True])
async def test_a_text_that_was_noticed_is_kept(shop, tmp_path, is_read):
    """That with which a script was added, and that which an editor has read."""
    path = tmp_path / "v.sh"
    path.write_text(HEADED)
    await shop.do(SaveScript(Script(name="v", path=str(path))), ME)
    noticed = HEADED
    if is_read:
        noticed = "#!/bin/sh\necho read\n"
        path.write_text(noticed)
        assert (await shop.read_script("v")).text == noticed
    path.write_text("#!/bin/sh\necho outside\n")
    assert [one.version for one in await shop.script_versions("v")][1] == version_of(noticed.encode())


async def test_a_removed_script_leaves_its_text_and_its_runs(shop):
    """Added again under its name, its text is a new version of the old."""
    await inline(shop)
    await run(shop)
    await shop.do(RemoveScript("hello"), ME)
    assert (await shop.find(TaskQuery(script="hello"))).total == 1
    assert (await shop.search_output("hello", "hello you")).runs == 1
    await inline(shop, text="#!/bin/sh\necho anew\n")
    assert len(await shop.script_versions("hello")) == 2


async def test_who_may_only_run_saves_nothing(shop):
    """The text is what is run."""
    await inline(shop)
    text = await shop.read_script("hello")
    for role in ("run", "read"):
        with pytest.raises(Refused) as refusal:
            await shop.save_script_text("hello", "x", text.version, Caller("somebody", role))
        assert refusal.value.code == "forbidden"


async def test_an_unknown_script_is_told(shop, remote):
    """With the nearest name, by each question."""
    await inline(shop)
    for question in (
        remote.read_script("helo"),
        remote.script_versions("helo"),
        remote.save_script_text("helo", "x", "", ME),
        remote.restore_script("helo", "abcd", "", ME),
        remote.search_output("helo", "x"),
    ):
        with pytest.raises(Refused, match="hello") as refusal:
            await question
        assert (refusal.value.code, refusal.value.nearest) == ("not_found", "hello")


# -- definitions ----------------------------------------------------------------------------------------------


async def test_parameters_are_read_from_the_help_of_a_script(shop, tmp_path):
    """And again when its text is saved; they are what a run takes."""
    path = tmp_path / "train.py"
    path.write_text(ARGPARSE)
    await shop.do(SaveScript(Script(name="train", path=str(path))), ME)
    assert [parameter.name for parameter in entry_of(shop, "train").script.parameters] == ["epochs", "data"]
    task = await run(shop, "train", epochs="4", data="x")
    assert await printed(shop, task) == "Namespace(epochs=4, data='x')\n"
    text = await shop.read_script("train")
    await shop.save_script_text("train", ARGPARSE.replace("epochs", "rounds"), text.version, ME)
    assert [parameter.name for parameter in entry_of(shop, "train").script.parameters] == ["rounds", "data"]


async def test_what_the_owner_gave_wins(shop, tmp_path):
    """Also when the text is saved; what was emptied is read again."""
    own = Parameter(name="mine", flag="--mine")
    entry = await inline(shop, timeout_s=5.0, parameters=(own,))
    assert (entry.script.timeout_s, entry.script.parameters) == (5.0, (own,))
    assert entry.script.description == "Says hello"
    text = await shop.read_script("hello")
    changed = HEADED.replace("Says hello", "Says more").replace("30", "40")
    await shop.save_script_text("hello", changed, text.version, ME)
    script = entry_of(shop).script
    assert (script.timeout_s, script.parameters, script.description) == (5.0, (own,), "Says more")
    emptied = SaveScript(replace(script, parameters=(), given=()), revision=entry_of(shop).revision)
    await shop.do(emptied, ME)
    assert [parameter.name for parameter in entry_of(shop).script.parameters] == ["who"]
    without = replace(entry_of(shop).script, timeout_s=None)
    await shop.do(SaveScript(without, revision=entry_of(shop).revision), ME)
    assert entry_of(shop).script.timeout_s is None


async def test_a_help_that_does_not_end_is_ended(shop, tmp_path, monkeypatch):
    """With all that it started; the script is taken in, without parameters."""
    monkeypatch.setattr(definition, "HELP_S", 0.5)
    pid, path = tmp_path / "pid", tmp_path / "slow.py"
    path.write_text(
        "import argparse, subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '60'])\nopen({str(pid)!r}, 'w').write(str(child.pid))\ntime.sleep(60)\n"
    )
    await shop.do(SaveScript(Script(name="slow", path=str(path))), ME)
    assert entry_of(shop, "slow").script.parameters == ()
    if pid.exists():
        await until(lambda: not _is_running(int(pid.read_text())))


MANY = 1_100


@pytest.fixture
def many_files():
    """So many files are open that a new one has a number above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= MANY + 100:
        pytest.skip(f"this user may open no {MANY} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY + 100), hard))
    with ExitStack() as files:
        for _ in range(MANY):
            files.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_script_says_what_it_takes_however_many_files_are_open(tmp_path):
    """A workshop with many workers and clients has that many."""
    path = tmp_path / "train.py"
    path.write_text(ARGPARSE)
    script = Script(name="train", path=str(path), interpreter=(sys.executable,))
    assert [parameter.name for parameter in definition.ask_help(script)] == ["epochs", "data"]


@pytest.fixture
def slow_help(monkeypatch):
    """Scripts do not say what they take before `go`; `wanted` are those that are to, `held` whose turn it is."""
    slow = SimpleNamespace(go=threading.Event(), wanted=[], held=[], told=[])

    def ask(script):
        slow.held.append(script.name)
        slow.told.append(slow.go.wait(20))
        return ()

    monkeypatch.setattr(scripts, "wants_help", lambda script, _: slow.wanted.append(script.name) or True)
    monkeypatch.setattr(scripts, "ask_help", ask)
    yield slow
    slow.go.set()


async def adding(shop, folder, count, slow):
    """Begin to add so many scripts, until all are to be asked what they take."""
    (folder / "s.py").touch()
    added = [Script(name=f"s{number}", path=str(folder / "s.py")) for number in range(count)]
    adds = [asyncio.ensure_future(shop.do(SaveScript(script), ME)) for script in added]
    await until(lambda: len(slow.wanted) == count and slow.held)
    return adds


async def test_nobody_waits_for_scripts_that_are_slow_to_say_what_they_take(shop, tmp_path, slow_help):
    """As many as there are readers: what else is read is answered meanwhile."""
    adds = await adding(shop, tmp_path, shop._readers._max_workers, slow_help)
    assert (await shop.read_output(shop.next_id(), 0, 100)).text == ""
    slow_help.go.set()
    await asyncio.gather(*adds)
    assert all(slow_help.told), "the read was answered after the helps"


async def test_a_script_whose_turn_to_be_asked_does_not_come_is_refused(shop, tmp_path, slow_help):
    """A workshop that ends does not wait for all of them, nor keep one without what it takes."""
    adds = await adding(shop, tmp_path, 2, slow_help)
    closing = asyncio.ensure_future(shop._scripts.close())
    await until(shop._scripts._is_closing.is_set)
    slow_help.go.set()
    answers = await asyncio.gather(*adds, return_exceptions=True)
    await closing
    assert [answer.code for answer in answers if isinstance(answer, Refused)] == ["unavailable"]
    assert len(slow_help.held) == 1
    assert list(shop.state.scripts) == slow_help.held


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_header_that_cannot_be_read_is_refused_before_anything_is_written(shop):
    """The text stays as it was."""
    await inline(shop)
    text = await shop.read_script("hello")
    with pytest.raises(Refused, match="did you mean 'timeout'"):
        await shop.save_script_text("hello", HEADED.replace("timeout", "timeut"), text.version, ME)
    assert (await shop.read_script("hello")).text == HEADED


async def test_a_missing_file_is_refused_when_adding_and_told_when_running(shop, tmp_path):
    """A file may go later: its runs fail to start, in plain words, and its definition can be changed."""
    path = tmp_path / "run.sh"
    with pytest.raises(Refused, match="there is no file") as refusal:
        await shop.do(SaveScript(Script(name="gone", path=str(path))), ME)
    assert (refusal.value.code, refusal.value.field) == ("invalid", "path")
    path.write_text("echo here\n")
    await shop.do(SaveScript(Script(name="gone", path=str(path))), ME)
    path.unlink()
    task = await run(shop, "gone")
    assert (task.reason, task.message) == ("start", f"the file of the script is gone: {path}")
    changed = replace(entry_of(shop, "gone").script, description="x")
    await shop.do(SaveScript(changed, revision=1), ME)
    await shop.do(EnableScript("gone", is_enabled=False), ME)


async def test_nothing_that_says_what_runs_a_file_is_told(shop, tmp_path):
    """With what to do; a program that was compiled runs as it is."""
    path = tmp_path / "run"
    path.write_text("echo here\n")
    with pytest.raises(Refused, match="chmod") as refusal:
        await shop.do(SaveScript(Script(name="run", path=str(path))), ME)
    assert refusal.value.field == "interpreter"
    await shop.do(SaveScript(Script(name="run", path=str(path), interpreter=("sh",))), ME)
    assert await printed(shop, await run(shop, "run")) == "here\n"
    await shop.do(SaveScript(Script(name="true", path="/bin/true")), ME)
    assert (await run(shop, "true")).status == "completed"


async def test_a_script_is_added_and_run_in_one_go(shop):
    """Commands that come together are carried out in order."""
    task_id = shop.next_id()
    save = SaveScript(Script(name="hello", path=""), text=HEADED)
    assert await shop.do_many([save, RunScript("hello", task_id)], ME) == [None, task_id]


def test_python3_runs_what_python_would(tmp_path, monkeypatch):
    """On a machine that has it alone."""
    script = Script(name="s", path="/s.py")
    monkeypatch.setenv("PATH", str(tmp_path))
    for program, interpreter in (("python3", ("python3",)), ("python", ())):
        (tmp_path / program).write_text("")
        (tmp_path / program).chmod(0o755)
        assert definition.completed(script, "print()", is_executable=False).interpreter == interpreter


@pytest.mark.parametrize(
    ("before", "now", "given"),
    [
        (None, {}, ()),
        (None, {"timeout_s": 3.0, "description": "x"}, ("timeout_s", "description")),
        (None, {"given": ("timeout_s",)}, ("timeout_s",)),
        ({"description": "read"}, {"description": "read"}, ()),
        ({"description": "read"}, {"description": "mine"}, ("description",)),
        ({"description": "mine", "given": ("description",)}, {"description": "mine"}, ("description",)),
        ({"description": "mine", "given": ("description",)}, {"description": ""}, ()),
        ({"interpreter": ("sh",)}, {"interpreter": ("bash",)}, ("interpreter",)),
        ({"timeout_s": 3.0}, {"timeout_s": None}, ("timeout_s",)),
    ],
)
def test_what_differs_was_given(before, now, given):
    """What a definition says anew is its owner's word; what it empties is read again."""
    old = None if before is None else Script(name="s", path="/s", **before)
    assert definition.with_given(Script(name="s", path="/s", **now), old).given == given


# -- schedules ------------------------------------------------------------------------------------------------


async def test_a_schedule_runs_a_script_for_real(shop):
    """Its run is told when it was due, and is one of the script's."""
    await inline(shop, text="#!/bin/sh\necho $KOUBOU_FIRE_AT\n", schedule=Schedule(every_s=1.0))
    await until(lambda: entry_of(shop).runs)
    (task, *_) = (await shop.find(TaskQuery(script="hello"))).tasks
    await ended(shop, task.task_id)
    assert task.request.submitted_by == "schedule"
    assert await printed(shop, task) == f"{task.request.fire_at!r}\n"


class Watched:
    """A workshop in memory with a clock set by hand, whose schedules are watched."""

    def __init__(self, shop, clock):
        self.shop, self.clock = shop, clock
        self.told = Collector()
        shop.subscribe(self.told)
        self.schedules = Schedules(hub=shop.hub, clock=clock, next_id=shop.next_id)

    async def add(self, **fields):
        """Put a script in, past the files that it would have."""
        script = Script(name="s", path="/s.sh", **fields)
        self.shop.hub.note(self._saved(script))
        await until(lambda: "s" in self.shop.state.scripts)

    def _saved(self, script):
        (event,) = save_script(self.shop.state, SaveScript(script), self.clock(), "me")
        return event

    async def pass_time(self, seconds):
        """The clock goes on, and is looked at."""
        self.clock.advance(seconds)
        self.schedules._look_soon()
        await self.shop.hub.stored()

    @property
    def fires(self):
        """What became of each due time."""
        return [folded.fact for folded in self.told.facts if type(folded.fact) is ScheduleFired]


@pytest.fixture
async def watched():
    """Such a workshop."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        watched = Watched(shop, clock)
        yield watched
        watched.schedules.close()


async def test_the_clock_is_watched(watched):
    """Nothing before it is due; one run when it is; one for all that were missed."""
    await watched.add(schedule=Schedule(every_s=60.0, overlap="together"))
    await watched.pass_time(59.0)
    assert watched.fires == []
    await watched.pass_time(1.0)
    await until(lambda: len(watched.fires) == 1)
    await watched.pass_time(600.0)
    await until(lambda: len(watched.fires) == 2)
    assert watched.fires[1].missed == 9
    assert len(watched.shop.state.tasks) == 2


async def test_a_crowd_that_is_due_at_once_is_told_a_little_at_a_time(watched, monkeypatch):
    """Each script once, and between the turns goes on what else the loop has to do."""
    told, turns = [], []
    tell, look = Schedules._tell, Schedules._look
    monkeypatch.setattr(
        Schedules, "_tell", lambda self, entry, *due: (told.append(entry.name), tell(self, entry, *due))
    )
    monkeypatch.setattr(Schedules, "_look", lambda self: (look(self), turns.append(len(told))))
    schedule = Schedule(cron="0 3 * * *", zone="UTC")
    saves = [SaveScript(Script(name=f"s{place}", path="/s.sh", schedule=schedule)) for place in range(300)]
    for save in saves:
        watched.shop.hub.note(save_script(watched.shop.state, save, watched.clock(), "me")[0])
    await until(lambda: len(watched.shop.state.scripts) == 300)
    turns.clear()
    await watched.pass_time(86_400.0)
    await until(lambda: len(watched.fires) == 300)
    assert sorted(told) == sorted(save.script.name for save in saves)
    steps = [after - before for before, after in zip([0, *turns], turns, strict=False)]
    assert max(steps) <= TURN_SCRIPTS


async def test_what_was_told_in_vain_is_told_again(watched, monkeypatch):
    """A due time that led to nothing, as while the clock was set back, is not forgotten."""
    await watched.add(schedule=Schedule(every_s=60.0))
    report = watched.shop.hub.report
    monkeypatch.setattr(watched.shop.hub, "report", lambda due: None)
    await watched.pass_time(60.0)
    monkeypatch.setattr(watched.shop.hub, "report", report)
    await watched.pass_time(1.0)
    assert watched.fires == []
    await watched.pass_time(LONGEST_S)
    await until(lambda: len(watched.fires) == 1)


async def test_what_waits_runs_when_its_turn_comes(watched):
    """In order, when the run before it has ended."""
    await watched.add(schedule=Schedule(every_s=60.0, overlap="queue"))
    for count in (1, 2, 3):
        await watched.pass_time(60.0)
        await until(lambda count=count: len(watched.fires) == count)
    assert [fire.is_queued for fire in watched.fires] == [False, True, True]
    for count in (2, 3):
        (task_id,) = watched.shop.state.scripts["s"].active
        await until(lambda task_id=task_id: task_id in watched.shop.engine.jobs)
        watched.shop.engine.finish(task_id)
        await until(lambda count=count: len(watched.shop.state.tasks) == count)
    due = [task.request.fire_at for task in watched.shop.state.tasks.values()]
    assert due == sorted(due)


async def test_a_script_that_lacks_a_parameter_says_so_each_time_it_is_due(watched):
    """There is no run, and the schedule goes on."""
    must = Parameter(name="out", flag="--out", is_required=True)
    await watched.add(schedule=Schedule(every_s=60.0), parameters=(must,))
    await watched.pass_time(60.0)
    await until(lambda: watched.fires)
    assert watched.fires[0].message == "not run: parameter 'out' is required"
    assert watched.shop.state.tasks == {}


async def test_a_workshop_begins_with_what_was_due(tmp_path):
    """What was missed while it was down is one run, and so is what waited in a queue."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        await inline(shop, text="#!/bin/sh\nsleep 30\n", schedule=Schedule(every_s=1.0, overlap="queue"))
        await until(lambda: entry_of(shop).queued)
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False) as shop:
        await until(lambda: entry_of(shop).active)
        first = entry_of(shop).active[0]
        await until(lambda: first in shop.state.tasks)
        await shop.do(EnableScript("hello", is_enabled=False), ME)
    with closing(sqlite3.connect(tmp_path / "home" / "koubou.db")) as database:
        found = database.execute("SELECT fire_at FROM script_run WHERE fire_at IS NOT NULL").fetchall()
    assert len(found) == len(set(found))


async def test_a_due_time_that_had_its_run_is_dealt_with(shop):
    """Due once more, as by a clock that was wrong, it has no other, and the schedule goes on."""
    await inline(shop, schedule=Schedule(every_s=1.0))
    await until(lambda: entry_of(shop).runs)
    await shop.do(EnableScript("hello", is_enabled=False), ME)
    entry = entry_of(shop)
    told = Collector()
    shop.subscribe(told)
    fired_at = entry.fired_at
    again = replace(entry.script, is_enabled=True, schedule=Schedule(every_s=3600.0))
    shop.hub.note(ScriptSaved(shop.clock(), again, entry.revision + 1, fired_at, fired_at, "me", fired_at))

    def fires():
        facts = [folded.fact for folded in told.facts]
        return [(fact.fire_at, fact.task_id) for fact in facts if type(fact) is ScheduleFired]

    await until(lambda: fires() == [(fired_at, None)])
    assert entry_of(shop).next_at == fired_at + 3600.0
    assert (await run(shop)).status == "completed"


async def test_a_retried_run_of_a_schedule_is_stored(shop):
    """The due time has one run: that of the schedule."""
    await inline(shop, schedule=Schedule(every_s=1.0))
    await until(lambda: entry_of(shop).runs)
    await shop.do(EnableScript("hello", is_enabled=False), ME)
    task = (await shop.find(TaskQuery(script="hello"))).tasks[-1]
    new_id = await shop.do(RetryTask(task.task_id, shop.next_id()), ME)
    await ended(shop, new_id)
    runs = (await shop.find(TaskQuery(script="hello"))).tasks
    assert new_id in [run.task_id for run in runs]


# -- output ---------------------------------------------------------------------------------------------------


async def test_output_is_searched_newest_run_first(shop, remote):
    """With the run, the line and its place; as many as are asked for."""
    await inline(shop, text="#!/bin/sh\nprintf 'one\\nsaid %s\\n' $1\n", parameters=(Parameter(name="who"),))
    tasks = [await run(shop, who=who) for who in ("a", "b", "c")]
    found = await remote.search_output("hello", "SAID")
    assert [(one.task_id, one.line, one.offset, one.text) for one in found.matches] == [
        (task.task_id, 2, 4, f"said {who}") for task, who in zip(reversed(tasks), "cba", strict=True)
    ]
    assert (found.runs, found.is_cut) == (3, False)
    cut = await remote.search_output("hello", "said", 2)
    assert (len(cut.matches), cut.is_cut) == (2, True)
    for text, limit, field in (("", 10, "text"), ("a\nb", 10, "text"), ("x", 0, "limit")):
        with pytest.raises(Refused) as refusal:
            await remote.search_output("hello", text, limit)
        assert refusal.value.field == field


@pytest.fixture
def at_once(monkeypatch):
    """Output is rotated as soon as runs end."""
    monkeypatch.setattr(rotation, "TOGETHER_S", 0.01)


def logs_of(shop, tasks):
    """Which runs have their output still."""
    return [output_path(shop.home.output, task.task_id).exists() for task in tasks]


@pytest.mark.usefixtures("at_once")
async def test_searches_wait_for_each_other_and_nobody_else_for_them(shop, monkeypatch):
    """What else is read is answered meanwhile; more searches than may wait are told to come again."""
    await inline(shop)
    await run(shop)
    go = threading.Event()
    search = shop._scripts._search

    def slow(*args):
        go.wait(20)
        return search(*args)

    monkeypatch.setattr(shop._scripts, "_search", slow)
    asked = [asyncio.ensure_future(shop.search_output("hello", "hello")) for _ in range(MOST_SEARCHES)]
    await until(lambda: shop._scripts._searches == MOST_SEARCHES)
    with pytest.raises(Refused, match="try again") as refusal:
        await shop.search_output("hello", "hello")
    assert refusal.value.code == "unavailable"
    assert (await shop.find(TaskQuery(script="hello"))).total == 1
    go.set()
    assert [len(found.matches) for found in await asyncio.gather(*asked)] == [1] * MOST_SEARCHES
    assert (await shop.search_output("hello", "hello")).runs == 1


async def test_output_is_rotated_by_count(shop):
    """The oldest goes; its record stays, and who reads its output is told."""
    await inline(shop, keep_runs=2)
    tasks = [await run(shop) for _ in range(4)]
    await until(lambda: logs_of(shop, tasks) == [False, False, True, True])
    page = await shop.read_output(tasks[0].task_id, 0, 1_000)
    assert (
        page.text == "[koubou] the output of this run (10 B) was removed: script hello keeps that of 2 runs\n"
    )
    assert (page.offset, page.end, page.size) == (0, len(page.text), len(page.text))
    piece = await shop.read_bytes(tasks[0].task_id, -9, 4)
    assert (piece.data, piece.offset) == (b"f 2 ", page.size - 9)
    assert (await shop.read_bytes(tasks[0].task_id, page.size, 10)).data == b""
    assert (await shop.get(tasks[0].task_id)).status == "completed"
    assert (await shop.find(TaskQuery(script="hello"))).total == 4


async def test_a_start_does_not_look_at_every_run_again(shop, monkeypatch):
    """A mark says up to which there is nothing left; one of another database counts for nothing."""
    monkeypatch.setattr(rotation, "MARK_RUNS", 1)
    monkeypatch.setattr(rotation, "TOGETHER_S", 3600.0)  # the workshop's own look is another
    await inline(shop, keep_runs=1)
    for _ in range(3):
        await run(shop)
    look = (shop._archive, shop.home, entry_of(shop))
    first = await shop._read(rotation.rotate, *look, None, shop.clock())
    assert (first.runs, first.size_bytes) == (2, 20)
    again = await shop._read(rotation.rotate, *look, None, shop.clock())
    assert again == (0, 0, first.done)
    (mark,) = (shop.home.scripts).glob("*/rotated")
    assert mark.read_text().split()[0] == str(first.done)
    mark.write_text(f"{first.done} 0\n")
    assert (await shop._read(rotation.rotate, *look, None, shop.clock())).done == first.done


async def test_the_output_of_a_run_that_has_just_ended_is_removed(shop, monkeypatch):
    """Its end may have to be stored first."""
    await inline(shop)
    go, commit = threading.Event(), shop._archive.commit
    monkeypatch.setattr(shop._archive, "commit", lambda batches: (go.wait(20), commit(batches)))
    go.set()
    task_id = shop.next_id()
    await shop.do(RunScript("hello", task_id), ME)
    go.clear()
    await until(lambda: shop.state.tasks[task_id].is_finished)
    removing = asyncio.ensure_future(shop.remove_output("hello", ME))
    await asyncio.wait({removing}, timeout=0.3)
    go.set()
    assert (await removing).runs == 1


@pytest.mark.usefixtures("at_once")
async def test_output_is_rotated_by_size(shop):
    """The newest that fit are kept, and the newest in any case."""
    text = "#!/bin/sh\nhead -c 5000 /dev/zero | tr '\\0' x\n"
    await inline(shop, text=text, keep_bytes=11_000)
    tasks = [await run(shop) for _ in range(3)]
    await until(lambda: logs_of(shop, tasks) == [False, True, True])
    await shop.do(
        SaveScript(replace(entry_of(shop).script, keep_bytes=10), revision=entry_of(shop).revision), ME
    )
    await until(lambda: logs_of(shop, tasks) == [False, False, True])


@pytest.mark.usefixtures("at_once")
async def test_output_is_rotated_by_age_and_at_the_start(tmp_path):
    """Those that ended long ago; a run that goes on is never touched."""
    async with open_shop(tmp_path / "home", workers=2) as shop:
        await inline(shop, text="#!/bin/sh\necho begun; sleep $1\n", parameters=(Parameter(name="s"),))
        going = shop.next_id()
        await shop.do(RunScript("hello", going, {"s": "60"}), ME)
        old = await run(shop, s="0")
        await until(lambda: output_path(shop.home.output, going).exists())
        await shop.do(
            SaveScript(replace(entry_of(shop).script, keep_days=1e-9), revision=entry_of(shop).revision), ME
        )
        await until(lambda: logs_of(shop, [old]) == [False])
        assert output_path(shop.home.output, going).exists()
        assert (await shop.read_output(going, 0, 100)).text == "begun\n"
    async with open_shop(tmp_path / "home", workers=1) as shop:  # it was ended meanwhile
        await until(lambda: not output_path(shop.home.output, going).exists())


async def test_a_task_that_printed_nothing_reads_as_nothing(shop):
    """Nothing was removed of it."""
    await inline(shop, text="#!/bin/sh\ntrue\n")
    task = await run(shop)
    assert (await shop.read_output(task.task_id, 0, 100)).size == 0
