// The settings: a field each, the faults at the field, and what the file will say before it is written.

import {ask} from "./ask.js"
import {focused, h, keyed, PATIENCE_MS, plainButton, setText, sureButton, watch} from "./dom.js"
import {dropDraft, keepDraft, readDraft, SETTINGS} from "./drafts.js"
import {_, ngettext} from "./language.js"

const PAUSE_MS = 250, AGAIN_MS = 2000
// What is typed and not saved: it outlives a change of the language, with which the card is drawn anew.
const edits = new Map()

function fieldRow(page, row) {
  const node = h("div", "setting"), id = `setting-${row.name}`
  const label = h("label", "label", row.label), name = h("code", "key", row.name), about = h("p", "help", row.help)
  label.htmlFor = id
  const input = h("input", "value"), unit = h("span", "unit", row.unit), back = plainButton("back", _("Use the default"), () => page.edit(row.name, null))
  input.id = id
  input.type = "text"
  input.autocomplete = "off"
  input.spellcheck = false
  input.setAttribute("aria-describedby", `${id}-more ${id}-fault`)
  const more = h("p", "tells"), source = h("span", "from"), effect = h("span", "effect"), fault = h("p", "amiss"), over = h("p", "over"), used = h("p", "used")
  more.id = `${id}-more`
  fault.id = `${id}-fault`
  fault.setAttribute("role", "alert")
  more.append(source, effect)
  const words = h("div", "words"), box = h("div", "box"), line = h("div", "line")
  const head = h("div", "top")
  head.append(label, name)
  words.append(head, about)
  line.append(input, unit, back)
  box.append(line, fault, over, used, more)
  node.append(words, box)
  input.oninput = () => page.edit(row.name, input.value)
  node._parts = {input, unit, back, source, effect, fault, over, used, label, about}
  return node
}

function drawField(page, node, row) {
  const {input, unit, back, source, effect, fault, over, used, label, about} = node._parts
  const edited = page.edits.get(row.name), isEdited = page.edits.has(row.name)
  setText(label, row.label)
  setText(about, row.help)
  setText(unit, row.unit)
  const shown = isEdited ? edited || "" : row.typed
  if (input.value !== shown) input.value = shown
  input.inputMode = row.is_number ? "decimal" : "text"
  input.placeholder = row.can_edit ? row.default || _("empty") : ""
  input.disabled = !(page.canAct && row.can_edit)
  if (!row.can_edit) input.value = row.value
  back.hidden = input.disabled || !(isEdited ? edited !== null && row.default !== shown : row.in_file)
  node.classList.toggle("edited", isEdited)
  setText(source, isEdited ? _("not saved yet") : _("from {source}", {source: row.source}))
  setText(effect, row.effect)
  setText(over, row.overrides)
  over.hidden = !row.overrides
  setText(used, row.in_use)
  used.hidden = !row.in_use
  const wrong = page.faults[row.name] || ""
  setText(fault, wrong)
  fault.hidden = !wrong
  input.setAttribute("aria-invalid", wrong !== "")
}

function drawDiff(box, diff) {
  const key = JSON.stringify(diff)
  if (box._shown === key) return
  box._shown = key
  box.replaceChildren(...diff.map(([sign, text]) => {
    const line = h("div", sign === "+" ? "plus" : sign === "-" ? "minus" : "same")
    line.append(h("span", "sign", sign), h("span", "", text))
    return line
  }))
}

// What waits for a restart after a save: the services that read it anew, or the command for all.
function restarts(model, box, services) {
  box.replaceChildren()
  for (const name of services) {
    if (name === "" || !model.can_restart) continue
    const words = name === "pool" ? _("Restart the worker pool") : _("Restart the model server")
    box.append(sureButton("restart", {
      rest: (b) => { b.textContent = words },
      ask: (b) => { b.textContent = name === "pool" ? _("Stops what runs: sure?") : _("Sure?") },
      act: (b) => { b.disabled = true; setTimeout(() => { b.disabled = false }, PATIENCE_MS); model.send_msg({type: "restart_service", name}) },
    }))
  }
  if (services.includes("") || (services.length && !model.can_restart)) {
    box.append(h("span", "", _("It counts after this command in a terminal:")), h("code", "command", "koubou restart"))
  }
}

