// The pool with its controls, and a row for each worker with its last five minutes.

import {everySecond, focused, h, icon, keyed, PATIENCE_MS, plainButton, setText, sureButton, watch} from "./dom.js"
import {_} from "./language.js"
import {addressOfPage, go, paramInAddress, taskLink} from "./route.js"
import {about, age, ago, clock, moment} from "./time.js"

const LANE_S = 300
const PAGE = 24

// The bounds as fields, and Pause, Drain, Resume. What the fields show is what the workshop says, but while they
// are edited, and for as long as an answer may take.
function poolControls(model) {
  const box = h("form", "controls")
  const field = (label) => {
    const input = h("input")
    Object.assign(input, {type: "number", min: 0, max: 256, required: true})
    input.setAttribute("aria-label", label)
    return input
  }
  const least = field(_("Least number of workers")), most = field(_("Largest number of workers"))
  const scale = h("button", "scale", _("Scale"))
  scale.type = "submit"
  const act = (type) => () => model.send_msg({type})
  const pause = plainButton("", _("Pause"), act("pause")), resume = plainButton("resume", _("Resume"), act("resume"))
  pause.title = _("Start nothing new; what runs goes on")
  const drain = sureButton("", {
    rest: (b) => { b.textContent = _("Drain"); b.title = _("Take no new work and start none; what runs goes on") },
    ask: (b) => { b.textContent = _("Refuse new work?") },
    act: () => model.send_msg({type: "drain"}),
  })
  box.append(h("span", "word", _("from")), least, h("span", "word", _("to")), most, scale, pause, resume, drain)
  let isEdited = false, shown = ""
  const edit = () => {
    isEdited = Number(least.value) !== model.pool.min || Number(most.value) !== model.pool.max
    scale.disabled = !isEdited
  }
  const show = () => {
    const {min, max, state} = model.pool
    if (`${min} ${max}` !== shown || !isEdited) { least.value = min; most.value = max; shown = `${min} ${max}`; isEdited = false }
    scale.disabled = !isEdited
    pause.hidden = state !== ""
    resume.hidden = state === "" || state === "closing"
    drain.hidden = state === "draining" || state === "closing"
  }
  least.oninput = most.oninput = edit
  box.onsubmit = (event) => {
    event.preventDefault()
    model.send_msg({type: "scale", min: least.valueAsNumber, max: most.valueAsNumber})
    scale.disabled = true
    setTimeout(() => { if (isEdited) { isEdited = false; show() } }, PATIENCE_MS)
  }
  watch(model, ["pool"], show)
  return box
}

// In the place of a worker's lane while it is asked how it shall restart.
function restartChoice(model, row) {
  const box = h("span", "choice")
  // Whoever has it cancelled has one task in mind: by the time that this arrives it may run another.
  const send = (at_once) => { model.send_msg({type: "restart", worker_id: row.dataset.worker, at_once, task_id: at_once ? box._task : ""}); row._ask(false) }
  const after = plainButton("", _("Restart after its task"), () => send(false))
  const now = sureButton("", {
    rest: (b) => { b.textContent = _("Restart now") },
    ask: (b) => { b.textContent = _("Cancels its task: sure?") },
    act: () => send(true),
  })
  box.append(after, now)
  // Who was asked about one task has not said yes to the next one, nor to what they are asked later.
  box._rest = () => now._rest()
  box._show = (task) => {
    if (box._task !== task) now._rest()
    box._task = task
    setText(after, task ? _("Restart after its task") : _("Restart"))
    now.hidden = !task
  }
  return box
}

function makeRow(model) {
  const row = h("div", "row")
  row.setAttribute("role", "listitem")
  row._badge = h("span", "badge")
  row._mark = h("span", "mark")
  row._word = h("span", "word")
  row._badge.append(row._mark, row._word)
  row._name = h("span", "name")
  row._task = taskLink(model, "task")
  for (const name of ["cpu", "rss", "age", "ended", "pid"]) row[`_${name}`] = h("span", name)
  row._done = h("span", "done")
  row._failed = h("span", "failed")
  row._ended.append(row._done, row._failed)
  row._lane = document.createElement("canvas")
  row._lane.className = "lane"
  row._lane.title = _("Its runs of the last 5 minutes")
  row._lane.setAttribute("aria-hidden", "true")
  row.append(row._badge, row._name, row._task, row._cpu, row._rss, row._age, row._ended, row._pid, row._lane)
  if (!model.can_act) return row
  row._choice = restartChoice(model, row)
  row._button = plainButton("restart", null, () => row._ask(row._choice.hidden))
  row._ask = (isAsked) => {
    row._choice._rest()
    row._choice.hidden = !isAsked
    row._lane.hidden = isAsked
    row._button.replaceChildren(icon(isAsked ? "close" : "restart"))
    row._button.setAttribute("aria-expanded", isAsked)
  }
  row._ask(false)
  row.append(row._choice, row._button)
  return row
}

