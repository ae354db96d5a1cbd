// One task under the cell that started it: how it stands, how far it is, what it uses and prints, and a way to stop it.

import {drawMark, everySecond, h, keyed, runNodes, setText, watchTogether} from "../dom.js"
import {faultPart} from "../fault.js"
import {_} from "../language.js"
import {cancelButton, progressBar, progressText} from "../overview.js"
import {againIn, ago, clock, elapsed, moment} from "../time.js"
import {taskLink} from "./route.js"

const STAYS_PX = 24

function outputPart() {
  const log = h("div", "log"), lines = h("div", "lines")
  let follows = true
  log.tabIndex = 0
  log.setAttribute("role", "log")
  log.setAttribute("aria-live", "off")
  log.setAttribute("aria-label", _("Output"))
  log.append(lines)
  log.addEventListener("scroll", () => { follows = log.scrollHeight - log.scrollTop - log.clientHeight < STAYS_PX })
  log._show = (shown) => {
    log.hidden = !shown.length
    keyed(lines, shown.map(([n, runs]) => ({n, runs})), (line) => line.n, () => h("div", "line"), (node, {runs}) => {
      const key = JSON.stringify(runs)
      if (node._is === key) return
      node._is = key
      const text = h("span", "text")
      text.append(...runNodes(runs))
      node.replaceChildren(text)
    })
    if (follows) log.scrollTop = log.scrollHeight
  }
  return log
}

export const InlineTask = {
  render({model}) {
    const root = h("section", "card onetask"), head = h("header"), mark = h("span", "mark"), name = taskLink(model, "name")
    const time = h("span", "time"), words = h("p", "words"), bar = progressBar(), below = h("p", "below")
    const what = h("span"), about = h("span", "about")
    const meta = h("span", "meta"), uses = h("span", "uses"), fault = faultPart()
    const cancel = cancelButton(model, _("Cancel")), log = outputPart(), result = h("p", "result"), value = h("span")
    const state = h("span", "spoken")
    state.setAttribute("role", "status")
    result.append(h("span", "arrow", "→ "), value)
    head.append(mark, name, time)
    words.append(what, about)
    if (model.can_act) head.append(cancel)
    below.append(meta, uses)
    root.append(head, words, bar, below, fault.node, result, log, state)

    const drawTimes = () => {
      const t = model.task
      if (!t.id) return
      setText(time, againIn(t) || (t.finished_at ? ago(t.finished_at) : t.started_at ? elapsed(clock() - t.started_at) : ""))
      time.title = t.finished_at ? moment(t.finished_at) : t.started_at ? _("since {time}", {time: moment(t.started_at)}) : ""
      setText(meta, t.finished_at ? "" : progressText(t))
      below.hidden = !meta.textContent && !uses.textContent
    }
    watchTogether(model, ["task", "lines"], () => {
      const t = model.task, isOver = t.finished_at != null
      root.className = `card onetask is-${t.mark}`
      root.classList.toggle("stopping", t.stopping === true)
      root.dataset.status = t.status || ""
      drawMark(mark, t)
      name._open(t.id)
      setText(name, t.label || "")
      setText(what, t.words || "")
      setText(about, [t.attempt, t.id].filter(Boolean).map((part) => ` · ${part}`).join(""))
      setText(state, [t.words, t.attempt].filter(Boolean).join(" · "))
      setText(uses, t.uses || "")
      bar.hidden = t.status !== "in_progress" && (!isOver || t.fraction === null || t.mark === "ok")
      bar._show(t.fraction ?? null)
      fault.draw({...t.fault, place: ""})
      result.hidden = !t.result
      setText(value, t.result || "")
      cancel.hidden = isOver
      cancel.disabled = t.stopping === true
      cancel._task = t.id
      cancel._name(t.label)
      log._show(model.lines)
      drawTimes()
    })
    everySecond(root, drawTimes)
    return root
  },
}
