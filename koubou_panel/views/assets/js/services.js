// The services: how each stands, and why where one does not.

import {everySecond, h, icon, keyed, PATIENCE_MS, setText, sureButton, watch} from "./dom.js"
import {_} from "./language.js"
import {age, clock} from "./time.js"

// One process: none of them is restarted alone, and what runs is not left alone by it.
const TOGETHER = ["agents", "pool", "websocket"]

function serviceRow(model) {
  const row = h("div", "row"), name = h("span", "name"), state = h("span", "state")
  const warning = h("p", "warning", _("Agents, the worker pool and WebSocket restart together. What runs is given the time to end that Settings name, and is then cancelled."))
  warning.setAttribute("role", "status")
  const restart = sureButton("restart", {
    rest: (b) => { b.replaceChildren(icon("restart")); b.title = _("Restart"); b.setAttribute("aria-label", _("Restart {name}", {name: row._name || ""})); warning.hidden = true },
    ask: (b) => { b.textContent = _("Sure?"); b.setAttribute("aria-label", _("Confirm: restart {name}", {name: row._name || ""})); warning.hidden = !TOGETHER.includes(row._key) },
    act: (b) => { b.disabled = true; setTimeout(() => { b.disabled = false }, PATIENCE_MS); model.send_msg({type: "restart_service", name: row._key}) },
  })
  const tells = {}
  row.append(name, state)
  const words = {port: _("port"), pid: _("pid"), up: _("up"), restarts: _("restarts")}
  for (const what of Object.keys(words)) {
    row.append(tells[what] = h("span", `tell ${what}`))
    tells[what].dataset.word = words[what]
  }
  const about = h("p", "about"), last = h("pre", "last")
  last.tabIndex = 0
  last.setAttribute("aria-label", _("Its last lines"))
  last.setAttribute("role", "group")
  row.append(about, restart, warning, last)
  row._name = ""
  row._mark = state
  row._parts = {name, about, last, restart, tells}
  return row
}

function drawService(row, s, canAct) {
  const {name, about, last, restart, tells} = row._parts
  if (row._name !== s.label) { row._name = s.label; restart._rest() }
  row._key = s.name
  row.className = `row ${s.state}`
  setText(name, s.label)
  if (row._word !== s.word) {
    row._word = s.word
    row._mark.className = `state ${s.mark}`
    row._mark.replaceChildren(icon(s.mark), h("span", "", s.word))
  }
  setText(tells.port, s.port)
  setText(tells.pid, s.pid)
  setText(tells.restarts, s.restarts)
  tells.restarts.classList.toggle("none", s.restarts === "0")
  row._started = s.started_at
  setText(about, s.about)
  about.hidden = !s.about
  setText(last, s.last)
  last.hidden = !s.last
  restart.hidden = !(canAct && s.can_restart)
}

export const ServicesCard = {
  render({model}) {
    const root = h("section", "card services"), head = h("h2", "", _("Services")), note = h("p", "empty")
    const list = h("div", "list"), columns = h("div", "columns")
    columns.setAttribute("aria-hidden", "true")
    for (const word of [_("Service"), _("State"), _("Port"), _("Process"), _("Up"), _("Restarts"), "", ""]) columns.append(h("span", "", word))
    root.append(head, note, columns, list)
    const age_ = () => {
      for (const row of list.children) setText(row._parts.tells.up, row._started ? age(clock() - row._started) : "")
    }
    watch(model, ["rows", "hint", "can_act"], () => {
      note.hidden = model.rows.length > 0
      columns.hidden = !note.hidden
      setText(note, model.hint)
      keyed(list, model.rows, (s) => s.name, () => serviceRow(model), (row, s) => drawService(row, s, model.can_act))
      age_()
    })
    everySecond(root, age_)
    return root
  },
}
