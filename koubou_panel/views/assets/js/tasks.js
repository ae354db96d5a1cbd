// All tasks: a search line, a table of one page of them, and what may be done with all that match.

import {ask} from "./ask.js"
import {everySecond, h, icon, keyed, plainButton, setText, watch} from "./dom.js"
import {_, language, ngettext} from "./language.js"
import {keepInReach} from "./modal.js"
import {queryBox} from "./query.js"
import {addressOfPage, go, openTask, pageInAddress, paramInAddress, taskLink} from "./route.js"
import {newKey} from "./run.js"
import {ago, clock, duration, elapsed, moment} from "./time.js"

const SIZES = [25, 50, 100], USUAL = 50, TWICE_MS = 600, TWICE_PX = 12
const number = (n) => n.toLocaleString(language())
// Names this tab to the server, also after it was loaded again.
let tabName = ""
const tab = () => {
  try {
    tabName ||= sessionStorage.getItem("koubou-tab") || newKey()
    sessionStorage.setItem("koubou-tab", tabName)
  } catch { /* this browser keeps nothing */ }
  return tabName
}
const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone
const STATUS = /(?:^|\s)status:\S*/gi

// What the address says is shown.
function asked() {
  const size = Number(paramInAddress("size")), at = Math.floor(Number(paramInAddress("at")))
  return {q: paramInAddress("q").trim(), size: SIZES.includes(size) ? size : USUAL, at: at > 0 ? at : 0}
}

const addressOf = ({q, size, at}) => addressOfPage("tasks", {q, size: size === USUAL ? "" : size, at: at || "", task: paramInAddress("task")})

function filters(change) {
  const root = h("div", "filters"), presets = [["", _("All")], ["pending", _("Waiting")], ["in_progress", _("Running")], ["completed", _("Completed")], ["failed", _("Failed")], ["cancelled", _("Cancelled")]]
  root.setAttribute("role", "group")
  root.setAttribute("aria-label", _("Only tasks that are"))
  for (const [status, label] of presets) {
    const button = plainButton("chip", label, () => {
      const rest = asked().q.replace(STATUS, " ").replace(/\s+/g, " ").trim()
      change({q: [status ? `status:${status}` : "", rest].filter(Boolean).join(" "), at: 0})
    })
    button._status = status
    root.append(button)
  }
  root._show = (q) => {
    const told = (q.match(STATUS) || [""])[0].trim().toLowerCase().slice(7)
    const status = {running: "in_progress", waiting: "pending"}[told] || told
    for (const button of root.children) {
      button.classList.toggle("on", button._status === status)
      button.setAttribute("aria-pressed", button._status === status)
    }
  }
  return root
}

function taskRow(model, choose) {
  const row = h("tr"), parts = {}
  const cell = (name) => { const node = h("td", name); parts[name] = node; row.append(node); return node }
  if (model.can_act) {
    const box = h("input")
    box.type = "checkbox"
    box.onchange = () => choose(row._id, box.checked)
    const hold = h("label", "hold")
    hold.append(box)
    cell("pick").append(hold)
    parts.box = box
  }
  const state = cell("state"), name = cell("what")
  parts.link = taskLink(model, "name")
  name.append(parts.link)
  for (const tell of ["kind", "script", "worker", "wait", "took", "when", "why"]) cell(tell)
  row.onclick = (event) => {
    if (event.target.closest("a, input, label") || String(getSelection())) return
    openTask(model, row._id)
  }
  row._parts = parts
  state.append(h("span"))
  return row
}

function drawRow(row, t, isChosen) {
  const p = row._parts
  row._shown = t
  row._id = row.dataset.task = t.id
  row.className = `is-${t.mark}`
  if (row._mark !== `${t.mark} ${t.word}`) {
    row._mark = `${t.mark} ${t.word}`
    p.state.replaceChildren(icon(t.mark), h("span", "", t.word))
  }
  p.link._open(t.id)
  setText(p.link, t.label)
  p.link.title = t.full
  for (const name of ["kind", "script", "worker"]) setText(p[name], t[name])
  p.script.title = t.script
  setText(p.why, t.why || t.reason)
  p.why.title = t.why
  if (p.box) {
    p.box.checked = isChosen
    p.box.setAttribute("aria-label", _("Choose {name}", {name: t.label}))
  }
  drawTimes(row)
}

