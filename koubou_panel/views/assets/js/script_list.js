// The catalogue: a line for each script.

import {ask} from "./ask.js"
import {everySecond, h, icon, keyed, plainButton, setText} from "./dom.js"
import {hasDraft} from "./drafts.js"
import {addFile, takesFiles} from "./drop.js"
import {_, ngettext} from "./language.js"
import {addressOfPage, go, pageInAddress, pageLink, paramInAddress, taskLink} from "./route.js"
import {dueWords} from "./script_form.js"
import {ago, moment} from "./time.js"

const PAGE_ROWS = 50
const TYPED_MS = 250

export const scriptAddress = (name, more = {}) => addressOfPage("scripts", {script: name, ...more})
export const runAddress = (name) => addressOfPage(undefined, {run: `script:${name}`})
export const tasksAddress = (name) => addressOfPage("tasks", {q: `script:${/\s/.test(name) ? JSON.stringify(name) : name}`})

// A switch shows how the catalogue has it: it turns when that says so.
export function enableSwitch(model, name, tell, {on = _("on"), off = _("off")} = {}) {
  const button = plainButton("switch", null, async () => {
    button.disabled = true
    try { await ask(model, "enable", {name, on: button.getAttribute("aria-checked") !== "true"}) } catch (error) { tell(error.message) }
    button.disabled = model.role !== "full"
  })
  button.setAttribute("role", "switch")
  button.setAttribute("aria-label", _("Schedule of {name}", {name}))
  button.append(h("i"), h("span", "word"))
  button._draw = (row) => {
    button.hidden = !row.timed && row.enabled
    button.disabled = model.role !== "full"
    button.setAttribute("aria-checked", String(row.enabled))
    setText(button.lastChild, row.enabled ? on : off)
    button.title = row.enabled ? _("Its schedule runs it") : _("Its schedule does not run it; it can be run by hand")
  }
  return button
}

// The last runs, the oldest first, each a small mark that leads to its task.
export function runMarks(model) {
  const box = h("span", "marks")
  box._draw = (marks) => keyed(box, [...marks].reverse(), (one) => one[0], ([id]) => {
    const link = taskLink(model, "mark")
    link._open(id)
    return link
  }, (link, [, mark, word, at]) => {
    const words = _("{state}, {when}", {state: word, when: moment(at)})
    if (link._said === words) return
    link._said = words
    link.replaceChildren(icon(mark, words))
    link.title = words
  })
  return box
}

export function whenWords(row) {
  if (!row.enabled && row.timed) return _("off")
  if (row.missing && row.next) return _("cannot start: {names} must be given", {names: row.missing})
  if (row.next) return dueWords(row.next)
  return row.timed ? _("no more") : ""
}

const COLUMNS = () => [_("Script"), _("Last run"), _("Last runs"), _("Schedule"), _("Next"), _("Runs"), _("Output held"), _("On"), ""]

