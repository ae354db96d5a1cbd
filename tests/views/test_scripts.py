"""The Scripts page, built without a browser: what it shows, and what comes of what is asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from koubou_panel.core.commands import Caller, RunScript, SaveScript
from koubou_panel.core.records import Limits
from koubou_panel.core.script import Parameter, Schedule, Script
from koubou_panel.errors import Refused
from koubou_panel.reactive import Mirror
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop, until
from koubou_panel.views.language import speaking
from koubou_panel.views.pages.scripts import PAGE_ROWS, ScriptsView
from koubou_panel.views.script_asks import ScriptAsks
from koubou_panel.views.script_diff import MOST_LINES, PATIENCE_S, diff_of
from koubou_panel.views.script_form import script_of
from koubou_panel.views.script_look import COUNT_EVERY_S, Looker
from koubou_panel.views.script_rows import form_of, parameter_row, stuck_notices
from koubou_panel.views.script_words import exact_size, schedule_words
from koubou_panel.views.theme import card_sheet
from koubou_panel.views.visit import Visit

ME = Caller("test")
TEXT = "echo hello\necho there\n"
HEADER = """\
# /// script
# [tool.koubou]
# description = "Says hello"
# [tool.koubou.parameters.times]
# default = 2
# [tool.koubou.parameters.who]
# required = true
# ///
print("hello")
"""


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop that has texts, and nobody who runs them."""
    async with open_shop(tmp_path, workers=0) as opened:
        yield opened


@pytest.fixture
async def working(tmp_path: Path) -> AsyncIterator[LocalShop]:
    """A workshop whose scripts run."""
    async with open_shop(tmp_path, workers=1) as opened:
        yield opened


