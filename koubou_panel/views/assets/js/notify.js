// The bell: what somebody asked to be told of, in this browser: by a toast where the page is seen, else by the system.
// What was told is noted for all tabs, so that each event is told once.

import {ask} from "./ask.js"
import {h, icon, keyed, plainButton, setText} from "./dom.js"
import {_, ngettext} from "./language.js"
import {closeButton, modal} from "./modal.js"
import {addressOf, go, openTask} from "./route.js"
import {sign} from "./signs.js"
import {ago, clock} from "./time.js"

const WANTS = "koubou-bell", WATCHED = "koubou-watched", TOLD = "koubou-told", LOOKED = "koubou-bell-looked", AT = "koubou-bell-at"
const MOST_TOLD = 20
const MOST_KEYS = 200
const MOST_WATCHED = 100
const NOTE_AT_MS = 10000
const HIDDEN_WAITS_MS = 400
const RENEW_MS = 60000

const unkept = new Map()  // what this browser has no room for, while the page lives

const read = (name, otherwise) => {
  if (unkept.has(name)) return unkept.get(name)
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise
  } catch {
    return otherwise
  }
}
const write = (name, value) => {
  try {
    localStorage.setItem(name, JSON.stringify(value))
    unkept.delete(name)
  } catch {
    unkept.set(name, value)
  }
}
const wants = () => ({fails: false, scripts: false, idle: false, system: false, ...read(WANTS, {})})
const watched = () => read(WATCHED, [])
const told = () => read(TOLD, {list: [], keys: []})

// Whoever shows what is watched is told when that changes, here or in another tab.
const listeners = new Set()
const changed = () => { for (const listener of [...listeners]) listener() }
addEventListener("storage", (event) => { if ([WANTS, WATCHED, TOLD, LOOKED].includes(event.key)) changed() })

function watch(id, isWatched) {
  const others = watched().filter((one) => one !== id)
  write(WATCHED, isWatched ? [...others, id].slice(-MOST_WATCHED) : others)
  changed()
}

// A button that has this task's end told; for its drawer.
export function bellButton(model, id) {
  const button = plainButton("bellbutton", null, () => watch(button._task, !watched().includes(button._task)))
  const word = h("span")
  button.append(sign("bell"), word)
  button._task = id
  button._show = () => {
    const isOn = watched().includes(button._task)
    button.setAttribute("aria-pressed", isOn)
    setText(word, isOn ? _("You will be told") : _("Tell me when it ends"))
  }
  button._of = (task) => { button._task = task; button._show() }
  listeners.add(button._show)
  model.on("lifecycle:remove", () => listeners.delete(button._show))
  button._show()
  return button
}

const title = (event) => {
  if (event.kind === "idle") return _("Nothing is left to do")
  const name = event.label
  const words = {completed: _("{name} completed", {name}), failed: _("{name} failed", {name}), cancelled: _("{name} was cancelled", {name})}
  return words[event.status] || name
}
const markOf = (event) => (event.kind === "idle" ? "ok" : {completed: "ok", failed: "fail", cancelled: "cancel"}[event.status])

// Calls `act` in one tab only, the first to come.
async function once(event, act) {
  const claim = () => {
    const {list, keys} = told()
    if (keys.includes(event.key)) return
    write(TOLD, {list: [event, ...list].slice(0, MOST_TOLD), keys: [event.key, ...keys].slice(0, MOST_KEYS)})
    if (event.id) watch(event.id, false)
    act()
    changed()
  }
  if (navigator.locks) await navigator.locks.request("koubou-bell", claim)
  else claim()
}

function tellSystem(event) {
  if (!wants().system || globalThis.Notification?.permission !== "granted") return
  let note
  try {
    note = new Notification(title(event), {body: event.why || "", tag: event.key})
  } catch { return }  // a phone's browser has them for service workers alone
  note.onclick = () => {
    window.focus()
    if (event.id) openTask(null, event.id)
    note.close()
  }
}

