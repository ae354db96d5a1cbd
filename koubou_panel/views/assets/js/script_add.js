// A new script: a file by its path, or a text that is pasted, dropped or typed.

import {ask} from "./ask.js"
import {h, plainButton, setText} from "./dom.js"
import {_} from "./language.js"
import {addressOfPage, go, pageLink} from "./route.js"
import {definitionForm, field} from "./script_form.js"
import {scriptAddress} from "./script_list.js"

const ENDINGS = {py: "python", sh: "sh", bash: "bash", js: "node", mjs: "node"}
const MOST_BYTES = 1 << 20
const BLANK = {retries: "0", priority: "5", keep_runs: "100", max_log_lines: "1000", overlap: "skip", when: "", at: null}
const HANDED_ON_MS = 5000
let handedOn = null  // what was typed while the card is made again in another language

export function addView(model) {
  const node = h("form", "card add"), head = h("header"), title = h("h1", "", _("Add a script")), pick = h("div", "radios"), fields = h("div", "fields")
  const name = field("name", _("Name"), {placeholder: "backup"}), path = field("path", _("Path of the file on the workshop's machine"), {wide: true, placeholder: "/home/me/bin/backup.sh", mono: true})
  const language = field("language", _("Language"), {options: [["python", "Python"], ["sh", "Shell"], ["bash", "Bash"], ["node", "JavaScript (node)"], ["", _("as its first line says")]]})
  const text = field("text", _("Text"), {kind: "lines", rows: 12, wide: true, mono: true, hint: _("Paste it, or drop a file here. The home keeps it.")})
  const form = definitionForm(model, {nameOf: () => "", isNew: true}), wrong = h("p", "wrong"), foot = h("footer"), submit = h("button", "primary", _("Add it"))
  let inline = false
  node.noValidate = true
  head.append(pageLink("back", () => addressOfPage("scripts"), _("‹ Scripts")), title)
  for (const [is, label] of [[false, _("A file by its path")], [true, _("A text of its own")]]) {
    const box = h("label", "radio"), input = h("input")
    input.type = "radio"
    input.name = "sf-source"
    input.checked = is === inline
    input.onchange = () => { inline = is; show() }
    box.append(input, h("span", "", label))
    pick.append(box)
  }
  const radios = pick.querySelectorAll("input")
  fields.append(name.node, language.node, path.node, text.node)
  wrong.setAttribute("role", "alert")
  submit.type = "submit"
  foot.append(submit, plainButton("", _("Cancel"), () => go(addressOfPage("scripts"))))
  node.append(head, pick, fields, form.node, wrong, foot)
  form.set(BLANK, [])

  function show() {
    path.node.hidden = inline
    text.node.hidden = language.node.hidden = !inline
  }
  function say(error) {
    for (const one of [name, path, text]) if (one.name === error.field && !one.node.hidden) { one.wrong(error.message); one.input.focus(); return }
    if (error.field === "interpreter" && inline) { language.wrong(error.message); return }
    if (!form.wrong(error)) setText(wrong, error.message)
  }
  async function take(file) {
    radios[1].checked = inline = true
    show()
    text.wrong("")
    if (file.size > MOST_BYTES) return text.wrong(_("A script has at most 1 MiB."))
    let words = ""
    try { words = await file.text() } catch { return text.wrong(_("This file cannot be read.")) }  // a folder, or a file that is gone
    text.set(words)
    const [, stem, end] = /^(.*?)(?:\.(\w+))?$/.exec(file.name)
    if (!name.get()) name.set(stem)
    language.set(ENDINGS[end] ?? "")
  }
  node.ondragover = (event) => { event.preventDefault(); node.classList.add("over") }
  node.ondragleave = () => node.classList.remove("over")
  node.ondrop = (event) => {
    event.preventDefault()
    node.classList.remove("over")
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0])
  }
  node.onsubmit = async (event) => {
    event.preventDefault()
    for (const one of [name, path, text, language]) one.wrong("")
    form.clear()
    setText(wrong, "")
    submit.disabled = true
    try {
      const made = await ask(model, "add", {
        name: name.get(), inline, form: {...form.get(), path: inline ? "" : path.get()},
        ...(inline ? {text: text.get(), language: language.get()} : {}),
      })
      go(scriptAddress(made.name))
    } catch (error) { say(error) }
    submit.disabled = false
  }
  const plain = [name, language, path, text]
  function takeOver({at, isInline, values, typed}) {
    if (Date.now() - at > HANDED_ON_MS) return
    radios[Number(isInline)].checked = true
    inline = isInline
    for (const [n, one] of plain.entries()) one.set(values[n])
    form.giveBack(typed, [])
  }
  if (handedOn) takeOver(handedOn)
  handedOn = null
  show()
  return {
    node,
    begin: () => name.input.focus({preventScroll: true}),
    close({again = false} = {}) {
      if (again) handedOn = {at: Date.now(), isInline: inline, values: plain.map((one) => one.get()), typed: form.get()}
    },
  }
}