def open_scripts(shop: LocalShop, role: str = "full") -> ScriptsView:
    """The page of a visit whose document is nobody's."""
    work: set[asyncio.Task[None]] = set()

    def spawn(job: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        work.add(task)
        task.add_done_callback(work.discard)

    view = ScriptsView(
        Visit(
            shop=shop,
            mirror=Mirror(shop, now=shop.clock),
            caller=Caller("test", role),
            sheet=card_sheet(),
            now=shop.clock,
            act=lambda kind, message: None,
            spawn=spawn,
            locked=lambda call: call(),
            toast=lambda words: None,
        )
    )
    view.draw()
    return view


_NUMBERS = count(1)


async def ask(view: ScriptsView, kind: str, **payload: object) -> dict:
    """What the page is answered, as the browser gets it."""
    answers: list[dict] = []
    view.root.send = answers.append  # type: ignore[method-assign]
    view.root._handle_msg({"type": "ask", "ask": kind, "id": next(_NUMBERS), **payload})
    await until(lambda: answers)
    return answers[0]["value"]


async def add(shop: LocalShop, name: str, text: str = TEXT, **fields: object) -> None:
    """Put a script of the home into the catalogue."""
    await shop.do(SaveScript(Script(name=name, path="s.sh", **fields), text=text), ME)


async def run(shop: LocalShop, name: str) -> str:
    """Run it to its end."""
    task_id = shop.next_id()
    before = shop.state.scripts[name].runs
    await shop.do(RunScript(name, task_id), ME)
    await until(lambda: shop.state.scripts[name].runs > before)
    return task_id


# -- what is shown --------------------------------------------------------------------------------------------


async def test_a_row_says_how_a_script_stands(working: LocalShop) -> None:
    """Name, description, last run with its mark and word, its runs with their tasks, schedule, and what is held."""
    shop = working
    await add(shop, "backup", schedule=Schedule(every_s=21_600), description="Saves \x1b[31mall\u202e")
    task_id = await run(shop, "backup")
    view = open_scripts(shop)
    await until(lambda: view.root.rows[0]["marks"])
    (row,) = view.root.rows
    assert (row["name"], row["about"], row["schedule"]) == ("backup", "Saves  [31mall", "every 6h")
    assert (row["mark"], row["word"], row["task"]) == ("ok", "completed", task_id)
    assert [mark[:3] for mark in row["marks"]] == [[task_id, "ok", "completed"]]
    assert (row["runs"], row["failures"], row["enabled"], row["held"]) == (1, 0, True, "12 B")
    assert row["next"] == shop.state.scripts["backup"].next_at


async def test_a_change_is_shown_and_nothing_is_sent_without_one(shop: LocalShop) -> None:
    """The list is made again for a script that was added, and left alone otherwise."""
    view = open_scripts(shop)
    await add(shop, "new")
    view.update(view._visit.mirror.flush())
    assert [row["name"] for row in view.root.rows] == ["new"]
    drawn = view.root.rows
    view.update(view._visit.mirror.flush())
    assert view.root.rows is drawn


async def test_the_list_has_pages_and_is_searched(shop: LocalShop) -> None:
    """Fifty at a time; what is looked for is in the name or the description; nonsense shows the first page."""
    for number in range(PAGE_ROWS + 3):
        await shop.do(
            SaveScript(
                Script(name=f"job {number:03}", path="/bin/true", description="even" * (number % 2 == 0))
            ),
            ME,
        )
    view = open_scripts(shop)
    assert (len(view.root.rows), view.root.total, view.root.all) == (PAGE_ROWS, PAGE_ROWS + 3, PAGE_ROWS + 3)
    view.root._handle_msg({"type": "see", "script": "", "find": "", "page": 1})
    assert [row["name"] for row in view.root.rows] == ["job 050", "job 051", "job 052"]
    view.root._handle_msg({"type": "see", "script": "", "find": "EVEN", "page": 0})
    assert view.root.total == 27
    view.root._handle_msg({"type": "see", "script": [], "find": 7, "page": "x"})
    assert (view.root.total, view.root.rows[0]["name"]) == (PAGE_ROWS + 3, "job 000")


async def test_one_script_is_shown_with_its_next_times_and_what_it_takes(shop: LocalShop) -> None:
    """Five times; a parameter that a schedule cannot give is told; a reader sees no environment."""
    script = Script(
        name="hello",
        path="h.py",
        env={"KEY": "secret"},
        schedule=Schedule(cron="0 9 * * 1-5", zone="Asia/Tokyo"),
    )
    await shop.do(SaveScript(script, text=HEADER), ME)
    view, reader = open_scripts(shop), open_scripts(shop, "read")
    for one in (view, reader):
        one.root._handle_msg({"type": "see", "script": "hello"})
    detail = view.root.detail
    assert (len(detail["dues"]), detail["missing"], detail["program"]) == (5, "who", "python")
    assert view.root.rows[0]["missing"] == "who"
    (notice,) = stuck_notices(shop.state.scripts.values())
    assert notice["text"] == "The schedule of hello cannot start it: who must be given."
    assert notice["asked"] == {"script": "hello"}
    assert [(one["name"], one["default"], one["required"]) for one in detail["takes"]] == [
        ("times", "2", False),
        ("who", "", True),
    ]
    assert (detail["form"]["env"], reader.root.detail["form"]["env"]) == ("KEY=secret", "")
    view.root._handle_msg({"type": "see", "script": "helo"})
    assert view.root.detail == {"name": "helo", "gone": True}


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("*/5 * * * *", "every 5 minutes"),
        ("7 * * * *", "every hour at :07"),
        ("0 9 * * *", "every day at 09:00"),
        ("30 8 * * 1-5", "on weekdays at 08:30"),
        ("0 9 * * 0,3", "on Wed, Sun at 09:00"),
        ("0 9 1 * *", "on day 1 of each month at 09:00"),
        ("*/7 * * * *", "*/7 * * * *"),
        ("0 9 L * *", "0 9 L * *"),
        ("0 0 9 * * *", "0 0 9 * * *"),
    ],
)
def test_a_cron_expression_is_told_in_words_where_they_say_all(cron: str, words: str) -> None:
    """What is not of the usual ones stands as it was written."""
    assert schedule_words(Schedule(cron=cron)) == words


def test_days_are_named_in_the_visitors_language() -> None:
    """They come from the calendar of that language."""
    with speaking("ja"):
        assert "水" in schedule_words(Schedule(cron="0 9 * * 3"))


# -- the definition -------------------------------------------------------------------------------------------

WHOLE = Script(
    name="whole",
    path="/bin/true",
    description="All of it",
    interpreter=("uv", "run", "--with", "a b"),
    arguments=("-x", "two words"),
    cwd="/tmp",
    env={"A": "1", "B": "x=y"},
    timeout_s=5_400.0,
    retries=2,
    priority=7,
    limits=Limits(memory_bytes=512 << 20, cpu_s=90.0, processes=3, output_bytes=1_000_001),
    keep_runs=7,
    keep_days=1.5,
    keep_bytes=2 << 30,
    max_log_lines=99,
    schedule=Schedule(cron="0 9 * * *", zone="Asia/Taipei", overlap="queue"),
    parameters=(Parameter(name="n", type="integer", default=3, flag="-n", has_own_default=True),),
)


