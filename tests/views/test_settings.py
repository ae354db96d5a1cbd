"""The Settings page, built without a browser over a real settings file."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import pytest

from koubou_panel.config import change_settings
from koubou_panel.core.commands import Caller
from koubou_panel.errors import Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.reactive import Mirror
from koubou_panel.settings import TABLE
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.views.pages.settings import SettingsView
from koubou_panel.views.settings_rows import GROUPS, WORDS, diff_rows
from koubou_panel.views.theme import card_sheet
from koubou_panel.views.visit import Visit


def open_settings(
    shop: LocalShop,
    folder: Path | None,
    role: str = "full",
    flags: dict[str, str] | None = None,
    **environ: str,
) -> SettingsView:
    """The page of a visit whose document is nobody's."""
    work: set[asyncio.Task[None]] = set()

    def spawn(job: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        work.add(task)
        task.add_done_callback(work.discard)

    return SettingsView(
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
            home=None if folder is None else Home(folder),
            environ=environ,
            flags=flags or {},
        )
    )


def rows_of(view: SettingsView) -> dict[str, dict]:
    """The rows that are shown, by setting."""
    return {row["name"]: row for group in view.root.groups for row in group["rows"]}


def test_every_setting_has_its_words_and_a_place() -> None:
    """What stands in the table stands on the page, with the same help."""
    assert {setting.name: setting.help for setting in TABLE} == {
        name: help_ for name, (_, help_) in WORDS.items()
    }
    assert sorted(name for _, names in GROUPS.values() for name in names) == sorted(WORDS)


async def test_each_setting_says_its_value_and_why(tmp_path: Path) -> None:
    """The default, what the file says, what wins over the file, and what is in use where that differs."""
    (tmp_path / "settings.toml").write_text("grace_s = 5\nworkers = '1:2'\n")
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path, KOUBOU_GRACE_S="7", KOUBOU_HOME=str(tmp_path))
        view.draw()
        await until(lambda: view.root.groups)
        rows = rows_of(view)
        assert set(rows) == set(WORDS)
        assert (rows["grace_s"]["typed"], rows["grace_s"]["source"]) == ("5", "KOUBOU_GRACE_S")
        assert "wins over the file: 7" in rows["grace_s"]["overrides"]
        assert (rows["workers"]["typed"], rows["workers"]["source"]) == ("1:2", "settings.toml")
        assert "In use now: 1:1" in rows["workers"]["in_use"]
        assert (rows["agent_tasks"]["typed"], rows["agent_tasks"]["default"]) == ("", "100")
        assert (rows["home"]["can_edit"], rows["home"]["source"]) == (False, "KOUBOU_HOME")


async def test_a_flag_that_the_workshop_was_started_with_is_told(tmp_path: Path) -> None:
    """A saved port that never counts says why, and asks for no restart in vain."""
    async with open_inline_shop() as shop:
        view = open_settings(shop, tmp_path, flags={"dashboard_port": "8090"})
        preview = await view.preview({"changes": {"dashboard_port": "9999", "socket_port": "9998"}})
        told = await view.save(
            {"changes": {"dashboard_port": "9999", "socket_port": "9998"}, "base": preview["base"]}
        )
        assert (sorted(told["changed"]), told["services"]) == (["dashboard_port", "socket_port"], [""])
        rows = rows_of(view)
        assert rows["dashboard_port"]["typed"] == "9999"
        assert rows["dashboard_port"]["overrides"] == (
            "Set by --dashboard-port for this run, restarts included: 8090"
        )
        assert (
            rows["dashboard_port"]["effect"] == "Counts once the workshop is started without --dashboard-port"
        )
        assert (rows["socket_port"]["overrides"], rows["socket_port"]["source"]) == ("", "settings.toml")
        preview = await view.preview({"changes": {"dashboard_port": None}})
        told = await view.save({"changes": {"dashboard_port": None}, "base": preview["base"]})
        assert told["services"] == []


async def test_a_change_is_looked_at_saved_and_taken_back(tmp_path: Path) -> None:
    """The difference is shown before anything is written; what was saved can be undone, comments and all."""
    file = tmp_path / "settings.toml"
    file.write_text("grace_s = 5  # patience\n")
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        changes = {"grace_s": "7", "model": "small"}
        seen = await view.preview({"changes": changes})
        assert seen["diff"] == [
            ["-", "grace_s = 5  # patience"],
            ["+", "grace_s = 7.0  # patience"],
            ["+", 'model = "small"'],
        ]
        assert (seen["faults"], file.read_text()) == ({}, "grace_s = 5  # patience\n")
        done = await view.save({"changes": changes, "base": seen["base"]})
        assert done == {"changed": ["grace_s", "model"], "services": ["", "pool"]}
        assert file.read_text() == 'grace_s = 7.0  # patience\nmodel = "small"\n'
        assert view.root.can_undo
        assert rows_of(view)["model"]["typed"] == "small"
        await view.undo({})
        assert file.read_text() == "grace_s = 5  # patience\n"


