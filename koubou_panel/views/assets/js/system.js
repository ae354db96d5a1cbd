// The host: which span is seen, its cores as strips, and what the workshop's own processes use.

import {everySecond, h, keyed, setText, watch} from "./dom.js"
import {_} from "./language.js"
import {addressOfPage, go, openPage, paramInAddress} from "./route.js"
import {age, clock, moment} from "./time.js"

const LIVE = "15m"

function segments(cls, label, choose) {
  const box = h("div", cls)
  box.setAttribute("role", "group")
  box.setAttribute("aria-label", label)
  box._draw = (items, chosen) => keyed(box, items, ([name]) => name, ([name]) => {
    const button = h("button")
    button.type = "button"
    button.onclick = () => choose(name)
    return button
  }, (button, [name, words]) => {
    setText(button, words)
    button.setAttribute("aria-pressed", name === chosen)
  })
  return box
}

export const SystemCard = {
  render({model}) {
    const root = h("section", "systemhead"), text = h("div", "text"), host = h("h2", "host"), facts = h("p", "facts-line"), now = h("p", "facts-line")
    text.append(host, facts, now)
    const spans = segments("segments spans", _("Time span"), (name) => go(addressOfPage(undefined, {span: name === LIVE ? "" : name})))
    const figures = segments("segments figures", _("Figure"), (name) => model.send_msg({type: "figure", name}))
    root.append(text, spans, figures)
    const words = () => {
      const up = model.booted_at ? [_("up {time}", {time: age(clock() - model.booted_at)})] : []
      setText(facts, [...model.facts, ...up].join(" · "))
      facts.title = model.booted_at ? _("Started {when}", {when: moment(model.booted_at)}) : ""
    }
    // Not what is shown: what was asked for may be on its way.
    let asked = model.span
    const follow = () => {
      if (paramInAddress("page") !== "system") return
      const span = paramInAddress("span") || LIVE
      if (span !== asked) model.send_msg({type: "span", name: asked = span})
    }
    watch(model, ["host", "facts", "now", "booted_at", "spans", "span", "figures", "figure"], () => {
      setText(host, model.host || _("This machine"))
      setText(now, model.now.join(" · "))
      words()
      spans._draw(model.spans, model.span)
      figures._draw(model.figures, model.figure)
    })
    everySecond(root, words, 30000)
    addEventListener("popstate", follow)
    model.on("lifecycle:remove", () => removeEventListener("popstate", follow))
    follow()
    return root
  },
}

// One strip for each core (or for some together), painted cell by cell: the fuller, the stronger.
export const CoresCard = {
  render({model}) {
    const root = h("section", "card cores"), head = h("h2", "", _("Cores")), note = h("span", "count"), list = h("div", "strips"), empty = h("p", "empty")
    head.append(note)
    list.setAttribute("role", "list")
    root.append(head, list, empty)
    const make = () => {
      const row = h("div", "strip"), name = h("span", "core"), canvas = document.createElement("canvas"), value = h("span", "percent")
      row.setAttribute("role", "listitem")
      canvas.setAttribute("aria-hidden", "true")
      row.append(name, canvas, value)
      row._parts = {name, canvas, value}
      return row
    }
    const paint = () => {
      const style = getComputedStyle(root), colours = ["run", "fail"].map((name) => style.getPropertyValue(`--k-${name}`))
      const end = clock(), step = model.span_s / 90
      for (const [n, row] of [...list.children].entries()) {
        const cells = model.cells.map(([at, values]) => [1 - (end - at) / model.span_s, values[n]])
        paintStrip(row._parts.canvas, [...cells, [1, model.now[n]]], step / model.span_s, colours)
      }
    }
    const draw = () => {
      const items = model.names.map((name, n) => ({name, value: model.now[n]}))
      list.classList.toggle("many", items.length > 16)
      keyed(list, items, (item) => item.name, make, (row, {name, value}) => {
        const {name: label, value: percent} = row._parts
        setText(label, name)
        setText(percent, value === undefined ? "" : `${value} %`)
        row.setAttribute("aria-label", _("Core {name}: {value} %", {name, value: value ?? "–"}))
      })
      const busy = model.now.filter((value) => value >= 50).length
      setText(note, items.length ? _("{n} of {all} above half", {n: busy, all: items.length}) : "")
      setText(empty, model.hint)
      empty.hidden = items.length > 0
      paint()
    }
    watch(model, ["cells", "now", "names", "span_s", "hint"], draw)
    const sized = new ResizeObserver(paint)
    sized.observe(list)
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint)
    model.on("lifecycle:remove", () => { sized.disconnect(); matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", paint) })
    return root
  },
}

// `cells` are [place from 0 to 1 of its middle, percent].
function paintStrip(canvas, cells, wide, [usual, full]) {
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1
  if (!width) return
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale)
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale)
  const ctx = canvas.getContext("2d")
  ctx.setTransform(scale, 0, 0, scale, 0, 0)
  ctx.clearRect(0, 0, width, height)
  for (const [place, percent] of cells) {
    if (percent === undefined) continue
    const from = Math.round((place - wide / 2) * width), to = Math.round((place + wide / 2) * width)
    ctx.fillStyle = percent >= 90 ? full : usual
    ctx.globalAlpha = 0.06 + 0.94 * Math.min(1, percent / 100)
    const tall = Math.max(1, (height * Math.min(100, percent)) / 100)
    ctx.fillRect(from, height - tall, Math.max(1, to - from), tall)
  }
  ctx.globalAlpha = 1
}

export const UseCard = {
  render({model}) {
    const root = h("section", "card ownuse"), head = h("h2", "", _("What the workshop uses"))
    const table = h("table"), top = h("tr"), body = h("tbody"), thead = h("thead")
    for (const word of [_("Process"), _("pid"), _("CPU"), _("Memory")]) {
      const cell = h("th", "", word)
      cell.scope = "col"
      top.append(cell)
    }
    thead.append(top)
    table.append(thead, body)
    root.append(head, table)
    watch(model, ["rows"], () => {
      root.hidden = model.rows.length === 0
      keyed(body, model.rows, (row) => row.pid || row.page, (row) => {
        const line = h("tr"), label = h("td", "what"), link = row.page ? h("a") : h("span")
        if (row.page) {
          link.href = addressOfPage(row.page)
          link.onclick = (event) => { event.preventDefault(); openPage(row.page) }
        }
        label.append(link)
        line.append(label, h("td", "pid"), h("td", "cpu"), h("td", "memory"))
        return line
      }, (line, row) => {
        const [label, pid, cpu, memory] = line.children
        setText(label.firstChild, row.label)
        setText(pid, row.pid)
        setText(cpu, row.cpu)
        setText(memory, row.memory)
      })
    })
    return root
  },
}
