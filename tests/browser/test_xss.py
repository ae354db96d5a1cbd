"""What people and programs write is shown as it was typed, and nothing of it runs: on every page, in every field.

Each payload calls `ran` in the page if it runs; the script policy is on in one walk, and off in the other.
"""

from __future__ import annotations

import platform
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, RunProgressed, RunScript, SaveScript, SubmitTask
from koubou_panel.core.events import ServiceChanged
from koubou_panel.core.records import Progress, Request, Service, TaskId
from koubou_panel.core.script import Parameter, Script
from koubou_panel.home import Home
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.servers.policy import PagePolicy
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ended, open_shop, submit, until
from koubou_panel.views.escape import line
from tests.browser.pages import Watch, open_dashboard, open_page, way_in
from tests.browser.tour import DEEP, PAGES, settle, stops, turn_to, words

ASSETS = Path(__file__).resolve().parents[2] / "koubou_panel" / "views" / "assets"
PAYLOADS = {
    "script": "<script>ran(1)</script>",
    "image": "<img src=x onerror=ran(2)>",
    "svg": "<svg onload=ran(3)>",
    "address": "javascript:ran(4)//",
    "attribute": "\"autofocus onfocus=\"ran(5)\" x='onmouseover='ran(5)'",
    "template": "{{constructor.constructor('ran(6)')()}}${ran(6)}<%ran(6)%>",
    "end of script": "</script><script>ran(7)</script>",
    "end of style": "</style></textarea></title><img src=x onerror=ran(8)>",
    "css": "x;}*{background:url(//evil.invalid/9);width:expression(ran(9))",
    "data": 'data:text/html,<iframe srcdoc="<script>parent.ran(10)</script>">',
    "unseen": "\u202e<\u200bimg src=x onerror=ran(11)>\ufeff\u2028\u0007<svg onload=ran(11)>",
    "markdown": "[x](javascript:ran(12))<details open ontoggle=ran(12)>$$\\href{javascript:ran(12)}{x}$$@{x}{safe}",
}
ALL = " ".join(PAYLOADS.values())
LIMIT = 200  # what a name or a label may have
LONG = f"NAME{ALL}"[:LIMIT]

CANARY = "window.hits = []; window.ran = (n) => { hits.push(n) }"
# What can be there only if a text became more than a text.
MADE = f"""() => {{ {DEEP}
  const made = []
  for (const node of deep(document)) {{
    if (["IMG", "IFRAME", "OBJECT", "EMBED", "BASE"].includes(node.tagName)) made.push(node.outerHTML)
    for (const {{name, value}} of node.attributes) {{
      const isAddress = ["href", "src", "action", "xlink:href"].includes(name)
      const isIcon = node.tagName === "LINK" && node.rel === "icon"
      if (name.startsWith("on") || (isAddress && !isIcon && /^\\s*(javascript|data|\\/\\/evil)/i.test(value))
          || (name === "style" && /url\\(|expression/.test(value))) made.push(`${{name}}=${{value}}`)
    }}
    if (node.tagName === "STYLE" && node.textContent.includes("evil.invalid")) made.push("style")
    if (node.tagName === "SCRIPT" && /ran\\(\\d/.test(node.textContent)) made.push("script")
  }}
  return made
}}"""
# Rest on everything that has a hint, and focus what can be focused: handlers among them would run.
TOUCH = f"""() => {{ {DEEP}
  for (const node of deep(document.body)) {{
    node.dispatchEvent(new MouseEvent("mouseover", {{bubbles: true}}))
    if (node.tagName === "SUMMARY") node.click()
  }}
}}"""
FIELDS = f"""() => {{ {DEEP}
  const isText = (node) => node.matches("input[type=text], input[type=search], input:not([type]), textarea")
  return deep(document.querySelector(".k-page")).filter((node) => node.checkVisibility() && isText(node)
    && !node.readOnly && !node.disabled)
}}"""