async def test_a_setting_goes_back_to_its_default(tmp_path: Path) -> None:
    """Nothing in its place takes it out of the file."""
    (tmp_path / "settings.toml").write_text("grace_s = 5\n")
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        seen = await view.preview({"changes": {"grace_s": None}})
        await view.save({"changes": {"grace_s": None}, "base": seen["base"]})
        assert (tmp_path / "settings.toml").read_text() == ""
        assert not rows_of(view)["grace_s"]["in_file"]


async def test_a_fault_is_told_at_its_setting(tmp_path: Path) -> None:
    """What cannot be is said before it is saved, and saved it is refused; a secret is not said again."""
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        seen = await view.preview(
            {"changes": {"agents_port": "99999", "model_url": "http://me:hunter2@host"}}
        )
        assert "port" in seen["faults"]["agents_port"]
        assert "hunter2" not in str(seen)
        with pytest.raises(Refused) as refused:
            await view.save({"changes": {"agents_port": "99999"}, "base": seen["base"]})
        assert (refused.value.code, refused.value.field) == ("invalid", "agents_port")
        assert not (tmp_path / "settings.toml").exists()


async def test_a_file_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Neither a save nor an undo goes over what someone else wrote; the page shows that."""
    file = tmp_path / "settings.toml"
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        seen = await view.preview({"changes": {"grace_s": "7"}})
        await view.save({"changes": {"grace_s": "7"}, "base": seen["base"]})
        file.write_text("grace_s = 9\n")
        for attempt in (view.save({"changes": {"grace_s": "8"}, "base": seen["base"]}), view.undo({})):
            with pytest.raises(Refused, match="meanwhile") as refused:
                await attempt
            assert refused.value.code == "conflict"
        for _ in range(5):
            view.tick()
        await until(lambda: rows_of(view)["grace_s"]["typed"] == "9")
        assert file.read_text() == "grace_s = 9\n"


async def test_undo_leaves_what_was_written_right_after_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where somebody was as quick as that: what is taken back is this visit's own text alone."""
    file = tmp_path / "settings.toml"

    def quick(*args: object, **options: object) -> object:
        done = change_settings(*args, **options)
        file.write_text("grace_s = 9\n")
        return done

    monkeypatch.setattr("koubou_panel.views.pages.settings.change_settings", quick)
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        seen = await view.preview({"changes": {"grace_s": "7"}})
        await view.save({"changes": {"grace_s": "7"}, "base": seen["base"]})
        with pytest.raises(Refused, match="meanwhile"):
            await view.undo({})
        assert file.read_text() == "grace_s = 9\n"


async def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """The page says what is wrong with the file, and shows what it knew before."""
    (tmp_path / "settings.toml").write_text("grace_s = = 3\n")
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        await view.read()
        assert "cannot be read" in view.root.problem
        with pytest.raises(SettingsError):
            await view.preview({"changes": {"grace_s": "3"}})
        (tmp_path / "settings.toml").write_text("grace_s = 3\n")
        await view.read()
        assert view.root.problem == ""


@pytest.mark.parametrize(
    "changes", [None, [], "x", {"grace_s": 7}, {"grace_s": ["7"]}, {"model": "x" * 5_000}, {"x" * 9: {}}]
)
async def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: object) -> None:
    """A browser may send anything: only texts by setting are a change."""
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path)
        for ask in (view.preview, view.save):
            with pytest.raises(Refused):
                await ask({"changes": changes, "base": "x"})
        with pytest.raises(Refused):
            await view.save({"changes": {"grace_s": "7"}})
        assert not (tmp_path / "settings.toml").exists()


async def test_a_reader_only_looks(tmp_path: Path) -> None:
    """A visit with the reading token sees the settings and changes none."""
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, tmp_path, role="read")
        await view.read()
        assert rows_of(view)
        assert (view.root.can_act, view.root.can_restart) == (False, False)
        for ask in (view.preview, view.save, view.undo):
            with pytest.raises(Refused) as refused:
                await ask({"changes": {"grace_s": "7"}, "base": "x"})
            assert refused.value.code == "forbidden"


async def test_without_a_home_it_says_why() -> None:
    """A workshop that a program holds itself has no settings file: the page says so, and changes nothing."""
    async with open_inline_shop(workers=1) as shop:
        view = open_settings(shop, None)
        view.draw()
        view.tick()
        assert "koubou up" in view.root.hint
        assert (view.root.groups, view.root.can_act) == ([], False)
        with pytest.raises(Refused, match="no settings file"):
            await view.preview({"changes": {"grace_s": "7"}})


def test_a_difference_keeps_what_stands_around_it() -> None:
    """Lines that go, lines that come, and two around them."""
    before = "".join(f"line{n} = {n}\n" for n in range(9))
    assert diff_rows(before, before) == []
    signs = [sign for sign, _ in diff_rows(before, before.replace("4 = 4", "4 = 5"))]
    assert signs == [" ", " ", "-", "+", " ", " "]
