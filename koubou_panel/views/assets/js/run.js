// ＋ Run: the dialog of `?run=`. What is typed is kept in this tab until it was submitted, whatever happens to the page.

import {ask} from "./ask.js"
import {everySecond, h, plainButton, setText} from "./dom.js"
import {_} from "./language.js"
import {closeButton, modal, onceThere} from "./modal.js"
import {makeField, paramField} from "./params.js"
import {isCut} from "./pill.js"
import {addressOfPage, go, openTask, paramInAddress} from "./route.js"

const CHECK_AFTER_MS = 350
const FOLDED = ["name", "priority", "labels", "retries", "on_crash", "timeout", "memory", "cpu", "processes", "output"]

// Opens the dialog: on a `command`, a `prompt`, `script:NAME`, or `again:TASK`; on what was last used where empty.
export const openRun = (what) => go(addressOfPage(undefined, {run: what || lastUsed()}))

const lastUsed = () => localStorage.getItem("koubou-run-last") || "command"
const draftKey = (what) => `koubou-run ${what}`
const readDraft = (what) => JSON.parse(sessionStorage.getItem(draftKey(what)) || "null")
const quietly = (act) => { try { act() } catch { /* this browser has no room for it */ } }
// Names a form to the workshop: what is sent twice with it is taken once.
export const newKey = () => `page-${Array.from({length: 4}, () => Math.random().toString(36).slice(2, 8)).join("")}`

function commandFields() {
  return [
    makeField({name: "command", type: "lines", rows: 2, label: _("Command"), required: true, placeholder: "python train.py --epochs 3"}),
    makeField({name: "cwd", type: "line", wide: true, label: _("Folder"), placeholder: "~", hint: _("Where it starts. Your home folder where empty.")}),
    makeField({name: "env", type: "lines", rows: 2, label: _("Environment"), placeholder: "NAME=value", hint: _("One variable on a line.")}),
    makeField({name: "stdin", type: "boolean", label: _("It reads what I type for it")}),
    makeField({name: "pty", type: "boolean", label: _("It needs a terminal")}),
  ]
}

function promptFields() {
  return [
    makeField({name: "prompt", type: "area", rows: 5, label: _("Prompt"), required: true}),
    makeField({name: "model", type: "line", wide: true, label: _("Model"), placeholder: _("the one that runs")}),
    makeField({name: "system", type: "area", rows: 2, label: _("System prompt")}),
    makeField({name: "max_tokens", type: "integer", label: _("Most tokens"), min: 1, max: 1000000}),
    makeField({name: "temperature", type: "number", label: _("Temperature"), min: 0, max: 2}),
  ]
}

// What holds for any task. A script has its own limits, and knows the rest by itself.
function moreFields(what, script) {
  const asItSays = _("as the script says"), isScript = what === "script"
  const all = [
    makeField({name: "name", type: "text", label: _("Name")}),
    makeField({name: "priority", type: "integer", label: _("Priority"), min: 1, max: 10, placeholder: isScript ? String(script?.priority ?? 5) : "5", hint: _("1 to 10; 10 goes first.")}),
    makeField({name: "labels", type: "line", label: _("Labels"), placeholder: "team=blue, gpu=yes"}),
    makeField({name: "retries", type: "integer", label: _("Retries"), min: 0, max: 1000, placeholder: isScript ? String(script?.retries ?? 0) : "0"}),
    makeField({
      name: "on_crash", type: "choice", label: _("If its worker is lost"),
      choices: [["", isScript ? asItSays : _("leave it lost")], ...(isScript ? [["mark", _("leave it lost")]] : []), ["retry", _("run it again")]],
    }),
    makeField({name: "timeout", type: "line", label: _("Time-out"), placeholder: isScript && script?.timeout ? `${script.timeout}s` : "30s, 5m, 2h"}),
    makeField({name: "memory", type: "line", label: _("Memory limit"), placeholder: "512M, 2G"}),
    makeField({name: "cpu", type: "line", label: _("Processor time limit"), placeholder: "30s, 10m"}),
    makeField({name: "processes", type: "integer", label: _("Most processes"), min: 1}),
    makeField({name: "output", type: "line", label: _("Output kept"), placeholder: "64M"}),
  ]
  return isScript ? all.filter((field) => !["name", "memory", "cpu", "processes", "output"].includes(field._name)) : all
}

