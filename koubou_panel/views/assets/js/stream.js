// The task stream: which window of time it shows, and the rows of its figure. The figure is Bokeh's, its data is put in
// here and never told back to the server, which has sent it.

import {ask} from "./ask.js"
import {h, NS, plainButton, setText, watch} from "./dom.js"
import {_, ngettext} from "./language.js"
import {addressOf, go} from "./route.js"
import {clock, duration} from "./time.js"

const MOST_ROWS_NAMED = 24, LEAST_ROWS = 5, ASK_AFTER_MS = 250, LATE_S = 60
const AT_THE_END = 0.02 // of a window: one that ends so near to now follows it
const S = 1, MIN = 60, H = 3600, D = 86400
const STEPS = [S, 2, 5, 10, 15, 30, MIN, 2 * MIN, 5 * MIN, 10 * MIN, 15 * MIN, 30 * MIN, H, 2 * H, 3 * H, 6 * H, 12 * H, D, 2 * D, 5 * D, 10 * D]
const HERE = {sync: false}
const PAINTED_MS = 1200 // the figure is painted whole each time that anything in it changes

const SIGNS = {hold: "M5 3 V13 M11 3 V13", go: "M4.5 3 L13 8 L4.5 13 Z"}

function sign(name) {
  const svg = document.createElementNS(NS, "svg"), path = document.createElementNS(NS, "path")
  svg.setAttribute("viewBox", "0 0 16 16")
  svg.setAttribute("class", `sign s-${name}`)
  svg.setAttribute("aria-hidden", "true")
  path.setAttribute("d", SIGNS[name])
  svg.append(path)
  return svg
}

// A page has one document; in a notebook each display has its own, and tells which.
const known = (model, name) => (model.documents?.() ?? Bokeh.documents).map((doc) => doc.get_model_by_name(name)).find(Boolean)

export const spanName = (s) => (s < MIN ? `${s} s` : s < H ? `${s / MIN} min` : s < D ? `${s / H} h` : `${s / D} d`)

// Round moments between two, in the viewer's own zone: at most seven.
export function roundMoments(start, end) {
  const step = STEPS.find((s) => (end - start) / s <= 7) || 10 * D
  const zone = -new Date(end * 1000).getTimezoneOffset() * 60, found = []
  for (let at = Math.ceil((start + zone) / step) * step - zone; at <= end; at += step) found.push(at * 1000)
  return found
}

const inOrder = new Intl.Collator("en", {numeric: true}).compare

// What Python calls `encoded`: a row for each run, or for several together.
function decoded(text) {
  const {start, took, busy, worker, name, mark, id, count, workers, names} = JSON.parse(text)
  return start.map((at, i) => ({
    start: at, end: at + took[i], busy: busy[i], worker: workers[worker[i]], name: names[name[i]], mark: mark[i], id: id[i], count: count[i],
  }))
}

// Several runs of one worker in one bin stand side by side, each status as wide as it was at work; what went wrong
// comes first, and is never too narrow to be seen.
function spread(rows, bin_s) {
  const cells = new Map(), rank = {fail: 0, cancel: 1, ok: 2}
  for (const row of rows) {
    if (row.id) continue
    const key = `${row.worker} ${Math.floor(row.start / bin_s)}`
    if (cells.has(key)) cells.get(key).push(row)
    else cells.set(key, [row])
  }
  for (const cell of cells.values()) {
    const begin = Math.floor(cell[0].start / bin_s) * bin_s
    let at = begin
    for (const row of cell.sort((a, b) => rank[a.mark] - rank[b.mark])) {
      const wide = Math.max(row.busy, (row.mark === "ok" ? 0.02 : 0.15) * bin_s)
      row.left = Math.min(at, begin + bin_s)
      row.right = at = Math.min(at + wide, begin + bin_s)
    }
  }
  return rows
}

