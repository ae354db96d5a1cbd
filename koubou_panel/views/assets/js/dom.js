// What cards are drawn with. Text from people and programs becomes text nodes, never HTML.

import {_} from "./language.js"

export const NS = "http://www.w3.org/2000/svg"

export function h(tag, cls = "", text = null) {
  const node = document.createElement(tag)
  if (cls) node.className = cls
  if (text !== null) node.textContent = text
  return node
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text
}

// What is set anew is looked at anew, although it is the same.
export function setAttr(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value)
}

// Marks for states, drawn: fonts differ in which signs they have.
export const MARKS = {
  run: "M5 3.5 L12.5 8 L5 12.5 Z",
  ok: "M3 8.5 L6.5 12 L13 4.5",
  fail: "M4 4 L12 12 M12 4 L4 12",
  cancel: "M4 12 L12 4 M8 2.5 A5.5 5.5 0 1 1 7.99 2.5",
  wait: "M8 3 A5 5 0 1 1 7.99 3",
  warn: "M8 2.5 L14 13 L2 13 Z M8 6.5 L8 9.5 M8 11 L8 11.2",
  retry: "M12.5 8 A4.5 4.5 0 1 1 10.8 4.5 M11 2 L11 5 L8 5",
  restart: "M3.5 8 A4.5 4.5 0 1 0 5.2 4.5 M5 2 L5 5 L8 5",
  close: "M4 4 L12 12 M12 4 L4 12",
  copy: "M6 6 L6 3 L13 3 L13 10 L10 10 M3 6 L10 6 L10 13 L3 13 Z",
}

// A task's status for people.
export const statusWord = (status) => ({
  pending: _("Waiting"), in_progress: _("Running"), completed: _("Completed"), failed: _("Failed"), cancelled: _("Cancelled"),
})[status] || status

export function icon(name, title = "") {
  const svg = document.createElementNS(NS, "svg")
  svg.setAttribute("viewBox", "0 0 16 16")
  svg.setAttribute("class", `icon m-${name}`)
  const path = document.createElementNS(NS, "path")
  path.setAttribute("d", MARKS[name] || MARKS.wait)
  svg.append(path)
  if (title) {
    svg.setAttribute("role", "img")
    svg.setAttribute("aria-label", title)
  } else svg.setAttribute("aria-hidden", "true")
  return svg
}

// The sign of how a task stands.
export function drawMark(node, {mark, status}) {
  if (node._is !== mark) node.replaceChildren(icon(node._is = mark, statusWord(status)))
}

// Output as it is shown: runs of (style, text).
export const runNodes = (runs) => runs.map(([style, piece]) => (style ? h("span", style, piece) : document.createTextNode(piece)))

// One element for each key, kept while its key stays: nothing is lost under a pointer or a focus.
export function keyed(parent, items, keyOf, make, update) {
  const known = parent._keyed || (parent._keyed = new Map())
  const seen = new Set()
  let place = parent.firstChild
  for (const item of items) {
    const key = keyOf(item)
    seen.add(key)
    let node = known.get(key)
    if (!node) known.set(key, node = make(item))
    if (node !== place) parent.insertBefore(node, place)
    else place = place.nextSibling
    update(node, item)
  }
  for (const [key, node] of known) if (!seen.has(key)) { node.remove(); known.delete(key) }
}

const NEVER_SHOWN_MS = 60000

// Runs `draw` once a second while `node` is on the page and the page is seen, until it rests.
export function everySecond(node, draw, period_ms = 1000) {
  const until = performance.now() + NEVER_SHOWN_MS
  const timer = setInterval(() => {
    if (node._rests || !node.isConnected && (node._wasConnected || performance.now() > until)) return clearInterval(timer)
    node._wasConnected = node.isConnected
    if (!document.hidden) draw()
  }, period_ms)
}

export function watch(model, names, draw) {
  for (const name of names) model.on(name, draw)
  draw()
}

// The same where several of them change in one message: drawn once, after all of it.
export function watchTogether(model, names, draw) {
  let waits = false
  const soon = () => {
    if (waits) return
    waits = true
    queueMicrotask(() => { waits = false; draw() })
  }
  for (const name of names) model.on(name, soon)
  draw()
}

export const CONFIRM_MS = 4000

// A button that acts on the second click: the first turns it into the question.
export function sureButton(cls, {rest, ask, act}) {
  const button = h("button", cls)
  button.type = "button"
  button._rest = () => {
    clearTimeout(button._timer)
    button.classList.remove("sure")
    rest(button)
  }
  button._rest()
  button.onclick = (event) => {
    event.stopPropagation()
    if (button.classList.contains("sure")) {
      button._rest()
      act(button)
      return
    }
    button.classList.add("sure")
    ask(button)
    button._timer = setTimeout(button._rest, CONFIRM_MS)
  }
  return button
}

export const PATIENCE_MS = 2500

export function plainButton(cls, text, act) {
  const button = h("button", cls, text)
  button.type = "button"
  button.onclick = act
  return button
}

// For what each press does anew: the second press of a double click is none.
export const once = (act) => (event) => { if (event.detail < 2) act() }

// What has the focus, inside the cards too.
export function focused() {
  let node = document.activeElement
  while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement
  return node
}

export async function copyText(text, label) {
  let isCopied = true
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = h("textarea", "", text)
    document.body.append(area)
    area.select()
    isCopied = document.execCommand("copy")
    area.remove()
  }
  label.textContent = isCopied ? _("Copied") : _("Not copied")
  setTimeout(() => { label.textContent = _("Copy") }, 3000)
}
