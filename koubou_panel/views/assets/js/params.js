// Fields of a form: each says what it is for, holds a value, and shows what is wrong with it.

import {h} from "./dom.js"
import {_} from "./language.js"

let last = 0

// What a field is made of: {name, label, type, value, hint, placeholder, choices, required, rows, min, max}. Types: text,
// line (a text that programs read), lines (of those), area, integer, number, boolean, choice, path.
export function makeField(about) {
  const root = h("div", `field f-${about.type}${about.wide ? " f-wide" : ""}`), id = `k-field-${++last}`, wrong = h("p", "wrong")
  const input = inputFor(about), label = h("label", "", about.label)
  input.id = id
  input.name = about.name
  label.htmlFor = id
  wrong.id = `${id}-wrong`
  wrong.hidden = true
  input.setAttribute("aria-describedby", wrong.id)
  if (about.required) {
    label.append(h("b", "needed", " *"))
    input.setAttribute("aria-required", "true")
  }
  if (about.type === "boolean") root.append(input, label)
  else root.append(label, input)
  if (about.hint) root.append(h("p", "hint", about.hint))
  root.append(wrong)
  root._name = about.name
  root._input = input
  root._value = () => (input.type === "checkbox" ? input.checked : input.value)
  root._set = (value) => {
    if (input.type === "checkbox") input.checked = value === true || value === "true"
    else input.value = value ?? ""
  }
  // What was wrong stays told as long as it is what stands there.
  root._fail = (text) => {
    root._told = text ? {text, of: root._value()} : null
    root.classList.toggle("bad", Boolean(text))
    input.setAttribute("aria-invalid", Boolean(text))
    wrong.textContent = text
    wrong.hidden = !text
  }
  // What the browser can tell by itself; empty where nothing is wrong.
  root._wrong = () => fault(about, input)
  root._check = () => {
    const told = root._told && root._told.of === root._value() ? root._told.text : ""
    root._fail(root._wrong() || told)
  }
  return root
}

function inputFor({type, rows, placeholder, choices, value, required}) {
  if (type === "choice") {
    const select = h("select")
    for (const [name, label] of choices) {
      const option = h("option", "", label)
      option.value = name
      select.append(option)
    }
    select.value = value ?? ""
    return select
  }
  const isLong = type === "area" || type === "lines", input = h(isLong ? "textarea" : "input")
  if (isLong) input.rows = rows || 3
  else input.type = type === "boolean" ? "checkbox" : "text"
  if (type === "integer") input.inputMode = "numeric"
  if (type === "number") input.inputMode = "decimal"
  if (type !== "area" && type !== "text") Object.assign(input, {spellcheck: false, autocapitalize: "off"})
  input.autocomplete = "off"
  if (placeholder) input.placeholder = placeholder
  if (type === "line" || type === "lines") input.translate = false  // programs read it, and its example is one
  if (type === "boolean") input.checked = value === true
  else input.value = value ?? ""
  if (required && type !== "boolean") input.required = true
  return input
}

function fault({type, required, min, max}, input) {
  const text = input.type === "checkbox" ? "" : input.value.trim()
  if (!text) return required && input.type !== "checkbox" ? _("This is needed.") : ""
  if (type !== "integer" && type !== "number") return ""
  const number = Number(text)
  if (Number.isNaN(number)) return _("A number is needed.")
  if (type === "integer" && !/^[+-]?\d+$/.test(text)) return _("A whole number is needed.")
  if (min !== undefined && number < min) return _("At least {min}.", {min})
  return max !== undefined && number > max ? _("At most {max}.", {max}) : ""
}

// A field for a declared parameter of a script. Left alone it is not sent: the script has its own default.
export function paramField(p) {
  const known = p.default === null ? "" : String(p.default)
  const about = {name: `parameters.${p.name}`, label: p.name, hint: p.help, type: p.type, required: p.required}
  if (p.type === "choice") {
    const none = p.default === null ? _("not given") : _("{value} (default)", {value: known})
    about.choices = [["", none], ...p.choices.filter((one) => one !== known).map((one) => [one, one])]
    if (p.required) about.choices[0][1] = _("choose …")
  } else if (p.type === "boolean" && p.negative && p.default === null) {
    about.type = "choice"
    about.choices = [["", _("not given")], ["true", _("yes")], ["false", _("no")]]
  } else if (p.type === "boolean") about.value = p.default === true
  else about.placeholder = known ? _("default: {value}", {value: known}) : ""
  if (p.type === "path") about.type = "line"
  const field = makeField(about)
  // Empty where it is to be left to the script.
  field._given = () => {
    const value = field._value()
    return p.type === "boolean" && value === (p.default === true) ? "" : value
  }
  return field
}