export const StreamCard = {
  render({model}) {
    const root = h("div", "charthead stream"), title = h("h2", "", _("Task stream")), note = h("span", "count")
    const empty = h("p", "nothing"), spans = h("div", "segments"), moves = h("div", "moves")
    title.append(note)
    spans.setAttribute("role", "group")
    spans.setAttribute("aria-label", _("How much time is shown"))
    const words = {ok: _("completed"), fail: _("failed"), cancel: _("cancelled"), run: _("running")}
    const legend = h("div", "legend")
    for (const [mark, colour] of model.keys) {
      const key = h("span", "key"), swatch = h("i", `hatched h-${mark}`)
      swatch.style.setProperty("--c", colour)
      key.append(swatch, h("span", "", words[mark]))
      legend.append(key)
    }
    root.append(title, legend, spans, moves, empty)
    const [source, live, x, y, times, lanes] = ["stream-ended", "stream-running", "stream-x", "stream-y", "stream-times", "stream-rows"].map((name) => known(model, name))

    let span = model.span, end = null, rows = [], ids = new Set(), late = [], names = [], bin_s = 0
    let asked = 0, waits = 0, own = false, timer = 0, held = null, hovered = false
    let last = 0, drawnAt = 0

    const now = () => (held ?? clock())
    const edges = () => { const to = end ?? now(); return [to - span, to] }

    // -- the figure's axes --
    const place = () => {
      const [from, to] = edges()
      own = true
      x.setv({start: from * 1000, end: to * 1000}, HERE)
      own = false
      times.ticker.setv({ticks: roundMoments(from, to)}, HERE)
    }
    const name = () => {
      const all = new Set(model.workers)
      for (const row of rows) all.add(row.worker)
      const next = [...all].sort(inOrder)
      if (next.length === names.length && next.every((n, i) => n === names[i])) return false
      names = next
      const band = Math.ceil(names.length / MOST_ROWS_NAMED) || 1, labels = new Map()
      for (let i = 0; i < names.length; i += band) {
        const last = Math.min(names.length, i + band) - 1
        labels.set((i + last) / 2, i === last ? names[i] : `${names[i]}–${names[last]}`)
      }
      y.setv({start: Math.max(names.length, LEAST_ROWS) - 0.5, end: -0.5}, HERE)
      lanes.ticker.setv({ticks: [...labels.keys()]}, HERE)
      lanes.setv({major_label_overrides: labels}, HERE)
      return true
    }

    // -- the figure's rows --
    const columns = (some) => {
      const places = new Map(names.map((n, i) => [n, i])), thin = names.length > MOST_ROWS_NAMED ? 0.04 : 0.12
      // A pixel and a half between two that follow each other; and one at least for each.
      const gap = 1500 * span / 850, least = 1100 * span / 850
      const made = {left: [], right: [], top: [], bottom: [], mark: [], id: [], name: [], state: [], took: [], worker: []}
      for (const row of some) {
        const lane = places.get(row.worker) ?? 0
        const left = (row.left ?? row.start) * 1000, right = (row.right ?? row.end) * 1000
        made.left.push(left)
        made.right.push(right - left > 4 * gap ? right - gap : Math.max(right, left + least))
        made.top.push(lane - 0.5 + thin)
        made.bottom.push(lane + 0.5 - thin)
        made.mark.push(row.mark)
        made.id.push(row.id)
        made.name.push(row.id ? row.name : ngettext("{n} run", "{n} runs", row.count, {n: row.count.toLocaleString()}))
        made.state.push(words[row.mark])
        made.took.push(duration(row.busy))
        made.worker.push(row.worker)
      }
      return made
    }
    const drawAll = () => { source.setv({data: columns(rows)}, HERE); tell() }
    const drawRunning = () => {
      const to = now()
      const some = model.running.map(([id, worker, start, text]) => ({id, worker, start, end: Math.max(start, to), busy: Math.max(0, to - start), name: text, mark: "run", count: 1}))
      if (some.length || live.data.id.length) live.setv({data: columns(some)}, HERE)
    }
    const tell = () => {
      const [from, to] = edges()
      let count = 0
      for (const row of rows) if (row.end >= from && row.start <= to) count += row.count
      setText(note, count ? ngettext("{n} run", "{n} runs", count, {n: count.toLocaleString()}) : "")
      note.title = bin_s ? _("So many that short runs are added up by {time}.", {time: duration(bin_s)}) : ""
      const none = count === 0 && !(end === null && model.running.length)
      setText(empty, none ? (end === null ? _("Each run appears here as a bar on its worker's row. Try: koubou load burst -n 200") : _("No task ended in this time.")) : "")
    }
    // What left a live window is let go, and what is too much is added up anew by the server.
    const tidy = () => {
      if (end !== null) return
      const [from] = edges(), first = rows.findIndex((row) => row.end >= from), gone = first < 0 ? rows.length : first
      if (gone > 500 && gone > rows.length / 4) {
        rows = rows.slice(gone)
        ids = new Set(rows.map((row) => row.id))
        drawAll()
      }
      if (rows.length > 1.5 * model.most) soon()
    }
    const add = (some) => {
      // Of what was added up nobody can tell which runs are in it.
      const fresh = some.filter((row) => !ids.has(row.id) && (!bin_s || row.end > last))
      if (!fresh.length) return
      for (const row of fresh) { rows.push(row); ids.add(row.id) }
      if (name()) drawAll()
      else source.stream(columns(fresh), undefined, HERE)
      tidy()
      tell()
    }

    // -- what the server is asked --
    const soon = () => { clearTimeout(waits); waits = setTimeout(request, ASK_AFTER_MS) }
    const request = async () => {
      clearTimeout(waits)
      if (!root.offsetParent) return // not seen: asked for again when it is
      const turn = ++asked, [from, to] = edges()
      try {
        const answer = await ask(model, "window", {start: from, end: to, live: end === null})
        if (turn !== asked) return
        bin_s = answer.bin_s
        rows = bin_s ? spread(decoded(answer.rows), bin_s) : decoded(answer.rows)
        last = rows.length ? rows.at(-1).end : 0
        ids = new Set(rows.map((row) => row.id))
        name()
        drawAll()
        if (end === null) add(late) // those that ended meanwhile
        root.classList.remove("waits")
        beat()
      } catch (error) {
        if (turn === asked) setText(empty, error.message)
      }
    }
    const show = (width, to) => {
      span = width
      end = to === null || to >= now() - AT_THE_END * width ? null : to
      place()
      drawRunning()
      press()
      tell()
      root.classList.add("waits")
      soon()
      beat()
    }
    const beat = () => { clearInterval(timer); timer = setInterval(pass, 1000 * Math.min(10, Math.max(1, span / 600, rows.length / 3000))) }
    const pass = () => {
      if (document.hidden || held !== null || hovered || !root.isConnected || !root.offsetParent) return
      if (performance.now() - drawnAt < PAINTED_MS) return // with what ended, just now
      drawnAt = performance.now()
      if (end === null) place()
      drawRunning()
      tidy()
      tell()
    }

    // -- what is pressed --
    const buttons = model.spans.map((s) => {
      const button = plainButton("", spanName(s), () => show(s, end === null ? null : end + (s - span) / 2))
      button._span = s
      return button
    })
    spans.append(...buttons)
    const back = plainButton("", "‹", () => show(span, (end ?? now()) - span / 2))
    const on = plainButton("", "›", () => show(span, (end ?? now()) + span / 2))
    const present = plainButton("live", _("Live"), () => show(span, null))
    const hold = plainButton("hold", "", () => model.send_msg({type: "freeze", paused: !model.paused}))
    back.setAttribute("aria-label", _("Earlier"))
    on.setAttribute("aria-label", _("Later"))
    back.title = _("Earlier")
    on.title = _("Later")
    present.title = _("Follow the present")
    moves.append(back, on, present, hold)
    const press = () => {
      for (const button of buttons) button.setAttribute("aria-pressed", Math.abs(button._span - span) < 0.01 * span)
      present.setAttribute("aria-pressed", end === null)
      on.disabled = end === null
    }

    // -- what happens --
    const zoomed = () => { if (!own) show((x.end - x.start) / 1000, x.end / 1000) }
    const tapped = (from) => () => {
      const [place] = from.selected.indices
      if (place === undefined) return
      const id = from.data.id[place]
      from.selected.setv({indices: []}, HERE)
      if (id) go(addressOf(id))
    }
    const taps = [[source, tapped(source)], [live, tapped(live)]]
    const seen = () => { if (!document.hidden && end === null) soon() }
    // Nothing slides away under a pointer.
    const plot = model.plot?.() ?? document.querySelector(".k-stream .k-plot")
    const enter = (event) => { hovered = event.pointerType === "mouse" }, leave = () => { hovered = false; pass() }
    plot.addEventListener("pointerenter", enter)
    plot.addEventListener("pointerleave", leave)
    x.change.connect(zoomed)
    for (const [from, tap] of taps) from.selected.properties.indices.change.connect(tap)
    document.addEventListener("visibilitychange", seen)
    model.on("lifecycle:remove", () => {
      clearInterval(timer)
      clearTimeout(waits)
      asked += 1
      plot.removeEventListener("pointerenter", enter)
      plot.removeEventListener("pointerleave", leave)
      x.change.disconnect(zoomed)
      for (const [from, tap] of taps) from.selected.properties.indices.change.disconnect(tap)
      document.removeEventListener("visibilitychange", seen)
    })
    model.on("msg:custom", (message) => {
      if (message.again) soon()
      if (!message.add) return
      const some = decoded(message.add)
      late = [...late, ...some].filter((row) => row.end > clock() - LATE_S).slice(-5000)
      if (end !== null || held !== null) return
      add(some)
      if (!hovered) { drawnAt = performance.now(); place() }
    })
    watch(model, ["workers", "running"], () => {
      if (held !== null) return
      if (name()) drawAll()
      drawRunning()
    })
    watch(model, ["paused"], () => {
      const was = held
      held = model.paused ? clock() : null
      hold.replaceChildren(sign(model.paused ? "go" : "hold"))
      hold.setAttribute("aria-pressed", model.paused)
      hold.title = model.paused ? _("Go on") : _("Hold this page still")
      hold.setAttribute("aria-label", hold.title)
      if (was !== null && held === null) show(span, end)
    })
    press()
    place()
    beat()
    // Not before it has a place; then also when that becomes one that is seen.
    const look = new ResizeObserver(soon)
    look.observe(root)
    model.on("lifecycle:remove", () => look.disconnect())
    return root
  },
}
