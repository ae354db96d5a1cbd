// One task: its head, and a line to type for it.

import {everySecond, focused, h, icon, keyed, plainButton, setText, sureButton, watch} from "./dom.js"
import {_} from "./language.js"
import {cancelButton, progressBar, progressText} from "./overview.js"
import {addressOf, openTask, taskInAddress, taskLink} from "./route.js"
import {FORGET_MS, forgetFigures} from "./theme.js"
import {about, ago, clock, elapsed, moment} from "./time.js"

export const TaskCard = {
  render({model}) {
    const root = h("section", "taskcard")
    const head = h("header"), mark = h("span", "mark"), name = h("h3"), close = plainButton("close", null, () => openTask(model, ""))
    close.append(icon("close"))
    close.setAttribute("aria-label", _("Close this task's view"))
    close.title = _("Close (Esc)")
    head.append(mark, name, close)
    const words = h("p", "words"), waits = h("p", "waits"), bar = progressBar(), meta = h("p", "meta")
    words.setAttribute("role", "status")
    const command = h("code", "command"), facts = h("dl", "facts"), trace = h("pre", "trace")
    const cancel = cancelButton(model, "Cancel")
    const retry = plainButton("retry", _("Run again"), () => model.send_msg({type: "retry", task_id: model.task.id}))
    const id = h("span", "id"), foot = h("div", "actions")
    foot.append(id)
    if (model.can_act) foot.append(retry, cancel)
    root.append(head, words, waits, bar, meta, command, facts, trace, foot)

    const drawTimes = () => {
      const t = model.task
      if (!t.id) return
      const wait = t.not_before ? t.not_before - clock() : 0
      const since = t.status === "pending" ? `, submitted ${ago(t.created_at)}` : t.finished_at ? `, ${ago(t.finished_at)}` : ""
      const run = t.started_at && t.status === "in_progress" ? ` for ${elapsed(clock() - t.started_at)}` : ""
      setText(words, (wait > 0 ? `runs again in ${about(Math.ceil(wait))}` : t.words) + run + since)
      words.title = `submitted ${moment(t.created_at)}`
      setText(meta, progressText(t))
      meta.hidden = bar.hidden || !meta.textContent
    }
    let opener = null, shown
    const draw = () => {
      const t = model.task, isOpen = t.id !== undefined
      if (shown !== t.id) {
        if (shown !== undefined) setTimeout(forgetFigures, FORGET_MS)
        cancel._rest()  // what was asked about one task is no answer for another
      }
      shown = t.id
      const html = document.documentElement, wasOpen = html.classList.contains("k-has-task")
      html.classList.toggle("k-has-task", isOpen)
      if (isOpen && !wasOpen) {
        opener = focused()
        document.querySelector(".k-drawer").focus({preventScroll: true})
        document.querySelector(".k-drawer").scrollTop = 0
        dispatchEvent(new Event("resize"))
      }
      if (!isOpen) {
        if (wasOpen && opener?.isConnected) opener.focus({preventScroll: true})
        return
      }
      root.dataset.task = t.id
      if (mark._is !== t.mark) mark.replaceChildren(icon(mark._is = t.mark, t.status))
      setText(name, t.label)
      root.className = `taskcard is-${t.mark}`
      keyed(waits, t.waits_for, (w) => w.id, (w) => {
        const link = taskLink(model, "waited")
        link._open(w.id)
        return link
      }, (link, w) => setText(link, w.label))
      waits.hidden = !t.waits_for.length
      bar.hidden = !t.has_progress || (t.finished_at !== null && t.fraction === null)
      bar._show(t.fraction)
      root.classList.toggle("stopping", t.stopping)
      setText(command, t.command)
      command.hidden = !t.command
      keyed(facts, t.facts, ([label]) => label, ([label]) => {
        const pair = h("div")
        pair.append(h("dt", "", label), h("dd"))
        return pair
      }, (pair, [, text]) => setText(pair.lastChild, text))
      trace.hidden = !t.traceback
      if (trace.textContent !== t.traceback) {
        trace.textContent = t.traceback
        trace.scrollTop = trace.scrollHeight  // the error itself stands last
      }
      setText(id, t.id)
      const isOver = t.finished_at !== null
      cancel.hidden = isOver
      cancel.disabled = t.stopping
      cancel._task = t.id
      cancel._name(t.label)
      retry.hidden = !isOver
      drawTimes()
    }
    const fromAddress = () => model.send_msg({type: "open", task_id: taskInAddress()})
    const escape = (event) => {
      if (event.key === "Escape" && document.documentElement.classList.contains("k-has-task")) openTask(model, "")
    }
    watch(model, ["task"], draw)
    everySecond(root, drawTimes)
    model.on("msg:custom", ({gone}) => { if (taskInAddress() === gone) history.replaceState(null, "", addressOf("")) })
    addEventListener("popstate", fromAddress)
    addEventListener("keydown", escape)
    model.on("lifecycle:remove", () => {
      removeEventListener("popstate", fromAddress)
      removeEventListener("keydown", escape)
    })
    if (taskInAddress()) fromAddress()
    return root
  },
}

export const InputCard = {
  render({model}) {
    const root = h("form", "typing"), input = h("input")
    Object.assign(input, {type: "text", autocomplete: "off", spellcheck: false, placeholder: "Type a line for it …", maxLength: 16000})
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
    input.onkeydown = (event) => { if (event.key === "ArrowUp" && !input.value && sent) { input.value = sent; event.preventDefault() } }
    watch(model, ["task_id"], () => {
      root.hidden = !model.task_id
      input.value = sent = ""
      end._rest()
    })
    return root
  },
}
