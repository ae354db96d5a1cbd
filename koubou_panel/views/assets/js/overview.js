// The Overview's cards: six numbers; what runs, waits and ended last; the first minute.

import {ask} from "./ask.js"
import {copyText, everySecond, h, icon, keyed, NS, once, plainButton, setAttr, setText, statusWord, sureButton, watch, watchTogether} from "./dom.js"
import {addFile, takesFiles} from "./drop.js"
import {_} from "./language.js"
import {addressOfPage, pageLink, taskLink} from "./route.js"
import {newKey} from "./run.js"
import {about, ago, clock, elapsed, moment} from "./time.js"

const PHONE = "(max-width: 700px)"

export function spark(values) {
  const svg = document.createElementNS(NS, "svg")
  svg.setAttribute("class", "spark")
  svg.setAttribute("viewBox", "0 0 59 20")
  svg.setAttribute("preserveAspectRatio", "none")
  svg.setAttribute("aria-hidden", "true")
  const area = document.createElementNS(NS, "path"), stroke = document.createElementNS(NS, "path")
  area.setAttribute("class", "area")
  stroke.setAttribute("class", "stroke")
  svg.append(area, stroke)
  svg._draw = (series) => {
    const known = series.filter((v) => v !== null)
    const top = Math.max(1, ...known)
    let d = "", first = null, last = null
    series.forEach((v, i) => {
      if (v === null) return
      const x = i + 60 - series.length
      d += `${first === null ? "M" : "L"}${x} ${(19 - 18 * v / top).toFixed(2)}`
      first = first === null ? x : first
      last = x
    })
    if (known.length < 2 || Math.max(...known) === 0) first = null
    setAttr(stroke, "d", first === null ? "" : d)
    setAttr(area, "d", first === null ? "" : `${d}L${last} 20L${first} 20Z`)
  }
  svg._draw(values || [])
  return svg
}

// -- tiles --

export const TileRow = {
  render({model}) {
    const root = h("div", "whole"), row = h("div", "tiles"), spoken = h("p", "spoken")
    spoken.setAttribute("role", "status")
    root.append(row, spoken)
    // Read out at most every ten seconds: numbers change too often to be heard.
    everySecond(root, () => setText(spoken, model.tiles.slice(0, 4).map((t) => `${t.value} ${t.label}`).join(", ")), 10000)
    watch(model, ["tiles"], () => keyed(row, model.tiles, (t) => t.key, (t) => {
      // The whole tile leads to what it counts.
      const node = pageLink("", () => addressOfPage(t.page, t.asked))
      node._value = h("span", "value")
      node._of = h("span", "of")
      node._sub = h("span", "sub")
      node._spark = spark([])
      const number = h("div", "number")
      number.append(node._value, node._of)
      node.append(h("span", "label", t.label), number, node._sub, node._spark)
      return node
    }, (node, t) => {
      setAttr(node, "class", `tile ${t.tone || ""}`)
      setText(node._value, t.value)
      setText(node._of, t.of || "")
      setText(node._sub, t.sub || "")
      setAttr(node, "title", t.hint || "")
    }))
    watch(model, ["sparks"], () => {
      for (const [key, node] of row._keyed) node._spark._draw(model.sparks[key] || [])
    })
    return root
  },
}

export function cancelButton(model, word = null) {
  const say = (button, isSure) => {
    const name = button._label, rest = name ? _("Cancel {name}", {name}) : _("Cancel")
    button.setAttribute("aria-label", isSure ? (name ? _("Confirm: cancel {name}", {name}) : _("Confirm: cancel")) : rest)
  }
  const button = sureButton("cancel", {
    rest: (b) => { b.replaceChildren(word ?? icon("fail")); b.title = _("Cancel"); say(b, false) },
    ask: (b) => { b.textContent = _("Cancel?"); say(b, true) },
    act: (b) => model.send_msg({type: "cancel", task_id: b._task}),
  })
  button._name = (label) => {
    if (label === button._label) return
    button._label = label
    say(button, button.classList.contains("sure"))
  }
  return button
}

// Determinate where the fraction is known, striped where only the fact of running is.
export function progressBar() {
  const bar = h("div", "progress"), fill = h("i", "fill")
  bar.setAttribute("role", "progressbar")
  bar.setAttribute("aria-label", _("Progress"))
  bar.append(fill)
  bar._show = (fraction) => {
    const known = fraction !== null
    bar.classList.toggle("unknown", !known)
    fill.style.width = known ? `${(100 * fraction).toFixed(1)}%` : ""
    if (known) bar.setAttribute("aria-valuenow", Math.round(100 * fraction))
    else bar.removeAttribute("aria-valuenow")
  }
  return bar
}

