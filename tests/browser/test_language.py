"""Nothing that a page says is left in English: a walk in a language that marks each of its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, open_shop
from koubou_panel.views import language, page, session
from tests.browser.busy import PY, fill
from tests.browser.pages import DESKTOP, PHONE, TOKEN, open_dashboard, open_page, way_in
from tests.browser.tour import stops
from tests.views.test_language import asked, forms

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
#: Where people and programs speak, and what is the same in every language.
THEIRS = (
    "code, pre, kbd, samp, .log, .line, .kanji, .brand, .languages, .place, .tag, .cron, .facts-line, .kind,"
    "[translate=no]"
)
#: Numbers with units, names of things, and single letters.
SAME = re.compile(
    r"[\d.,:/%×+–—·|(){}\[\]<>=~#*&'\"“”‘’?!;…→←↑↓⏸▶▾▸●✕✓\s-]+|\b(?:CPU|GPU|RAM|WebSocket|MCP|REST|SQLite|cron|Python|curl"
    r"|Ctrl|Esc|Enter|Tab|p50|p95|p99|pid|UTC|[kKMGT]?B|ms|min|[smhd]|koubou|Koubou|JSON|CSV|HTML|PTY|stdin|utf|io)\b"
)
SAID = """theirs => {
  const found = new Map()
  const say = (text, node) => {
    if (text && text.trim()) found.set(text.trim(), `${node.tagName} ${node.className?.baseVal ?? node.className}`)
  }
  const walk = root => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) walk(node.shadowRoot)
      if (["SCRIPT", "STYLE", "OPTION"].includes(node.tagName) || node.closest(theirs)) continue
      if (!node.checkVisibility()) continue
      for (const child of node.childNodes) if (child.nodeType === 3) say(child.data, node)
      for (const name of ["aria-label", "title", "placeholder"]) say(node.getAttribute(name), node)
    }
  }
  walk(document.body)
  return [...found]
}"""


def marked(_language: str) -> language.Catalogue:
    """Every message there is, in brackets."""
    messages = [forms(message) for message in asked()]
    return {one[0]: tuple(f"⟦{form}⟧" for form in one) for one in messages}


def theirs(shop: LocalShop) -> list[str]:
    """What was written by people, programs and the workshop itself, the longest first."""
    found: set[str] = set()
    for task in shop.state.tasks.values():
        request = task.request
        found |= {task.task_id, request.name, request.summary, task.message, *request.labels.values()}
        if task.progress is not None:
            found |= {task.progress.unit, *re.findall(r"[^\W\d]+", task.progress.message)}
        found |= {request.submitted_by, str(request.script_name or ""), *request.labels}
    for entry in shop.state.scripts.values():
        script = entry.script
        found |= {script.name, script.description, script.path}
        found |= {word for one in script.parameters for word in (one.name, one.help, *one.choices)}
    found |= {*shop.state.workers, *(worker.node for worker in shop.state.workers.values())}
    return sorted(filter(None, found), key=len, reverse=True)


def english(text: str, known: list[str]) -> str:
    """What of a text stands outside of the brackets and is a word of a language."""
    text = re.sub(r"⟦[^⟦⟧]*⟧", " ", re.sub(r"⟦[^⟦⟧]*⟧", " ", text))
    if f"{PY} -c" in text:  # a command, cut or not
        return ""
    for one in known:
        text = text.replace(one, " ")
    return SAME.sub(" ", text).strip()


@pytest.mark.parametrize("options", SIZES)
async def test_no_page_says_anything_that_is_not_translated(
    chromium: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    """On every page, in what opens over it and beside it, all words are messages of the catalogues."""
    words = marked("ja")
    for module in (language, page, session):
        monkeypatch.setattr(module, "catalogue", lambda name: words if name == "ja" else {})
    async with (
        open_shop(tmp_path, workers=2) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
    ):
        busy = await fill(shop)
        left: dict[str, str] = {}
        async with open_page(chromium, way_in(dashboard.port), locale="ja-JP", **options) as watch:
            async for place in stops(watch, [busy.failed, busy.running]):
                known = theirs(shop)
                for text, node in await watch.page.evaluate(SAID, THEIRS):
                    if re.search(r"[A-Za-z]{2}", english(text, known)):
                        left.setdefault(text[:80], f"{place}: {node}")
        assert not left, "\n".join(f"{text!r} ({where})" for text, where in left.items())


async def test_one_signs_in_in_ones_own_language(chromium, tmp_path) -> None:
    """The page for the token says what is amiss in the visitor's words, and opens the dashboard in them."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        context = await chromium.new_context(locale="ja", **PHONE)
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{dashboard.port}/?page=tasks")
        for token, words in (("漢字", "英数字だけです"), ("wrong", "一致しません")):
            await page.fill("#token", token)
            await page.get_by_role("button", name="サインイン").click()
            await expect(page.get_by_role("alert")).to_contain_text(words)
        await page.fill("#token", TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".tile", state="attached")
        assert await page.locator("html").get_attribute("lang") == "ja"
        await context.close()
