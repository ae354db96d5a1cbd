// The form of a script's definition: each field as a person types it, what is wrong said at the field.

import {ask} from "./ask.js"
import {h, icon, plainButton, setText} from "./dom.js"
import {_} from "./language.js"
import {clock, duration, locale} from "./time.js"

const PREVIEW_AFTER_MS = 250
const here = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC"
const two = (n) => String(n).padStart(2, "0")
let last = 0

export const dueWords = (at) => {
  const s = at - clock()
  return s <= 0 ? _("now") : _("in {span}", {span: s < 60 ? `${Math.ceil(s)} s` : duration(s)})
}

function localInput(at) {
  if (!at) return ""
  const d = new Date(at * 1000)
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}T${two(d.getHours())}:${two(d.getMinutes())}`
}

// A labelled input with a place for what is wrong with it.
export function field(name, label, {kind = "text", hint = "", placeholder = "", options = null, rows = 3, wide = false, list = null, mono = false} = {}) {
  const box = h("div", `field ${wide ? "wide" : ""}`), id = `sf-${++last}`, title = h("label", "", label), wrong = h("p", "wrong"), tip = h("p", "hint", hint)
  const input = options ? h("select") : kind === "lines" ? h("textarea") : h("input")
  if (options) for (const [value, text] of options) input.append(new Option(text, value))
  else if (kind === "lines") input.rows = rows
  else input.type = kind
  if (mono) input.classList.add("mono")
  input.id = title.htmlFor = id
  if (!options) { input.placeholder = placeholder; input.spellcheck = false; input.autocomplete = "off" }
  if (list) {
    const data = h("datalist")
    data.id = `${id}-list`
    input.setAttribute("list", data.id)
    for (const one of list()) data.append(new Option(one))
    box.append(data)
  }
  wrong.id = `${id}-wrong`
  wrong.hidden = true
  tip.id = `${id}-hint`
  tip.hidden = !hint
  input.setAttribute("aria-describedby", `${tip.id} ${wrong.id}`)
  box.append(title, input, tip, wrong)
  return {
    name, node: box, input,
    get: () => input.value,
    set: (value) => { input.value = value ?? "" },
    wrong(text) {
      wrong.hidden = !text
      setText(wrong, text || "")
      input.setAttribute("aria-invalid", String(!!text))
    },
  }
}

const zones = () => (Intl.supportedValuesOf ? ["UTC", ...Intl.supportedValuesOf("timeZone")] : ["UTC"])

// When it runs: nothing, each so often, by a cron expression, once; with the next five times as they would be.
function scheduleFields(model, nameOf) {
  const set = h("fieldset"), pick = h("div", "radios"), rest = h("div", "fields"), preview = h("div", "preview")
  const ways = [["", _("By hand only")], ["every", _("Every so often")], ["cron", _("At set times (cron)")], ["at", _("Once")]]
  const radios = new Map()
  const fields = {
    every: field("every", _("Every"), {placeholder: "5m", hint: _("30s, 5m, 1h30m, 2d")}),
    cron: field("cron", _("Cron expression"), {placeholder: "0 9 * * 1-5", hint: _("Minute, hour, day, month, weekday; six fields begin with the second."), mono: true}),
    zone: field("zone", _("Time zone"), {list: zones, placeholder: here()}),
    at: field("at", _("Day and time, in your time zone"), {kind: "datetime-local"}),
    overlap: field("overlap", _("If the run before has not ended"), {options: [["skip", _("skip the new one")], ["queue", _("queue it: it runs afterwards")], ["together", _("run both")]]}),
  }
  const missed = h("p", "hint", _("What came due while the workshop was down has one run when it is back, however many times were missed."))
  let timer = 0, asked = 0
  set.append(h("legend", "", _("When it runs")), pick, rest, missed, preview)
  for (const [value, text] of ways) {
    const label = h("label", "radio"), input = h("input")
    input.type = "radio"
    input.name = "sf-when"  // the same in each form, see keep.js: there is one at a time
    input.value = value
    input.onchange = () => { show(); look() }
    radios.set(value, input)
    label.append(input, h("span", "", text))
    pick.append(label)
  }
  for (const one of Object.values(fields)) { rest.append(one.node); one.input.addEventListener("input", () => look()) }
  preview.setAttribute("role", "status")
  const way = () => [...radios].find(([, input]) => input.checked)?.[0] || ""
  function show() {
    const now = way()
    for (const [name, shown] of [["every", "every"], ["cron", "cron"], ["zone", "cron"], ["at", "at"]]) fields[name].node.hidden = now !== shown
    fields.overlap.node.hidden = missed.hidden = !now
    if (now === "cron" && !fields.zone.get()) fields.zone.set(here())
  }
  // A moment that was not touched goes back to the second that it was.
  let at = null
  const get = () => ({
    when: way(), every: fields.every.get(), cron: fields.cron.get(), zone: way() === "cron" ? fields.zone.get() : "",
    at: fields.at.get() ? (fields.at.get() === localInput(at) ? at : new Date(fields.at.get()).getTime() / 1000) : null, overlap: fields.overlap.get(),
  })
  function look() {
    clearTimeout(timer)
    for (const one of Object.values(fields)) one.wrong("")
    const told = get(), filled = told.when && told[told.when]
    if (!filled) return preview.replaceChildren()
    timer = setTimeout(async () => {
      const mine = ++asked
      try {
        const {dues} = await ask(model, "dues", {name: nameOf(), ...told})
        if (mine === asked) draw(dues, told)
      } catch (error) {
        if (mine !== asked) return
        preview.replaceChildren()
        ;(fields[error.field === "when" ? told.when : error.field] || fields[told.when]).wrong(error.message)
      }
    }, PREVIEW_AFTER_MS)
  }
  function draw(dues, told) {
    const list = h("ol")
    for (const due of dues) {
      const item = h("li"), day = new Date(due * 1000)
      item.append(h("span", "", day.toLocaleString(locale(), {dateStyle: "medium", timeStyle: "medium"})), h("span", "in", dueWords(due)))
      list.append(item)
    }
    const isElsewhere = told.when === "cron" && told.zone && told.zone !== here()
    preview.replaceChildren(h("p", "", isElsewhere ? _("Next times, in your time zone ({zone}):", {zone: here()}) : _("Next times:")), list)
  }
  return {
    node: set,
    get,
    set(form) {
      at = form.at ?? null
      for (const [value, input] of radios) input.checked = value === (form.when || "")
      for (const name of ["every", "cron", "zone", "overlap"]) fields[name].set(form[name] || (name === "overlap" ? "skip" : ""))
      fields.at.set(localInput(at))
      show()
      look()
    },
    fields: [...Object.values(fields), {name: "when", wrong: (text) => { if (text) (fields[way()] || fields.every).wrong(text) }}],
  }
}

// What it can be given: a row for each, with a name, a type, a default, whether it must be given, and a help text.
function parameterFields() {
  const set = h("fieldset"), list = h("div", "parameters"), wrong = h("p", "wrong"), buttons = h("div", "buttons")
  let touched = false, rows = []
  const hint = h("p", "hint", _("They are read from the text: from its header, or from argparse. What is changed here wins over that."))
  wrong.hidden = true
  const types = [["text", _("text")], ["integer", _("whole number")], ["number", _("number")], ["boolean", _("yes or no")], ["choice", _("choice")], ["path", _("path")]]
  const touch = () => { touched = true }
  function add(one) {
    const row = h("div", "parameter"), must = h("label", "must"), box = h("input")
    const parts = {
      name: field("name", _("Name")), type: field("type", _("Type"), {options: types}), default: field("default", _("Default")),
      choices: field("choices", _("Choices"), {placeholder: "fast, slow"}), help: field("help", _("Help"), {wide: true}),
    }
    const again = () => { parts.choices.node.hidden = parts.type.get() !== "choice" }
    box.type = "checkbox"
    box.checked = one.required
    must.append(box, h("span", "", _("must be given")))
    for (const [name, part] of Object.entries(parts)) { part.set(name === "choices" ? one.choices.join(", ") : one[name]); part.input.addEventListener("input", touch) }
    parts.type.input.addEventListener("change", again)
    box.addEventListener("change", touch)
    const remove = plainButton("remove", null, () => { rows = rows.filter((other) => other !== entry); row.remove(); touch() })
    remove.append(icon("close"))
    remove.setAttribute("aria-label", _("Remove the parameter {name}", {name: one.name}))
    row.append(parts.name.node, parts.type.node, parts.default.node, parts.choices.node, parts.help.node, must, remove)
    again()
    const entry = {
      get: () => ({
        name: parts.name.get(), type: parts.type.get(), default: parts.default.get(), help: parts.help.get(), required: box.checked,
        choices: parts.choices.get() === one.choices.join(", ") ? one.choices : parts.choices.get().split(",").map((text) => text.trim()).filter(Boolean),
        ...(one.flag !== undefined && parts.name.get() === one.name ? {flag: one.flag, negative_flag: one.negative_flag} : {}),
      }),
      wrong: (text) => parts.name.wrong(text), nameNow: () => parts.name.get(),
    }
    rows.push(entry)
    list.append(row)
    return parts.name
  }
  buttons.append(
    plainButton("", _("Add a parameter"), () => { touch(); add({name: "", type: "text", default: "", choices: [], help: "", required: false}).input.focus() }),
    plainButton("", _("Read them from the text again"), () => { touch(); rows = []; list.replaceChildren(h("p", "hint", _("They are read anew when this is saved."))) }),
  )
  set.append(h("legend", "", _("Parameters")), hint, list, wrong, buttons)
  return {
    node: set,
    get: () => (touched ? {parameters: rows.map((row) => row.get())} : {}),
    set(takes, isTouched = false) { touched = isTouched; rows = []; list.replaceChildren(); for (const one of takes) add(one) },
    wrong(name, text) {
      const row = rows.find((one) => one.nameNow() === name)
      if (row) return row.wrong(text)
      wrong.hidden = !text
      setText(wrong, text)
    },
    clear() { wrong.hidden = true; for (const row of rows) row.wrong("") },
  }
}

function group(title, fields, {open = false} = {}) {
  const box = h("details"), grid = h("div", "fields")
  box.open = open
  box.append(h("summary", "", title), grid)
  grid.append(...fields.map((one) => one.node))
  return box
}

// The whole form: node, set(form, takes), get(), wrong(error), clear().
export function definitionForm(model, {nameOf, isNew}) {
  const node = h("div", "definition"), schedule = scheduleFields(model, nameOf), parameters = parameterFields()
  const about = field("description", _("What it is for"), {wide: true}), path = field("path", _("File"), {wide: true, mono: true})
  const run = [
    field("timeout", _("Time-out"), {placeholder: _("none"), hint: _("A run is ended after so long, such as 15m.")}),
    field("retries", _("Retries"), {kind: "number", hint: _("How often a run is tried again if it fails.")}),
    field("priority", _("Priority"), {kind: "number", hint: _("1 to 10; 10 goes first.")}),
    field("interpreter", _("Run by"), {placeholder: "uv run", hint: _("Empty: as its first line or the end of its name says."), mono: true}),
    field("arguments", _("Arguments before its parameters"), {mono: true}),
    field("cwd", _("Working folder"), {hint: _("Empty: the folder of its file."), mono: true}),
    field("env", _("Environment"), {kind: "lines", placeholder: "NAME=VALUE", hint: _("One variable on each line."), wide: true, mono: true}),
  ]
  const limits = [
    field("memory", _("Memory"), {placeholder: _("no limit"), hint: _("512M, 2G")}), field("cpu", _("Processor time"), {placeholder: _("no limit"), hint: _("90s, 10m")}),
    field("processes", _("Processes at once"), {placeholder: _("no limit")}), field("output", _("Output of a run"), {placeholder: _("as the settings say"), hint: _("64k, 100M")}),
  ]
  const kept = [
    field("keep_runs", _("Keep the output of so many runs"), {kind: "number"}), field("keep_days", _("Keep it for days"), {placeholder: _("no end")}),
    field("keep_size", _("Keep so much of it together"), {placeholder: _("no limit"), hint: _("500M, 2G")}), field("max_log_lines", _("Lines of a log that are shown"), {kind: "number"}),
  ]
  const top = h("div", "fields")
  top.append(about.node, ...(isNew ? [] : [path.node]))
  const groups = [group(_("How it runs"), run), group(_("Limits of a run"), limits), group(_("What is kept of its output"), kept)]
  node.append(top, schedule.node, ...groups)
  const box = h("details")
  box.append(h("summary", "", _("What it can be given")), parameters.node)
  node.append(box)
  const plain = [about, ...(isNew ? [] : [path]), ...run, ...limits, ...kept], all = [...plain, ...schedule.fields]
  function wrongAt(fieldName, text) {
    const [of, name] = fieldName.split(/\.(.*)/)
    if (of === "parameters") { box.open = true; parameters.wrong(name || "", text); return true }
    const found = all.find((one) => one.name === fieldName), fold = found?.node?.closest("details")
    if (fold) fold.open = true
    found?.wrong(text)
    return !!found
  }
  return {
    node,
    set(form, takes) {
      for (const one of plain) one.set(form[one.name])
      schedule.set(form)
      parameters.set(takes)
    },
    // What `get` gave, in a form that is made anew.
    giveBack(typed, takes) {
      this.set(typed, takes)
      if (typed.parameters) parameters.set(typed.parameters, true)
    },
    get: () => ({...Object.fromEntries(plain.map((one) => [one.name, one.get()])), ...schedule.get(), ...parameters.get()}),
    clear() { for (const one of all) one.wrong(""); parameters.clear() },
    // Says all that is wrong where it is; false where none of that is at a field of this form.
    wrong(error) {
      const known = Object.entries(error.faults).filter(([name, text]) => wrongAt(name, text)).map(([name]) => name)
      all.find((one) => known.includes(one.name) && one.input)?.input.focus()
      return known.length > 0
    },
  }
}