function drawRow(row, w) {
  row.dataset.worker = w.id
  row._shown = w
  if (row._badge.className !== `badge ${w.status}`) {
    row._badge.className = `badge ${w.status}`
    row._mark.replaceChildren(icon(w.mark))
  }
  setText(row._name, w.id)
  row._name.title = w.node
  setText(row._task, w.task)
  row._task.title = w.task_full
  row._task._open(w.task_id)
  setText(row._cpu, w.cpu)
  setText(row._rss, w.rss)
  setText(row._pid, w.pid)
  setText(row._done, _("{n} done", {n: w.done}))
  setText(row._failed, w.failed ? _("{n} failed", {n: w.failed}) : "")
  if (row._choice) {
    row._choice._show(w.task_id)
    row._button.title = _("Restart {worker}", {worker: w.id})
    row._button.setAttribute("aria-label", row._button.title)
    row._button.disabled = w.status === "stopping"
    if (row._button.disabled) row._ask(false)
  }
  drawAge(row)
}

function drawAge(row) {
  const w = row._shown
  setText(row._word, w.silent_since ? _("silent {time}", {time: about(clock() - w.silent_since)}) : w.word)
  setText(row._age, w.started_at ? _("up {time}", {time: age(clock() - w.started_at)}) : "")
  row._age.title = w.started_at ? _("The worker started {when}", {when: moment(w.started_at)}) : ""
}

// All workers of a machine, a small button each, where they are too many for a row each at once.
function bandOf(show) {
  const band = h("div", "band"), node = h("span", "node"), cells = h("div", "cells")
  band.append(node, cells)
  band._draw = ({node: name, cells: all}, first) => {
    setText(node, name || _("This machine"))
    keyed(cells, all, ([id]) => id, ([id]) => {
      const cell = plainButton("cell", null, () => show(cell._place, id))
      cell.append(h("span", "", id.replace(/^.*?(\d+)$/, "$1").slice(-4)))
      return cell
    }, (cell, [id, status, word, place]) => {
      cell._place = place
      const isSeen = place >= first && place < first + PAGE
      cell.className = `cell ${status}${isSeen ? " seen" : ""}`
      const words = _("{worker}: {state}", {worker: id, state: word})
      if (cell.title !== words) { cell.title = words; cell.setAttribute("aria-label", words) }
    })
  }
  return band
}

