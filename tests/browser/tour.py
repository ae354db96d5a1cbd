"""A walk through all that a dashboard shows: each registered page, what can be opened there, and a task.

A page that is registered is visited without being named here. What opens over a page is found by what it says of
itself: a button with `aria-haspopup`, or the button of the bar that opens the run form.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from urllib.parse import urlencode

from koubou_panel.registry import names
from tests.browser.chromium import PATIENCE_MS
from tests.browser.pages import Watch

#: As they stand in the address; the Overview has no name.
PAGES = ("", *names("pages"))
BAR_OPENERS = ".bar > .run, .tabrun, .bar [aria-haspopup='dialog']"

# All nodes that are drawn, those inside of the cards too.
DEEP = """const deep = (root, found = []) => {
  for (const node of root.querySelectorAll("*")) {
    found.push(node)
    if (node.shadowRoot) deep(node.shadowRoot, found)
  }
  return found
}
"""
# What a reader can be told: text, and what stands in fields, in hints and for a screen reader.
WORDS = f"""() => {{ {DEEP}
  const said = []
  for (const node of deep(document.body)) {{
    if (["SCRIPT", "STYLE"].includes(node.tagName)) continue
    for (const child of node.childNodes) if (child.nodeType === 3) said.push(child.data)
    for (const name of ["title", "aria-label", "placeholder"]) said.push(node.getAttribute(name) || "")
    if (typeof node.value === "string") said.push(node.value)
  }}
  return said.filter((text) => text.trim()).join("\\n")
}}"""
# Whether as much was drawn, some times in a row, as a moment before: it stands still when a page is there.
SETTLED = f"""async ([rounds, limit]) => {{ {DEEP}
  const drawn = () => {{
    const seen = deep(document.querySelector(".k-page")).filter((node) => node.checkVisibility())
    return [seen.length, seen.filter((node) => node.tagName === "CANVAS").length]
  }}
  const until = performance.now() + limit
  let last = "", same = 0
  while (same < rounds && performance.now() < until) {{
    const [nodes, charts] = drawn(), now = `${{nodes}} ${{charts}}`
    same = now === last && nodes > 30 ? same + 1 : 0
    last = now
    await new Promise((done) => setTimeout(done, 60))
  }}
  return same === rounds
}}"""
GO = """address => { history.pushState(null, "", address); dispatchEvent(new PopStateEvent("popstate")) }"""


async def words(watch: Watch) -> str:
    """All that is said on the page, seen or not."""
    return await watch.page.evaluate(WORDS)


async def settle(watch: Watch, *, rounds: int = 3) -> None:
    """Wait until as much is drawn as a moment ago, some times in a row."""
    assert await watch.page.evaluate(SETTLED, [rounds, PATIENCE_MS]), "the page never stood still"


async def turn_to(watch: Watch, page: str = "", **values: str) -> None:
    """Go to a page as a link of ours does, and wait until it is drawn."""
    asked = {"page": page, **values} if page else values
    await watch.page.evaluate(GO, "?" + urlencode(asked) if asked else "/overview")
    if page and page in PAGES:
        await watch.page.wait_for_selector(
            f".k-view-{page} :is(.card, .editor, .settingspage) >> visible=true"
        )
    await settle(watch)


async def openings(watch: Watch, openers: str) -> AsyncIterator[str]:
    """Each thing that opens by one of these buttons, open; it is shut again after."""
    found = watch.page.locator(openers)
    for n in range(await found.count()):
        button = found.nth(n)
        if not await button.is_visible() or not await button.is_enabled():
            continue
        name = await button.get_attribute("aria-label") or await button.get_attribute("title")
        await button.click()
        await settle(watch)
        yield name or "dialog"
        await watch.page.keyboard.press("Escape")
        await settle(watch)


async def stops(watch: Watch, task_ids: Iterable[str], pages: Iterable[str] = PAGES) -> AsyncIterator[str]:
    """The name of each place, while it is seen: pages, what opens there and from the bar, tasks."""
    for page in pages:
        await turn_to(watch, page)
        yield page or "overview"
        openers = f".k-view-{page} [aria-haspopup='dialog']" if page else BAR_OPENERS
        async for name in openings(watch, openers):
            yield f"{page or 'bar'}: {name}"
    for task_id in task_ids:
        await turn_to(watch, "", task=task_id)
        await watch.page.wait_for_selector(".taskcard", state="visible")
        await settle(watch)
        yield "task"
    await turn_to(watch)
