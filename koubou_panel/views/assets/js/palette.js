// The command palette (Ctrl or ⌘ with K, or /): pages, actions, scripts and tasks, by typing; and the help (?).

import {ask} from "./ask.js"
import {h, icon, plainButton} from "./dom.js"
import {_} from "./language.js"
import {closeButton, modal} from "./modal.js"
import {addressOfPage, go, openPage} from "./route.js"
import {openRun} from "./run.js"
import {sign} from "./signs.js"
import {toggleTheme} from "./theme.js"
import {ago} from "./time.js"

const ASK_AFTER_MS = 140
const MOST_SHOWN = 40
const STATUS_MARKS = {pending: "wait", in_progress: "run", completed: "ok", failed: "fail", cancelled: "cancel"}

// The field of a form that was just closed has the focus until the browser draws again: nobody types into that.
const isTyping = (event) => {
  const node = event.composedPath()[0]
  if (!node?.checkVisibility?.()) return false
  return node.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName)
}

// All words, in whatever order; what begins with them comes first, with its group.
export function ranked(items, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean)
  const scored = []
  for (const item of items) {
    const label = item.label.toLowerCase(), all = `${label} ${(item.also || "").toLowerCase()}`
    if (!words.every((word) => all.includes(word))) continue
    scored.push([words.length && label.startsWith(words[0]) ? 0 : words.every((word) => label.includes(word)) ? 1 : 2, item])
  }
  const sorted = scored.sort(([a], [b]) => a - b).map(([, item]) => item), groups = new Map()
  for (const item of sorted) groups.set(item.group, [...(groups.get(item.group) || []), item])
  return [...groups.values()].flat()
}

function actions(model, speak) {
  const found = []
  if (model.may !== "read") {
    if (model.may === "full") {
      found.push({label: _("Run a command"), also: "run command", act: () => openRun("command")})
      found.push({label: _("Ask a model"), also: "run prompt", act: () => openRun("prompt")})
    }
    found.push({label: _("Run a script"), also: "run script", act: () => openRun("script")})
  }
  found.push({label: _("Switch between dark and light"), also: "theme dark light", act: toggleTheme})
  for (const [name, own] of model.languages) found.push({label: own, also: `language ${name} ${_("Language")}`, note: _("Language"), isTheirs: true, act: () => speak(name)})
  return found
}