def test_a_form_that_is_sent_back_as_it_was_changes_nothing() -> None:
    """Every field says all that the definition holds."""
    takes = [parameter_row(one) for one in WHOLE.parameters]
    assert script_of(WHOLE, form_of(WHOLE) | {"parameters": takes}) == WHOLE
    assert script_of(Script(name="whole", path="/bin/true"), form_of(WHOLE) | {"parameters": []}) == replace(
        WHOLE, parameters=(), given=("timeout_s",)
    )


def test_a_parameter_that_is_changed_is_its_owners() -> None:
    """Its flag stays; its default is passed from now on, as the type that it has; a new one's flag is its name."""
    known = parameter_row(WHOLE.parameters[0])
    new = {
        "name": "dry_run",
        "type": "boolean",
        "default": "yes",
        "choices": [],
        "help": "h",
        "required": False,
    }
    changed = script_of(WHOLE, {"parameters": [known | {"default": "5"}, new]}).parameters
    assert changed == (
        Parameter(name="n", type="integer", default=5, flag="-n"),
        Parameter(name="dry_run", type="boolean", default=True, help="h", flag="--dry-run"),
    )


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"timeout": "soon"}, "timeout"),
        ({"retries": "many"}, "retries"),
        ({"retries": 3}, "retries"),
        ({"memory": "a lot"}, "memory"),
        ({"processes": "-"}, "processes"),
        ({"env": "NOVALUE"}, "env"),
        ({"cwd": "here"}, "cwd"),
        ({"cwd": "~\0"}, "cwd"),
        ({"interpreter": "'open"}, "interpreter"),
        ({"keep_days": "x"}, "keep_days"),
        ({"description": "x" * 30_000}, "description"),
        ({"when": "every", "every": ""}, "every"),
        ({"when": "cron", "cron": " "}, "cron"),
        ({"when": "at", "at": float("nan")}, "at"),
        ({"when": "at", "at": True}, "at"),
        ({"when": "never"}, "when"),
        ({"when": "every", "every": "5m", "overlap": "both"}, "when"),
        ({"parameters": {}}, "parameters"),
        ({"parameters": [{"name": "n", "type": "integer", "default": "x"}]}, "parameters.n"),
        ({"parameters": [{"name": "n", "type": "colour"}]}, "parameters.n"),
        ({"parameters": [{"name": "n", "type": "choice", "choices": "ab"}]}, "parameters.n"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(told: dict, field: str) -> None:
    """A browser's message is a stranger's word."""
    with pytest.raises(Refused) as refused:
        script_of(Script(name="x", path="/bin/true"), told)
    assert refused.value.field == field


def test_a_folder_may_begin_with_home() -> None:
    """As it may under ＋Run."""
    assert script_of(Script(name="x", path="/bin/true"), {"cwd": " ~/x "}).cwd == str(Path.home() / "x")


def test_a_size_is_shown_as_it_is_read() -> None:
    """Nothing is rounded."""
    assert [exact_size(n) for n in (None, 0, 512 << 20, 1_000_001, 1 << 40)] == [
        "",
        "0",
        "512M",
        "1000001",
        "1T",
    ]


async def test_the_next_times_of_what_is_typed_are_told(shop: LocalShop) -> None:
    """Five, or what is wrong with it, at its field; a schedule that stays goes on counting from when it was set."""
    view = open_scripts(shop)
    found = await ask(view, "dues", when="cron", cron="0 9 * * *", zone="Asia/Tokyo")
    assert [b - a for a, b in zip(found["dues"], found["dues"][1:], strict=False)] == [86_400.0] * 4
    assert (await ask(view, "dues", when="cron", cron="61 * * * *", zone="UTC"))["field"] == "cron"
    assert (await ask(view, "dues", when="cron", cron="0 9 * * *", zone="Mars"))["field"] == "zone"
    assert (await ask(view, "dues", when="every", every="0s"))["field"] == "every"
    assert (await ask(view, "dues", when="at", at=5))["field"] == "at"
    assert (await ask(view, "dues", when=""))["dues"] == []
    await add(shop, "old", schedule=Schedule(every_s=3_600))
    kept = await ask(view, "dues", name="old", when="every", every="1h", overlap="skip")
    assert kept["dues"][0] == shop.state.scripts["old"].next_at


async def test_a_script_is_added_by_its_path_or_as_a_text(shop: LocalShop, tmp_path: Path) -> None:
    """The name is taken, and so is what the form says beside it."""
    view, file = open_scripts(shop), tmp_path / "mine.sh"
    file.write_text(TEXT)
    assert await ask(view, "add", name="mine", form={"path": str(file), "timeout": "5m"}) == {"name": "mine"}
    assert await ask(
        view,
        "add",
        name="typed",
        inline=True,
        text=HEADER,
        language="python",
        form={"when": "every", "every": "1d"},
    ) == {"name": "typed"}
    mine, typed = (shop.state.scripts[name].script for name in ("mine", "typed"))
    assert (mine.path, mine.is_inline, mine.timeout_s) == (str(file), False, 300.0)
    assert (typed.is_inline, typed.description, typed.schedule) == (
        True,
        "Says hello",
        Schedule(every_s=86_400),
    )


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"name": "", "form": {"path": "/bin/true"}}, "name"),
        ({"name": "-bad", "form": {"path": "/bin/true"}}, "name"),
        ({"name": 5, "form": {"path": "/bin/true"}}, "name"),
        ({"name": "x", "form": {"path": "relative.sh"}}, "path"),
        ({"name": "x", "form": {"path": "/no/such/file.sh"}}, "path"),
        ({"name": "x", "inline": True, "text": "  ", "language": "sh"}, "text"),
        ({"name": "x", "inline": True, "text": "no first line", "language": ""}, "interpreter"),
        ({"name": "x", "inline": True, "text": TEXT, "language": "sh", "form": {"memory": "1"}}, "memory"),
        (
            {"name": "x", "inline": True, "text": TEXT, "language": "sh", "form": {"keep_runs": "0"}},
            "keep_runs",
        ),
        ({"name": "x", "inline": True, "text": TEXT, "language": "sh", "form": "nothing", "more": 1}, None),
    ],
)
async def test_what_cannot_be_added_is_refused_at_its_field(
    shop: LocalShop, payload: dict, field: str | None
) -> None:
    """Nothing is in the catalogue then; a form that is none says nothing."""
    answer = await ask(open_scripts(shop), "add", **payload)
    assert answer.get("field") == field
    assert ("x" in shop.state.scripts) is (field is None)


