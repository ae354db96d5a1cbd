// The pool with its controls, and a row for each worker with its last five minutes.

import {everySecond, h, icon, keyed, PATIENCE_MS, plainButton, setText, sureButton, watch} from "./dom.js"
import {_} from "./language.js"
import {taskLink} from "./route.js"
import {about, age, ago, clock, moment} from "./time.js"

const LANE_S = 300

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
  const least = field("Least number of workers"), most = field("Largest number of workers")
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
  const send = (at_once) => { model.send_msg({type: "restart", worker_id: row.dataset.worker, at_once}); row._ask(false) }
  const after = plainButton("", _("Restart after its task"), () => send(false))
  const now = sureButton("", {
    rest: (b) => { b.textContent = _("Restart now") },
    ask: (b) => { b.textContent = _("Cancels its task: sure?") },
    act: () => send(true),
  })
  box.append(after, now)
  box._show = (isBusy) => {
    setText(after, isBusy ? "Restart after its task" : "Restart")
    now.hidden = !isBusy
  }
  return box
}

export const WorkersCard = {
  render({model}) {
    const root = h("section", "card workers")
    const head = h("div", "head"), note = h("span", "count"), title = h("h2", "", _("Workers"))
    title.append(note)
    head.append(title)
    if (model.can_act) head.append(poolControls(model))
    const list = h("div", "list"), empty = h("p", "empty", ""), foot = h("div", "decisions")
    foot.title = _("What the pool decided about its size, and why")
    root.append(head, list, empty, foot)
    const runs = new Map()

    const make = () => {
      const row = h("div", "row")
      row._badge = h("span", "badge")
      row._name = h("span", "name")
      row._task = taskLink(model, "task")
      row._cpu = h("span", "cpu")
      row._rss = h("span", "rss")
      row._age = h("span", "age")
      row._lane = document.createElement("canvas")
      row._lane.className = "lane"
      row._lane.title = _("Its runs of the last 5 minutes")
      row._lane.setAttribute("aria-hidden", "true")
      row.append(row._badge, row._name, row._task, row._cpu, row._rss, row._age, row._lane)
      if (!model.can_act) return row
      row._choice = restartChoice(model, row)
      row._button = plainButton("restart", null, () => row._ask(row._choice.hidden))
      row._ask = (isAsked) => {
        row._choice.hidden = !isAsked
        row._lane.hidden = row._age.hidden = isAsked
        row._button.replaceChildren(icon(isAsked ? "close" : "restart"))
        row._button.setAttribute("aria-expanded", isAsked)
      }
      row._ask(false)
      row.append(row._choice, row._button)
      return row
    }
    const draw = (row, w) => {
      row.dataset.worker = w.id
      row._shown = w
      row._badge.className = `badge ${w.status}`
      setText(row._name, w.id)
      row._name.title = w.about
      setText(row._task, w.task)
      row._task.title = w.task_full
      row._task._open(w.task_id)
      setText(row._cpu, w.cpu)
      setText(row._rss, w.rss)
      if (row._choice) {
        row._choice._show(w.task_id !== "")
        row._button.title = `Restart ${w.id}`
        row._button.setAttribute("aria-label", `Restart ${w.id}`)
        row._button.disabled = w.status === "stopping"
        if (row._button.disabled) row._ask(false)
      }
      drawAge(row)
    }
    const drawAge = (row) => {
      const w = row._shown
      setText(row._badge, w.silent_since ? `silent ${about(clock() - w.silent_since)}` : w.status)
      setText(row._age, w.started_at ? `up ${age(clock() - w.started_at)}` : "")
      row._age.title = w.started_at ? `The worker started ${moment(w.started_at)}` : ""
    }
    const drawDecision = (node) => setText(node.firstChild, ago(node._at))
    const paint = () => {
      const now = clock(), style = getComputedStyle(root)
      const colours = Object.fromEntries(
        ["run", "ok", "fail", "cancel"].map((name) => [name, style.getPropertyValue(`--k-${name}`)]))
      for (const row of list.children) {
        const kept = (runs.get(row.dataset.worker) || []).filter((r) => !r[1] || r[1] > now - LANE_S)
        runs.set(row.dataset.worker, kept)
        paintLane(row._lane, kept, now, colours)
      }
    }
    watch(model, ["rows", "note", "hint", "decisions"], () => {
      setText(note, model.note)
      keyed(foot, model.decisions, (d) => `${d.at} ${d.text}`, (d) => {
        const node = h("div", "decision")
        node._at = d.at
        node.append(h("span", "when"), h("span", "why", d.text))
        node.lastChild.title = d.text
        return node
      }, drawDecision)
      keyed(list, model.rows, (w) => w.id, make, draw)
      empty.hidden = model.rows.length > 0
      setText(empty, model.hint)
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
      for (const node of foot.children) drawDecision(node)
    })
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
