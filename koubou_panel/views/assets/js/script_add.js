// A new script: a file by its path, or a text that is pasted, dropped or typed.

import {ask} from "./ask.js"
import {h, icon, plainButton, setText} from "./dom.js"
import {ADDING, dropDraft, keepDraft, readDraft} from "./drafts.js"
import {takeDropped, takesFiles} from "./drop.js"
import {_} from "./language.js"
import {addressOfPage, go, pageLink} from "./route.js"
import {definitionForm, field} from "./script_form.js"
import {scriptAddress} from "./script_list.js"
import {moment} from "./time.js"

const ENDINGS = {py: "python", sh: "sh", bash: "bash", js: "node", mjs: "node"}
const MOST_BYTES = 1 << 20
const BLANK = {retries: "0", priority: "5", keep_runs: "100", max_log_lines: "1000", overlap: "skip", when: "", at: null}
let handedOn = null  // what was typed while the card is made again in another language

export function addView(model) {
  const node = h("form", "card add"), head = h("header"), title = h("h1", "", _("Add a script")), pick = h("div", "radios"), fields = h("div", "fields")
  const name = field("name", _("Name"), {placeholder: "backup"}), path = field("path", _("Path of the file on the workshop's machine"), {wide: true, placeholder: "/home/me/bin/backup.sh", mono: true})
  const language = field("language", _("Language"), {options: [["python", "Python"], ["sh", "Shell"], ["bash", "Bash"], ["node", "JavaScript (node)"], ["", _("as its first line says")]]})
  const text = field("text", _("Text"), {kind: "lines", rows: 12, wide: true, mono: true, hint: _("Paste it, or drop a file here. The home keeps it.")})
  const form = definitionForm(model, {nameOf: () => "", isNew: true}), wrong = h("p", "wrong"), foot = h("footer"), submit = h("button", "primary", _("Add it"))
  let inline = false
  node.noValidate = true
  node.dataset.kept = ""
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
  foot.append(submit, plainButton("", _("Cancel"), () => { drop(); go(addressOfPage("scripts")) }))
  node.append(head, pick, fields, form.node, wrong, foot)
  form.set(BLANK, [])

  function show() {
    path.node.hidden = inline
    text.node.hidden = language.node.hidden = !inline
  }
  function say(error) {
    const {interpreter, ...rest} = error.faults, faults = inline && interpreter ? {...rest, language: interpreter} : error.faults
    const isBelow = form.wrong({faults}), here = plain.filter((one) => faults[one.name] && !one.node.hidden)
    for (const one of here) one.wrong(faults[one.name])
    here[0]?.input.focus()
    if (!here.length && !isBelow) setText(wrong, error.message)
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
    keep()
  }

  // -- what is not sent yet --

  let isOver = false, offered = null
  const said = () => JSON.stringify([name.get(), path.get(), text.get(), form.get()]), blank = said()
  function keep() {
    if (isOver) return
    if (said() !== blank) keepDraft(model.home, ADDING, "", JSON.stringify(typed()))
    else {
      dropDraft(model.home, ADDING, "")
      offered?.box.remove()
    }
  }
  function drop() {
    isOver = true
    dropDraft(model.home, ADDING, "")
  }
  function offer(at) {
    const box = h("div", "banner warn"), words = _("There is a draft of yours from {when} that was not saved.", {when: moment(at)})
    const away = plainButton("button", _("Throw it away"), () => {
      drop()
      isOver = false
      box.remove()
      takeOver({isInline: false, values: ["", "python", "", ""], form: BLANK})
      show()
    })
    box.append(icon("warn"), h("p", "", words), away)
    head.after(box)
    offered = {box, at}
  }
  for (const kind of ["input", "change"]) node.addEventListener(kind, keep)
  // By its path: a button that takes its row away is in no fieldset any more.
  node.addEventListener("click", (event) => { if (event.composedPath().some((place) => place.localName === "fieldset")) keep() })

  takesFiles(node, take)
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
      drop()
      go(scriptAddress(made.name))
    } catch (error) { say(error) }
    submit.disabled = false
  }
  const plain = [name, language, path, text]
  const typed = () => ({isInline: inline, values: plain.map((one) => one.get()), form: form.get()})
  function takeOver(was) {
    radios[Number(was.isInline)].checked = true
    inline = was.isInline
    for (const [n, one] of plain.entries()) one.set(was.values[n])
    form.giveBack(was.form, [])
  }
  const file = takeDropped(), again = handedOn, draft = file || again ? null : readDraft(model.home, ADDING), was = again || draft
  handedOn = null
  try {
    if (was) takeOver(was.value)
    if (was?.at) offer(was.at)
  } catch { dropDraft(model.home, ADDING, "") }  // of an earlier version of the form
  show()
  if (file) take(file)
  return {
    node,
    begin: () => name.input.focus({preventScroll: true}),
    close({again: isMadeAgain = false} = {}) {
      if (isMadeAgain && !isOver) handedOn = {value: typed(), at: offered?.box.isConnected ? offered.at : null}
    },
  }
}
