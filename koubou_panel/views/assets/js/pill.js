// The pill tells the truth about both links: page to server, and server to workshop.

import {everySecond, h, setText} from "./dom.js"
import {_} from "./language.js"
import {duration, setClock} from "./time.js"

const STALE_AFTER_S = 3.5
let state = "live"

// Whether what is done here would reach nobody, for what hides the pill.
export const isCut = () => ["stale", "reconnecting", "closed"].includes(state)

export function pill(model) {
  const pill = h("span", "pill"), dot = h("i"), word = h("span"), spoken = h("span", "spoken")
  // Its words change all the time: what is spoken is that it has come to another state.
  spoken.setAttribute("role", "status")
  pill._spoken = spoken
  let was
  pill.append(dot, word)
  const show = () => {
    // The clock on the wall, too: the other one stands still while the machine sleeps.
    const silent_s = Math.max(performance.now() - window.koubouBeat, Date.now() - window.koubouBeatAt) / 1000
    const {status, lag_s} = model.freshness
    const age = silent_s + lag_s
    state = status
    if (silent_s > STALE_AFTER_S) state = navigator.onLine === false ? "reconnecting" : "stale"
    if (state === "live" && age > STALE_AFTER_S) state = "stale"
    pill.className = `pill ${state}`
    const words = {
      live: _("live {age} s", {age: age.toFixed(1)}),
      stale: _("stale {age}", {age: duration(age)}),
      reconnecting: _("reconnecting {age}", {age: duration(age)}),
      closed: _("workshop stopped"),
      paused: _("paused"),
    }
    setText(word, words[state] || state)
    if (was !== undefined && was !== state) setText(spoken, word.textContent)
    was = state
    pill.title = state === "paused" ? _("This page stands still until you let it go on.") : state === "live"
      ? _("What you see is this old.")
      : _("The workshop does not answer. The page goes on by itself when it is back.")
  }
  const beat = () => {
    window.koubouBeat = performance.now()
    window.koubouBeatAt = Date.now()
    setClock(model.freshness.at)
    show()
  }
  model.on("freshness", beat)
  if (window.koubouBeat === undefined) beat()
  everySecond(pill, show, 500)
  document.addEventListener("visibilitychange", show)
  model.on("lifecycle:remove", () => document.removeEventListener("visibilitychange", show))
  show()
  return pill
}