// `37 % · 12/80 · 3.1/s`, then the time left as this moment has it, then what the run says of itself.
export function progressText(t) {
  const left = t.eta_at ? t.eta_at - clock() : 0
  return [t.meta, left >= 1 ? _("{time} left", {time: about(left)}) : "", t.note].filter(Boolean).join(" · ")
}

export const RunningCard = {
  render({model}) {
    const root = h("section", "card running")
    const head = h("h2", "", _("Running now")), count = h("span", "count")
    head.append(count)
    const list = h("div", "list")
    const more = pageLink("more", () => addressOfPage("tasks", {q: "status:in_progress"}), "")
    const waitingHead = h("h2", "", _("Next")), waitingCount = h("span", "count"), waiting = h("div", "list waiting")
    waitingHead.append(waitingCount)
    const endedHead = h("h2", "", _("Ended last")), ended = h("div", "list ended")
    const empty = h("p", "empty")
    const scroll = h("div", "scroll")
    scroll.append(list, more, empty, waitingHead, waiting, endedHead, ended)
    root.append(head, scroll)

    const makeRow = () => {
      const row = h("div", "row")
      row._name = h("span", "name")
      row._time = h("span", "time")
      row._progress = progressBar()
      row._meta = h("span", "meta")
      row._uses = h("span", "uses")
      row._text = taskLink(model, "text")
      const top = h("span", "top"), below = h("span", "below")
      top.append(icon("run"), row._name, row._time)
      below.append(row._meta, row._uses)
      row._text.append(top, row._progress, below)
      row.append(row._text)
      if (model.can_act) row.append(row._cancel = cancelButton(model))
      return row
    }
    const drawRow = (row, t) => {
      row.dataset.task = t.id
      row._text._open(t.id)
      row._shown = t
      setText(row._name, t.label)
      row._name.title = t.full
      row._time.title = t.started_at ? _("since {time}", {time: moment(t.started_at)}) : ""
      row.classList.toggle("stopping", t.stopping)
      row._progress._show(t.fraction)
      setText(row._uses, t.uses)
      if (row._cancel) {
        row._cancel._task = t.id
        row._cancel._name(t.label)
        row._cancel.disabled = t.stopping
      }
      drawTime(row)
    }
    const drawTime = (row) => {
      const t = row._shown
      setText(row._time, t.started_at ? elapsed(clock() - t.started_at) : "")
      setText(row._meta, progressText(t))
      row._meta.title = row._meta.textContent
    }
    const makeWaiting = () => {
      const row = h("div", "row")
      row._top = taskLink(model, "top")
      row._name = h("span", "name")
      row._why = h("span", "why")
      row._top.append(icon("wait", statusWord("pending")), row._name, row._why)
      row.append(row._top)
      if (model.can_act) row.append(row._cancel = cancelButton(model))
      return row
    }
    const drawWaiting = (row, t) => {
      row._shown = t
      row._top._open(t.id)
      setText(row._name, t.label)
      row._name.title = t.full
      if (row._cancel) { row._cancel._task = t.id; row._cancel._name(t.label) }
      drawWhy(row)
    }
    const drawWhy = (row) => {
      const {not_before, why} = row._shown, wait = not_before ? not_before - clock() : 0
      setText(row._why, wait > 0 ? _("runs again in {time}", {time: about(Math.ceil(wait))}) : why)
      row._why.title = row._why.textContent
    }
    const makeEnded = (t) => {
      const row = h("div", "row")
      row._mark = icon(t.mark, statusWord(t.status))
      row._name = h("span", "name", t.label)
      row._name.title = t.full
      row._times = h("span", "times")
      row._why = h("span", "why", t.why)
      row._why.title = t.why
      row._time = h("span", "time")
      row._time.title = moment(t.finished_at)
      const top = taskLink(model, "top")
      top._open(t.id)
      top.append(row._mark, row._name, row._times, row._why, row._time)
      row.append(top)
      row._at = t.finished_at
      row._took = t.took
      row.classList.toggle("fail", t.mark === "fail")
      if (model.can_act && t.mark === "fail") {
        const retry = h("button", "retry", _("Retry"))
        retry.type = "button"
        retry.setAttribute("aria-label", _("Retry {name}", {name: t.label}))
        retry.onclick = once(() => model.send_msg({type: "retry", task_id: t.id}))
        row.append(retry)
      }
      return row
    }
    const showEnded = (row, t) => { setText(row._times, t.times > 1 ? `× ${t.times}` : ""); drawEnded(row) }
    const drawEnded = (row) => setText(row._time, `${row._took ? row._took + " · " : ""}${ago(row._at)}`)
    // A phone has room for what failed alone.
    const narrow = matchMedia(PHONE)
    const listEnded = () => {
      const shown = narrow.matches ? model.failed : model.ended
      keyed(ended, shown, (t) => t.id, makeEnded, showEnded)
      setText(endedHead, narrow.matches ? _("Failed last") : _("Ended last"))
      endedHead.hidden = !shown.length
    }
    narrow.addEventListener("change", listEnded)
    model.on("lifecycle:remove", () => narrow.removeEventListener("change", listEnded))
    const times = () => {
      for (const row of list.children) drawTime(row)
      for (const row of waiting.children) drawWhy(row)
      for (const row of ended.children) drawEnded(row)
    }
    watchTogether(model, ["rows", "waiting", "waiting_more", "ended", "failed", "more", "hint"], () => {
      setText(count, model.rows.length ? String(model.rows.length + model.more) : "")
      keyed(list, model.rows, (t) => t.id, makeRow, drawRow)
      setText(more, model.more ? _("+{n} more", {n: model.more}) : "")
      keyed(waiting, model.waiting, (t) => t.id, makeWaiting, drawWaiting)
      waitingHead.hidden = !model.waiting.length
      setText(waitingCount, model.waiting_more ? _("{n} of {all}", {n: model.waiting.length, all: model.waiting.length + model.waiting_more}) : "")
      listEnded()
      empty.hidden = model.rows.length > 0
      setText(empty, model.hint)
    })
    everySecond(root, times)
    return root
  },
}

