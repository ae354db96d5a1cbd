// What stands under a cell of a notebook: the cards of a page, fed over the kernel's own connection. `mount` is all that the
// output's own few lines (boot.js) know of it.

import {ChartHead} from "../charts.js"
import {everySecond, h, setText} from "../dom.js"
import {_} from "../language.js"
import {RunningCard, TileRow} from "../overview.js"
import {StreamCard} from "../stream.js"
import {duration, setClock} from "../time.js"
import {addressOfPage, pageLink, setDashboard} from "./route.js"
import {InlineTask} from "./task.js"

const CARDS = {ChartHead, InlineTask, RunningCard, StreamCard, TileRow}
const UNHEARD_MS = 2500, SILENT_S = 5
const BOKEH_AGAIN_MS = 8000, LOOK_MS = 250
const ASKS = 1e6  // so many questions of one view, before another one's begin

// What a card takes for the model that Panel would give it.
class Model {
  constructor(name, values, link) {
    Object.assign(this, values)
    Object.assign(this, {_name: name, _link: link, _hears: new Map(), _base: ASKS * Math.floor(1 + Math.random() * 1e6)})
  }
  on(what, act) { this._hears.set(what, [...(this._hears.get(what) ?? []), act]) }
  off(what, act) { this._hears.set(what, (this._hears.get(what) ?? []).filter((one) => one !== act)) }
  tell(what, said) { for (const act of this._hears.get(what) ?? []) act(said) }
  take(values) {
    Object.assign(this, values)
    for (const name of Object.keys(values)) this.tell(name)
  }
  // Several views may look at one output: each has answers to its own questions alone.
  hear(said) {
    if (said.answer === undefined) return this.tell("msg:custom", said)
    const id = said.answer - this._base
    if (id > 0 && id < ASKS) this.tell("msg:custom", {...said, answer: id})
  }
  send_msg(message) {
    const own = message.type === "ask" ? {...message, id: message.id + this._base} : message
    this._link.send({card: this._name, ...own})
  }
}

function shadowOf(node, sheets) {
  const shadow = node.attachShadow({mode: "open"})
  shadow.adoptedStyleSheets = sheets
  return shadow
}

function sheetOf(css) {
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(css)
  return sheet
}

// As Jupyter says, which does not follow the system by itself; elsewhere as the system does.
function isDark() {
  const said = document.body.dataset.jpThemeLight
  return said === undefined ? matchMedia("(prefers-color-scheme: dark)").matches : said === "false"
}

// The address of the dashboard is one of the kernel's machine, which is another one where this page is not its own.
const isHere = () => /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname)

const bokehHere = (version) => (window.Bokeh?.version === version ? window.Bokeh : window.Bokeh?.versions?.get(version))
const bokehAskedAt = new Map() // by version: every display of the page shares what one of them is sent

function addBokeh(text) {
  const script = document.createElement("script")
  script.textContent = text
  document.head.append(script)
}

// Keys that are pressed in a display are not the notebook's, where a letter may delete a cell; what is pressed with Ctrl,
// Escape, and what runs the cell is.
function keepKeys(host) {
  const decide = (event) => {
    if (event.target !== host) return
    const isTheirs = event.ctrlKey || event.metaKey || event.key === "Escape" || (event.shiftKey && event.key === "Enter")
    host.toggleAttribute("data-lm-suppress-shortcuts", !isTheirs)
    if (event.key === "Escape") host.closest(".jp-Cell")?.focus()
  }
  window.addEventListener("keydown", decide, true) // before the page's own, which is the document's
  return () => window.removeEventListener("keydown", decide, true)
}

function head(all) {
  const root = h("header"), brand = h("span", "brand"), pill = h("span", "pill")
  brand.append(h("b", "", "工房"), h("span", "", "Koubou"))
  const place = h("span", "place", all.place)
  place.title = all.place
  root.append(brand, place, pill)
  if (all.full && isHere()) {
    const link = pageLink("full", () => addressOfPage(""), _("Open the dashboard"))
    link.title = all.full
    root.append(link)
    root._full = link
  }
  root._pill = pill
  return root
}

