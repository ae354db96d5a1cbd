// The top bar, with the tabs of a phone and the toasts; and what is wrong.

import {ask} from "./ask.js"
import {h, icon, plainButton} from "./dom.js"
import {tellPainted} from "./frames.js"
import {_, language, setLanguage} from "./language.js"
import {makeRoom, onceThere} from "./modal.js"
import {followPage, menuButton, pageRow, tabs} from "./nav.js"
import {bell} from "./notify.js"
import {followKeys, makePalette, searchButton} from "./palette.js"
import {pill} from "./pill.js"
import {openRun} from "./run.js"
import {sign} from "./signs.js"
import {toggleTheme} from "./theme.js"

const TOAST_MS = 8000
const MOST_TOASTS = 4

function themeButton() {
  const button = plainButton("theme", null, toggleTheme)
  button.setAttribute("aria-label", _("Switch between dark and light"))
  button.title = _("Dark or light")
  button.append(sign("theme"))
  return button
}

function languageChoice(model, speak) {
  const languages = h("select", "languages")
  languages.setAttribute("aria-label", _("Language"))
  for (const [name, own] of model.languages) {
    const option = h("option", "", own)
    option.value = name
    option.selected = name === language()
    languages.append(option)
  }
  languages.onchange = async () => {
    await speak(languages.value)
    languages.value = language()
  }
  return languages
}

async function change(model, language, tell) {
  try {
    const {words} = await ask(model, "language", {language})
    setLanguage(language, words)
  } catch (error) { tell(error.message, "bad") }
}

function runButton() {
  const button = plainButton("run", null, () => openRun(""))
  button.append(sign("plus"), h("span", "", _("Run")))
  button.title = _("Run a command, a script or a prompt")
  return button
}

// A short message for some seconds, above all that is open. Where it was said before a card was made anew, it goes with that.
function toasts() {
  const root = h("div", "toasts")
  root.setAttribute("role", "alert")
  root.popover = "manual"
  const raise = () => {
    if (root.matches(":popover-open") && !root.matches(":focus-within")) root.hidePopover()
    if (!root.matches(":popover-open")) root.showPopover()
  }
  root._tell = (text, tone, act = null) => {
    const note = h(act ? "button" : "div", `toast ${tone || ""}`)
    note.append(icon(tone === "bad" ? "warn" : "ok"), h("span", "", text))
    if (act) note.onclick = () => { note.remove(); act() }
    root.append(note)
    onceThere(root, raise)
    setTimeout(() => note.remove(), TOAST_MS)
    while (root.children.length > MOST_TOASTS) root.firstChild.remove()
  }
  return root
}

// On a phone an open task covers all but the toasts: the rest is out of reach for keys and screen readers too.
function yieldToTask(model, parts) {
  const look = () => { for (const part of parts) part.inert = document.documentElement.classList.contains("k-alone") }
  addEventListener("koubou-alone", look)
  model.on("lifecycle:remove", () => removeEventListener("koubou-alone", look))
  look()
}

// The server sends nothing to a page that nobody sees.
function tellHidden(model) {
  let isLeaving = false
  const leave = () => { isLeaving = true }, enter = () => { isLeaving = false }
  const tell = () => { if (!isLeaving) model.send_msg({type: "hidden", hidden: document.hidden}) }
  addEventListener("pagehide", leave)
  addEventListener("pageshow", enter)
  document.addEventListener("visibilitychange", tell)
  model.on("lifecycle:remove", () => {
    document.removeEventListener("visibilitychange", tell)
    removeEventListener("pagehide", leave)
    removeEventListener("pageshow", enter)
  })
  if (document.hidden) tell()
}

// Where no font has the signs, the browser draws the same empty box for each of them.
function hasSigns(text) {
  const drawn = [...text].map((sign) => {
    const pen = Object.assign(h("canvas"), {width: 24, height: 24}).getContext("2d", {willReadFrequently: true})
    pen.font = `18px ${getComputedStyle(document.body).fontFamily}`
    pen.fillText(sign, 2, 20)
    return pen.getImageData(0, 0, 24, 24).data.join()
  })
  return new Set(drawn).size === drawn.length
}

export const TopBar = {
  render({model}) {
    const root = h("header", "bar"), brand = h("h1", "brand")
    brand.append(h("span", "kanji", "工房"), h("span", "name", "Koubou"))
    brand.classList.toggle("plain", !hasSigns("工房"))
    const label = h("span", "label", model.label), place = h("span", "place", model.place)
    label.hidden = !model.label
    place.title = model.place
    const notes = toasts(), row = pageRow(model), bottom = tabs(model)
    const speak = (language) => change(model, language, notes._tell)
    const menu = menuButton(model, [languageChoice(model, speak), themeButton()]), live = pill(model)
    const palette = makePalette(model, speak), ring = bell(model, notes._tell)
    root.append(menu, brand, label, row, place, searchButton(palette), live, live._spoken, ring, languageChoice(model, speak), themeButton())
    if (model.may !== "read") root.append(runButton())
    root.append(bottom)
    yieldToTask(model, [...root.children].filter((part) => part !== live._spoken))
    root.append(menu._menu, palette, palette._help, ring._panel, makeRoom(), notes)
    followKeys(model, palette)
    const follow = followPage(model, (page) => { for (const nav of [row, bottom, menu]) nav._mark(page) }, notes._tell)
    model.on("msg:custom", ({toast, tone}) => { if (toast !== undefined) notes._tell(toast, tone) })
    const told = ({detail}) => notes._tell(...detail)
    addEventListener("koubou-tell", told)
    model.on("lifecycle:remove", () => removeEventListener("koubou-tell", told))
    tellHidden(model)
    tellPainted(model)
    follow()
    return root
  },
}
