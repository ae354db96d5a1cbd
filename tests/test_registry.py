"""Where families of plug-ins meet."""

from pathlib import Path

import pytest

from koubou_panel.registry import find, names


def installed(folder: Path, name: str) -> str:
    """A distribution with one plug-in, called `same`, in a folder for the path."""
    about = folder / name / f"{name}-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[koubou_panel.of_two]\nsame = plug_{name}:Made\n")
    (folder / name / f"plug_{name}.py").write_text(f"class Made:\n    name = {name!r}\n")
    return str(folder / name)


def test_of_two_plugins_of_one_name_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with anything that is imported: the path says which is first."""
    for name in ("second", "first"):
        monkeypatch.syspath_prepend(installed(tmp_path, name))
    assert names("of_two") == ["same"]
    assert find("of_two", "same").name == "first"
