// One task: its head, and a line to type for it.

import {ask} from "./ask.js"
import {copyText, drawMark, everySecond, focused, h, icon, keyed, once, plainButton, setText, sureButton, watch} from "./dom.js"
import {faultPart} from "./fault.js"
import {_} from "./language.js"
import {bellButton} from "./notify.js"
import {cancelButton, progressBar, progressText} from "./overview.js"
import {openRun} from "./run.js"
import {addressOf, openTask, taskInAddress, taskLink} from "./route.js"
import {FORGET_MS, forgetFigures} from "./theme.js"
import {againIn, ago, clock, elapsed, moment} from "./time.js"

export const TaskCard = {
  render({model}) {
    const root = h("section", "taskcard")
    const head = h("header"), mark = h("span", "mark"), name = h("h3"), close = plainButton("close", null, () => openTask(model, ""))
    close.append(icon("close"))
    close.setAttribute("aria-label", _("Close this task's view"))
    close.title = _("Close (Esc)")
    head.append(mark, name, close)
    const words = h("p", "words"), what = h("span"), when = h("span", "when"), waits = h("p", "waits"), bar = progressBar(), meta = h("p", "meta")
    what.setAttribute("role", "status")
    words.append(what, when)
    const fault = faultPart(), given = h("dl", "given"), facts = h("dl", "facts"), reruns = h("p", "waits"), copies = copyPart(model)
    const cancel = cancelButton(model, _("Cancel"))
    const retry = plainButton("retry", _("Run again"), once(() => model.send_msg({type: "retry", task_id: model.task.id})))
    const edit = plainButton("retry", _("Edit and run again"), () => openRun(`again:${model.task.id}`))
    const id = h("span", "id"), foot = h("div", "actions"), bell = bellButton(model, "")
    foot.append(id, copies.button, bell)
    if (model.can_act) foot.append(edit, retry, cancel)
    root.append(head, words, waits, bar, meta, fault.node, foot, copies.node, reruns, given, facts)

    const drawTimes = () => {
      const t = model.task
      if (!t.id) return
      let at = againIn(t)
      if (!at && t.status === "pending") at = _("submitted {ago}", {ago: ago(t.created_at)})
      else if (!at && t.finished_at) at = ago(t.finished_at)
      else if (!at && t.started_at) at = _("for {time}", {time: elapsed(clock() - t.started_at)})
      setText(when, at)
      words.title = _("submitted {moment}", {moment: moment(t.created_at)})
      setText(meta, progressText(t))
      meta.hidden = bar.hidden || !meta.textContent
    }
    const html = document.documentElement, phone = matchMedia("(max-width: 700px)")
    let opener = null, shown
    // On a phone it covers the page, which is then out of reach for keys and screen readers too.
    const cover = () => {
      const isAlone = shown !== undefined && phone.matches
      for (const part of document.querySelectorAll(".k-main")) part.inert = isAlone
      if (html.classList.contains("k-alone") === isAlone) return
      html.classList.toggle("k-alone", isAlone)
      dispatchEvent(new Event("koubou-alone"))
    }
    const draw = () => {
      const t = model.task, isOpen = t.id !== undefined
      if (shown !== t.id) {
        if (shown !== undefined) setTimeout(forgetFigures, FORGET_MS)
        cancel._rest()  // what was asked about one task is no answer for another
        copies.close()
        fault.node.open = false
      }
      shown = t.id
      const wasOpen = html.classList.contains("k-has-task"), drawer = document.querySelector(".k-drawer")
      html.classList.toggle("k-has-task", isOpen)
      cover()
      if (isOpen && !wasOpen) {
        opener = focused()
        drawer.focus({preventScroll: true})
        drawer.scrollTop = 0
        dispatchEvent(new Event("resize"))
      }
      if (!isOpen) {
        if (wasOpen && opener?.isConnected) opener.focus({preventScroll: true})
        return
      }
      drawer.setAttribute("aria-label", t.label)
      root.dataset.task = t.id
      drawMark(mark, t)
      setText(name, t.label)
      root.className = `taskcard is-${t.mark}`
      setText(what, t.words)
      keyed(waits, t.waits_for, (w) => w.id, (w) => openable(model, w.id), (link, w) => setText(link, w.label))
      waits.hidden = !t.waits_for.length
      bar.hidden = !t.has_progress || (t.finished_at !== null && t.fraction === null)
      bar._show(t.fraction)
      root.classList.toggle("stopping", t.stopping)
      fault.draw(t.fault)
      keyed(reruns, t.reruns, (r) => r.id, (r) => openable(model, r.id), (link, r) => {
        if (link._is !== r.mark) link.replaceChildren(icon(link._is = r.mark), h("span"))
        setText(link.lastChild, r.words)
      })
      reruns.hidden = !t.reruns.length
      keyed(facts, t.facts, ([label]) => label, ([label]) => {
        const pair = h("div")
        pair.append(h("dt", "", label), h("dd"))
        return pair
      }, (pair, [, text]) => setText(pair.lastChild, text))
      setText(id, t.id)
      const isOver = t.finished_at !== null
      cancel.hidden = bell.hidden = isOver
      bell._of(t.id)
      cancel.disabled = t.stopping
      cancel._task = t.id
      cancel._name(t.label)
      retry.hidden = edit.hidden = !isOver
      edit.hidden = !isOver || !t.can_edit
      drawTimes()
    }
    const fromAddress = () => model.send_msg({type: "open", task_id: taskInAddress()})
    const escape = (event) => {
      if (event.key !== "Escape" || event.isComposing || event.defaultPrevented || !html.classList.contains("k-has-task")) return
      openTask(model, "")
    }
    watch(model, ["given"], () => drawGiven(given, model.given))
    watch(model, ["task"], draw)
    everySecond(root, drawTimes)
    model.on("msg:custom", ({gone}) => { if (taskInAddress() === gone) history.replaceState(null, "", addressOf("")) })
    addEventListener("popstate", fromAddress)
    addEventListener("keydown", escape)
    phone.addEventListener("change", cover)
    model.on("lifecycle:remove", () => {
      removeEventListener("popstate", fromAddress)
      removeEventListener("keydown", escape)
      phone.removeEventListener("change", cover)
    })
    if (taskInAddress()) fromAddress()
    return root
  },
}

