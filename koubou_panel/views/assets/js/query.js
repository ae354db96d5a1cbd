// The search line of a list: a text field that completes qualifiers and their values, and says what makes no sense.

import {ask} from "./ask.js"
import {h, icon, plainButton, setText} from "./dom.js"
import {_} from "./language.js"

// Python counts characters, the browser halves of some.
const length = (text) => [...text].length
const cut = (text, begin, end = undefined) => [...text].slice(begin, end).join("")

// `apply(text)` is called with what shall be searched for; `_set` shows a line, `_text` reads it, `_fault` says what is wrong with it.
export function queryBox(model, {label, placeholder, apply}) {
  const root = h("form", "query"), field = h("div", "field"), input = h("input"), list = h("ul", "offers"), fault = h("p", "amiss")
  root.setAttribute("role", "search")
  root.setAttribute("aria-label", label)
  Object.assign(input, {type: "text", autocomplete: "off", spellcheck: false, placeholder, maxLength: 1000, enterKeyHint: "search"})
  input.setAttribute("autocapitalize", "off")
  input.setAttribute("role", "combobox")
  input.setAttribute("aria-label", label)
  input.setAttribute("aria-autocomplete", "list")
  input.setAttribute("aria-expanded", "false")
  list.id = "offers"
  input.setAttribute("aria-controls", list.id)
  list.setAttribute("role", "listbox")
  list.setAttribute("aria-label", _("How it may go on"))
  list.hidden = true
  fault.setAttribute("role", "alert")
  fault.hidden = true
  const clear = plainButton("clear", null, () => { input.value = ""; input.focus(); submit() })
  clear.append(icon("close"))
  clear.setAttribute("aria-label", _("Clear the search"))
  clear.hidden = true
  const search = h("button", "find", _("Search"))
  search.type = "submit"
  field.append(input, clear, list)
  root.append(field, search, fault)

  let offer = {begin: 0, end: 0, items: []}, active = -1, turn = 0, isAsking = false, isTabbed = false
  const close = () => {
    turn += 1
    isAsking = isTabbed = false
    active = -1
    list.hidden = true
    input.setAttribute("aria-expanded", "false")
    input.removeAttribute("aria-activedescendant")
  }
  const point = (place) => {
    active = place
    for (const [n, node] of [...list.children].entries()) node.setAttribute("aria-selected", n === place)
    const node = list.children[place]
    if (!node) return input.removeAttribute("aria-activedescendant")
    input.setAttribute("aria-activedescendant", node.id)
    node.scrollIntoView({block: "nearest"})
  }
  const draw = () => {
    list.replaceChildren(...offer.items.map(([text, note], n) => {
      const node = h("li")
      node.id = `offer-${n}`
      node.setAttribute("role", "option")
      node.append(h("span", "what", text), h("span", "note", note))
      node.onpointerdown = (event) => event.preventDefault()
      node.onclick = () => take(n)
      return node
    }))
    list.hidden = !offer.items.length
    input.setAttribute("aria-expanded", !list.hidden)
    point(-1)
  }
  const complete = async () => {
    const mine = ++turn, caret = length(input.value.slice(0, input.selectionStart ?? input.value.length))
    isAsking = true
    try {
      const found = await ask(model, "complete", {text: input.value, caret})
      if (mine !== turn) return
      const typed = cut(input.value, found.begin, found.end)
      offer = {...found, items: found.items.filter(([text]) => text !== typed)}
      draw()
      isAsking = false
      if (isTabbed) goOn()
    } catch { if (mine === turn) close() }
  }
  // Tab takes the first offer, and else leads on to the next button, as where nothing is offered.
  const canTake = () => !list.hidden && (active >= 0 || offer.end > offer.begin)
  const goOn = () => {
    isTabbed = false
    if (canTake()) take(Math.max(0, active))
    else (clear.hidden ? search : clear).focus()
  }
  const take = (place) => {
    const [text] = offer.items[place], isWhole = !text.endsWith(":")
    const before = cut(input.value, 0, offer.begin) + text + (isWhole ? " " : "")
    input.value = before + cut(input.value, offer.end).replace(/^ /, isWhole ? "" : " ")
    input.setSelectionRange(before.length, before.length)
    input.focus()
    clear.hidden = !input.value
    if (isWhole) submit()
    else complete()
  }
  const submit = () => {
    close()
    clear.hidden = !input.value
    apply(input.value.trim())
  }
  root.onsubmit = (event) => { event.preventDefault(); submit() }
  input.oninput = () => { clear.hidden = !input.value; complete() }
  input.onfocus = () => { if (!input.value) complete() }
  input.onblur = close
  input.onkeydown = (event) => {
    if (event.isComposing) return
    const isOpen = !list.hidden
    isTabbed = false
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault()
      if (!isOpen) return complete()
      const count = offer.items.length, step = event.key === "ArrowDown" ? 1 : -1
      point(active < 0 ? (step > 0 ? 0 : count - 1) : (active + step + count) % count)
    } else if (event.key === "Enter" && isOpen && active >= 0) {
      event.preventDefault()
      take(active)
    } else if (event.key === "Tab" && !event.shiftKey && (isAsking || canTake())) {
      event.preventDefault()
      if (isAsking) isTabbed = true  // as soon as it is known what there is to take
      else goOn()
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault()
      event.stopPropagation()  // what is open behind it stays open
      close()
    }
  }
  root._set = (text) => {
    if (input.value.trim() !== text) input.value = text
    clear.hidden = !input.value
  }
  root._fault = (text) => {
    fault.hidden = !text
    setText(fault, text)
    if (text) input.setAttribute("aria-invalid", "true")
    else input.removeAttribute("aria-invalid")
  }
  root._text = () => input.value.trim()
  root._focus = () => input.focus()
  return root
}