function drawTimes(row) {
  const t = row._shown, p = row._parts, begun = t.started_at ?? t.finished_at
  setText(p.wait, begun !== null ? duration(begun - t.created_at) : elapsed(clock() - t.created_at))
  setText(p.took, t.took || (t.status === "in_progress" && t.started_at ? elapsed(clock() - t.started_at) : ""))
  const at = t.finished_at ?? t.created_at
  setText(p.when, ago(at))
  const submitted = _("submitted {time}", {time: moment(t.created_at)})
  p.when.title = t.finished_at ? `${_("ended {time}", {time: moment(t.finished_at)})}\n${submitted}` : submitted
}

function pager(change) {
  const root = h("nav", "pager"), first = plainButton("", _("First"), () => change({at: 0}))
  root.setAttribute("aria-label", _("Pages of this list"))
  const back = plainButton("", _("‹ Before"), () => change({at: Math.max(0, root._list.at - root._list.size)}))
  const next = plainButton("", _("After ›"), () => change({at: root._list.at + root._list.size}))
  const where = h("span", "where"), size = h("select"), label = h("label", "size")
  for (const n of SIZES) size.append(Object.assign(h("option", "", String(n)), {value: n}))
  size.value = asked().size
  size.onchange = () => change({size: Number(size.value), at: 0})
  label.append(h("span", "", _("a page")), size)
  root.append(first, back, where, next, label)
  root._show = (list, shown) => {
    root._list = list
    first.disabled = back.disabled = !list.at
    next.disabled = !list.has_more
    size.value = list.size
    const total = list.is_counted ? number(list.total) : _("{n} or more", {n: number(list.total)})
    setText(where, shown ? _("{first} to {last} of {total}", {first: number(list.at + 1), last: number(list.at + shown), total}) : "")
  }
  return root
}

// What is done with many: the question, and the time in which it can be taken back.
function bulkBar(model, scope) {
  const root = h("div", "many"), words = h("span", "words"), buttons = h("span", "acts"), fault = h("p", "amiss")
  const question = h("div", "sure"), text = h("p"), yes = plainButton("yes", "", (event) => { scope.pressed(event); confirm() }), no = plainButton("no", _("Back"), (event) => { scope.pressed(event); end() })
  question.setAttribute("role", "alertdialog")
  question.setAttribute("aria-label", _("Please confirm"))
  question.append(text, yes, no)
  question.hidden = true
  fault.setAttribute("role", "alert")
  fault.hidden = true
  let meant = null, opener = null, turn = 0
  const say = (error) => { fault.hidden = !error; setText(fault, error || "") }
  const end = () => { question.hidden = true; meant = null; opener?.focus({preventScroll: true}) }
  const intend = async (action, button) => {
    root._end()
    if (!await scope.settle()) return
    root._end()
    const ids = scope.chosen(), q = scope.q(), mine = turn
    try {
      const {count} = await ask(model, "intend", {action, ids, q})
      if (mine !== turn) return  // by now it would be about something else
      if (!count) {
        return say(action === "cancel" ? _("None of these tasks waits or runs, so there is nothing to cancel.") : _("None of these tasks has ended, so there is nothing to run again."))
      }
      meant = action
      opener = button
      const n = number(count)
      setText(yes, action === "cancel" ? ngettext("Cancel {n} task", "Cancel {n} tasks", count, {n}) : ngettext("Run {n} task again", "Run {n} tasks again", count, {n}))
      setText(text, ids.length
        ? (action === "cancel" ? _("Cancel the chosen tasks that wait or run?") : _("Run the chosen tasks that have ended once more?"))
        : q
          ? (action === "cancel" ? _("Cancel everything that waits or runs and matches “{q}”, on all pages?", {q}) : _("Run everything that has ended and matches “{q}” once more, on all pages?", {q}))
          : (action === "cancel" ? _("Cancel everything that waits or runs?") : _("Run everything that has ended once more?")))
      question.hidden = false
      no.focus({preventScroll: true})
    } catch (error) { if (mine === turn) say(error.message) }
  }
  const confirm = async () => {
    const action = meant
    end()
    try {
      await ask(model, "confirm", {action, tab: tab()})
      scope.clear()
    } catch (error) { say(error.message) }
  }
  question.onkeydown = (event) => { if (event.key === "Escape") { event.stopPropagation(); end() } }
  const retry = plainButton("again", "", () => intend("retry", retry)), cancel = plainButton("stop", "", () => intend("cancel", cancel))
  const drop = plainButton("drop", _("Choose none"), () => scope.clear())
  buttons.append(drop, retry, cancel)
  root.append(words, buttons, question, fault)
  root._show = (list, chosen) => {
    const n = number(chosen || list.total || 0), total = list.is_counted === false ? _("{n} or more", {n}) : n
    setText(words, chosen ? _("{n} chosen", {n}) : list.total === undefined || scope.isWrong() ? "" : ngettext("{total} task", "{total} tasks", list.total, {total}))
    setText(retry, chosen ? _("Run again…") : _("Run all again…"))
    setText(cancel, chosen ? _("Cancel…") : _("Cancel all…"))
    drop.hidden = !chosen
    const isBusy = model.bulk.id !== undefined
    for (const button of [retry, cancel]) { button.hidden = !model.can_act; button.disabled = isBusy || scope.isLooking() || scope.isWrong() || !(chosen || list.total) }
  }
  root._end = () => { turn += 1; question.hidden = true; meant = null; say("") }
  return root
}

