// The cards of a page. Each draws what its Python half sends and sends back what is clicked, nothing more.
// Text from people and programs becomes text nodes, never HTML. All cards of a page share this module.

const NS = "http://www.w3.org/2000/svg"

function h(tag, cls = "", text = null) {
  const node = document.createElement(tag)
  if (cls) node.className = cls
  if (text !== null) node.textContent = text
  return node
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text
}

// Marks for states, drawn: fonts differ in which signs they have.
const MARKS = {
  run: "M5 3.5 L12.5 8 L5 12.5 Z",
  ok: "M3 8.5 L6.5 12 L13 4.5",
  fail: "M4 4 L12 12 M12 4 L4 12",
  cancel: "M4 12 L12 4 M8 2.5 A5.5 5.5 0 1 1 7.99 2.5",
  wait: "M8 3 A5 5 0 1 1 7.99 3",
  warn: "M8 2.5 L14 13 L2 13 Z M8 6.5 L8 9.5 M8 11 L8 11.2",
  retry: "M12.5 8 A4.5 4.5 0 1 1 10.8 4.5 M11 2 L11 5 L8 5",
  copy: "M6 6 L6 3 L13 3 L13 10 L10 10 M3 6 L10 6 L10 13 L3 13 Z",
}

function icon(name, title = "") {
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

// One element for each key, kept while its key stays: nothing is lost under a pointer or a focus.
function keyed(parent, items, keyOf, make, update) {
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

// -- time: the workshop's clock as this browser can tell it --

let skew_s = 0
const setClock = (now) => { if (now) skew_s = now - Date.now() / 1000 }
const clock = () => Date.now() / 1000 + skew_s

const two = (n) => String(n).padStart(2, "0")
function duration(s) {
  s = Math.max(0, s)
  if (s < 9.95) return `${s.toFixed(1)} s`
  s = Math.round(s)
  if (s < 60) return `${s} s`
  const m = Math.floor(s / 60), hours = Math.floor(m / 60)
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`
  return hours ? `${hours}:${two(m % 60)}:${two(s % 60)}` : `${m}:${two(s % 60)}`
}
function elapsed(s) {
  s = Math.max(0, Math.floor(s))
  const m = Math.floor(s / 60), hours = Math.floor(m / 60)
  return hours ? `${hours}:${two(m % 60)}:${two(s % 60)}` : `${m}:${two(s % 60)}`
}
function ago(at) {
  const s = clock() - at
  if (s < 5) return "now"
  if (s < 60) return `${Math.floor(s)} s ago`
  if (s < 3600) return `${Math.floor(s / 60)} min ago`
  return s < 86400 ? `${Math.floor(s / 3600)} h ago` : `${Math.floor(s / 86400)} d ago`
}
const moment = (at) => new Date(at * 1000).toLocaleString()

// Runs `draw` once a second while `node` is on the page and the page is seen.
function everySecond(node, draw, period_ms = 1000) {
  const timer = setInterval(() => {
    if (!node.isConnected && node._wasConnected) return clearInterval(timer)
    node._wasConnected = node.isConnected
    if (!document.hidden) draw()
  }, period_ms)
}

function watch(model, names, draw) {
  for (const name of names) model.on(name, draw)
  draw()
}

function spark(values) {
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
    stroke.setAttribute("d", first === null ? "" : d)
    area.setAttribute("d", first === null ? "" : `${d}L${last} 20L${first} 20Z`)
  }
  svg._draw(values || [])
  return svg
}

// -- the top bar: the pill tells the truth about both links, page to server and server to workshop --

const STALE_AFTER_S = 3.5

const TopBar = {
  render({model}) {
    const root = h("header", "bar")
    const brand = h("div", "brand")
    brand.append(h("span", "kanji", "工房"), h("span", "name", "Koubou"))
    const place = h("span", "place", model.place)
    const pill = h("span", "pill"), dot = h("i"), word = h("span")
    pill.setAttribute("role", "status")
    pill.append(dot, word)
    const theme = h("button", "theme")
    theme.type = "button"
    theme.setAttribute("aria-label", "Switch between dark and light")
    theme.title = "Dark or light"
    const half = document.createElementNS(NS, "svg")
    half.setAttribute("viewBox", "0 0 16 16")
    half.setAttribute("aria-hidden", "true")
    const ring = document.createElementNS(NS, "path"), fill = document.createElementNS(NS, "path")
    ring.setAttribute("d", "M8 2 A6 6 0 1 1 7.99 2")
    fill.setAttribute("d", "M8 2 A6 6 0 0 1 8 14 Z")
    fill.setAttribute("class", "fill")
    half.append(ring, fill)
    theme.append(half)
    theme.onclick = toggleTheme
    const toasts = h("div", "toasts")
    toasts.setAttribute("role", "alert")
    root.append(brand, place, h("span", "gap"), pill, theme, toasts)

    let beat = performance.now()
    const show = () => {
      const silent_s = (performance.now() - beat) / 1000
      const {status, lag_s} = model.freshness
      const age = silent_s + lag_s
      let state = status
      if (silent_s > STALE_AFTER_S) state = navigator.onLine === false ? "reconnecting" : "stale"
      if (state === "live" && age > STALE_AFTER_S) state = "stale"
      pill.className = `pill ${state}`
      const words = {
        live: `live ${age.toFixed(1)} s`,
        stale: `stale ${duration(age)}`,
        reconnecting: `reconnecting ${duration(age)}`,
        closed: "workshop stopped",
      }
      setText(word, words[state] || state)
      pill.title = state === "live"
        ? "What you see is this old."
        : "The workshop does not answer. The page goes on by itself when it is back."
    }
    model.on("freshness", () => {
      beat = performance.now()
      window.koubouBeat = beat
      setClock(model.freshness.at)
      show()
    })
    window.koubouBeat = beat
    everySecond(root, show, 500)
    show()

    model.on("msg:custom", ({toast, tone}) => {
      const note = h("div", `toast ${tone || ""}`)
      note.append(icon(tone === "bad" ? "warn" : "ok"), h("span", "", toast))
      toasts.append(note)
      setTimeout(() => note.remove(), 8000)
      while (toasts.children.length > 4) toasts.firstChild.remove()
    })
    let isLeaving = false
    const leave = () => { isLeaving = true }, enter = () => { isLeaving = false }
    addEventListener("pagehide", leave)
    addEventListener("pageshow", enter)
    const tellHidden = () => { if (!isLeaving) model.send_msg({type: "hidden", hidden: document.hidden}) }
    document.addEventListener("visibilitychange", tellHidden)
    model.on("lifecycle:remove", () => {
      document.removeEventListener("visibilitychange", tellHidden)
      removeEventListener("pagehide", leave)
      removeEventListener("pageshow", enter)
    })
    if (document.hidden) tellHidden()
    return root
  },
}

function toggleTheme() {
  const html = document.documentElement
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"
  const next = (html.dataset.theme || system) === "dark" ? "light" : "dark"
  if (next === system) {
    delete html.dataset.theme
    localStorage.removeItem("koubou-theme")
  } else {
    html.dataset.theme = next
    localStorage.setItem("koubou-theme", next)
  }
  repaintFigures()
}

// Figures read the theme's variables when they paint, so a new theme asks them to paint.
function repaintFigures() {
  requestAnimationFrame(() => {
    for (const view of Bokeh.index.query((v) => typeof v.request_repaint === "function")) view.request_repaint()
  })
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaintFigures)

// -- attention: nothing when all is well --

const AttentionStrip = {
  render({model}) {
    const root = h("div", "attention")
    root.setAttribute("role", "status")
    watch(model, ["items"], () => {
      root.hidden = model.items.length === 0
      keyed(root, model.items, (i) => i.key, (i) => {
        const node = h("span", `notice ${i.tone}`)
        node.append(icon("warn"), h("span"))
        return node
      }, (node, i) => { node.className = `notice ${i.tone}`; setText(node.lastChild, i.text) })
    })
    return root
  },
}

// -- tiles --

const TileRow = {
  render({model}) {
    const root = h("div", "whole"), row = h("div", "tiles"), spoken = h("p", "spoken")
    spoken.setAttribute("role", "status")
    root.append(row, spoken)
    // Read out at most every ten seconds: numbers change too often to be heard.
    everySecond(root, () => setText(spoken, model.tiles.slice(0, 4).map((t) => `${t.value} ${t.label}`).join(", ")), 10000)
    watch(model, ["tiles"], () => keyed(row, model.tiles, (t) => t.key, (t) => {
      const node = h("div")
      node._value = h("span", "value")
      node._of = h("span", "of")
      node._sub = h("span", "sub")
      node._spark = spark([])
      const number = h("div", "number")
      number.append(node._value, node._of)
      node.append(h("span", "label", t.label), number, node._sub, node._spark)
      return node
    }, (node, t) => {
      node.className = `tile ${t.tone || ""}`
      setText(node._value, t.value)
      setText(node._of, t.of || "")
      setText(node._sub, t.sub || "")
      node.title = t.hint || ""
      node._spark._draw(t.spark || [])
    }))
    return root
  },
}

// -- what runs, and what ended last --

const CONFIRM_MS = 4000

function cancelButton(model) {
  const button = h("button", "cancel")
  button.type = "button"
  const name = () => {
    const verb = button.classList.contains("sure") ? "Confirm: cancel" : "Cancel"
    button.setAttribute("aria-label", button._label ? `${verb} ${button._label}` : verb)
  }
  const rest = () => {
    button.classList.remove("sure")
    button.replaceChildren(icon("fail"))
    button.title = "Cancel"
    name()
  }
  button._name = (label) => {
    if (label === button._label) return
    button._label = label
    name()
  }
  rest()
  button.onclick = (event) => {
    event.stopPropagation()
    if (!button.classList.contains("sure")) {
      button.classList.add("sure")
      button.textContent = "Cancel?"
      name()
      button._timer = setTimeout(rest, CONFIRM_MS)
      return
    }
    clearTimeout(button._timer)
    rest()
    model.send_msg({type: "cancel", task_id: button._task})
  }
  return button
}

const RunningCard = {
  render({model}) {
    const root = h("section", "card running")
    const head = h("h2", "", "Running now"), count = h("span", "count")
    head.append(count)
    const list = h("div", "list"), more = h("div", "more")
    const endedHead = h("h2", "", "Ended last"), ended = h("div", "list ended")
    const empty = h("p", "empty")
    const scroll = h("div", "scroll")
    scroll.append(list, more, empty, endedHead, ended)
    root.append(head, scroll)

    const makeRow = () => {
      const row = h("div", "row")
      row._mark = icon("run")
      row._name = h("span", "name")
      row._time = h("span", "time")
      row._bar = h("i", "fill")
      row._meta = h("span", "meta")
      const bar = h("div", "progress")
      bar.setAttribute("role", "progressbar")
      bar.append(row._bar)
      row._progress = bar
      const text = h("div", "text"), top = h("div", "top")
      top.append(row._mark, row._name, row._time)
      text.append(top, bar, row._meta)
      row.append(text)
      if (model.can_act) row.append(row._cancel = cancelButton(model))
      return row
    }
    const drawRow = (row, t) => {
      row.dataset.task = t.id
      setText(row._name, t.label)
      row._name.title = t.full
      row._started = t.started_at
      row._time.title = t.started_at ? `since ${moment(t.started_at)}` : ""
      row._eta = t.eta_at
      row.classList.toggle("stopping", t.stopping)
      const known = t.fraction !== null
      row._progress.classList.toggle("unknown", !known)
      row._bar.style.width = known ? `${(100 * t.fraction).toFixed(1)}%` : ""
      if (known) row._progress.setAttribute("aria-valuenow", Math.round(100 * t.fraction))
      else row._progress.removeAttribute("aria-valuenow")
      setText(row._meta, t.meta)
      if (row._cancel) {
        row._cancel._task = t.id
        row._cancel._name(t.label)
        row._cancel.disabled = t.stopping
      }
      drawTime(row)
    }
    const drawTime = (row) => {
      const left = row._eta ? row._eta - clock() : 0
      const time = row._started ? elapsed(clock() - row._started) : ""
      setText(row._time, left > 1 ? `${time} · ${elapsed(left)} left` : time)
    }
    const makeEnded = (t) => {
      const row = h("div", "row")
      row._mark = icon(t.mark, t.status)
      row._name = h("span", "name", t.label)
      row._name.title = t.full
      row._times = h("span", "times")
      row._why = h("span", "why", t.why)
      row._why.title = t.why
      row._time = h("span", "time")
      row._time.title = moment(t.finished_at)
      const top = h("div", "top")
      top.append(row._mark, row._name, row._times, row._why, row._time)
      row.append(top)
      row._at = t.finished_at
      row._took = t.took
      row.classList.toggle("fail", t.mark === "fail")
      if (model.can_act && t.mark === "fail") {
        const retry = h("button", "retry", "Retry")
        retry.type = "button"
        retry.setAttribute("aria-label", `Retry ${t.label}`)
        retry.onclick = () => model.send_msg({type: "retry", task_id: t.id})
        row.append(retry)
      }
      return row
    }
    const showEnded = (row, t) => { setText(row._times, t.times > 1 ? `× ${t.times}` : ""); drawEnded(row) }
    const drawEnded = (row) => setText(row._time, `${row._took ? row._took + " · " : ""}${ago(row._at)}`)
    const times = () => {
      for (const row of list.children) drawTime(row)
      for (const row of ended.children) drawEnded(row)
    }
    watch(model, ["rows", "ended", "more", "hint"], () => {
      setText(count, model.rows.length ? String(model.rows.length + model.more) : "")
      keyed(list, model.rows, (t) => t.id, makeRow, drawRow)
      setText(more, model.more ? `+${model.more} more` : "")
      keyed(ended, model.ended, (t) => t.id, makeEnded, showEnded)
      endedHead.hidden = !model.ended.length
      empty.hidden = model.rows.length > 0
      setText(empty, model.hint)
    })
    everySecond(root, times)
    return root
  },
}

// -- workers: one line each, and its last five minutes --

const LANE_S = 300

const WorkersCard = {
  render({model}) {
    const root = h("section", "card workers")
    const head = h("h2", "", "Workers"), note = h("span", "count"), axis = h("span", "axis")
    head.append(note, axis)
    setText(axis, "last 5 minutes")
    const list = h("div", "list"), empty = h("p", "empty", "")
    root.append(head, list, empty)
    const runs = new Map()

    const make = () => {
      const row = h("div", "row")
      row._badge = h("span", "badge")
      row._name = h("span", "name")
      row._task = h("span", "task")
      row._pid = h("span", "pid")
      row._cpu = h("span", "cpu")
      row._rss = h("span", "rss")
      row._lane = document.createElement("canvas")
      row._lane.className = "lane"
      row._lane.setAttribute("aria-hidden", "true")
      row.append(row._badge, row._name, row._task, row._pid, row._cpu, row._rss, row._lane)
      return row
    }
    const draw = (row, w) => {
      row.dataset.worker = w.id
      row._badge.className = `badge ${w.status}`
      setText(row._badge, w.status)
      setText(row._name, w.id)
      setText(row._task, w.task)
      row._task.title = w.task_full
      setText(row._pid, w.pid)
      setText(row._cpu, w.cpu)
      setText(row._rss, w.rss)
    }
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
    watch(model, ["rows", "note", "hint"], () => {
      setText(note, model.note)
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
    everySecond(root, paint)
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

// -- live output --

const KEEP_LINES = 200

const OutputCard = {
  render({model}) {
    const root = h("section", "card output")
    const head = h("h2", "", "Live output"), chips = h("div", "chips")
    chips.setAttribute("role", "group")
    chips.setAttribute("aria-label", "Show the output of")
    head.append(chips)
    const log = h("div", "log"), open = h("div", "open"), empty = h("p", "empty")
    log.tabIndex = 0
    log.setAttribute("role", "log")
    log.setAttribute("aria-live", "off")
    log.setAttribute("aria-label", "Live output")
    const newer = h("button", "newer", "")
    newer.type = "button"
    newer.hidden = true
    root.append(head, log, open, newer, empty)

    let only = null, missed = 0, hovered = false
    let sources = []
    const names = new Map()
    const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 24
    const toEnd = () => { log.scrollTop = log.scrollHeight; missed = 0; newer.hidden = true }
    newer.onclick = toEnd
    log.addEventListener("scroll", () => { if (atEnd()) { missed = 0; newer.hidden = true } })
    log.addEventListener("mouseenter", () => { hovered = true })
    log.addEventListener("mouseleave", () => { hovered = false; if (missed && missed < KEEP_LINES && stuck) toEnd() })
    let stuck = true

    const line = (task, runs) => {
      const node = h("div", "line")
      const source = names.get(task)
      node.dataset.name = source ? source.label : ""
      const tag = h("span", `tag t${source ? source.hue : 0}`, source ? source.tag : "")
      node.append(tag)
      const text = h("span", "text")
      for (const [style, piece] of runs) text.append(style ? h("span", style, piece) : document.createTextNode(piece))
      node.append(text)
      node.hidden = only !== null && only !== node.dataset.name
      return node
    }
    const choose = (name) => {
      only = name
      root.classList.toggle("one", only !== null || sources.length < 2)
      for (const node of [...log.children, ...open.children]) node.hidden = only !== null && only !== node.dataset.name
      drawChips()
      toEnd()
    }
    const drawChips = () => {
      // One for each name: runs of the same work share it, and it is quiet when all of them have ended.
      const named = new Map()
      for (const s of sources) named.set(s.label, {...s, quiet: s.quiet && (named.get(s.label)?.quiet ?? true)})
      const all = named.size > 1 ? [{label: "all", hue: 0, all: true}, ...named.values()] : []
      keyed(chips, all, (s) => (s.all ? " all" : s.label), (s) => {
        const chip = h("button", "chip", s.label)
        chip.type = "button"
        chip.onclick = () => choose(s.all ? null : s.label)
        return chip
      }, (chip, s) => {
        const on = s.all ? only === null : only === s.label
        chip.className = `chip t${s.hue}`
        chip.classList.toggle("on", on)
        chip.classList.toggle("quiet", s.quiet === true)
        chip.setAttribute("aria-pressed", on)
        chip.title = s.full || ""
      })
    }
    model.on("msg:custom", (message) => {
      stuck = atEnd()
      if (message.reset) log.replaceChildren()
      sources = message.sources
      names.clear()
      for (const s of sources) names.set(s.id, s)
      if (only !== null && !sources.some((s) => s.label === only)) choose(null)
      const batch = document.createDocumentFragment()
      for (const [task, runs] of message.lines) batch.append(line(task, runs))
      log.append(batch)
      while (log.children.length > KEEP_LINES) log.firstChild.remove()
      open.replaceChildren(...message.open.map(([task, runs]) => line(task, runs)))
      open.hidden = !message.open.length
      empty.hidden = log.children.length > 0 || message.open.length > 0
      const talking = new Set([...log.children, ...open.children].map((node) => node.dataset.name))
      root.classList.toggle("one", only !== null || talking.size < 2)
      setText(empty, message.hint)
      drawChips()
      if (stuck && !hovered) toEnd()
      else if (message.lines.length) {
        missed = Math.min(KEEP_LINES, missed + message.lines.length)
        newer.hidden = false
        setText(newer, `${missed} newer ↓`)
      }
    })
    model.send_msg({type: "ready"})
    return root
  },
}

// -- a chart's heading: what each colour is, and its value now --

const ChartHead = {
  render({model}) {
    const root = h("div", "charthead")
    const title = h("h2"), items = h("div", "legend"), empty = h("p", "nothing")
    root.append(title, items, empty)
    watch(model, ["title", "items", "empty"], () => {
      setText(title, model.title)
      setText(empty, model.empty)
      keyed(items, model.items, (i) => i.label, (i) => {
        const node = h("span", "key"), swatch = h("i", i.shape || "line")
        swatch.style.setProperty("--c", i.colour)
        node.append(swatch, h("span", "", i.label), h("b"))
        return node
      }, (node, i) => { setText(node.lastChild, i.value); node.lastChild.hidden = !i.value })
    })
    return root
  },
}

// -- nothing has run yet: what to type --

const FirstMinute = {
  render({model}) {
    const root = h("section", "card first")
    // Which of the page's places are seen follows from this, so the page itself has the class.
    watch(model, ["shown"], () => document.documentElement.classList.toggle("k-fresh", model.shown))
    watch(model, ["lines"], () => {
      root.replaceChildren(h("h2", "", "Nothing has run yet"), h("p", "", "Start something with one of these lines. It shows up here by itself."))
      const list = h("div", "ways")
      for (const [label, text, note] of model.lines) {
        const way = h("div", "way"), code = h("code", "", text), copy = h("button", "copy")
        copy.type = "button"
        copy.setAttribute("aria-label", `Copy the line for ${label}`)
        copy.append(icon("copy"), h("span", "", "Copy"))
        copy.onclick = () => copyText(text, copy.lastChild)
        way.append(h("span", "label", label), code, copy)
        if (note) way.append(h("span", "note", note))
        list.append(way)
      }
      root.append(list)
    })
    return root
  },
}

async function copyText(text, label) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    const area = h("textarea", "", text)
    document.body.append(area)
    area.select()
    document.execCommand("copy")
    area.remove()
  }
  label.textContent = "Copied"
  setTimeout(() => { label.textContent = "Copy" }, 1500)
}

export default {TopBar, AttentionStrip, TileRow, RunningCard, WorkersCard, OutputCard, ChartHead, FirstMinute}