function openable(model, id) {
  const link = taskLink(model, "waited")
  link._open(id)
  return link
}

function drawGiven(list, entries) {
  // Labels are people's words too, so entries are told apart by their place.
  keyed(list, entries.map((entry, n) => ({...entry, key: `${n} ${entry.form}`})), (e) => e.key, (e) => {
    const pair = h("div", e.form), text = h("dd")
    if (e.form) text.tabIndex = 0
    pair.append(h("dt"), text)
    return pair
  }, (pair, e) => {
    setText(pair.firstChild, e.label)
    setText(pair.lastChild, e.text)
  })
  list.hidden = !entries.length
}

// The task as a line for another program: one way at a time.
function copyPart(model) {
  const node = h("section", "copies"), ways = h("div", "offers"), code = h("pre", "code"), note = h("p", "note"), copy = h("button", "copy")
  const label = h("span", "", _("Copy"))
  copy.type = "button"
  copy.append(icon("copy"), label)
  code.tabIndex = 0
  ways.setAttribute("role", "group")
  ways.setAttribute("aria-label", _("Copy as"))
  node.append(ways, code, note, copy)
  node.hidden = true
  const button = plainButton("retry", _("Copy as"), () => (node.hidden ? open() : close()))
  button.setAttribute("aria-expanded", "false")
  const close = () => { node.hidden = true; button.setAttribute("aria-expanded", "false") }
  const choose = (found, [name, text, words]) => {
    for (const way of ways.children) way.setAttribute("aria-pressed", way.textContent === name)
    setText(code, text)
    code.hidden = copy.hidden = !text
    code.setAttribute("aria-label", name)
    setText(note, words)
    note.hidden = !words
    copy.onclick = () => copyText(text, label)
  }
  const open = async () => {
    button.setAttribute("aria-expanded", "true")
    ways.replaceChildren()  // those of another time may be another task's
    code.hidden = note.hidden = copy.hidden = true
    node.hidden = false
    const task = model.task.id
    const isOther = () => node.hidden || model.task.id !== task
    try {
      const {copies} = await ask(model, "copies", {task})
      if (isOther()) return
      ways.replaceChildren(...copies.map((one) => plainButton("offer", one[0], () => choose(copies, one))))
      choose(copies, copies[0])
    } catch (error) {
      if (isOther()) return
      note.hidden = false
      setText(note, error.message)
    }
  }
  return {node, button, close}
}

export const InputCard = {
  render({model}) {
    const root = h("form", "typing"), input = h("input")
    Object.assign(input, {type: "text", autocomplete: "off", spellcheck: false, placeholder: _("Type a line for it …"), maxLength: 16000})
    input.setAttribute("aria-label", _("A line for the task's input"))
    const send = h("button", "send", _("Send"))
    send.type = "submit"
    const tell = (text, last) => model.send_msg({type: "input", task_id: model.task_id, text, last})
    const end = sureButton("end", {
      rest: (b) => { b.textContent = _("End"); b.title = _("End its input: it reads no more") },
      ask: (b) => { b.textContent = _("No more input?") },
      act: () => tell("", true),
    })
    root.append(input, send, end)
    let sent = ""
    root.onsubmit = (event) => {
      event.preventDefault()
      tell(sent = input.value, false)
      input.value = ""
    }
    input.onkeydown = (event) => { if (event.key === "ArrowUp" && !event.isComposing && !input.value && sent) { input.value = sent; event.preventDefault() } }
    watch(model, ["task_id"], () => {
      root.hidden = !model.task_id
      input.value = sent = ""
      end._rest()
    })
    return root
  },
}