export function makePalette(model, speak) {
  const dialog = modal("palette", _("Search and commands")), input = h("input"), list = h("div", "options"), none = h("p", "none", _("Nothing fits."))
  const foot = h("footer", "", _("↑ ↓ to choose · Enter to open · Esc to close · ? for all keys"))
  Object.assign(input, {type: "text", autocomplete: "off", spellcheck: false, placeholder: _("A page, an action, a script, a task …")})
  for (const [name, value] of Object.entries({role: "combobox", "aria-expanded": "true", "aria-controls": "k-options", "aria-autocomplete": "list", "aria-label": _("Search and commands")})) input.setAttribute(name, value)
  list.id = "k-options"
  list.setAttribute("role", "listbox")
  list.setAttribute("aria-label", _("What was found"))
  none.setAttribute("role", "status")
  const head = h("div", "find")
  head.append(sign("search"), input, closeButton(dialog))
  dialog.append(head, list, none, foot)

  let offers = {scripts: [], is_held: false}, tasks = [], shown = [], at = 0, timer = 0, turn = 0
  const fixed = () => {
    const pool = model.may !== "full" ? [] : offers.is_held
      ? [{label: _("Resume the pool: start work again"), also: "resume start", act: () => model.send_msg({type: "resume"})}]
      : [{label: _("Pause the pool: start no new work"), also: "pause stop", act: () => model.send_msg({type: "pause"})}]
    return [
      ...model.pages.map(([name, label]) => ({group: _("Pages"), label, also: name, act: () => openPage(name)})),
      ...[...actions(model, speak), ...pool, {label: _("Keys"), also: "help shortcuts ?", act: () => dialog._help._open()}].map((item) => ({group: _("Actions"), ...item})),
      ...(model.may === "read" ? [] : offers.scripts.map(([name, label]) => ({group: _("Scripts"), key: name, label, also: "run script", note: _("Run"), act: () => openRun(`script:${name}`)}))),
    ]
  }
  const choose = (n) => {
    at = Math.max(0, Math.min(shown.length - 1, n))
    const options = list.querySelectorAll("[role=option]")
    options.forEach((option, place) => option.setAttribute("aria-selected", place === at))
    if (options[at]) {
      input.setAttribute("aria-activedescendant", options[at].id)
      options[at].scrollIntoView({block: "nearest"})
    } else input.removeAttribute("aria-activedescendant")
  }
  const act = (item) => {
    dialog.close()
    item?.act()
  }
  const isSame = (one, other) => one.group === other.group && one.label === other.label && one.key === other.key
  // What an answer adds leaves the choice where it is.
  const draw = ({keep = false} = {}) => {
    const was = keep && shown[at]
    const own = tasks.map((t) => ({
      group: _("Tasks"), key: t.id, label: t.label, note: `${t.id} · ${ago(t.at)}`, mark: STATUS_MARKS[t.status], act: () => go(addressOfPage(undefined, {task: t.id})),
    }))
    shown = [...ranked(fixed(), input.value), ...own].slice(0, MOST_SHOWN)
    list.replaceChildren()
    let group = ""
    shown.forEach((item, n) => {
      if (item.group !== group) {
        const head = h("div", "group", group = item.group)
        head.setAttribute("role", "presentation")
        list.append(head)
      }
      const option = h("div", "option")
      option.id = `k-option-${n}`
      option.setAttribute("role", "option")
      option.append(item.mark ? icon(item.mark) : h("span", "icon"), h("span", "name", item.label), h("span", "note", item.note || ""))
      if (item.isTheirs) option.children[1].translate = false
      option.onclick = () => act(item)
      option.onpointermove = () => { if (at !== n) choose(n) }
      list.append(option)
    })
    none.hidden = shown.length > 0
    choose(was ? shown.findIndex((item) => isSame(item, was)) : 0)
  }
  const find = async () => {
    const text = input.value, mine = ++turn
    const found = text.trim().length > 1 ? (await ask(model, "find", {text}).catch(() => ({tasks: []}))).tasks : []
    if (mine !== turn) return
    tasks = found
    draw({keep: true})
  }
  input.oninput = () => {
    draw()
    clearTimeout(timer)
    timer = setTimeout(find, ASK_AFTER_MS)
  }
  input.onkeydown = (event) => {
    if (event.isComposing) return
    const steps = {ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8}
    if (steps[event.key]) choose(at + steps[event.key])
    else if (event.key === "Enter") act(shown[at])
    else if (event.key === "?" && !input.value) act({act: () => dialog._help._open()})
    else return
    event.preventDefault()
  }
  dialog._show = async () => {
    input.value = ""
    tasks = []
    dialog._open()
    draw()
    input.focus()
    offers = await ask(model, "offers").catch(() => offers)
    if (dialog.open) draw({keep: true})
  }
  dialog._help = keyHelp()
  return dialog
}

function keyHelp() {
  const dialog = modal("keys", _("Keys")), head = h("header"), list = h("dl")
  head.append(h("h2", "", _("Keys")), closeButton(dialog))
  const known = [
    ["Ctrl K · ⌘ K", _("Search and commands")], ["/", _("Search and commands")], ["?", _("These keys")],
    ["Esc", _("Close what is open")], ["Ctrl Enter · ⌘ Enter", _("Run what is filled in")], ["Tab", _("To the next button or field")],
  ]
  for (const [keys, label] of known) {
    const key = h("dt")
    key.append(h("kbd", "", keys))
    list.append(key, h("dd", "", label))
  }
  dialog.append(head, list)
  return dialog
}

// The keys that work everywhere, unless somebody is typing, or a page has its own use for one.
export function followKeys(model, palette) {
  const press = (event) => {
    if (event.defaultPrevented || event.isComposing) return
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault()
      if (palette.open) palette.close()
      else palette._show()
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey && !isTyping(event) && !anyOpen()) {
      if (event.key === "/") palette._show()
      else if (event.key === "?") palette._help._open()
      else return
      event.preventDefault()
    }
  }
  const anyOpen = () => palette.open || palette._help.open
  addEventListener("keydown", press)
  model.on("lifecycle:remove", () => removeEventListener("keydown", press))
}

export function searchButton(palette) {
  const button = plainButton("searchfield", null, () => palette._show())
  button.append(sign("search"), h("span", "", _("Search")), h("kbd", "", "/"))
  button.setAttribute("aria-haspopup", "dialog")
  button.setAttribute("aria-label", _("Search and commands"))
  button.title = _("Search and commands (/ or Ctrl K)")
  return button
}