async def test_all_that_is_wrong_with_a_script_is_told_at_once(shop: LocalShop) -> None:
    """Of a new one and of a changed one: a name that is taken, a file that is not there, parameters, and fields."""
    await add(shop, "x")
    bad = {
        "path": "/no/such/file",
        "timeout": "soon",
        "priority": "77",
        "memory": "much",
        "when": "cron",
        "cron": "?",
    }
    view = open_scripts(shop)
    told = await ask(
        view, "add", name="x", form=bad | {"parameters": [{"name": "a b"}, {"name": "n", "type": "z"}]}
    )
    fields = {"path", "timeout", "priority", "memory", "cron"}
    assert told["faults"].keys() == {"name", "parameters", "parameters.n", *fields}
    told = await ask(view, "save", name="x", revision=1, form=bad)
    assert told["faults"].keys() == fields
    assert shop.state.scripts.keys() == {"x"}
    assert shop.state.scripts["x"].revision == 1


@pytest.mark.parametrize("role", ["read", "run"])
async def test_who_may_not_add_scripts_learns_nothing_of_the_machine(shop: LocalShop, role: str) -> None:
    """Not even whether a file is there."""
    told = await ask(open_scripts(shop, role), "add", name="", form={"path": "/no/such/file"})
    assert (told["code"], told.get("faults")) == ("forbidden", None)


async def test_a_definition_that_was_changed_meanwhile_is_not_overwritten(shop: LocalShop) -> None:
    """The form began from a revision; on a later one it is refused, and the same form can be saved on that."""
    await add(shop, "job")
    view = open_scripts(shop)
    form = form_of(shop.state.scripts["job"].script) | {"retries": "3"}
    await shop.do(SaveScript(replace(shop.state.scripts["job"].script, priority=9), revision=1), ME)
    refused = await ask(view, "save", name="job", revision=1, form=form)
    assert (refused["code"], refused["field"]) == ("conflict", "revision")
    assert await ask(view, "save", name="job", revision=2, form=form) == {}
    assert shop.state.scripts["job"].script.retries == 3
    assert (await ask(view, "save", name="job", revision="2", form=form))["field"] == "revision"