# Where each field is to be seen: by its mark, which stands before the payload. A worker's name and the ids are not
# among them: the workshop makes these itself, see `test_nobody_names_a_worker`.
SEEN = (
    *(("NAME", place) for place in ("overview", "tasks", "workers", "logs", "task")),
    *((mark, "task") for mark in ("OUT", "ERR", "ARGUMENT", "TRACE", "MESSAGE", "SUMMARY", "FOLDER", "ENV")),
    *((mark, "task") for mark in ("KEY", "VALUE", "BY", "PROMPT", "SYSTEM", "MODEL", "SCHEMA")),
    *((mark, "overview") for mark in ("OUT", "PROGRESS", "U", "PLACE", "LABEL")),
    *(("OUT", "logs"), ("SERVICE", "services"), ("CHOSEN", "settings"), ("DESCRIPTION", "scripts")),
    *((mark, "script") for mark in ("DESCRIPTION", "HELP", "DEFAULT", "CHOICE", "FIXED", "VARIABLE")),
    *((mark, "run form") for mark in ("HELP", "DEFAULT", "CHOICE")),
    *(("SAVER", "editor"), ("GIVEN", "task")),
)


def raises(kind: str, message: str) -> None:
    """Fail with an error of any name."""
    raise type(kind, (Exception,), {})(message)


def code_of(payload: str) -> str:
    """A program that prints a payload in every way that a terminal knows."""
    lines = [
        f"OUT{payload}",
        f"\033]8;;{payload}\033\\link\033]8;;\033\\ \033]0;{payload}\007 \033[31m{payload}\033[0m",
        f"\r{payload}\r\033[1m<b>\033[38;5;9;{payload}m",
    ]
    return f"import sys; print({chr(10).join(lines)!r}); print({'ERR' + payload!r}, file=sys.stderr)"


async def fill(shop: LocalShop, folder: Path) -> tuple[list[TaskId], TaskId]:
    """Put the payloads into all that a user writes; gives tasks to look at, and one that runs."""
    tasks = []
    for n, payload in enumerate(PAYLOADS.values()):
        fields = {
            "name": f"NAME{payload}",
            "summary": f"SUMMARY{payload}",
            "labels": {payload: payload},
        }
        command = (
            sys.executable,
            "-c",
            f"{code_of(payload)}; raise SystemExit({n % 2})",
            f"ARGUMENT{payload}",
        )
        tasks.append(await submit(shop, *command, **fields, submitted_by=payload))
    tasks.append(await submit_failing(shop))
    for task_id in tasks:
        await ended(shop, task_id)
    given = await add_scripts(shop, folder)
    for name in ("pool", "model"):
        service = Service(name, "failed", restarts=5, message=f"SERVICE{ALL}\n{ALL}")
        shop.hub.note(ServiceChanged(time.time(), service))
    waits = (
        sys.executable,
        "-c",
        f"import time; print({'OUT' + ALL!r}, flush=True); time.sleep(600)",
    )
    running = await submit(shop, *waits, name=LONG)
    await until(lambda: shop.state.tasks[running].status == "in_progress")
    return [tasks[4], tasks[-1], given, *await submit_waiting(shop, running), running], running


async def submit_waiting(shop: LocalShop, running: TaskId) -> list[TaskId]:
    """A command and a prompt that never start, with payloads in all that they are given."""
    payload = PAYLOADS["image"]
    command = {
        "command": ["true", f"ARGUMENT{payload}"],
        "cwd": f"/FOLDER{payload}",
        "env": {f"ENV{PAYLOADS['script']}": ALL.replace("\0", "")},
    }
    prompt = {
        "messages": [
            {"role": "system", "content": f"SYSTEM{ALL}"},
            {"role": "user", "content": f"PROMPT{ALL}"},
        ],
        "model": f"MODEL{payload}",
        "schema": {"type": "object", "title": f"SCHEMA{payload}"},
    }
    told = []
    for kind, spec in (("script", command), ("prompt", prompt)):
        request = Request(
            task_id=shop.next_id(),
            kind=kind,
            created_at=0.0,
            spec=spec,
            name=LONG,
            labels={f"KEY{payload}": f"VALUE{payload}"},
            after=(running,),
        )
        told.append(TaskId(await shop.do(SubmitTask(request), Caller(f"BY{payload}")) or ""))
    return told


