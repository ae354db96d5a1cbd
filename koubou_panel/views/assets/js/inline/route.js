// Where things lead to in a notebook: its own address is not ours, so links open the full dashboard beside it. Where there
// is none they lead nowhere.

import {h} from "../dom.js"

let full = ""

// The address of the full dashboard; empty: none runs that this browser could reach.
export const setDashboard = (address) => { full = address }

export const taskInAddress = () => ""
export const pageInAddress = () => ""
export const paramInAddress = () => ""

export function addressOfPage(page, values = {}) {
  if (!full) return ""
  const url = new URL(full)
  if (page) url.searchParams.set("page", page)
  for (const [name, value] of Object.entries(values)) if (value) url.searchParams.set(name, value)
  return url.href
}

export const addressOf = (id) => addressOfPage(undefined, {task: id})
export const go = (address) => { if (address) open(address, "_blank", "noopener") }
export const openPage = (page, values = {}) => go(addressOfPage(page, values))
export const openTask = (_model, id) => go(addressOf(id))

export function pageLink(cls, address, text = null) {
  const link = h("a", cls, text)
  link._to = () => {
    const to = address()
    if (to) Object.assign(link, {href: to, target: "_blank", rel: "noopener"})
    else link.removeAttribute("href")
  }
  link._to()
  return link
}

export function taskLink(_model, cls) {
  let task = ""
  const link = pageLink(cls, () => (task ? addressOf(task) : ""))
  link._open = (id) => {
    task = id
    link._to()
  }
  return link
}
