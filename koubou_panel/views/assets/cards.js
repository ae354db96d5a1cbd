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
  restart: "M3.5 8 A4.5 4.5 0 1 0 5.2 4.5 M5 2 L5 5 L8 5",
  close: "M4 4 L12 12 M12 4 L4 12",
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
const about = (s) => (s < 60 ? `${Math.round(s)} s` : duration(s))
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
// How long something has been there: seconds are told in its first minute only.
function age(s) {
  if (s < 60) return `${Math.max(0, Math.floor(s))} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  return s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min` : `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`
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

// -- opening a task: its address is the page's own with `?task=ID` --

const taskInAddress = () => new URL(location.href).searchParams.get("task") || ""

function addressOf(id) {
  const url = new URL(location.href)
  if (id) url.searchParams.set("task", id)
  else url.searchParams.delete("task")
  return url.pathname + url.search
}

function openTask(model, id) {
  if (taskInAddress() !== id) history.pushState(null, "", addressOf(id))
  model.send_msg({type: "open", task_id: id})
}

// A real link, so that a task can be opened in a tab of its own too.
function taskLink(model, cls) {
  const link = h("a", cls)
  link._open = (id) => {
    if (link._task === id) return
    link._task = id
    if (id) link.href = addressOf(id)
    else link.removeAttribute("href")
  }
  link.onclick = (event) => {
    if (!link._task || event.metaKey || event.ctrlKey || event.shiftKey) return
    event.preventDefault()
    openTask(model, link._task)
  }
  return link
}

// -- the pages: the address is the page's own, and `?page=NAME` for all but the Overview --

const PAGES = [["", "Overview"], ["services", "Services"]]
const pageInAddress = () => new URL(location.href).searchParams.get("page") || ""

function pageLinks() {
  const nav = h("nav", "pages")
  nav.setAttribute("aria-label", "Pages")
  const show = () => {
    const here = pageInAddress()
    document.documentElement.classList.toggle("k-on-services", here === "services")
    for (const link of nav.children) {
      if (link._page === here) link.setAttribute("aria-current", "page")
      else link.removeAttribute("aria-current")
      const url = new URL(location.href)
      url.searchParams.delete("task")
      if (link._page) url.searchParams.set("page", link._page)
      else url.searchParams.delete("page")
      link.href = url.pathname + url.search
    }
    // What was not shown has had no size to draw itself in.
    requestAnimationFrame(() => dispatchEvent(new Event("resize")))
  }
  for (const [page, word] of PAGES) {
    const link = h("a", "", word)
    link._page = page
    link.onclick = (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return
      event.preventDefault()
      if (pageInAddress() !== page) history.pushState(null, "", link.href)
      dispatchEvent(new PopStateEvent("popstate"))
    }
    nav.append(link)
  }
  addEventListener("popstate", show)
  show()
  return nav
}

// -- the top bar: the pill tells the truth about both links, page to server and server to workshop --

const STALE_AFTER_S = 3.5

const TopBar = {
  render({model}) {
    const root = h("header", "bar")
    const brand = h("div", "brand")
    brand.append(h("span", "kanji", "工房"), h("span", "name", "Koubou"))
    const label = h("span", "label", model.label), place = h("span", "place", model.place)
    label.hidden = !model.label
    const pages = pageLinks()
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
    root.append(brand, label, pages, place, h("span", "gap"), pill, theme, toasts)

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

// A button that acts on the second click: the first turns it into the question.
function sureButton(cls, {rest, ask, act}) {
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

function cancelButton(model, word = null) {
  const say = (button, verb) => button.setAttribute("aria-label", button._label ? `${verb} ${button._label}` : verb)
  const button = sureButton("cancel", {
    rest: (b) => { b.replaceChildren(word ?? icon("fail")); b.title = "Cancel"; say(b, "Cancel") },
    ask: (b) => { b.textContent = "Cancel?"; say(b, "Confirm: cancel") },
    act: (b) => model.send_msg({type: "cancel", task_id: b._task}),
  })
  button._name = (label) => {
    if (label === button._label) return
    button._label = label
    say(button, button.classList.contains("sure") ? "Confirm: cancel" : "Cancel")
  }
  return button
}

// Determinate where the fraction is known, striped where only the fact of running is.
function progressBar() {
  const bar = h("div", "progress"), fill = h("i", "fill")
  bar.setAttribute("role", "progressbar")
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
function progressText(t) {
  const left = t.eta_at ? t.eta_at - clock() : 0
  return [t.meta, left >= 1 ? `${about(left)} left` : "", t.note].filter(Boolean).join(" · ")
}

const RunningCard = {
  render({model}) {
    const root = h("section", "card running")
    const head = h("h2", "", "Running now"), count = h("span", "count")
    head.append(count)
    const list = h("div", "list"), more = h("div", "more")
    const waitingHead = h("h2", "", "Next"), waitingCount = h("span", "count"), waiting = h("div", "list waiting")
    waitingHead.append(waitingCount)
    const endedHead = h("h2", "", "Ended last"), ended = h("div", "list ended")
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
      row._time.title = t.started_at ? `since ${moment(t.started_at)}` : ""
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
      row._top.append(icon("wait", "pending"), row._name, row._why)
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
      setText(row._why, wait > 0 ? `runs again in ${about(Math.ceil(wait))}` : why)
      row._why.title = row._why.textContent
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
      const top = taskLink(model, "top")
      top._open(t.id)
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
      for (const row of waiting.children) drawWhy(row)
      for (const row of ended.children) drawEnded(row)
    }
    watch(model, ["rows", "waiting", "waiting_more", "ended", "more", "hint"], () => {
      setText(count, model.rows.length ? String(model.rows.length + model.more) : "")
      keyed(list, model.rows, (t) => t.id, makeRow, drawRow)
      setText(more, model.more ? `+${model.more} more` : "")
      keyed(waiting, model.waiting, (t) => t.id, makeWaiting, drawWaiting)
      waitingHead.hidden = !model.waiting.length
      setText(waitingCount, model.waiting_more ? `${model.waiting.length} of ${model.waiting.length + model.waiting_more}` : "")
      keyed(ended, model.ended, (t) => t.id, makeEnded, showEnded)
      endedHead.hidden = !model.ended.length
      empty.hidden = model.rows.length > 0
      setText(empty, model.hint)
    })
    everySecond(root, times)
    return root
  },
}

// -- workers: the pool and its controls, a row for each worker with its last five minutes --

const LANE_S = 300
const PATIENCE_MS = 2500

function plainButton(cls, text, act) {
  const button = h("button", cls, text)
  button.type = "button"
  button.onclick = act
  return button
}

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
  const scale = h("button", "scale", "Scale")
  scale.type = "submit"
  const act = (type) => () => model.send_msg({type})
  const pause = plainButton("", "Pause", act("pause")), resume = plainButton("resume", "Resume", act("resume"))
  pause.title = "Start nothing new; what runs goes on"
  const drain = sureButton("", {
    rest: (b) => { b.textContent = "Drain"; b.title = "Take no new work and start none; what runs goes on" },
    ask: (b) => { b.textContent = "Refuse new work?" },
    act: () => model.send_msg({type: "drain"}),
  })
  box.append(h("span", "word", "from"), least, h("span", "word", "to"), most, scale, pause, resume, drain)
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
  const after = plainButton("", "Restart after its task", () => send(false))
  const now = sureButton("", {
    rest: (b) => { b.textContent = "Restart now" },
    ask: (b) => { b.textContent = "Cancels its task: sure?" },
    act: () => send(true),
  })
  box.append(after, now)
  box._show = (isBusy) => {
    setText(after, isBusy ? "Restart after its task" : "Restart")
    now.hidden = !isBusy
  }
  return box
}

const WorkersCard = {
  render({model}) {
    const root = h("section", "card workers")
    const head = h("div", "head"), note = h("span", "count"), title = h("h2", "", "Workers")
    title.append(note)
    head.append(title)
    if (model.can_act) head.append(poolControls(model))
    const list = h("div", "list"), empty = h("p", "empty", ""), foot = h("div", "decisions")
    foot.title = "What the pool decided about its size, and why"
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
      row._lane.title = "Its runs of the last 5 minutes"
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

// -- live output --

const KEEP_LINES = 200

const OutputCard = {
  render({model}) {
    const root = h("section", "card output")
    const head = h("h2", "", model.title), chips = h("div", "chips")
    chips.setAttribute("role", "group")
    chips.setAttribute("aria-label", "Show the output of")
    head.append(chips)
    const log = h("div", "log"), lines = h("div", "lines"), open = h("div", "open"), empty = h("p", "empty")
    log.tabIndex = 0
    log.setAttribute("role", "log")
    log.setAttribute("aria-live", "off")
    log.setAttribute("aria-label", model.title)
    const newer = h("button", "newer", "")
    newer.type = "button"
    newer.hidden = true
    log.append(lines, open)
    root.append(head, log, newer, empty)

    let only = null, missed = 0, follows = true, hovered = false, size = "", place = 0
    let sources = []
    const names = new Map()
    const sizeNow = () => `${log.clientWidth} ${log.clientHeight} ${log.scrollHeight}`
    const note = () => { size = sizeNow(); place = log.scrollTop }
    const toEnd = () => { follows = true; log.scrollTop = log.scrollHeight; missed = 0; newer.hidden = true; note() }
    // Only the reader ends the following: the place is of their choice where it has changed and no size has.
    const look = () => {
      if (log.scrollHeight - log.scrollTop - log.clientHeight < 24) toEnd()
      else if (size === sizeNow() && log.scrollTop !== place) follows = false
      if (follows && !hovered) toEnd()
      note()
    }
    newer.onclick = toEnd
    log.addEventListener("scroll", look)
    log.addEventListener("pointerenter", (event) => { hovered = event.pointerType === "mouse" })
    log.addEventListener("pointerleave", () => { hovered = false; if (follows) toEnd() })
    const resized = new ResizeObserver(look)
    resized.observe(log)
    model.on("lifecycle:remove", () => resized.disconnect())

    const line = (task, runs) => {
      const node = h("div", "line")
      const source = names.get(task)
      node.dataset.task = task
      const tag = h("span", `tag t${source ? source.hue : 0}`, source ? source.tag : "")
      node.append(tag)
      const text = h("span", "text")
      for (const [style, piece] of runs) text.append(style ? h("span", style, piece) : document.createTextNode(piece))
      node.append(text)
      node.hidden = only !== null && only !== task
      return node
    }
    const choose = (task) => {
      only = task
      root.classList.toggle("one", only !== null || sources.length < 2)
      for (const node of [...lines.children, ...open.children]) node.hidden = only !== null && only !== node.dataset.task
      drawChips()
      toEnd()
    }
    const drawChips = () => {
      const all = sources.length > 1 ? [{id: null, label: "all", hue: 0}, ...sources] : []
      keyed(chips, all, (s) => s.id, (s) => plainButton("chip", s.label, () => choose(s.id)), (chip, s) => {
        const on = only === s.id
        setText(chip, s.label)
        chip.className = `chip t${s.hue}`
        chip.classList.toggle("on", on)
        chip.classList.toggle("quiet", s.quiet === true)
        chip.setAttribute("aria-pressed", on)
        chip.title = s.full || ""
      })
    }
    model.on("msg:custom", (message) => {
      look()
      if (message.reset) { lines.replaceChildren(); follows = true }
      sources = message.sources
      names.clear()
      for (const s of sources) names.set(s.id, s)
      if (only !== null && !names.has(only)) { const had = follows; choose(null); follows = had }
      // A name that was the only one of its kind may be so no more.
      for (const node of lines.children) {
        const source = names.get(node.dataset.task)
        if (source) setText(node.firstChild, source.tag)
      }
      const batch = document.createDocumentFragment()
      for (const [task, runs] of message.lines) batch.append(line(task, runs))
      lines.append(batch)
      while (lines.children.length > KEEP_LINES) lines.firstChild.remove()
      open.replaceChildren(...message.open.map(([task, runs]) => line(task, runs)))
      open.hidden = !message.open.length
      empty.hidden = lines.children.length > 0 || message.open.length > 0
      const talking = new Set([...lines.children, ...open.children].map((node) => node.dataset.task))
      root.classList.toggle("one", only !== null || talking.size < 2)
      setText(empty, message.hint)
      drawChips()
      if (follows && !hovered) toEnd()
      else if (message.lines.length) {
        missed = Math.min(KEEP_LINES, missed + message.lines.length)
        newer.hidden = false
        setText(newer, `${missed} newer ↓`)
      }
      note()
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

// -- one task: its head, and a line to type for it --

const TaskCard = {
  render({model}) {
    const root = h("section", "taskcard")
    const head = h("header"), mark = h("span", "mark"), name = h("h3"), close = plainButton("close", null, () => openTask(model, ""))
    close.append(icon("close"))
    close.setAttribute("aria-label", "Close this task's view")
    close.title = "Close (Esc)"
    head.append(mark, name, close)
    const words = h("p", "words"), waits = h("p", "waits"), bar = progressBar(), meta = h("p", "meta")
    words.setAttribute("role", "status")
    const command = h("code", "command"), facts = h("dl", "facts"), trace = h("pre", "trace")
    const cancel = cancelButton(model, "Cancel")
    const retry = plainButton("retry", "Run again", () => model.send_msg({type: "retry", task_id: model.task.id}))
    const id = h("span", "id"), foot = h("div", "actions")
    foot.append(id)
    if (model.can_act) foot.append(retry, cancel)
    root.append(head, words, waits, bar, meta, command, facts, trace, foot)

    const drawTimes = () => {
      const t = model.task
      if (!t.id) return
      const wait = t.not_before ? t.not_before - clock() : 0
      const since = t.status === "pending" ? `, submitted ${ago(t.created_at)}` : t.finished_at ? `, ${ago(t.finished_at)}` : ""
      const run = t.started_at && t.status === "in_progress" ? ` for ${elapsed(clock() - t.started_at)}` : ""
      setText(words, (wait > 0 ? `runs again in ${about(Math.ceil(wait))}` : t.words) + run + since)
      words.title = `submitted ${moment(t.created_at)}`
      setText(meta, progressText(t))
      meta.hidden = bar.hidden || !meta.textContent
    }
    let opener = null, shown
    const draw = () => {
      const t = model.task, isOpen = t.id !== undefined
      if (shown !== t.id) {
        if (shown !== undefined) setTimeout(forgetFigures, FORGET_MS)
        cancel._rest()  // what was asked about one task is no answer for another
      }
      shown = t.id
      const html = document.documentElement, wasOpen = html.classList.contains("k-has-task")
      html.classList.toggle("k-has-task", isOpen)
      if (isOpen && !wasOpen) {
        opener = focused()
        document.querySelector(".k-drawer").focus({preventScroll: true})
        document.querySelector(".k-drawer").scrollTop = 0
        dispatchEvent(new Event("resize"))
      }
      if (!isOpen) {
        if (wasOpen && opener?.isConnected) opener.focus({preventScroll: true})
        return
      }
      root.dataset.task = t.id
      if (mark._is !== t.mark) mark.replaceChildren(icon(mark._is = t.mark, t.status))
      setText(name, t.label)
      root.className = `taskcard is-${t.mark}`
      keyed(waits, t.waits_for, (w) => w.id, (w) => {
        const link = taskLink(model, "waited")
        link._open(w.id)
        return link
      }, (link, w) => setText(link, w.label))
      waits.hidden = !t.waits_for.length
      bar.hidden = !t.has_progress || (t.finished_at !== null && t.fraction === null)
      bar._show(t.fraction)
      root.classList.toggle("stopping", t.stopping)
      setText(command, t.command)
      command.hidden = !t.command
      keyed(facts, t.facts, ([label]) => label, ([label]) => {
        const pair = h("div")
        pair.append(h("dt", "", label), h("dd"))
        return pair
      }, (pair, [, text]) => setText(pair.lastChild, text))
      trace.hidden = !t.traceback
      if (trace.textContent !== t.traceback) {
        trace.textContent = t.traceback
        trace.scrollTop = trace.scrollHeight  // the error itself stands last
      }
      setText(id, t.id)
      const isOver = t.finished_at !== null
      cancel.hidden = isOver
      cancel.disabled = t.stopping
      cancel._task = t.id
      cancel._name(t.label)
      retry.hidden = !isOver
      drawTimes()
    }
    const fromAddress = () => model.send_msg({type: "open", task_id: taskInAddress()})
    const escape = (event) => {
      if (event.key === "Escape" && document.documentElement.classList.contains("k-has-task")) openTask(model, "")
    }
    watch(model, ["task"], draw)
    everySecond(root, drawTimes)
    model.on("msg:custom", ({gone}) => { if (taskInAddress() === gone) history.replaceState(null, "", addressOf("")) })
    addEventListener("popstate", fromAddress)
    addEventListener("keydown", escape)
    model.on("lifecycle:remove", () => {
      removeEventListener("popstate", fromAddress)
      removeEventListener("keydown", escape)
    })
    if (taskInAddress()) fromAddress()
    return root
  },
}

// Bokeh drops the models that a document holds no more 30 s after the last change. On a page that changes every
// second that is never (bokeh 3.9, `_schedule_recompute_all_models`), so what a closed task's figures held would stay.
const FORGET_MS = 1000
const forgetFigures = () => { for (const doc of Bokeh.documents) doc._recompute_all_models?.() }

// What has the focus, inside the cards too.
function focused() {
  let node = document.activeElement
  while (node?.shadowRoot?.activeElement) node = node.shadowRoot.activeElement
  return node
}

const InputCard = {
  render({model}) {
    const root = h("form", "typing"), input = h("input")
    Object.assign(input, {type: "text", autocomplete: "off", spellcheck: false, placeholder: "Type a line for it …", maxLength: 16000})
    input.setAttribute("aria-label", "A line for the task's input")
    const send = h("button", "send", "Send")
    send.type = "submit"
    const tell = (text, last) => model.send_msg({type: "input", task_id: model.task_id, text, last})
    const end = sureButton("end", {
      rest: (b) => { b.textContent = "End"; b.title = "End its input: it reads no more" },
      ask: (b) => { b.textContent = "No more input?" },
      act: () => tell("", true),
    })
    root.append(input, send, end)
    let sent = ""
    root.onsubmit = (event) => {
      event.preventDefault()
      tell(sent = input.value, false)
      input.value = ""
    }
    input.onkeydown = (event) => { if (event.key === "ArrowUp" && !input.value && sent) { input.value = sent; event.preventDefault() } }
    watch(model, ["task_id"], () => {
      root.hidden = !model.task_id
      input.value = sent = ""
      end._rest()
    })
    return root
  },
}

// -- the services: how each stands, and why where one does not --

function serviceRow(model) {
  const row = h("div", "row"), name = h("span", "name"), state = h("span", "state")
  const restart = sureButton("restart", {
    rest: (b) => { b.replaceChildren(icon("restart")); b.title = "Restart"; b.setAttribute("aria-label", `Restart ${row._name || ""}`) },
    ask: (b) => { b.textContent = "Sure?"; b.setAttribute("aria-label", `Confirm: restart ${row._name || ""}`) },
    act: (b) => { b.disabled = true; setTimeout(() => { b.disabled = false }, PATIENCE_MS); model.send_msg({type: "restart_service", name: row._key}) },
  })
  const tells = {}
  row.append(name, state)
  for (const what of ["port", "pid", "up", "restarts"]) row.append(tells[what] = h("span", `tell ${what}`))
  const about = h("p", "about"), last = h("pre", "last")
  row.append(about, restart, last)
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
  if (row._state !== s.state) {
    row._state = s.state
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

const ServicesCard = {
  render({model}) {
    const root = h("section", "card services"), head = h("h2", "", "Services"), note = h("p", "empty")
    const list = h("div", "list"), columns = h("div", "columns")
    columns.setAttribute("aria-hidden", "true")
    for (const word of ["Service", "State", "Port", "Process", "Up", "Restarts", "", ""]) columns.append(h("span", "", word))
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

export default {TopBar, AttentionStrip, TileRow, RunningCard, WorkersCard, OutputCard, ChartHead, TaskCard, InputCard, FirstMinute, ServicesCard}