async def submit_failing(shop: LocalShop) -> TaskId:
    """A function whose error's type, words and traceback are payloads."""
    arguments = pickled_arguments((f"TRACE{PAYLOADS['image']}", f"MESSAGE{ALL}"), {})
    payload = pack(pickled_function(raises), arguments, [str(Path(__file__).parents[2])])
    request = Request(
        task_id=shop.next_id(),
        kind="function",
        created_at=0.0,
        payload=payload,
        name="fails",
        summary=f"SUMMARY{PAYLOADS['svg']}",
    )
    return TaskId(await shop.do(SubmitTask(request), Caller("test")) or "")


async def add_scripts(shop: LocalShop, folder: Path) -> TaskId:
    """Scripts whose words, parameters, text and file name are payloads; gives a run that was given one."""
    parameters = tuple(
        Parameter(
            name=f"p{n}",
            type="choice",
            help=f"HELP{one}",
            default=f"DEFAULT{one}",
            flag=f"--p{n}",
            choices=(f"DEFAULT{one}", f"CHOICE{one}"),
        )
        for n, one in enumerate(PAYLOADS.values())
    )
    parameters += (Parameter(name="free", help="", flag="--free"),)
    words = {
        "description": f"DESCRIPTION{ALL}",
        "parameters": parameters,
        "arguments": (f"FIXED{PAYLOADS['image']}",),
        "env": {"SHOWN": f"VARIABLE{PAYLOADS['image']}"},
        "given": ("description", "parameters"),
    }
    script = Script(name="worded", path="", **words)
    await shop.do(SaveScript(script, text=f"#!/bin/sh\n# TEXT{ALL}\ntrue\n"), Caller(f"SAVER{ALL}"))
    given = shop.next_id()
    await shop.do(RunScript("worded", given, parameters={"free": f"GIVEN{PAYLOADS['image']}"}), Caller(ALL))
    file = folder / "'\"><img src=x onerror=ran(2)>.sh"
    file.write_text("#!/bin/sh\ntrue\n")
    await shop.do(SaveScript(Script(name="filed", path=str(file))), Caller(ALL))
    task_id = shop.next_id()
    await shop.do(RunScript("filed", task_id), Caller(ALL))
    for one in (given, task_id):
        await ended(shop, one)
    return given


async def tell_progress(shop: LocalShop, watch: Watch, running: TaskId) -> None:
    """Each payload as a task's progress, shown before the next is told."""
    run = shop.state.tasks[running].run
    for n, payload in enumerate(PAYLOADS.values()):
        progress = Progress(
            done=n, total=None if n % 2 else 99, unit=f"U{payload}"[:12], message=f"PROGRESS{n} {payload}"
        )
        shop.hub.report(RunProgressed(running, run, progress))
        await watch.shows(".running .list .row", f"PROGRESS{n}")


def is_said(field: str, text: str) -> bool:
    """Whether a field was shown with a payload behind its mark, as text."""
    return any(
        re.search(rf"{field}\d* ?{re.escape(line(payload)[:5])}", text)
        for payload in [*PAYLOADS.values(), ALL]
    )


async def look(watch: Watch, place: str) -> str:
    """Touch all that is there; nothing may have run, nothing may have become more than text. Gives what is said."""
    await watch.page.evaluate(TOUCH)
    assert await watch.page.evaluate(MADE) == [], f"made of text on {place}"
    assert await watch.page.evaluate("hits") == [], f"ran on {place}"
    return await words(watch)


async def type_in(watch: Watch, place: str) -> None:
    """Type the payloads into every field, and send off what Enter sends off."""
    handle = await watch.page.evaluate_handle(FIELDS)
    for n in range(await handle.evaluate("found => found.length")):
        field = (await handle.evaluate_handle("(found, n) => found[n]", n)).as_element()
        if field is None or not await field.is_visible():
            continue
        await field.fill(ALL.replace("\u2028", ""))
        if await field.evaluate("node => node.tagName === 'INPUT'"):
            await field.press("Enter")
        await settle(watch)
        await look(watch, f"{place}, typed")
    await watch.page.keyboard.press("Escape")


def parameters_of_addresses() -> list[str]:
    """The names that our scripts read from the address."""
    sources = " ".join(file.read_text(encoding="utf-8") for file in ASSETS.rglob("*.js"))
    found = re.findall(r"""(?:paramInAddress|\bparam|searchParams\.get)\(\s*["'](\w+)["']""", sources)
    return sorted({*found, "page", "task", "q"})