// Which card stands where; gives the places of the figures by name.
const LAYOUT = {
  task: {make: (root, slot) => root.append(slot("task"))},
  workshop: {
    make: (root, slot) => {
      const grid = h("div", "k-grid"), chart = (name, head) => {
        const box = h("div", `k-chart k-${name}`), plot = h("div", "k-plot"), canvas = h("div", "k-canvas")
        const place = slot(head)
        place.classList.add("k-head")
        plot.append(canvas)
        box.append(place, plot)
        return [box, canvas]
      }
      const [stream, streamPlot] = chart("stream", "stream"), [through, throughPlot] = chart("throughput", "throughput_head")
      const [host, hostPlot] = chart("host", "host_head")
      const tiles = slot("tiles"), running = slot("running")
      tiles.classList.add("k-tiles")
      running.classList.add("k-running")
      grid.append(stream, running, through, host)
      root.append(tiles, grid)
      return {stream: streamPlot, throughput: throughPlot, host: hostPlot}
    },
  },
}

// Shows what the kernel sends in `place`. `link.send(message)` goes to the kernel; what it gives is told of the link.
export function mount(place, css, link) {
  const host = h("div", "koubou"), outer = shadowOf(host, [sheetOf(css.page)]), cardSheet = sheetOf(css.cards)
  const root = h("section", "k-inline"), note = h("p", "k-note"), late = h("p", "pill stale"), models = {}
  let doc = null, silent = performance.now(), sent = 0, top = null, isOver = false, isClosed = false, isDying = false, hasFailed = false
  const waiting = new Map()
  note.hidden = late.hidden = true
  const giveKeys = keepKeys(host)
  note.setAttribute("role", "status")
  const tell = (words) => { setText(note, words); note.hidden = !words }

  const send = (message) => {
    const n = ++sent
    waiting.set(n, setTimeout(() => tell(_("The kernel is busy with a cell, and hears this when that is done. Interrupt the kernel to be heard now.")), UNHEARD_MS))
    link.send({...message, n})
  }
  const heard = (upTo) => {
    for (const [n, timer] of waiting) {
      if (n > upTo) continue // what was sent before was heard before
      clearTimeout(timer)
      waiting.delete(n)
    }
    if (!waiting.size && !isOver) tell("")
  }

  const paint = () => {
    host.dataset.theme = isDark() ? "dark" : "light"
    requestAnimationFrame(() => { for (const view of doc?.views ?? []) repaint(view) })
  }
  const themed = new MutationObserver(paint)
  themed.observe(document.body, {attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"]})

  const slot = (all) => (name) => {
    const node = h("div", "k-card"), {make, values} = all.cards[name], model = models[name] = new Model(name, values, {send})
    const inside = h("div")
    if (doc) {
      model.documents = () => [doc.doc]
      model.plot = () => root.querySelector(`.k-${name} .k-plot`)
    }
    shadowOf(node, [cardSheet]).append(inside)
    node._draw = () => inside.append(node._root = CARDS[make].render({model}))
    return node
  }

  const show = async (all) => {
    heard(sent) // or lost, with the answer to it
    for (const model of Object.values(models)) model.tell("lifecycle:remove")
    doc?.doc.clear()
    setClock(all.now)
    setDashboard(isHere() ? all.full : "")
    const bokeh = all.doc ? await bokehOf(all.bokeh) : null
    if (isClosed) return
    if (bokeh) doc = {doc: bokeh.require("document").Document.from_json(JSON.parse(all.doc)), views: []}
    const body = h("div", "k-body"), plots = LAYOUT[all.kind].make(body, slot(all)) ?? {}
    top = all.kind === "workshop" ? head(all) : null
    root.className = `k-inline k-of-${all.kind}`
    root.replaceChildren(...[top, body, late, note].filter(Boolean))
    for (const child of place.children) if (child !== host) child.hidden = true
    if (!host.isConnected) { outer.append(root); place.append(host) }
    paint()
    for (const node of body.querySelectorAll(".k-card")) node._draw()
    if (bokeh) {
      const places = doc.doc.roots().map((one) => plots[all.figures[one.id]])
      const shown = await bokeh.embed.add_document_standalone(doc.doc, root, places)
      doc.views = [...(shown.roots ?? shown)]
    }
    beat()
  }

  const bokehOf = async (version) => {
    let wantedAt = performance.now()
    while (!bokehHere(version) && !isClosed && !isDying) {
      const now = performance.now()
      if (!(now - bokehAskedAt.get(version) < BOKEH_AGAIN_MS) || now - wantedAt > BOKEH_AGAIN_MS) {
        bokehAskedAt.set(version, wantedAt = now)
        send({type: "bokeh"})
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS))
    }
    return bokehHere(version)
  }

  const beat = (link) => {
    const pill = top ? top._pill : late, status = link?.status ?? "live"
    silent = performance.now()
    late.hidden = Boolean(top) || isOver || status === "live"
    if (isOver) return
    pill.className = `pill ${status}`
    if (top?._full) top._full.hidden = status === "closed" // it has stopped with the workshop
    const age = {age: duration(link?.lag_s ?? 0)}
    const words = {live: _("live"), stale: _("stale {age}", age), reconnecting: _("reconnecting {age}", age), closing: _("shutting down"), closed: _("workshop stopped")}
    setText(pill, words[status])
  }
  const look = () => {
    const age = (performance.now() - silent) / 1000
    if (isOver || age < SILENT_S || models.task?.task.finished_at != null) return
    const pill = top ? top._pill : late
    pill.className = "pill stale"
    pill.hidden = false
    setText(pill, _("stale {age}", {age: duration(age)}))
  }

  // Nothing moves any more, and nothing counts on.
  const rest = () => {
    for (const model of Object.values(models)) {
      model.tell("lifecycle:remove")
      model._hears.clear()
    }
    for (const card of root.querySelectorAll(".k-card")) if (card._root) card._root._rests = true
  }
  const end = (words) => {
    if (isOver) return
    isOver = true
    for (const timer of waiting.values()) clearTimeout(timer)
    rest()
    root.inert = late.hidden = true
    root.classList.add("k-over")
    if (top) { top._pill.className = "pill closed"; setText(top._pill, _("not live")) }
    if (top?._full) top._full.hidden = true
    tell(words)
  }

  let showing = Promise.resolve()
  const take = (message) => {
    if (isClosed) return // what was on its way: its models are gone
    if (message.set) for (const [name, values] of Object.entries(message.set)) models[name]?.take(values)
    if (message.patch && doc) doc.doc.apply_json_patch(JSON.parse(message.patch))
    for (const [name, said] of message.say ?? []) models[name]?.hear(said)
    if (message.now) { setClock(message.now); beat(message.link) }
  }
  // Once, all is asked for anew: what is told may not fit what is here.
  const failed = (error) => {
    console.error(error)
    if (hasFailed) tell(String(error))
    else link.send({type: "again"})
    hasFailed = true
  }
  everySecond(root, look)
  return {
    hear(message) {
      if (message.heard !== undefined) heard(message.heard)
      if (message.toast) tell(message.toast)
      if (message.bokeh) { if (!bokehHere(message.version)) addBokeh(message.bokeh); return }
      if (message.gone) showing = showing.then(() => end(message.gone)) // after what it is the end of
      else if (message.all) showing = showing.then(() => show(message.all))
      else showing = showing.then(() => take(message))
      showing = showing.catch(failed)
    },
    over(words) {
      isDying = true
      showing = showing.then(() => end(_(words)))
    },
    close() {
      isClosed = true
      themed.disconnect()
      giveKeys()
      rest()
      doc?.doc.clear()
    },
  }
}

function repaint(view) {
  view.request_repaint?.()
  for (const child of view.child_views ?? []) repaint(child)
}