export function listView(model) {
  const node = h("div", "card catalogue"), head = h("header"), title = h("h1", "", _("Scripts")), count = h("span", "count"), find = h("input", "find")
  const table = h("table", "list"), top = h("thead"), headings = h("tr"), body = h("tbody"), empty = h("div", "empty"), more = h("nav", "more"), wrong = h("p", "wrong")
  const names = COLUMNS()
  let timer = 0, sought = paramInAddress("find")
  find.type = "search"
  find.placeholder = _("Find a script")
  find.setAttribute("aria-label", _("Find a script"))
  find.value = sought
  find.oninput = () => {
    clearTimeout(timer)
    timer = setTimeout(seek, TYPED_MS)
  }
  const isHere = () => pageInAddress() === "scripts" && !paramInAddress("script")
  function seek() {
    if (!isHere()) return  // gone to another page meanwhile
    sought = find.value.trim()
    go(addressOfPage(undefined, {find: sought, from: ""}), {replace: true})
  }
  // What the address looks for, where somebody else has changed it: the way back, or a link.
  function follow() {
    const now = paramInAddress("find")
    if (!isHere() || now === sought) return
    clearTimeout(timer)
    find.value = sought = now
  }
  wrong.setAttribute("role", "alert")
  wrong.hidden = true
  const tell = (text) => { wrong.hidden = !text; setText(wrong, text) }
  title.append(count)
  head.append(title, find)
  if (model.role === "full") {
    head.append(pageLink("button primary", () => addressOfPage("scripts", {add: "1"}), _("＋ Add a script")))
    takesFiles(node, addFile)
  }
  for (const name of names) { const cell = h("th", "", name); cell.scope = "col"; if (!name) cell.append(h("span", "spoken", _("Actions"))); headings.append(cell) }
  top.append(headings)
  table.append(h("caption", "spoken", _("The scripts of the catalogue")), top, body)
  node.append(head, wrong, empty, table, more)

  function make(row) {
    const line = h("tr"), parts = {}
    for (const [index, name] of ["what", "last", "runs10", "schedule", "next", "many", "held", "on", "act"].entries()) {
      const cell = parts[name] = h(index ? "td" : "th", name)
      if (!index) cell.scope = "row"
      cell.dataset.label = names[index]
      line.append(cell)
    }
    const name = pageLink("name", () => scriptAddress(row.name), row.name), about = h("span", "about"), draft = h("b", "tag2 warn", _("unsaved draft"))
    const last = taskLink(model, "state"), marks = runMarks(model), schedule = h("span"), cron = h("span", "cron"), next = h("time"), runs = pageLink("", () => tasksAddress(row.name))
    const on = enableSwitch(model, row.name, tell), held = h("span"), bad = h("span", "bad")
    name.title = row.name
    parts.what.append(name, draft, about)
    parts.last.append(last)
    parts.runs10.append(marks)
    parts.schedule.append(schedule, cron)
    parts.next.append(next)
    parts.many.append(runs, bad)
    parts.held.append(held)
    parts.on.append(on)
    if (model.role !== "read") { const run = pageLink("button", () => runAddress(row.name), _("Run")); run.setAttribute("aria-label", _("Run {name}", {name: row.name})); parts.act.append(run) }
    Object.assign(line, {_parts: {about, draft, last, marks, schedule, cron, next, runs, bad, on, held, name}, _row: row})
    return line
  }

  function update(line, row) {
    const p = line._parts
    line._row = row
    setText(p.about, row.about)
    p.draft.hidden = !(model.role === "full" && hasDraft(model.home, row.name))
    const said = `${row.mark} ${row.word}`
    if (p.last._said !== said) {
      p.last._said = said
      p.last.className = `state ${row.mark}`
      p.last.replaceChildren(...(row.mark ? [icon(row.mark)] : []), h("span", "", row.word), h("time", "ago"))
    }
    p.last._open(row.task)
    p.marks._draw(row.marks)
    setText(p.schedule, row.once ? moment(row.once) : row.schedule)
    setText(p.cron, row.cron.startsWith(row.schedule) ? row.cron.slice(row.schedule.length) : row.cron)
    p.next.classList.toggle("bad", Boolean(row.missing && row.next))
    p.next.title = row.next ? moment(row.next) : ""
    p.runs._to()
    setText(p.runs, ngettext("{n} run", "{n} runs", row.runs))
    setText(p.bad, row.failures ? ngettext("{n} failed", "{n} failed", row.failures) : "")
    setText(p.held, row.held)
    p.on._draw(row)
  }

  function ages() {
    for (const {_parts: p, _row: row} of body.children) {
      setText(p.last.lastChild, row.at ? ago(row.at) : "")
      p.last.title = row.at ? moment(row.at) : ""
      setText(p.next, whenWords(row))
    }
  }

  everySecond(node, ages)
  return {
    node,
    begin() { if (!matchMedia("(max-width: 700px)").matches) find.focus({preventScroll: true}) },
    close() { clearTimeout(timer) },
    update() {
      follow()
      setText(count, model.all ? String(model.all) : "")
      const isEmpty = model.rows.length === 0
      find.hidden = model.all === 0
      table.hidden = isEmpty
      empty.hidden = !isEmpty
      empty.replaceChildren(...(model.all ? [h("p", "", _("No script is called so, or has that in its description."))]
        : [h("p", "", _("No script yet. The catalogue keeps scripts by name: they run by hand, on a schedule, from programs and from agents.")), h("code", "", "koubou script add backup ~/bin/backup.sh --every 6h")]))
      keyed(body, model.rows, (row) => row.name, make, update)
      ages()
      const page = Math.max(0, Number.parseInt(paramInAddress("from"), 10) - 1 || 0), pages = Math.ceil(model.total / PAGE_ROWS)
      more.hidden = pages < 2
      more.setAttribute("aria-label", _("Pages of the list"))
      const to = (n, text) => pageLink("button", () => addressOfPage(undefined, {from: n ? String(n + 1) : ""}), text)
      more.replaceChildren(...(page > 0 ? [to(page - 1, _("‹ Before"))] : []), h("span", "", _("{n} of {all}", {n: page + 1, all: pages})), ...(page + 1 < pages ? [to(page + 1, _("After ›"))] : []))
    },
  }
}