// -- nothing has run yet: what to begin with --

function wayIn(label, text, note) {
  const way = h("div", "way"), code = h("code", "", text), copy = h("button", "copy")
  copy.type = "button"
  copy.setAttribute("aria-label", _("Copy the line for {label}", {label}))
  copy.append(icon("copy"), h("span", "", _("Copy")))
  copy.onclick = () => copyText(text, copy.lastChild)
  way.append(h("span", "label", label), code, copy)
  if (note) way.append(h("span", "note", note))
  return way
}

export const FirstMinute = {
  render({model}) {
    const root = h("section", "card first"), begin = h("form", "begin"), why = h("p", "why"), list = h("div", "ways")
    const field = h("input"), run = h("button", "primary", _("Run")), demo = plainButton("demo", _("Run a demo load"))
    field.name = "first-command"
    field.placeholder = _("Paste a command, such as: python train.py --epochs 3")
    field.setAttribute("aria-label", _("A command to run"))
    field.autocomplete = "off"
    field.spellcheck = false
    why.setAttribute("role", "alert")
    const act = async (button, kind, payload) => {
      button.disabled = true
      setText(why, "")
      try { await ask(model, kind, payload) } catch (error) { setText(why, error.message) }
      button.disabled = false
    }
    // Asked again after a cut, the same line is the same task.
    let key = newKey()
    field.oninput = () => { key = newKey() }
    begin.onsubmit = (event) => {
      event.preventDefault()
      if (field.value.trim()) act(run, "run", {command: field.value, key})
      else field.focus()
    }
    demo.onclick = () => act(demo, "demo")
    begin.append(field, run, h("span", "or", _("or")), demo)
    begin.hidden = !model.can_act
    const drop = h("p", "note", _("The file of a script can be dropped here, too: the catalogue then keeps it."))
    drop.hidden = !model.can_act
    if (model.can_act) takesFiles(root, addFile)
    root.append(
      h("h2", "", _("Nothing has run yet")),
      h("p", "", _("Start something: it shows up here by itself. The demo is a few small tasks with a label of their own; one click clears it.")),
      begin, drop, why, h("h3", "", _("Use it from…")), list,
    )
    // Which of the page's places are seen follows from this, so the page itself has the class.
    watch(model, ["shown"], () => document.documentElement.classList.toggle("k-fresh", model.shown))
    watch(model, ["lines"], () => list.replaceChildren(...model.lines.map((line) => wayIn(...line))))
    return root
  },
}