export const RunCard = {
  render({model}) {
    const root = h("div", "runs"), dialog = modal("rundialog", _("Run"), () => leave())
    const form = h("form"), head = h("header"), kinds = h("div", "kinds"), body = h("div", "fields"), note = h("p", "note"), wrong = h("p", "wrong")
    const more = h("details", "morefields"), summary = h("summary", "", _("More")), folded = h("div", "grid")
    const foot = h("footer"), clear = plainButton("clear", _("Clear"), () => fill(null, true)), start = h("button", "start", _("Run"))
    let what = "", kept = "", fields = [], scripts = null, touched = new Set(), key = newKey(), timer = 0, turn = 0, again = ""
    start.type = "submit"
    form.noValidate = true
    wrong.setAttribute("role", "alert")
    note.setAttribute("role", "status")
    wrong.hidden = note.hidden = true
    kinds.setAttribute("role", "group")
    kinds.setAttribute("aria-label", _("What to run"))
    for (const [name, label] of [["command", _("Command")], ["script", _("Script")], ["prompt", _("Prompt")]]) {
      if (model.may !== "full" && name !== "script") continue
      const button = plainButton("", label, () => go(addressOfPage(undefined, {run: name}), {replace: true}))
      button._kind = name
      kinds.append(button)
    }
    const title = h("h2", "", _("Run"))
    head.append(title, kinds, closeButton(dialog))
    more.append(summary, folded)
    const cut = h("p", "cut")
    cut.setAttribute("role", "status")
    everySecond(cut, () => setText(cut, isCut() ? _("The workshop does not answer just now. What you typed is kept; it can be sent when the page is live again.") : ""), 500)
    foot.append(cut, clear, start)
    form.append(head, body, more, note, wrong, foot)
    dialog.append(form)
    root.append(dialog)

    const kindOf = () => (what.startsWith("script") ? "script" : what.startsWith("again") ? again || "" : what)
    const leave = () => { if (paramInAddress("run")) go(addressOfPage(undefined, {run: ""}), {replace: true}) }
    const scriptName = () => fields.find((field) => field._name === "script")?._value() || ""

    // -- what is filled in --

    const values = () => {
      const found = {what: kindOf(), key}, parameters = {}
      for (const field of fields) {
        if (field._given) parameters[field._name.slice("parameters.".length)] = field._given()
        else found[field._name] = field._value()
      }
      if (found.what === "script") found.parameters = parameters
      if (what.startsWith("again:")) found.again = what.slice(6)
      return found
    }
    // By its address (`kept`): "again:ID" is another draft than that of the script which it runs.
    const keep = () => { if (kept) quietly(() => sessionStorage.setItem(draftKey(kept), JSON.stringify({kind: again, values: values(), raw: raw()}))) }
    const raw = () => Object.fromEntries(fields.map((field) => [field._name, field._value()]))

    // All that is wrong at once, each at its field; gives the first of them.
    const show = (error, isTold = () => true) => {
      const faults = error?.faults || {}
      for (const field of fields) field._fail(isTold(field) ? field._wrong() || faults[field._name] || "" : "")
      const bad = fields.filter((field) => field._told)
      wrong.textContent = error && !fields.some((field) => faults[field._name]) ? error.message : ""
      wrong.hidden = !wrong.textContent
      if (bad.some((field) => FOLDED.includes(field._name))) more.open = true
      return bad[0]
    }
    // Tell of what was touched alone: nobody wants to be told of what they have not come to. Gives the first that is wrong.
    const check = async () => {
      const isTold = (field) => touched.has(field._name), mine = ++turn
      for (const field of fields) if (isTold(field)) field._check()
      try {
        const {shell} = await ask(model, "check", {form: values()})
        if (mine !== turn) return null
        note.hidden = !shell
        note.textContent = shell ? _("No shell reads this line. Where pipes, * or ~ are needed, begin with: sh -c '…'") : ""
        return show(null, isTold)
      } catch (error) {
        return mine === turn ? show(error, isTold) : null
      }
    }
    form.addEventListener("input", (event) => {
      const field = event.target.name
      if (!field) return
      touched.add(field)
      key = newKey()
      if (field === "script") {
        go(addressOfPage(undefined, {run: event.target.value ? `script:${event.target.value}` : "script"}), {replace: true})
        return
      }
      keep()
      clearTimeout(timer)
      timer = setTimeout(check, CHECK_AFTER_MS)
    })

    form.onsubmit = async (event) => {
      event.preventDefault()
      clearTimeout(timer)
      turn += 1
      keep()
      for (const field of fields) touched.add(field._name)
      const bad = show(null)
      if (bad) {
        const stood = bad._value()
        bad._input.focus()
        const first = await check()  // with what the workshop finds wrong besides
        if (first && form.getRootNode().activeElement === bad._input && bad._value() === stood) first._input.focus()
        return
      }
      const sent = kept, used = kindOf() === "script" ? `script:${scriptName()}` : kindOf()
      start.disabled = true
      try {
        const {task_id} = await ask(model, "submit", {form: values()})
        quietly(() => localStorage.setItem("koubou-run-last", used))
        sessionStorage.removeItem(draftKey(sent))
        if (kept !== sent) {  // it was closed meanwhile, or another form is open
          dispatchEvent(new CustomEvent("koubou-tell", {detail: [_("What was sent has been started: task {id}.", {id: task_id}), "", () => openTask(model, task_id)]}))
          return
        }
        key = newKey()
        what = kept = ""
        go(addressOfPage(undefined, {run: "", task: task_id}), {replace: true})
      } catch (error) {
        if (kept === sent) show(error)?._input.focus()
      } finally {
        if (kept === sent) start.disabled = false  // else whoever fills in the next form says
      }
    }
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit()
    })

    // -- what there is to fill in --

    const fill = (form_, isCleared = false) => {
      const kind = kindOf(), script = scripts?.find((one) => one.name === what.slice("script:".length))
      const own = kind === "prompt" ? promptFields() : kind === "command" ? commandFields() : kind === "script" ? scriptFields(script) : []
      const others = own.length && (kind !== "script" || script) ? moreFields(kind, script) : []
      fields = [...own, ...others].filter((field) => field._name)
      body.replaceChildren(...own)
      folded.replaceChildren(...others)
      more.hidden = !others.length
      more.open = false
      touched = new Set()
      note.hidden = wrong.hidden = true
      if (isCleared) sessionStorage.removeItem(draftKey(kept))
      const held = isCleared ? null : readDraft(kept)
      // The same form after a cut: what the workshop may have taken already is not taken twice.
      key = held?.values?.key ?? newKey()
      for (const field of fields) {
        if (held && held.raw[field._name] !== undefined) field._set(held.raw[field._name])
        else if (form_ && field._given && form_.parameters?.[field._name.slice(11)] !== undefined) field._set(form_.parameters[field._name.slice(11)])
        else if (form_ && form_[field._name] !== undefined && field._name !== "script") field._set(form_[field._name])
      }
      more.open = others.some((field) => { const value = field._value(); return value && value !== "5" })
      start.disabled = kind === "script" && !script
      for (const button of kinds.children) button.setAttribute("aria-pressed", button._kind === kind)
      const first = fields.find((field) => field._name === (kind === "script" && script ? own[1]?._name : own[0]?._name))
      if (dialog.open) (first || fields[0])?._input.focus()
    }

    const scriptFields = (script) => {
      if (!scripts.length) {
        const none = h("p", "unfilled", _("The catalogue has no scripts yet. `koubou script add NAME FILE` puts one there."))
        return [none]
      }
      const choices = [["", _("choose …")], ...scripts.map((one) => [one.name, one.label])]
      const choice = makeField({name: "script", type: "choice", label: _("Script"), choices, value: script?.name || "", hint: script?.about || ""})
      if (!script) return [choice]
      const params = script.parameters.map(paramField)
      return params.length ? [choice, ...params] : [choice, h("p", "hint", _("It takes no parameters."))]
    }

    const open = async () => {
      const wanted = model.may === "read" ? "" : paramInAddress("run")
      if (wanted && wanted === kept && dialog.open) return
      what = kept = wanted
      again = ""
      if (!what) return dialog.close()
      let found = null
      title.textContent = what.startsWith("again:") ? _("Edit and run again") : _("Run")
      kinds.hidden = what.startsWith("again:")
      dialog._open()
      try {
        if (what.startsWith("again:")) {
          found = (await ask(model, "again", {task_id: what.slice(6)})).form
          if (wanted !== kept) return
          again = found.what
          if (again === "script") what = `script:${found.script}`
        }
        if (kindOf() === "script") scripts = (await ask(model, "scripts")).scripts
        else if (!["command", "prompt"].includes(kindOf())) what = "command"
        if (wanted !== paramInAddress("run")) return
        fill(found)
        const missing = kindOf() === "script" && what.slice("script:".length)
        if (missing && !scripts.some((one) => one.name === missing)) show({message: _("There is no script {name}.", {name: missing})})
      } catch (error) {
        if (wanted !== kept) return
        body.replaceChildren()
        folded.replaceChildren()
        more.hidden = true
        start.disabled = true
        fields = []
        show(error)
      }
    }
    addEventListener("popstate", open)
    model.on("lifecycle:remove", () => removeEventListener("popstate", open))
    onceThere(dialog, open)
    return root
  },
}