export const WorkersCard = {
  render({model}) {
    const root = h("section", "card workers")
    const head = h("div", "head"), note = h("span", "count"), title = h("h2", "", _("Workers"))
    title.append(note)
    head.append(title)
    if (model.can_act) head.append(poolControls(model))
    const bands = h("div", "bands"), pages = h("div", "pager"), which = h("span", "which")
    const turn = (by) => () => show(model.first + by * PAGE)
    const back = plainButton("", _("‹ Before"), turn(-1)), on = plainButton("", _("After ›"), turn(1))
    pages.append(back, which, on)
    const columns = h("div", "columns"), list = h("div", "list"), empty = h("p", "empty", "")
    columns.setAttribute("aria-hidden", "true")
    for (const word of [_("State"), _("Worker"), _("Task"), _("CPU"), _("Memory"), _("Up"), _("Ended"), _("pid"), _("Last 5 minutes"), ""]) columns.append(h("span", "", word))
    list.setAttribute("role", "list")
    const foot = h("div", "decisions"), told = h("h2", "", _("What the pool decided about its size, and why"))
    const decided = h("div", "told")
    foot.append(told, decided)
    root.append(head, bands, pages, columns, list, empty, foot)
    const runs = new Map()
    let wanted = ""

    // Which rows are seen stands in the address; the one that was asked for gets the focus once it is there.
    function show(place, id = "") {
      const first = Math.floor(place / PAGE) * PAGE
      wanted = id
      go(addressOfPage(undefined, {from: first > 0 ? String(first + 1) : ""}))
      if (first === model.first) seek()
    }
    const follow = () => {
      if (paramInAddress("page") !== "workers") return
      const first = Math.max(0, Number.parseInt(paramInAddress("from") || "1", 10) - 1) || 0
      if (first !== model.first) model.send_msg({type: "show", first})
    }
    function seek() {
      const row = [...list.children].find((one) => one.dataset.worker === wanted)
      if (!row) return
      wanted = ""
      row.scrollIntoView({block: "center"})
      row.classList.add("found")
      setTimeout(() => row.classList.remove("found"), 2000)
      const link = row._task.href ? row._task : row._button
      if (focused()?.classList.contains("cell")) link?.focus({preventScroll: true})
    }

    const drawDecision = (node) => setText(node.firstChild, ago(node._at))
    const paint = () => {
      const now = clock(), style = getComputedStyle(root)
      const colours = Object.fromEntries(
        ["run", "ok", "fail", "cancel"].map((name) => [name, style.getPropertyValue(`--k-${name}`)]))
      for (const [worker, kept] of runs) {
        const late = kept.filter((r) => !r[1] || r[1] > now - LANE_S)
        if (late.length) runs.set(worker, late)
        else runs.delete(worker)
      }
      for (const row of list.children) paintLane(row._lane, runs.get(row.dataset.worker) || [], now, colours)
    }
    watch(model, ["rows", "bands", "first", "total", "note", "hint", "decisions"], () => {
      setText(note, model.note)
      keyed(decided, model.decisions, (d) => `${d.at} ${d.text}`, (d) => {
        const node = h("div", "decision")
        node._at = d.at
        node.append(h("span", "when"), h("span", "why", d.text))
        node.firstChild.title = moment(d.at)
        return node
      }, drawDecision)
      foot.hidden = model.decisions.length === 0
      keyed(bands, model.bands, (band) => band.node, () => bandOf(show), (node, band) => node._draw(band, model.first))
      bands.hidden = pages.hidden = model.bands.length === 0
      setText(which, _("{first} to {last} of {all}", {first: model.first + 1, last: model.first + model.rows.length, all: model.total}))
      back.disabled = model.first === 0
      on.disabled = model.first + model.rows.length >= model.total
      keyed(list, model.rows, (w) => w.id, () => makeRow(model), drawRow)
      empty.hidden = model.rows.length > 0
      columns.hidden = !empty.hidden
      setText(empty, model.hint)
      if (wanted) seek()
    })
    model.on("msg:custom", ({reset, ended, running}) => {
      if (reset) runs.clear()
      for (const list of runs.values()) while (list.length && list[list.length - 1][1] === null) list.pop()
      const put = ([worker, ...run]) => {
        if (!runs.has(worker)) runs.set(worker, [])
        runs.get(worker).push(run)
      }
      ended.forEach(put)
      running.forEach(put)
      paint()
    })
    everySecond(root, () => {
      paint()
      for (const row of list.children) drawAge(row)
      for (const node of decided.children) drawDecision(node)
    })
    addEventListener("popstate", follow)
    model.on("lifecycle:remove", () => removeEventListener("popstate", follow))
    follow()
    model.send_msg({type: "ready"})
    return root
  },
}

// Runs are [start, end or null, state]; each is at least 1.5 px wide, failed ones are hatched and full height.
function paintLane(canvas, runs, now, colours) {
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1
  if (!width) return
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale)
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale)
  const ctx = canvas.getContext("2d")
  ctx.setTransform(scale, 0, 0, scale, 0, 0)
  ctx.clearRect(0, 0, width, height)
  const x = (at) => width * (1 - (now - at) / LANE_S)
  for (const [start, end, state] of runs) {
    const from = Math.max(0, x(start)), to = end === null ? width : x(end)
    if (to < 0) continue
    const wide = Math.max(1.5, to - from - (to - from > 4 ? 1 : 0))
    ctx.globalAlpha = state === "ok" ? 0.75 : 1
    ctx.fillStyle = colours[state] || colours.cancel
    ctx.fillRect(from, 3, wide, height - 6)
    if (state === "fail" && wide > 5) hatch(ctx, from, wide, height)
  }
  ctx.globalAlpha = 1
}

function hatch(ctx, from, wide, height) {
  ctx.save()
  ctx.beginPath()
  ctx.rect(from, 3, wide, height - 6)
  ctx.clip()
  ctx.strokeStyle = "rgba(0, 0, 0, .35)"
  ctx.lineWidth = 1.5
  ctx.beginPath()
  for (let x = from - height; x < from + wide; x += 5) { ctx.moveTo(x, height); ctx.lineTo(x + height, 0) }
  ctx.stroke()
  ctx.restore()
}