function heldBar(model) {
  const root = h("div", "held"), words = h("span", "words"), line = h("i", "left"), spoken = h("span", "spoken")
  const undo = plainButton("undo", _("Undo"), async () => {
    undo.disabled = true
    try { await ask(model, "undo") } catch { undo.disabled = false }
  })
  // Its words change all the time: that it has begun is spoken.
  spoken.setAttribute("role", "status")
  const bar = h("div", "heldbar")
  bar.append(root, spoken)
  root._bar = bar
  root.append(words, undo, line)
  root.popover = "manual"  // above an open task
  let id, since = 0, told
  const raise = () => {
    const isShown = root.matches(":popover-open")
    if (isShown && root.hidden) root.hidePopover()
    else if (!isShown && !root.hidden && root.isConnected) root.showPopover()
  }
  root._show = () => {
    const b = model.bulk
    root.hidden = b.id === undefined
    raise()
    if (root.hidden) { id = undefined; return }
    if (id !== b.id) { id = b.id; since = performance.now() - 1000 * (b.undo_s - b.left_s); undo.disabled = false }
    const n = number(b.count), left = Math.max(0, b.undo_s - (performance.now() - since) / 1000)
    const isHeld = b.stage === "held"
    undo.hidden = !isHeld
    line.style.width = `${isHeld ? 100 * left / b.undo_s : 100 * b.done / b.count}%`
    root.classList.toggle("doing", !isHeld)
    const s = Math.ceil(left), done = number(b.done)
    if (isHeld) {
      setText(words, b.action === "cancel"
        ? ngettext("{n} task is cancelled in {s} s", "{n} tasks are cancelled in {s} s", b.count, {n, s})
        : ngettext("{n} task is run again in {s} s", "{n} tasks are run again in {s} s", b.count, {n, s}))
    } else setText(words, b.action === "cancel" ? _("Cancelling: {done} of {n}", {done, n}) : _("Submitting again: {done} of {n}", {done, n}))
    if (told !== `${id} ${b.stage}`) setText(spoken, words.textContent)
    told = `${id} ${b.stage}`
  }
  everySecond(root, root._show, 250)
  root._stay = () => model.on("lifecycle:remove", keepInReach(bar, root._show))
  return root
}

// They stay chosen when the card is made anew, in another language.
const chosen = new Set()

