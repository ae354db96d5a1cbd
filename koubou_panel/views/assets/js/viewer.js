// One task's whole output: a few hundred lines of it are here, any others are asked for when they come into sight.
//
// Above and below the lines stand two empty boxes, as high as the lines that are not here would be if each took one row.
// They take more where they are wrapped, so what is read is held in its place whenever lines come or go.

import {ask} from "./ask.js"
import {h, plainButton, setText, watch} from "./dom.js"
import {_} from "./language.js"
import {outputLink} from "./route.js"

const WINDOW = 120, KEEP = 400, NEAR_PX = 600, END_PX = 24
const MOST_PX = 12_000_000  // browsers hold no box much higher than twice that
const SEARCH_MS = 250

export const ViewerCard = {
  render({model}) {
    const root = h("section", "card viewer")
    const head = h("h2"), tools = h("div", "tools")
    const find = h("form", "find"), input = h("input"), told = h("span", "told")
    Object.assign(input, {type: "search", autocomplete: "off", spellcheck: false, placeholder: _("Search the output"), maxLength: 200})
    input.setAttribute("aria-label", _("Search the whole output"))
    told.setAttribute("role", "status")
    const previous = plainButton("step", "↑", () => step(-1)), next = plainButton("step", "↓", () => step(1))
    const name = (button, text) => { button.setAttribute("aria-label", text); button.title = text }
    name(previous, _("Previous match (Shift+Enter)"))
    name(next, _("Next match (Enter)"))
    find.setAttribute("role", "search")
    find.append(input, told, previous, next)
    const follow = plainButton("follow", _("Follow"), () => setFollows(!follows))
    follow.title = _("Stay at the end while more is printed")
    const whole = outputLink("whole", _("Download"))
    whole.title = _("Download all of it")
    head.append(h("span", "", _("Output")), find)
    tools.append(follow, whole)
    head.append(tools)
    const log = h("div", "log"), above = h("div", "gap"), lines = h("div", "lines"), open = h("div", "lines open"), below = h("div", "gap")
    log.tabIndex = 0
    log.setAttribute("role", "log")
    log.setAttribute("aria-live", "off")
    log.setAttribute("aria-label", _("Output"))
    const where = h("p", "where"), empty = h("p", "empty")
    log.append(above, lines, open, below)
    root.append(head, log, where, empty)

    // The rows are lines `first` to `first + rows.length` of `total`; the last of them may have no end yet (`isOpen`).
    let rows = [], first = null, isOpen = false, total = 0, follows = true, stale = true
    let task = null, known = false, asking = false, again = false, place = 0, extent = ""
    let needle = "", matches = [], current = -1, isCut = false, timer = null, row_px = 18

    const unit = () => Math.min(row_px, MOST_PX / Math.max(1, total))
    const last = () => (first === null ? 0 : first + rows.length)
    const nodeOf = (line) => rows[line - first]?.node
    const extentNow = () => `${log.clientWidth} ${log.clientHeight} ${log.scrollHeight}`
    const note = () => { place = log.scrollTop; extent = extentNow() }
    const setFollows = (on) => {
      follows = on
      follow.setAttribute("aria-pressed", on)
      if (on) toEnd()
    }
    const toEnd = () => {
      if (first !== null && last() >= total) { log.scrollTop = log.scrollHeight; note(); drawWhere() }
      else need()
    }

    // -- rows --

    const put = (text, runs, line) => {
      const parts = needle ? marked(runs, needle) : runs
      text.replaceChildren(...parts.map(([style, piece, isHit]) => {
        if (isHit) return h("mark", style, piece)
        return style ? h("span", style, piece) : document.createTextNode(piece)
      }))
      text.parentNode?.classList.toggle("current", matches[current] === line)
    }
    const make = (runs, at, line) => {
      const node = h("div", "line"), text = h("span", "text")
      node.append(text)
      put(text, runs, line)
      return {runs, at, node}
    }
    const redraw = () => rows.forEach((row, n) => put(row.node.firstChild, row.runs, first === null ? -1 : first + n))

    const drawGaps = () => {
      above.style.height = `${first === null ? 0 : Math.round(first * unit())}px`
      below.style.height = `${first === null ? 0 : Math.round(Math.max(0, total - last()) * unit())}px`
    }
    const placeRows = () => {
      const isApart = isOpen && !model.state.is_over
      const settled = isApart ? rows.slice(0, -1) : rows
      // Only what differs is touched: a selection, and what is read out, stays.
      let node = lines.firstChild
      for (const row of settled) {
        if (row.node === node) { node = node.nextSibling; continue }
        lines.insertBefore(row.node, node)
      }
      while (node) { const gone = node; node = node.nextSibling; gone.remove() }
      open.replaceChildren(...(isApart ? [rows[rows.length - 1].node] : []))
      open.hidden = !isApart
      drawGaps()
      if (rows.length) {
        const one = rows[0].node.getBoundingClientRect().height
        if (one >= 12 && one < 30) row_px = one
      }
      empty.hidden = rows.length > 0
      log.hidden = find.hidden = tools.hidden = rows.length === 0
    }
    // The first row in sight, and where it stands.
    const anchor = () => {
      const top = log.getBoundingClientRect().top
      let low = 0, high = rows.length - 1
      while (low < high) {
        const middle = (low + high) >> 1
        if (rows[middle].node.getBoundingClientRect().bottom <= top) low = middle + 1
        else high = middle
      }
      const row = rows[low]
      return row && {row, line: first + low, at: row.node.getBoundingClientRect().top - top}
    }
    const inSight = () => {
      const bottom = log.getBoundingClientRect().bottom, {line} = anchor()
      let lowest = line
      while (lowest + 1 < last() && nodeOf(lowest + 1).getBoundingClientRect().top < bottom - 4) lowest += 1
      return [line, lowest]
    }
    const hold = (change) => {
      const held = rows.length ? anchor() : null
      change()
      if (held?.row.node.isConnected) {
        const moved = held.row.node.getBoundingClientRect().top - log.getBoundingClientRect().top - held.at
        if (Math.abs(moved) >= 1) log.scrollTop += moved
      }
      note()
    }
    const show = (line, {at = 0, middle = false} = {}) => {
      const node = nodeOf(line)
      if (!node) return
      const offset = middle ? log.clientHeight / 2 - node.offsetHeight / 2 : at
      log.scrollTop += node.getBoundingClientRect().top - log.getBoundingClientRect().top - offset
      note()
      drawWhere()
    }

    // -- what is asked for --

    // Line numbers to ask for next, and what to do with them: the end where it is followed, what is scrolled to, or what
    // lies just beyond the rows. Null: all that is in sight is here.
    const wanted = () => {
      if (!known) return rows.length && total < 0 ? null : {count: WINDOW, then: takeTail}
      if (follows && (first === null || last() < total || (isOpen && stale))) {
        stale = false
        const from = first === null || total - last() > KEEP ? Math.max(0, total - WINDOW) : last() - (isOpen ? 1 : 0)
        return {line: from, count: WINDOW, then: takeEnd}
      }
      if (first === null) return {line: Math.max(0, total - WINDOW), count: WINDOW, then: takeEnd}
      const from = log.scrollTop, to = from + log.clientHeight, top = lines.offsetTop, bottom = below.offsetTop
      const near = WINDOW * unit()
      if (first > 0 && from < top + NEAR_PX) {
        if (from < top - near) return jump(from / unit())
        return {line: Math.max(0, first - WINDOW), count: Math.min(WINDOW, first), then: takeBefore}
      }
      if (last() < total && to > bottom - NEAR_PX) {
        if (to > bottom + near) return jump(total - (log.scrollHeight - from) / unit())
        return {line: last() - (isOpen ? 1 : 0), count: WINDOW, then: takeAfter}
      }
      return null
    }
    const jump = (line) => {
      const target = Math.max(0, Math.min(total - 1, Math.floor(line)))
      return {line: Math.max(0, target - WINDOW / 2), count: WINDOW, then: (answer) => { replace(answer); show(target) }}
    }

    const need = async (asked = null) => {
      if (asking) { again = asked || again || true; return }
      const what = asked || wanted()
      if (!what || !task) return
      asking = true
      const about = task, {then, ...payload} = what
      let answer = null
      try {
        answer = await ask(model, "lines", {task: about, ...payload})
      } catch (error) {
        setText(where, error.message)
      }
      asking = false
      const more = again
      again = false
      if (about !== task) { need(); return }
      if (answer) {
        const before = `${first} ${rows.length} ${total} ${log.scrollTop}`
        then(answer)
        drawWhere()
        if (more || before !== `${first} ${rows.length} ${total} ${log.scrollTop}`) need(typeof more === "object" ? more : null)
      } else if (more) setTimeout(need, 1000)
    }
    const taken = (answer) => answer.lines.map(([at, runs], n) => make(runs, at, answer.first === null ? -1 : answer.first + n))
    const replace = (answer) => {
      first = answer.first
      isOpen = answer.is_open
      rows = taken(answer)
      if (known) total = Math.max(total, last())
      placeRows()
    }
    const takeTail = (answer) => {
      if (known) return
      replace(answer)
      total = -1
      log.scrollTop = log.scrollHeight
      note()
    }
    const join = (answer) => {
      if (first === null || answer.first > last() || answer.first < first) return false
      rows = [...rows.slice(0, answer.first - first), ...taken(answer)]
      isOpen = answer.is_open
      total = Math.max(total, last())
      return true
    }
    const takeEnd = (answer) => {
      if (!answer.lines.length) { total = last(); return }
      if (!join(answer)) replace(answer)
      else {
        const drop = Math.max(0, rows.length - KEEP)
        rows = rows.slice(drop)
        first += drop
        placeRows()
      }
      if (follows) { log.scrollTop = log.scrollHeight; note() }
    }
    const takeAfter = (answer) => hold(() => {
      if (!answer.lines.length) { total = last(); drawGaps(); return }
      if (!join(answer)) { replace(answer); return }
      const drop = Math.max(0, Math.min(rows.length - KEEP, anchor().line - first - WINDOW / 2))
      rows = rows.slice(drop)
      first += drop
      placeRows()
    })
    const takeBefore = (answer) => hold(() => {
      const count = first - answer.first
      if (count <= 0 || answer.lines.length < count) { replace(answer); return }
      rows = [...taken({...answer, lines: answer.lines.slice(0, count)}), ...rows]
      first = answer.first
      if (rows.length > KEEP) { rows = rows.slice(0, KEEP); isOpen = false }
      placeRows()
    })

    // -- where the reader is --

    const drawWhere = () => {
      const {size_words, start, start_words} = model.state
      if (!rows.length) { setText(where, ""); return }
      const [from, to] = first === null ? [] : inSight().map((line) => (line + 1).toLocaleString())
      const parts = [from ? _("lines {from}–{to} of {n}", {from, to, n: total.toLocaleString()}) : _("counting the lines …"), size_words]
      if (start) parts.push(_("the oldest {size} are no longer kept", {size: start_words}))
      setText(where, parts.join(" · "))
    }
    let drawing = 0
    log.addEventListener("scroll", () => {
      // Only the reader ends the following: the place is of their choice where it has changed and no extent has.
      const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < END_PX && last() >= total
      if (!follows && atEnd && log.scrollTop > place) setFollows(true)
      else if (follows && !atEnd && extent === extentNow() && log.scrollTop < place) setFollows(false)
      if (!drawing) drawing = requestAnimationFrame(() => { drawing = 0; drawWhere(); need() })
      note()
    })
    const resized = new ResizeObserver(() => { if (follows) toEnd(); note() })
    resized.observe(log)
    model.on("lifecycle:remove", () => { resized.disconnect(); clearTimeout(timer) })

    // -- searching --

    const search = async () => {
      const text = input.value, about = task
      clearTimeout(timer)
      needle = text
      matches = []
      current = -1
      redraw()
      find.classList.toggle("on", text !== "")
      setText(told, text ? "…" : "")
      if (!text) return
      let found
      try {
        found = await ask(model, "search", {task: about, text})
      } catch (error) {
        setText(told, error.message)
        return
      }
      if (found.is_old || about !== task || text !== input.value) return
      matches = found.lines
      isCut = found.is_cut
      const from = first === null ? 0 : anchor()?.line ?? 0
      current = Math.max(0, matches.findIndex((line) => line >= from))
      if (matches.length) goTo()
      else drawTold()
    }
    const drawTold = () => {
      const many = `${matches.length.toLocaleString()}${isCut ? "+" : ""}`
      setText(told, matches.length ? `${(current + 1).toLocaleString()} / ${many}` : _("nothing found"))
    }
    const step = (by) => {
      if (input.value !== needle || !matches.length) { search(); return }
      current = (current + by + matches.length) % matches.length
      goTo()
    }
    const goTo = () => {
      const line = matches[current]
      setFollows(false)
      drawTold()
      redraw()
      if (nodeOf(line)) show(line, {middle: true})
      else need({line: Math.max(0, line - WINDOW / 2), count: WINDOW, then: (answer) => { replace(answer); show(line, {middle: true}) }})
    }
    find.onsubmit = (event) => { event.preventDefault(); step(1) }
    input.oninput = () => { clearTimeout(timer); timer = setTimeout(search, input.value ? SEARCH_MS : 0) }
    input.onkeydown = (event) => {
      if (event.isComposing) return
      if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1) }
      else if (event.key === "Escape" && input.value) { event.stopPropagation(); input.value = ""; search() }
    }
    // Keys are obeyed here: a browser would glide to the place, and stop where lines come on the way.
    const keys = {ArrowDown: () => 3 * row_px, ArrowUp: () => -3 * row_px, PageDown: () => log.clientHeight - row_px, PageUp: () => row_px - log.clientHeight, " ": () => log.clientHeight - row_px}
    log.onkeydown = (event) => {
      const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey
      if (isPlain && keys[event.key]) { event.preventDefault(); log.scrollTop += keys[event.key](); return }
      if (event.key === "Home" && isPlain) {
        event.preventDefault()
        setFollows(false)
        if (first === 0) log.scrollTop = 0
        else need({line: 0, count: WINDOW, then: (answer) => { replace(answer); log.scrollTop = 0 }})
        return
      }
      if ((event.ctrlKey || event.metaKey) && event.key === "f") { event.preventDefault(); input.focus(); input.select() }
      else if (event.key === "/" && !event.ctrlKey && !event.metaKey) { event.preventDefault(); event.stopPropagation(); input.focus() }
      else if (event.key === "End" && !event.shiftKey) { event.preventDefault(); setFollows(true) }
    }

    watch(model, ["state"], () => {
      const s = model.state
      if (s.task !== task) {
        task = s.task
        known = false
        rows = []
        first = null
        isOpen = false
        total = 0
        again = false
        needle = input.value = ""
        matches = []
        setText(told, "")
        placeRows()
        setText(where, "")
        follows = true
        follow.setAttribute("aria-pressed", true)
      }
      if (!task) return
      whole._of(task)
      setText(empty, s.hint)
      follow.hidden = s.is_over
      const wasKnown = known
      known = s.is_known
      if (known) {
        if (!wasKnown && rows.length && !follows) {
          const {row, at} = anchor()
          total = s.lines
          need({byte: row.at, count: WINDOW, then: (answer) => { replace(answer); show(first, {at}) }})
          return
        }
        if (!wasKnown) first = null
        total = s.lines
      }
      stale = true
      if (s.is_over && isOpen) placeRows()
      if (s.size) { drawGaps(); drawWhere(); need() }
    })
    return root
  },
}

// Runs of (style, text), cut where `needle` is found in them as a whole.
function marked(runs, needle) {
  const text = runs.map(([, piece]) => piece).join(""), low = text.toLowerCase(), sought = needle.toLowerCase()
  if (low.length !== text.length || !low.includes(sought)) return runs
  const cuts = []
  for (let at = low.indexOf(sought); at >= 0; at = low.indexOf(sought, at + sought.length)) cuts.push([at, at + sought.length])
  const parts = []
  let place = 0
  for (const [style, piece] of runs) {
    let done = 0
    for (const [from, to] of cuts) {
      const begin = Math.max(from - place, done), end = Math.min(to - place, piece.length)
      if (end <= begin) continue
      if (begin > done) parts.push([style, piece.slice(done, begin), false])
      parts.push([style, piece.slice(begin, end), true])
      done = end
    }
    if (done < piece.length) parts.push([style, piece.slice(done), false])
    place += piece.length
  }
  return parts
}