async def test_a_script_is_disabled_and_removed(shop: LocalShop) -> None:
    """What is asked of one that is not there is refused."""
    await add(shop, "job", schedule=Schedule(every_s=3_600))
    view = open_scripts(shop)
    assert await ask(view, "enable", name="job", on=False) == {}
    assert shop.state.scripts["job"].script.is_enabled is False
    assert await ask(view, "remove", name="job") == {}
    assert (await ask(view, "remove", name="job"))["code"] == "not_found"
    assert (await ask(view, "enable", name=["job"]))["field"] == "name"


async def test_a_reader_changes_nothing(shop: LocalShop) -> None:
    """They read texts, versions and output; every change is refused by the workshop."""
    await add(shop, "job")
    reader = open_scripts(shop, "read")
    text = await ask(reader, "text", name="job")
    assert text["text"] == TEXT
    base = text["version"]
    for kind, payload in {
        "add": {"name": "x", "form": {"path": "/bin/true"}},
        "save": {"name": "job", "revision": 1, "form": {"retries": "1"}},
        "enable": {"name": "job", "on": False},
        "remove": {"name": "job"},
        "save_text": {"name": "job", "text": "true\n", "base": base},
        "restore": {"name": "job", "version": base, "base": base},
        "remove_output": {"name": "job"},
    }.items():
        answer = await ask(reader, kind, **payload)
        assert answer.get("code") == "forbidden", (kind, answer)
    assert (await ask(reader, "text", name="job"))["version"] == base


# -- texts ----------------------------------------------------------------------------------------------------


async def test_a_text_that_was_saved_meanwhile_is_not_overwritten(shop: LocalShop) -> None:
    """The save is refused as a conflict, both texts are versions, and mine can be put on top of theirs."""
    await add(shop, "job")
    view = open_scripts(shop)
    base = (await ask(view, "text", name="job"))["version"]
    theirs = await shop.save_script_text("job", "echo theirs\n", base, Caller("them"))
    refused = await ask(view, "save_text", name="job", text="echo mine\n", base=base)
    assert (refused["code"], refused["field"]) == ("conflict", "base")
    versions = (await ask(view, "versions", name="job"))["versions"]
    assert {(one["by"], one["refused"], one["current"]) for one in versions} >= {
        ("test", True, False),
        ("them", False, True),
    }
    saved = await ask(view, "save_text", name="job", text="echo mine\n", base=theirs)
    assert (await ask(view, "text", name="job"))["version"] == saved["version"]
    assert (await ask(view, "restore", name="job", version=theirs, base=saved["version"]))[
        "version"
    ] == theirs
    assert (await ask(view, "text", name="job"))["text"] == "echo theirs\n"


async def test_bad_texts_are_refused(shop: LocalShop) -> None:
    """No text, too much of it, one that cannot be stored, a header that cannot be read: each says so."""
    await add(shop, "job")
    view = open_scripts(shop)
    base = (await ask(view, "text", name="job"))["version"]
    for text in (None, "x" * (1 << 20) + "x", "a\0b", "\ud800", "# /// script\n# [tool.koubou\n# ///\n"):
        answer = await ask(view, "save_text", name="job", text=text, base=base)
        assert answer["field"] == "text", repr(text)[:40]
    assert (await ask(view, "text", name="job", version="nosuch"))["code"] in ("not_found", "invalid")


async def test_a_file_that_is_gone_can_be_written_anew(shop: LocalShop, tmp_path: Path) -> None:
    """The editor begins from an empty text, and says why."""
    file = tmp_path / "gone.sh"
    file.write_text(TEXT)
    await shop.do(SaveScript(Script(name="gone", path=str(file))), ME)
    file.unlink()
    view = open_scripts(shop)
    answer = await ask(view, "text", name="gone")
    assert (answer["text"], answer["version"]) == ("", "")
    assert "gone.sh" in answer["note"]
    await ask(view, "save_text", name="gone", text="true\n", base="")
    assert file.read_text() == "true\n"


async def test_two_texts_are_compared(shop: LocalShop) -> None:
    """A version with another, or with what is typed."""
    await add(shop, "job")
    view = open_scripts(shop)
    base = (await ask(view, "text", name="job"))["version"]
    found = await ask(view, "diff", name="job", old=base, new="mine", text=TEXT + "echo more\n")
    assert (found["added"], found["removed"]) == (1, 0)
    assert found["blocks"][-1] == {"tag": "change", "left": [], "right": [[3, "echo more"]]}
    assert (await ask(view, "diff", name="job", old=base, new="mine", text=5))["field"] == "text"


