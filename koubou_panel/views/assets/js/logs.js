// What runs print: hits of a search, task by task, and the live end of what runs, by how bad a line is.

import {ask} from "./ask.js"
import {everySecond, h, icon, keyed, plainButton, setText} from "./dom.js"
import {_, language, ngettext} from "./language.js"
import {OutputCard} from "./output.js"
import {queryBox} from "./query.js"
import {addressOfPage, go, pageInAddress, paramInAddress, taskLink} from "./route.js"
import {ago, moment} from "./time.js"

const number = (n) => n.toLocaleString(language())
const asked = () => paramInAddress("q").trim()

// `text` with what was searched for marked.
function marked(text, wanted) {
  const node = h("span", "text"), low = text.toLowerCase(), sought = wanted.toLowerCase()
  let at = 0
  // Where a letter's other case is longer, places do not fit: then nothing is marked.
  if (sought && low.length === text.length) {
    for (let found = low.indexOf(sought); found >= 0; found = low.indexOf(sought, at)) {
      node.append(text.slice(at, found), h("mark", "", text.slice(found, at = found + sought.length)))
    }
  }
  node.append(text.slice(at))
  return node
}

function hitBlock(hit, wanted) {
  const root = h("div", "hit")
  const line = (n, cls, text) => {
    const row = h("div", `of ${cls}`)
    row.append(h("span", "n", String(n)), cls === "found" ? marked(text, wanted) : h("span", "text", text))
    root.append(row)
  }
  hit.before.forEach((text, place) => line(hit.line - hit.before.length + place, "", text))
  line(hit.line, "found", hit.text)
  hit.after.forEach((text, place) => line(hit.line + 1 + place, "", text))
  return root
}

function group(model) {
  const root = h("section", "group"), head = h("h3"), link = taskLink(model, "name"), mark = h("span", "mark"), when = h("span", "when"), hits = h("div", "hits"), more = h("p", "rest")
  head.append(mark, link, when)
  root.append(head, hits, more)
  root._draw = (g, wanted) => {
    root._group = g
    link._open(g.id)
    setText(link, g.label)
    link.title = g.full
    mark.replaceChildren(icon(g.mark, g.word))
    hits.replaceChildren(...g.hits.map((hit) => hitBlock(hit, wanted)))
    more.hidden = !g.is_cut
    setText(more, _("It has more such lines than these."))
    root._time()
  }
  root._time = () => {
    const g = root._group, at = g.finished_at ?? g.created_at
    setText(when, `${g.word} · ${ago(at)}`)
    when.title = moment(at)
  }
  return root
}

export const LogsCard = {
  render({model}) {
    const root = h("section", "card logs"), head = h("h2", "", _("Search what was printed")), told = h("p", "told"), list = h("div", "groups")
    told.setAttribute("role", "status")
    let shown = asked(), turn = 0, about = {}, groups = []
    const box = queryBox(model, {
      label: _("Search the output of all tasks"),
      placeholder: _("disk full status:failed since:1d"),
      apply: (q) => (q === asked() ? search() : go(addressOfPage("logs", {q, task: paramInAddress("task")}))),
    })
    root.append(head, box, told, list)
    const search = async () => {
      const mine = ++turn
      shown = asked()
      box._set(shown)
      box._fault("")
      root.classList.add("looking")
      if (shown) setText(told, _("Searching…"))
      try {
        const answer = await ask(model, "search", {q: shown, zone: Intl.DateTimeFormat().resolvedOptions().timeZone})
        if (mine !== turn) return
        groups = answer.groups
        about = answer.about
      } catch (error) {
        if (mine !== turn) return
        box._fault(error.message)
        groups = []
        about = {}
      } finally {
        if (mine === turn) { root.classList.remove("looking"); draw() }
      }
    }
    const tell = () => {
      const a = about
      told.hidden = a.q === undefined && !root.classList.contains("looking")
      if (a.q === undefined || root.classList.contains("looking")) return
      const n = number(a.hits), tasks = ngettext("the output of {n} task", "the output of {n} tasks", a.tasks, {n: number(a.tasks)})
      const found = a.hits ? ngettext("{n} line has it, newest task first.", "{n} lines have it, newest task first.", a.hits, {n}) : _("No line has it.")
      const cut = _("The search ended early, after {tasks}: a rarer text, or since:1h, finds what is further back.", {tasks})
      setText(told, a.is_cut ? `${found} ${cut}` : `${found} ${_("Searched: {tasks}.", {tasks})}`)
    }
    const draw = () => {
      keyed(list, groups, (g) => g.id, () => group(model), (node, g) => node._draw(g, about.text || ""))
      tell()
    }
    draw()
    everySecond(root, () => { for (const node of list.children) node._time() })
    const follow = () => { if (pageInAddress() === "logs" && asked() !== shown) search() }
    addEventListener("popstate", follow)
    model.on("lifecycle:remove", () => removeEventListener("popstate", follow))
    if (shown) search()
    return root
  },
}

// -- how bad a line is, by the common words at its beginning, behind a time and brackets --

const BEGIN = "^[\\s\\d\\-:/.,TZ+\\[\\](){}<>|*#=]*"
const word = (list) => new RegExp(`${BEGIN}(?:[\\w.]+[:\\]] ?)?(?:${list})\\b`, "i")
const LEVELS = [
  ["error", word("errors?|err|fatal|critical|crit|panic|exception|traceback|fail|failed|failure|alert|emerg|\\w+(?:Error|Exception)")],
  ["warning", word("warnings?|warn|\\w+Warning|deprecated")],
  ["info", word("info|information|notice|debug|trace|verbose")],
]
const levelOf = (text) => LEVELS.find(([, shape]) => shape.test(text.slice(0, 200)))?.[0] || ""

export const LogTailCard = {
  render({model}) {
    const root = OutputCard.render({model}), lines = root.querySelector(".lines"), head = root.querySelector("h2")
    const levels = h("div", "levels"), names = [["", _("All lines")], ["error", _("Errors")], ["warning", _("Warnings")], ["info", _("Info")]]
    root.classList.add("logtail")
    levels.setAttribute("role", "group")
    levels.setAttribute("aria-label", _("Only lines that are"))
    const choose = (level) => {
      if (level) root.dataset.level = level
      else delete root.dataset.level
      for (const chip of levels.children) {
        chip.classList.toggle("on", chip._level === level)
        chip.setAttribute("aria-pressed", chip._level === level)
      }
      count()
    }
    for (const [level, label] of names) {
      const chip = plainButton("chip", label, () => choose(level))
      chip._level = level
      levels.append(chip)
    }
    head.after(levels)
    const none = h("p", "empty none", _("No line of this sort is among the last ones."))
    lines.after(none)
    const count = () => {
      const level = root.dataset.level
      none.hidden = !level || !lines.children.length || lines.querySelector(`.line[data-level="${level}"]`) !== null
    }
    const look = () => {
      for (const node of lines.children) {
        if (node.dataset.level === undefined) node.dataset.level = levelOf(node.lastChild.textContent)
      }
      count()
    }
    const watcher = new MutationObserver(look)
    watcher.observe(lines, {childList: true})
    model.on("lifecycle:remove", () => watcher.disconnect())
    choose("")
    look()
    return root
  },
}