export const TasksCard = {
  render({model}) {
    const root = h("section", "card tasks"), head = h("h2", "", _("Tasks"))
    let list = asked(), rows = [], found = {}
    const change = (values) => go(addressOf({...asked(), ...values}))
    const box = queryBox(model, {label: _("Search tasks"), placeholder: _("status:failed kind:script since:1h words"), apply: (q) => (q === asked().q ? search() : change({q, at: 0}))})
    const chips = filters(change), pages = pager(change)
    let pressed = null, searching = null
    const scope = {q: () => found.q || "", chosen: () => [...chosen], clear: () => { chosen.clear(); many._end(); draw() }, isLooking: () => root.classList.contains("looking"), isWrong: () => root.classList.contains("wrong"), settle: () => settle(), pressed: (event) => { pressed = event }}
    const many = bulkBar(model, scope), held = heldBar(model)
    const newer = plainButton("newer-tasks", "", () => { scroll(); if (asked().at) change({at: 0}); else search() })
    newer.hidden = true
    const scroll = () => root.closest?.(".k-view")?.scrollTo?.({top: 0})
    const table = h("table"), body = h("tbody"), top = h("tr"), empty = h("p", "empty"), hold = h("div", "hold-table")
    const all = h("input")
    if (model.can_act) {
      all.type = "checkbox"
      all.setAttribute("aria-label", _("Choose all on this page"))
      all.onchange = () => { for (const t of rows) { if (all.checked) chosen.add(t.id); else chosen.delete(t.id) } many._end(); draw() }
      const label = h("label", "hold"), cell = h("th", "pick")
      label.append(all)
      cell.append(label)
      top.append(cell)
    }
    const titles = {state: _("State"), what: _("Name"), kind: _("Kind"), script: _("Script"), worker: _("Worker"), wait: _("Wait"), took: _("Took"), when: _("Ended or submitted"), why: _("Reason")}
    for (const [name, title] of Object.entries(titles)) {
      const cell = h("th", name, title)
      cell.scope = "col"
      top.append(cell)
    }
    const thead = h("thead")
    thead.append(top)
    table.append(thead, body)
    table.setAttribute("aria-label", _("Tasks, newest first"))
    hold.append(newer, table, empty)
    // The question goes, and the table comes up under the second click of a double one: that opens nothing.
    hold.addEventListener("click", (event) => {
      const isSecond = pressed && event.timeStamp - pressed.timeStamp < TWICE_MS && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < TWICE_PX
      if (isSecond) { event.preventDefault(); event.stopPropagation() }
    }, true)
    root.append(head, box, chips, many, hold, pages, held._bar)
    held._stay()

    const choose = (id, on) => { if (on) chosen.add(id); else chosen.delete(id); many._end(); drawMany() }
    const drawMany = () => {
      many._show(found, chosen.size)
      const here = rows.filter((t) => chosen.has(t.id)).length
      all.checked = here > 0 && here === rows.length
      all.indeterminate = here > 0 && !all.checked
    }
    const draw = () => {
      const isKnown = found.total !== undefined
      keyed(body, rows, (t) => t.id, () => taskRow(model, choose), (row, t) => drawRow(row, t, chosen.has(t.id)))
      table.hidden = !rows.length
      empty.hidden = !isKnown || rows.length > 0
      setText(empty, found.q ? _("No task matches this. Fewer words, or another time, find more.") : _("No task has been submitted yet. What you start appears here."))
      pages.hidden = !isKnown || !(found.at || found.has_more || rows.length > SIZES[0])
      if (isKnown) pages._show(found, rows.length)
      drawMany()
    }
    // A page that was read before one that is shown already is none any more.
    const take = (page) => {
      if (!page.list || page.list.turn < found.turn) return
      rows = page.rows
      found = page.list
      draw()
    }
    let turn = 0
    const search = () => { searching = look(); return searching }
    const look = async () => {
      const mine = ++turn
      list = asked()
      box._set(list.q)
      chips._show(list.q)
      root.classList.add("looking")
      drawMany()
      try {
        const page = await ask(model, "search", {...list, zone: zone()})
        if (mine !== turn) return
        box._fault("")
        root.classList.remove("wrong")
        take(page)
      } catch (error) {
        if (mine === turn) { box._fault(error.message); root.classList.add("wrong") }
      } finally {
        if (mine === turn) { root.classList.remove("looking"); drawMany() }
      }
    }
    // What is typed and not sent yet is searched for first: all that is acted on is what the line reads.
    const settle = async () => {
      const q = box._text()
      if (!chosen.size && q !== asked().q) { change({q, at: 0}); await searching }
      return !scope.isLooking() && !scope.isWrong()
    }
    const follow = () => {
      if (pageInAddress() !== "tasks") return
      const next = asked()
      if (next.q === list.q && next.at === list.at && next.size === list.size) return
      if (next.q !== list.q) { chosen.clear(); many._end() }
      search()
    }
    draw()
    watch(model, ["newer"], () => {
      newer.hidden = !model.newer
      setText(newer, ngettext("{n} newer task", "{n} newer tasks", model.newer, {n: number(model.newer)}))
    })
    watch(model, ["bulk"], () => { held._show(); drawMany() })
    model.on("msg:custom", (message) => {
      if (message.page) take(message.page)
      else if (message.rows) {
        const changed = new Map(message.rows.map((t) => [t.id, t]))
        rows = rows.map((t) => changed.get(t.id) || t)
        draw()
      } else if (message.total !== undefined && message.turn === found.turn) {
        found = {...found, total: message.total, is_counted: true}
        draw()
      }
    })
    everySecond(root, () => { for (const row of body.children) drawTimes(row) })
    if (model.can_act) ask(model, "held", {tab: tab()}).catch(() => {})  // the page may have been loaded again meanwhile
    addEventListener("popstate", follow)
    model.on("lifecycle:remove", () => removeEventListener("popstate", follow))
    search()
    return root
  },
}