def test_what_is_the_same_is_folded_and_what_hides_is_told() -> None:
    """Three lines beside each change; a character that cannot be seen, and a missing end of line, are."""
    old = "".join(f"line {n}\n" for n in range(20))
    found = diff_of(old, old.replace("line 10\n", "line\u200b 10\n").removesuffix("\n"))
    assert [block["tag"] for block in found["blocks"]] == [
        "skip",
        "same",
        "change",
        "same",
        "skip",
        "same",
        "change",
    ]
    assert found["blocks"][2]["right"] == [[11, "line⟨U+200B⟩ 10"]]
    assert found["blocks"][-1]["right"] == [[20, "line 19 ⟨no end of line⟩"]]
    assert diff_of("", "")["blocks"] == []


def test_texts_of_the_same_few_lines_are_shown_as_one_piece() -> None:
    """Where each line stands in hundreds of places, matching would hold a processor for minutes."""
    lines = [f"{n}\n" for n in range(300)]
    old = "".join(lines * 150)
    new = "".join(reversed(lines * 150))
    began = time.monotonic()
    found = diff_of(old, new)
    assert time.monotonic() - began < PATIENCE_S
    assert [block["tag"] for block in found["blocks"]] == ["change"]
    assert (found["added"], found["removed"]) == (45_000, 45_000)


async def test_one_difference_is_looked_for_at_a_time(
    shop: LocalShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a page asks."""
    go, looking = threading.Event(), []

    def look(_old: str, _new: str) -> dict[str, object]:
        looking.append(1)
        go.wait(10)
        return {"blocks": []}

    monkeypatch.setattr("koubou_panel.views.script_asks.diff_of", look)
    await add(shop, "job")
    view = open_scripts(shop)
    base = (await ask(view, "text", name="job"))["version"]
    question = {"name": "job", "old": base, "new": "mine", "text": TEXT}
    answer = ScriptAsks(view._visit, on_removed=lambda _name: None).answers["diff"]
    asked = [asyncio.ensure_future(answer(question)) for _ in range(3)]
    try:
        await until(lambda: looking)
        await ask(view, "text", name="job")
        assert len(looking) == 1
    finally:
        go.set()
    await asyncio.gather(*asked)
    assert len(looking) == 3


def test_a_long_difference_is_cut() -> None:
    """The whole is counted, the page gets a part."""
    found = diff_of("", "x\n" * (MOST_LINES + 5))
    assert (found["added"], found["is_cut"], len(found["blocks"][0]["right"])) == (
        MOST_LINES + 5,
        True,
        MOST_LINES,
    )


# -- output ---------------------------------------------------------------------------------------------------


async def test_output_that_came_soon_after_a_count_is_counted_later(working: LocalShop) -> None:
    """What is held is counted every ten seconds at most, and what the last run printed is not left out for ever."""
    shop, now = working, [0.0]
    await add(shop, "job")
    view = open_scripts(shop)
    view._looker = Looker(shop, clock=lambda: now[0])
    view.root._handle_msg({"type": "see", "script": "job"})
    await until(lambda: not view._looking)
    await run(shop, "job")
    view.draw()
    await until(lambda: len(view.root.detail["last_runs"]) == 1)
    now[0] = COUNT_EVERY_S - 0.1
    view.tick()
    assert not view._looking
    assert view.root.detail["held"] == ""
    now[0] = COUNT_EVERY_S
    view.tick()
    await until(lambda: view.root.detail["held"] == "12 B")
    now[0] *= 3
    view.tick()
    assert not view._looking


async def test_output_is_searched_and_removed(working: LocalShop) -> None:
    """Lines come with their task; what was removed is told, and shown as gone."""
    shop = working
    await add(shop, "job")
    task_id = await run(shop, "job")
    view = open_scripts(shop)
    view.root._handle_msg({"type": "see", "script": "job"})
    await until(lambda: view.root.detail["held"])
    found = await ask(view, "search", name="job", text="THERE")
    assert found["matches"] == [{"task": task_id, "line": 2, "text": "there"}]
    assert (await ask(view, "search", name="job", text=" "))["field"] == "text"
    assert (await ask(view, "remove_output", name="job"))["runs"] == 1
    await until(lambda: not view.root.detail["held"])
