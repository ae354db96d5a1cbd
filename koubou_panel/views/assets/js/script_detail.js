// One script: how it stands, its definition and the form of that, its runs, its output.

import {ask} from "./ask.js"
import {everySecond, h, icon, keyed, plainButton, setText, sureButton} from "./dom.js"
import {changing, dropDraft, hasDraft, keepDraft, readDraft} from "./drafts.js"
import {_, ngettext} from "./language.js"
import {addressOfPage, go, pageLink, taskLink} from "./route.js"
import {definitionForm, dueWords} from "./script_form.js"
import {enableSwitch, runAddress, runMarks, scriptAddress, tasksAddress} from "./script_list.js"
import {ago, duration, moment} from "./time.js"

const HANDED_ON_MS = 5000
let handedOn = null  // the form that is open while the card is made again in another language

const sure = (cls, text, question, act) => sureButton(cls, {rest: (b) => { b.textContent = text() }, ask: (b) => { b.textContent = question() }, act})

export function detailView(model, name) {
  const node = h("div", "detail"), canAct = model.role === "full"
  const head = h("header", "card top"), line = h("div", "line1"), title = h("h1", "", name), about = h("p", "about"), state = h("p", "stands"), actions = h("div", "actions2")
  const wrong = h("p", "wrong"), columns = h("div", "columns"), left = h("div", "column"), right = h("div", "column")
  const parts = [definitionPart(), duesPart(), runsPart(), outputPart()]
  let detail = null, started = false
  wrong.setAttribute("role", "alert")
  const tell = (text) => { wrong.hidden = !text; setText(wrong, text) }
  tell("")
  const on = enableSwitch(model, name, tell, {on: _("schedule on"), off: _("schedule off")}), draft = pageLink("tag2 warn", () => scriptAddress(name, {edit: "1"}), _("unsaved draft"))
  const edit = pageLink("button", () => scriptAddress(name, {edit: "1"}), canAct ? _("Edit the text") : _("Read the text"))
  line.append(pageLink("back", () => addressOfPage("scripts"), _("‹ Scripts")), title, draft)
  if (model.role !== "read") actions.append(pageLink("button primary", () => runAddress(name), _("▶ Run")))
  actions.append(edit, on)
  if (canAct) actions.append(sure("button danger", () => _("Remove"), () => _("Remove it? Its file, runs and output stay"), async () => {
    try {
      await ask(model, "remove", {name})
      dropDraft(model.home, changing(name), "")
      go(addressOfPage("scripts"))
    } catch (error) { tell(error.message) }
  }))
  head.append(line, about, state, actions, wrong)
  left.append(parts[0].node)
  right.append(parts[1].node, parts[2].node, parts[3].node)
  columns.append(left, right)
  node.append(head, columns)

  function part(cls, text) {
    const box = h("section", `card part ${cls}`), heading = h("h2", "", text)
    box.append(heading)
    return {box, heading}
  }

  // -- its definition -------------------------------------------------------------------------------------------

  function definitionPart() {
    const {box, heading} = part("defined", _("Definition")), facts = h("dl", "facts2"), holder = h("div"), say = h("div", "say"), foot = h("footer")
    const kept = changing(name)
    let form = null, revision = 0, filled = "", offered = null, isDrawn = false
    const change = plainButton("button", _("Change"), () => { open(); form.node.querySelector("input")?.focus({preventScroll: true}) })
    const submit = h("button", "primary", _("Save")), cancel = plainButton("", _("Cancel"), shut), shell = h("form", "change")
    submit.type = "submit"
    say.setAttribute("role", "alert")
    shell.noValidate = true
    shell.dataset.kept = ""
    shell.hidden = true
    foot.append(submit, cancel)
    shell.append(holder, say, foot)
    if (canAct) heading.append(change)
    box.append(facts, shell)

    function open() {
      form = definitionForm(model, {nameOf: () => name, isNew: false})
      submit.disabled = false
      fill()
      holder.replaceChildren(form.node)
      shell.hidden = false
      facts.hidden = change.hidden = true
    }
    function fill() {
      revision = detail.revision
      form.set(detail.form, detail.takes)
      filled = said()
      say.replaceChildren()
    }
    const said = () => JSON.stringify(form.get())
    // In the tab, until it is saved, cancelled or thrown away.
    function keep() {
      if (!form) return
      if (said() !== filled) keepDraft(model.home, kept, "", JSON.stringify({revision, typed: form.get()}))
      else {
        dropDraft(model.home, kept, "")
        offered?.box.remove()
      }
    }
    function takeOver() {
      const again = handedOn?.name === name && Date.now() - handedOn.at < HANDED_ON_MS ? handedOn : null, was = again || readDraft(model.home, kept)
      handedOn = null
      if (!was) return
      try {
        open()
        revision = was.value.revision
        form.giveBack(was.value.typed, detail.takes)
      } catch { return shut() }  // of an earlier version of the form
      if (!again && said() === filled) return shut()
      const at = again ? again.offeredAt : was.at
      if (at) offer(at)
    }
    function offer(at) {
      const box = h("div", "banner warn")
      box.append(icon("warn"), h("p", "", _("There is a draft of yours from {when} that was not saved.", {when: moment(at)})), plainButton("button", _("Throw it away"), shut))
      shell.prepend(box)
      offered = {box, at}
    }
    function shut() {
      dropDraft(model.home, kept, "")
      offered?.box.remove()
      form = null
      shell.hidden = true
      holder.replaceChildren()
      say.replaceChildren()
      facts.hidden = change.hidden = false
    }
    async function save(on) {
      const mine = form  // it may be shut, and another one open, before the answer is here
      mine.clear()
      say.replaceChildren()
      submit.disabled = true
      try {
        await ask(model, "save", {name, revision: on, form: mine.get()})
        if (form === mine) shut()
      } catch (error) {
        if (form === mine) refused(error)
      } finally {
        if (form === mine) submit.disabled = false
      }
    }
    function refused(error) {
      if (error.code === "conflict" && error.field === "revision") {
        say.append(h("p", "wrong", _("It was changed meanwhile: nothing was overwritten.")),
          plainButton("", _("Show it as it is now"), fill), sure("", () => _("Save mine over it"), () => _("Sure?"), () => save(detail.revision)))
      } else if (!form.wrong(error)) say.append(h("p", "wrong", error.message))
    }
    shell.onsubmit = (event) => { event.preventDefault(); save(revision) }
    for (const kind of ["input", "change", "click"]) shell.addEventListener(kind, keep)

    const fact = (label, value, cls = "") => {
      if (!value) return []
      const text = h("dd", cls)
      text.append(...(Array.isArray(value) ? value : [value]))
      return [h("dt", "", label), text]
    }
    return {
      node: box,
      close() { if (form) handedOn = {name, at: Date.now(), value: {revision, typed: form.get()}, offeredAt: offered?.box.isConnected ? offered.at : null} },
      draw() {
        const f = detail.form, form_ = detail
        if (canAct && !isDrawn) takeOver()
        isDrawn = true
        facts.replaceChildren(
          ...fact(_("Schedule"), detail.once ? _("once, {when}", {when: moment(detail.once)}) : [detail.schedule, detail.cron && detail.cron !== detail.schedule ? h("code", "", detail.cron) : ""]),
          ...fact(_("If a run goes on"), detail.timed ? {skip: _("skip the new one"), queue: _("queue it: it runs afterwards"), together: _("run both")}[f.overlap] : ""),
          ...fact(_("File"), [h("code", "", detail.path), detail.inline ? h("span", "dim", _("kept in the home")) : ""]),
          ...fact(_("Run by"), detail.program, "mono"), ...fact(_("Arguments"), f.arguments, "mono"), ...fact(_("Folder"), f.cwd, "mono"),
          ...fact(_("Environment"), f.env, "mono lines"),
          ...fact(_("Time-out"), f.timeout || _("none")), ...fact(_("Retries"), f.retries === "0" ? "" : f.retries), ...fact(_("Priority"), f.priority === "5" ? "" : f.priority),
          ...fact(_("Memory"), f.memory), ...fact(_("Processor time"), f.cpu), ...fact(_("Processes"), f.processes), ...fact(_("Output of a run"), f.output),
          ...fact(_("Output kept"), [ngettext("of {n} run", "of {n} runs", Number(f.keep_runs)), f.keep_days ? _("for {n} days", {n: f.keep_days}) : "", f.keep_size ? _("at most {size}", {size: f.keep_size}) : ""].filter(Boolean).join(", ")),
          ...fact(_("Takes"), form_.takes.length ? [takesTable(form_.takes)] : ""),
          ...fact(_("Changed"), ago(detail.changed_at)),
        )
      },
    }
  }

  function takesTable(takes) {
    const list = h("ul", "takes")
    for (const one of takes) {
      const item = h("li"), type = one.type === "choice" ? one.choices.join(" | ") : one.word
      item.append(h("code", "", one.flag || one.name), h("span", "dim", type))
      if (one.default !== "") item.append(h("span", "dim", `= ${one.default}`))
      if (one.required) item.append(h("b", "", _("must be given")))
      if (one.help) item.append(h("span", "help", one.help))
      list.append(item)
    }
    return list
  }

  // -- when, and how it went ------------------------------------------------------------------------------------

  function duesPart() {
    const {box} = part("dues", _("Next times")), list = h("ol"), none = h("p", "empty"), note_ = h("p", "wrong")
    box.append(note_, list, none)
    return {
      node: box,
      draw() {
        box.hidden = !detail.timed
        none.hidden = detail.dues.length > 0
        setText(none, detail.enabled ? _("It is due no more.") : _("Its schedule is off."))
        note_.hidden = !detail.missing
        setText(note_, _("Its schedule cannot start it: {names} must be given. Give a default.", {names: detail.missing}))
        keyed(list, detail.dues, (at) => at, () => { const item = h("li"); item.append(h("span"), h("span", "in")); return item }, (item, at) => {
          setText(item.firstChild, moment(at))
          setText(item.lastChild, dueWords(at))
        })
      },
      tick() { if (detail) for (const [n, item] of [...list.children].entries()) setText(item.lastChild, dueWords(detail.dues[n])) },
    }
  }

  function runsPart() {
    const {box, heading} = part("lastruns", _("Last runs")), marks = runMarks(model), list = h("ol"), none = h("p", "empty", _("It has not run yet.")), all = pageLink("all", () => tasksAddress(name))
    heading.append(marks)
    box.append(none, list, all)
    return {
      node: box,
      draw() {
        marks._draw(detail.marks)
        none.hidden = detail.last_runs.length > 0
        all.hidden = !none.hidden
        setText(all, detail.failures ? _("All its runs: {n}, {bad} of them not well ›", {n: detail.runs, bad: detail.failures}) : _("All its runs: {n} ›", {n: detail.runs}))
        keyed(list, detail.last_runs, (run) => run.id, () => { const item = h("li"), link = taskLink(model, "run"); item.append(link); return item }, (item, run) => {
          const link = item.firstChild
          item._run = run
          link._open(run.id)
          link.title = moment(run.at)
          link.className = `run ${run.mark}`
          link.replaceChildren(icon(run.mark), h("span", "word", run.word), h("time", "", ago(run.at)), h("span", "took", run.end ? duration(run.end - run.at) : ""), h("span", "why", run.why || (run.timed ? _("by its schedule") : "")))
        })
      },
      tick() { for (const item of list.children) setText(item.querySelector("time"), ago(item._run.at)) },
    }
  }

  function outputPart() {
    const {box} = part("printed", _("Output")), held = h("p", "held"), form = h("form", "search"), input = h("input"), go_ = h("button", "", _("Search")), found = h("div", "found"), say = h("p", "wrong")
    input.type = "search"
    input.placeholder = _("Search in all its output")
    input.setAttribute("aria-label", _("Search in all its output"))
    input.maxLength = 1000
    go_.type = "submit"
    say.hidden = true
    found.setAttribute("role", "status")
    form.append(input, go_)
    const remove = sure("danger", () => _("Remove old output"), () => _("Remove {size}?", {size: detail?.held || "0 B"}), async () => {
      try {
        const done = await ask(model, "remove_output", {name})
        found.replaceChildren(h("p", "", ngettext("{size} of {n} run is removed.", "{size} of {n} runs is removed.", done.runs, {size: done.size})))
      } catch (error) { told(error.message) }
    })
    const told = (text) => { say.hidden = !text; setText(say, text) }
    form.onsubmit = async (event) => {
      event.preventDefault()
      if (!input.value.trim()) return
      told("")
      go_.disabled = true
      found.replaceChildren(h("p", "dim", _("Searching…")))
      try { show(await ask(model, "search", {name, text: input.value})) } catch (error) { found.replaceChildren(); told(error.message) }
      go_.disabled = false
    }
    function show({matches, runs, is_cut: isCut}) {
      const words = ngettext("{n} line in {runs} runs", "{n} lines in {runs} runs", matches.length, {runs}), list = h("ol")
      for (const one of matches) {
        const item = h("li"), link = taskLink(model, "match")
        link._open(one.task)
        link.append(h("span", "no", String(one.line)), h("code", "", one.text))
        item.append(link)
        list.append(item)
      }
      found.replaceChildren(h("p", "dim", isCut ? _("{lines}; there may be more", {lines: words}) : words), list)
    }
    box.append(held, form, say, found)
    return {
      node: box,
      draw() {
        setText(held, detail.held ? ngettext("{size} held, of {n} run", "{size} held, of {n} runs", detail.held_runs, {size: detail.held}) : _("Nothing is held of its output."))
        if (canAct && remove.parentNode !== held.parentNode) box.insertBefore(remove, form)
        remove.hidden = !detail.held
      },
    }
  }

  function gone() {
    const box = h("div", "card part"), text = h("p", "", _("There is no script {name} in the catalogue any more.", {name}))
    box.append(text, pageLink("button", () => addressOfPage("scripts"), _("‹ Scripts")))
    node.replaceChildren(box)
    started = false
  }

  everySecond(node, () => { for (const one of parts) one.tick?.() })
  return {
    node,
    close({again = false} = {}) { if (again) for (const one of parts) one.close?.() },
    update(now) {
      if (now.gone) return gone()
      if (!started) node.replaceChildren(head, columns)
      started = true
      detail = now
      setText(about, now.about)
      about.hidden = !now.about
      draft.hidden = !(canAct && hasDraft(model.home, name))
      const words = now.queued ? ngettext("{n} due time waits for the run before it", "{n} due times wait for the run before them", now.queued) : ""
      state.replaceChildren(...(now.mark ? [icon(now.mark)] : []), h("span", now.mark, now.word), h("span", "dim", now.at ? ago(now.at) : ""), h("span", "dim", words))
      on._draw(now)
      for (const one of parts) one.draw()
    },
  }
}
