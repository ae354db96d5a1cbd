// The top bar: the pill tells the truth about both links, page to server and server to workshop.

import {ask} from "./ask.js"
import {h, icon, keyed, NS, setText, everySecond, watch} from "./dom.js"
import {_, language, setLanguage} from "./language.js"
import {addressOfPage, go, pageInAddress, pageLink} from "./route.js"
import {toggleTheme} from "./theme.js"
import {duration, setClock} from "./time.js"

// The pages, by what the server knows of: name (in the address; none: the Overview) and label.
function pageLinks(model) {
  const nav = h("nav", "pages")
  nav.setAttribute("aria-label", _("Pages"))
  let shown
  const show = () => {
    const html = document.documentElement, page = pageInAddress(), isKnown = model.pages.some(([name]) => name === page)
    if (!isKnown) return go(addressOfPage(""), {replace: true})
    for (const link of nav.children) {
      link._to()
      if (link._page === page) link.setAttribute("aria-current", "page")
      else link.removeAttribute("aria-current")
    }
    if (shown === page) return
    shown = html.dataset.page = page
    const [, label] = model.pages.find(([name]) => name === page)
    document.title = `${label} · 工房`
    model.send_msg({type: "page", page})
    // What was not shown has had no size to draw itself in.
    requestAnimationFrame(() => dispatchEvent(new Event("resize")))
  }
  for (const [page, label] of model.pages) {
    const link = pageLink("", () => addressOfPage(page), label)
    link._page = page
    nav.append(link)
  }
  addEventListener("popstate", show)
  model.on("lifecycle:remove", () => removeEventListener("popstate", show))
  show()
  return nav
}

const STALE_AFTER_S = 3.5

export const TopBar = {
  render({model}) {
    const root = h("header", "bar")
    const brand = h("div", "brand")
    brand.append(h("span", "kanji", "工房"), h("span", "name", "Koubou"))
    const label = h("span", "label", model.label), place = h("span", "place", model.place)
    label.hidden = !model.label
    const pages = pageLinks(model)
    const pill = h("span", "pill"), dot = h("i"), word = h("span")
    pill.setAttribute("role", "status")
    pill.append(dot, word)
    const theme = h("button", "theme")
    theme.type = "button"
    theme.setAttribute("aria-label", _("Switch between dark and light"))
    theme.title = _("Dark or light")
    const half = document.createElementNS(NS, "svg")
    half.setAttribute("viewBox", "0 0 16 16")
    half.setAttribute("aria-hidden", "true")
    const ring = document.createElementNS(NS, "path"), fill = document.createElementNS(NS, "path")
    ring.setAttribute("d", "M8 2 A6 6 0 1 1 7.99 2")
    fill.setAttribute("d", "M8 2 A6 6 0 0 1 8 14 Z")
    fill.setAttribute("class", "fill")
    half.append(ring, fill)
    theme.append(half)
    theme.onclick = toggleTheme
    const languages = h("select", "languages")
    languages.setAttribute("aria-label", _("Language"))
    for (const [name, own] of model.languages) {
      const option = h("option", "", own)
      option.value = name
      option.selected = name === language()
      languages.append(option)
    }
    languages.onchange = async () => {
      const {words} = await ask(model, "language", {language: languages.value})
      setLanguage(languages.value, words)
    }
    const toasts = h("div", "toasts")
    toasts.setAttribute("role", "alert")
    root.append(brand, label, pages, place, h("span", "gap"), pill, languages, theme, toasts)

    let beat = performance.now()
    const show = () => {
      const silent_s = (performance.now() - beat) / 1000
      const {status, lag_s} = model.freshness
      const age = silent_s + lag_s
      let state = status
      if (silent_s > STALE_AFTER_S) state = navigator.onLine === false ? "reconnecting" : "stale"
      if (state === "live" && age > STALE_AFTER_S) state = "stale"
      pill.className = `pill ${state}`
      const words = {
        live: _("live {age} s", {age: age.toFixed(1)}),
        stale: _("stale {age}", {age: duration(age)}),
        reconnecting: _("reconnecting {age}", {age: duration(age)}),
        closed: _("workshop stopped"),
      }
      setText(word, words[state] || state)
      pill.title = state === "live"
        ? _("What you see is this old.")
        : _("The workshop does not answer. The page goes on by itself when it is back.")
    }
    model.on("freshness", () => {
      beat = performance.now()
      window.koubouBeat = beat
      setClock(model.freshness.at)
      show()
    })
    window.koubouBeat = beat
    everySecond(root, show, 500)
    show()

    model.on("msg:custom", ({toast, tone}) => {
      const note = h("div", `toast ${tone || ""}`)
      note.append(icon(tone === "bad" ? "warn" : "ok"), h("span", "", toast))
      toasts.append(note)
      setTimeout(() => note.remove(), 8000)
      while (toasts.children.length > 4) toasts.firstChild.remove()
    })
    let isLeaving = false
    const leave = () => { isLeaving = true }, enter = () => { isLeaving = false }
    addEventListener("pagehide", leave)
    addEventListener("pageshow", enter)
    const tellHidden = () => { if (!isLeaving) model.send_msg({type: "hidden", hidden: document.hidden}) }
    document.addEventListener("visibilitychange", tellHidden)
    model.on("lifecycle:remove", () => {
      document.removeEventListener("visibilitychange", tellHidden)
      removeEventListener("pagehide", leave)
      removeEventListener("pageshow", enter)
    })
    if (document.hidden) tellHidden()
    return root
  },
}

// -- attention: nothing when all is well --

export const AttentionStrip = {
  render({model}) {
    const root = h("div", "attention")
    root.setAttribute("role", "status")
    watch(model, ["items"], () => {
      root.hidden = model.items.length === 0
      keyed(root, model.items, (i) => i.key, (i) => {
        const node = h("span", `notice ${i.tone}`)
        node.append(icon("warn"), h("span"))
        return node
      }, (node, i) => { node.className = `notice ${i.tone}`; setText(node.lastChild, i.text) })
    })
    return root
  },
}