async def walk(watch: Watch, shop: LocalShop, tasks: list[TaskId], running: TaskId) -> dict[str, str]:
    """What is said in each place, after it was looked through."""
    said: dict[str, str] = {}
    await tell_progress(shop, watch, running)
    async for place in stops(watch, tasks):
        is_typed_in = place not in said and place not in (
            "overview",
            "settings",
        )  # the settings hold on to it
        said[place] = said.get(place, "") + await look(watch, place)
        if is_typed_in:
            await type_in(watch, place)
    async for place in walk_script(watch, "worded"):
        said[place] = await look(watch, place)
    return said


async def walk_script(watch: Watch, name: str) -> AsyncIterator[str]:
    """What else there is of one script: all of it, its form, its text with its versions."""
    await turn_to(watch, page="scripts", script=name)
    await watch.page.wait_for_selector(".defined .takes")
    yield "script"
    await watch.page.locator(".defined").get_by_role("button", name="Change").click()
    await settle(watch)
    yield "script's form"
    await turn_to(watch, page="scripts", script=name, edit="1")
    await watch.page.wait_for_selector(".code[data-ready='1']")
    await watch.shows(".ace_text-layer", "TEXT")
    await watch.page.locator(".editor header").get_by_role("button", name="Versions").click()
    await watch.page.wait_for_selector(".versions li")
    await settle(watch)
    yield "editor"
    await turn_to(watch, run=f"script:{name}")
    await watch.page.wait_for_selector(".rundialog[open] [name='parameters.free']")
    await settle(watch)
    yield "run form"
    await watch.page.keyboard.press("Escape")


async def walk_addresses(watch: Watch) -> None:
    """Each page with payloads for all that it reads from its address; those that are no page at all, too."""
    asked = dict.fromkeys(parameters_of_addresses(), ALL)
    for page in PAGES:
        await turn_to(watch, **(asked | {"page": page}))
        await look(watch, f"the address of {page}")
    for name in ("page", "task"):
        await turn_to(watch, **{"page": "", name: ALL})
        await look(watch, f"an address whose {name} is none")


@asynccontextmanager
async def written_on(folder: Path) -> AsyncIterator[tuple[LocalShop, list[TaskId], TaskId]]:
    """A workshop in which everybody has written payloads everywhere."""
    async with open_shop(folder) as shop:
        tasks, running = await fill(shop, folder)
        yield shop, tasks, running


@pytest.mark.timeout(540)
async def test_what_people_write_does_not_run(chromium: object, tmp_path: Path) -> None:
    """Payloads in every field, on every page, typed and in addresses: shown as text, policy or not."""
    environ = {"KOUBOU_MODEL": f"CHOSEN{PAYLOADS['image']}"}
    async with written_on(tmp_path) as (shop, tasks, running):
        for has_policy in (True, False):
            async with open_dashboard(
                shop, tmp_path, place=f"PLACE{ALL}", label=f"LABEL{ALL}", home=Home(tmp_path), environ=environ
            ) as dashboard:
                if not has_policy:
                    dashboard._server._tornado.transforms.remove(PagePolicy)
                async with open_page(chromium, way_in(dashboard.port), script=CANARY) as watch:
                    said = await walk(watch, shop, tasks, running)
                    await walk_addresses(watch)
                    await watch.page.goto(
                        f"http://127.0.0.1:{dashboard.port}/overview?q={ALL[:400]}&page={ALL[:99]}".replace(
                            "\0", ""
                        )
                    )
                    await watch.page.wait_for_selector(".tile")
                    await look(watch, "a page loaded with payloads in its address")
                missing = [(field, place) for field, place in SEEN if not is_said(field, said.get(place, ""))]
                assert not missing, f"not seen as text (policy: {has_policy}): {missing}"


async def test_nobody_names_a_worker(tmp_path: Path) -> None:
    """A worker's name and machine are the workshop's own words: no command, header or setting says what they are."""
    async with open_shop(tmp_path) as shop:
        workers = list(shop.state.workers.values())
        assert all(re.fullmatch(r"worker-\d+", worker.worker_id) for worker in workers)
        assert {worker.node for worker in workers} == {platform.node()}
