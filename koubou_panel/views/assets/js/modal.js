// A dialog over the page: the browser itself keeps the focus in it, and closes it with Esc.

import {h, icon, plainButton} from "./dom.js"
import {_} from "./language.js"

// `onClose` is called whichever way it is closed.
export function modal(cls, label, onClose = () => {}) {
  const dialog = h("dialog", `modal ${cls}`)
  dialog.setAttribute("aria-label", label)
  dialog._open = () => {
    // Heads and feet of a dialog are none of the page.
    for (const part of dialog.querySelectorAll("header, footer")) part.setAttribute("role", "presentation")
    if (!dialog.open && dialog.isConnected) dialog.showModal()
  }
  dialog.addEventListener("close", onClose)
  // Esc is for the dialog alone, not for what lies below it.
  dialog.addEventListener("keydown", (event) => { if (event.key === "Escape") event.stopPropagation() })
  dialog.addEventListener("pointerdown", (event) => { if (event.target === dialog && isOutside(dialog, event)) dialog.close() })
  return dialog
}

// Its backdrop and its scrollbar are both the dialog itself.
function isOutside(dialog, {clientX, clientY}) {
  const {left, right, top, bottom} = dialog.getBoundingClientRect()
  return clientX < left || clientX > right || clientY < top || clientY > bottom
}

// On a phone an open task covers its page, which is then out of reach. What must stay in reach all the same stands
// in the bar meanwhile: `makeRoom()` is its place there.
let room = null

export const makeRoom = () => (room = h("div", "room tasks"))

// `moved` is called when `node` has come there or back; gives what ends it.
export function keepInReach(node, moved) {
  const home = h("span", "home")
  node.replaceWith(home)
  home.append(node)
  const look = () => {
    const isAlone = document.documentElement.classList.contains("k-alone"), place = isAlone && room ? room : home
    if (node.parentNode === place) return
    place.append(node)
    moved()
  }
  addEventListener("koubou-alone", look)
  look()
  return () => { removeEventListener("koubou-alone", look); node.remove() }
}

// Calls `act` once `node` is on the page: a card's nodes are put there only after it has been made.
export function onceThere(node, act, tries = 250) {
  if (node.isConnected) act()
  else if (tries) setTimeout(() => onceThere(node, act, tries - 1), 20)
}

export function closeButton(dialog) {
  const button = plainButton("close", null, () => dialog.close())
  button.append(icon("close"))
  button.setAttribute("aria-label", _("Close"))
  button.title = _("Close (Esc)")
  return button
}