export const SettingsCard = {
  render({model}) {
    const root = h("div", "settingspage"), list = h("div", "groups"), hint = h("p", "empty"), problem = h("p", "problem")
    root.dataset.kept = ""
    problem.setAttribute("role", "alert")
    const foot = h("section", "card pending"), count = h("h2"), diff = h("div", "diff"), said = h("p", "said")
    foot.setAttribute("aria-label", _("Changes that are not saved yet"))
    diff.setAttribute("role", "group")
    diff.setAttribute("aria-label", _("What the file will say"))
    said.setAttribute("role", "status")
    const after = h("div", "after"), save = plainButton("save", _("Save"), () => put()), drop = plainButton("drop", _("Discard"), () => { page.edits.clear(); look() })
    const undo = plainButton("undo", _("Undo the save"), () => takeBack())
    const buttons = h("div", "buttons")
    buttons.append(drop, save)
    foot.append(count, diff, buttons)
    const told = h("section", "card told"), file = h("p", "file")
    told.append(said, after, undo)
    root.append(hint, problem, file, told, list, foot)
    const page = {edits, faults: {}, canAct: model.can_act, edit}
    let base = "", timer = 0, asked = 0, isRestored = false
    let refusal = ""  // of the last save: told until the next edit, or until one is done

    function edit(name, value) {
      const row = rowOf(name)
      if (value !== null && value.trim() === "" && !row.in_file) value = ""
      if (value === null ? !row.in_file : value === row.typed && (row.in_file || value === "")) edits.delete(name)
      else edits.set(name, value === "" ? null : value)
      if (value === "" && row.in_file) edits.set(name, null)
      look()
      // What is typed in stays above the changes, see its scroll margin.
      requestAnimationFrame(() => focused()?.scrollIntoView({block: "nearest"}))
    }
    const keep = () => { if (edits.size) keepDraft(model.file, SETTINGS, "", JSON.stringify([...edits])); else dropDraft(model.file, SETTINGS, "") }
    // What was typed before the page was loaded again, where the file does not say so by now.
    function restore() {
      if (isRestored || !model.can_act || !model.groups.length) return
      isRestored = true
      const kept = edits.size ? null : readDraft(model.file, SETTINGS)
      for (const [name, value] of Array.isArray(kept?.value) ? kept.value : []) {
        const row = rowOf(name), isNews = row?.can_edit && (value === null ? row.in_file : value !== row.typed || !row.in_file)
        if (isNews && (value === null || typeof value === "string")) edits.set(name, value)
      }
      if (edits.size) look()
      else keep()
    }
    const rowOf = (name) => model.groups.flatMap((group) => group.rows).find((row) => row.name === name)
    const changes = () => Object.fromEntries(edits)

    // Have the server say what the file would be, and what is wrong with it; `save` waits for that.
    function look() {
      keep()
      save.disabled = true
      refusal = ""
      const has = edits.size > 0
      told.hidden = true
      clearTimeout(timer)
      if (has) timer = setTimeout(preview, PAUSE_MS)
      else page.faults = {}
      draw()
    }
    async function preview() {
      const number = ++asked
      try {
        const found = await ask(model, "preview", {changes: changes()})
        if (number !== asked || !edits.size) return
        base = found.base
        page.faults = found.faults
        drawDiff(diff, found.diff)
        save.disabled = Object.keys(found.faults).length > 0 || found.diff.length === 0
        say(refusal, refusal !== "")
      } catch (error) {
        if (number !== asked || !edits.size) return
        failed(error)
      }
      draw()
    }
    async function put() {
      save.disabled = true
      asked += 1
      const sent = changes()
      try {
        const done = await ask(model, "save", {changes: sent, base})
        asked += 1
        // What was typed on meanwhile is a change still, of the file as it is now.
        for (const [name, value] of Object.entries(sent)) if (edits.get(name) === value) edits.delete(name)
        keep()
        saved(done, _("Saved."))
        if (edits.size) look()
      } catch (error) {
        refusal = error.message
        failed(error)
      }
      draw()
    }
    // What is wrong at no field is mended elsewhere: asked again until it can be saved. A card that is made anew asks by itself.
    function failed(error) {
      say(error.message, true)
      if (error.field) page.faults = {[error.field]: error.message}
      else {
        clearTimeout(timer)
        timer = setTimeout(() => { if (root.isConnected) preview() }, AGAIN_MS)
      }
    }
    async function takeBack() {
      undo.disabled = true
      try { saved(await ask(model, "undo"), _("The file is as it was before.")) } catch (error) { say(error.message, true) }
      undo.disabled = false
      draw()
    }
    function saved({changed, services}, words) {
      page.faults = {}
      refusal = ""
      say(changed.length ? words : _("The file said so already."))
      restarts(model, after, changed.length ? services : [])
    }
    function say(words, isBad = false) {
      setText(said, words)
      said.classList.toggle("bad", isBad)
      told.hidden = !words
      if (isBad) after.replaceChildren()
    }
    function draw() {
      page.canAct = model.can_act
      setText(hint, model.hint)
      hint.hidden = !model.hint
      setText(problem, model.problem)
      problem.hidden = !model.problem
      setText(file, model.file ? _("Kept in {file}; a flag or a KOUBOU_ variable wins over it.", {file: model.file}) : "")
      file.hidden = !model.file
      keyed(list, model.groups, (group) => group.key, (group) => {
        const section = h("section", "card group"), title = h("h2")
        section._rows = h("div", "rows")
        section._title = title
        section.append(title, section._rows)
        return section
      }, (section, group) => {
        setText(section._title, group.label)
        keyed(section._rows, group.rows, (row) => row.name, (row) => fieldRow(page, row), (node, row) => drawField(page, node, row))
      })
      foot.hidden = !edits.size
      diff.hidden = Object.keys(page.faults).length > 0
      setText(count, ngettext("{n} change, not saved yet", "{n} changes, not saved yet", edits.size))
      undo.hidden = !(model.can_undo && model.can_act)
    }
    told.hidden = true
    watch(model, ["groups", "problem", "hint", "can_act", "can_undo"], () => { restore(); draw() })
    return root
  },
}
