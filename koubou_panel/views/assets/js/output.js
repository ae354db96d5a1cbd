// Live output: the last lines of what runs.

import {h, keyed, plainButton, runNodes, setAttr, setText, watch} from "./dom.js"
import {_, ngettext} from "./language.js"

const KEEP_LINES = 200

export const OutputCard = {
  render({model}) {
    const root = h("section", "card output")
    const head = h("h2"), title = h("span"), chips = h("div", "chips")
    chips.setAttribute("role", "group")
    chips.setAttribute("aria-label", _("Show the output of"))
    head.append(title, chips)
    const log = h("div", "log"), lines = h("div", "lines"), open = h("div", "open"), empty = h("p", "empty")
    log.tabIndex = 0
    log.setAttribute("role", "log")
    log.setAttribute("aria-live", "off")
    watch(model, ["title"], () => { setText(title, model.title); log.setAttribute("aria-label", model.title) })
    const newer = h("button", "newer", "")
    newer.type = "button"
    newer.hidden = true
    log.append(lines, open)
    root.append(head, log, newer, empty)

    let only = null, missed = 0, follows = true, hovered = false, size = "", place = 0
    let sources = []
    const names = new Map()
    const sizeNow = () => `${log.clientWidth} ${log.clientHeight} ${log.scrollHeight}`
    const note = () => { size = sizeNow(); place = log.scrollTop }
    const toEnd = () => { follows = true; log.scrollTop = log.scrollHeight; missed = 0; if (!newer.hidden) newer.hidden = true; note() }
    // Only the reader ends the following: the place is of their choice where it has changed and no size has.
    const look = () => {
      const away = log.scrollHeight - log.scrollTop - log.clientHeight
      const moved = size === sizeNow() ? log.scrollTop - place : 0
      if (moved < 0) follows = false
      else if (away < 1 || (away < 24 && (follows || moved > 0))) toEnd()
      else if (moved > 0) follows = false
      if (follows && !hovered) toEnd()
      note()
    }
    newer.onclick = toEnd
    log.addEventListener("scroll", look)
    log.addEventListener("pointerenter", (event) => { hovered = event.pointerType === "mouse" })
    // A reader's turn of the wheel is known at once; where it has come to is known a frame later.
    const turns = (event) => event.deltaY < 0 && !event.shiftKey && !event.ctrlKey
    log.addEventListener("wheel", (event) => { if (turns(event) && log.scrollTop > 0) follows = false }, {passive: true})
    log.addEventListener("pointerleave", () => { hovered = false; look() })
    const resized = new ResizeObserver(look)
    resized.observe(log)
    model.on("lifecycle:remove", () => resized.disconnect())

    const line = (task, runs) => {
      const node = h("div", "line")
      const source = names.get(task)
      node.dataset.task = task
      const tag = h("span", `tag t${source ? source.hue : 0}`, source ? source.tag : "")
      node.append(tag)
      const text = h("span", "text")
      text.append(...runNodes(runs))
      node.append(text)
      node.hidden = only !== null && only !== task
      return node
    }
    const choose = (task) => {
      only = task
      root.classList.toggle("one", only !== null || sources.length < 2)
      for (const node of [...lines.children, ...open.children]) node.hidden = only !== null && only !== node.dataset.task
      drawChips()
      toEnd()
    }
    const drawChips = () => {
      const all = sources.length > 1 ? [{id: null, label: _("all"), hue: 0}, ...sources] : []
      keyed(chips, all, (s) => s.id, (s) => plainButton("chip", s.label, () => choose(s.id)), (chip, s) => {
        const on = only === s.id
        setText(chip, s.label)
        setAttr(chip, "class", `chip t${s.hue}${on ? " on" : ""}${s.quiet ? " quiet" : ""}`)
        setAttr(chip, "aria-pressed", String(on))
        setAttr(chip, "title", s.full || "")
      })
    }
    model.on("msg:custom", (message) => {
      look()
      if (message.reset) { lines.replaceChildren(); follows = true }
      sources = message.sources
      names.clear()
      for (const s of sources) names.set(s.id, s)
      if (only !== null && !names.has(only)) { const had = follows; choose(null); follows = had }
      // A name that was the only one of its kind may be so no more.
      for (const node of lines.children) {
        const source = names.get(node.dataset.task)
        if (source) setText(node.firstChild, source.tag)
      }
      const batch = document.createDocumentFragment()
      for (const [task, runs] of message.lines) batch.append(line(task, runs))
      lines.append(batch)
      while (lines.children.length > KEEP_LINES) lines.firstChild.remove()
      open.replaceChildren(...message.open.map(([task, runs]) => line(task, runs)))
      open.hidden = !message.open.length
      empty.hidden = lines.children.length > 0 || message.open.length > 0
      const talking = new Set([...lines.children, ...open.children].map((node) => node.dataset.task))
      root.classList.toggle("one", only !== null || talking.size < 2)
      setText(empty, message.hint)
      drawChips()
      if (follows && !hovered) toEnd()
      else if (message.lines.length) {
        missed = Math.min(KEEP_LINES, missed + message.lines.length)
        newer.hidden = false
        setText(newer, ngettext("{n} newer ↓", "{n} newer ↓", missed))
      }
      note()
    })
    model.send_msg({type: "ready"})
    return root
  },
}