// The bell in the bar, with its panel. `toast(text, tone)` shows one.
export function bell(model, toast) {
  const panel = modal("bellpanel", _("What to tell me of")), count = h("b", "count_")
  const button = plainButton("bell", null, () => { panel._open(); write(LOOKED, clock()); changed() })
  button.append(sign("bell"), count)
  button.setAttribute("aria-haspopup", "dialog")
  button.title = _("What to tell me of")

  // A tab that is seen shows a toast; the system is told only where none is.
  const tell = (event) => {
    if (document.hidden) setTimeout(() => once(event, () => tellSystem(event)), HIDDEN_WAITS_MS)
    else {
      toast(title(event), event.status === "failed" ? "bad" : "", event.id && (() => openTask(null, event.id)))
      once(event, () => {})
    }
  }
  const hear = (events, more = 0) => {
    for (const event of events) tell(event)
    if (more && !document.hidden) toast(ngettext("{n} more ended", "{n} more ended", more))
  }
  // What ended while this browser could not be told; another tab may have told it.
  const catchUp = ({ended}) => {
    const {keys} = told()
    for (const event of ended) if (!keys.includes(event.key)) tell(event)
  }

  // -- what the server is asked for --
  let asked = ""
  const follow = async () => {
    const {fails, scripts, idle} = wants(), ids = watched(), wanted = JSON.stringify([fails, scripts, idle, ids])
    if (wanted === asked) return
    const isFirst = asked === ""
    if (isFirst && !(fails || scripts || idle || ids.length)) return
    asked = wanted
    catchUp(await ask(model, "bell", {fails, scripts, idle, ids, since: isFirst ? read(AT, null) : null}).catch(() => ({ended: []})))
  }
  // A page that nobody sees gets no beats: whether it is still heard, it finds out by asking anew.
  const renew = async () => {
    if (!document.hidden || !asked) return
    const {fails, scripts, idle} = wants()
    let found
    try {
      found = await ask(model, "bell", {fails, scripts, idle, ids: watched(), since: read(AT, null)})
    } catch { return window.koubouAgain?.() }
    catchUp(found)
    write(AT, found.at)
  }
  const renewing = setInterval(renew, RENEW_MS)
  model.on("msg:custom", ({bell: events, more}) => { if (events) hear(events, more) })
  // Up to when the workshop was heard: what it says once it is back ended after that.
  const note = () => {
    const {at, lag_s} = model.freshness
    if (asked && performance.now() - window.koubouBeat < NOTE_AT_MS) write(AT, at - lag_s)
  }
  const timer = setInterval(note, NOTE_AT_MS)

  // -- the panel --
  const head = h("header"), choices = h("div", "tellmes"), system = h("p", "hint"), heading = h("h3", "", _("The last that you were told")), list = h("div", "told"), none = h("p", "hint", _("Nothing yet."))
  head.append(h("h2", "", _("Tell me when")), closeButton(panel))
  const boxes = {}
  for (const [name, label] of [["fails", _("a task fails")], ["scripts", _("a run of a script fails")], ["idle", _("nothing is left to do")], ["system", _("… also while I look elsewhere, by a notification of this browser")]]) {
    const line = h("label", `tellme c-${name}`), box = h("input")
    box.type = "checkbox"
    box.name = name
    line.append(box, h("span", "", label))
    boxes[name] = box
    choices.append(line)
    box.onchange = async () => {
      // The browser asks for leave only on a click, and so do we.
      if (name === "system" && box.checked && globalThis.Notification && Notification.permission === "default") await Notification.requestPermission()
      write(WANTS, {...wants(), [name]: box.checked})
      changed()
    }
  }
  panel.append(head, choices, system, heading, none, list)
  const show = () => {
    const now = wants(), {list: events} = told(), looked = read(LOOKED, 0)
    for (const [name, box] of Object.entries(boxes)) box.checked = now[name]
    const permission = globalThis.Notification?.permission
    system.textContent = !globalThis.Notification ? _("This browser shows no notifications for this page: that takes https, or this machine itself.")
      : now.system && permission === "denied" ? _("This browser was told to show no notifications for this page.") : ""
    system.hidden = !system.textContent
    const unseen = panel.open ? 0 : events.filter((event) => event.at > looked).length
    setText(count, unseen ? String(unseen) : "")
    count.hidden = !unseen
    button.setAttribute("aria-label", unseen ? ngettext("Bell: {n} new", "Bell: {n} new", unseen) : _("Bell"))
    button.classList.toggle("on", now.fails || now.scripts || now.idle || watched().length > 0)
    none.hidden = events.length > 0
    keyed(list, events, (event) => event.key, (event) => {
      const row = h("a", "toldrow")
      row.append(icon(markOf(event)), h("span", "name", title(event)), h("span", "when"))
      if (event.id) {
        row.href = addressOf(event.id)
        row.onclick = (click) => { click.preventDefault(); panel.close(); go(addressOf(event.id)) }
      }
      row.title = event.why || ""
      return row
    }, (row, event) => setText(row.lastChild, ago(event.at)))
  }
  const listen = () => { show(); follow() }
  listeners.add(listen)
  model.on("lifecycle:remove", () => { listeners.delete(listen); clearInterval(timer); clearInterval(renewing) })
  listen()
  button._panel = panel
  return button
}
