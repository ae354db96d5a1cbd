// Where the page is: `?page=NAME` (none: the Overview), what that page adds for itself, and `&task=ID` for the drawer.

import {h} from "./dom.js"

const param = (name) => new URL(location.href).searchParams.get(name) || ""
export const taskInAddress = () => param("task")
export const pageInAddress = () => param("page")
export const paramInAddress = param

// The address of a page; of the page that is open now where `page` is undefined. An empty value takes a name out.
export function addressOfPage(page, values = {}) {
  const url = new URL(location.href)
  if (page !== undefined) {
    url.search = ""
    if (page) url.searchParams.set("page", page)
  }
  for (const [name, value] of Object.entries(values)) {
    if (value) url.searchParams.set(name, value)
    else url.searchParams.delete(name)
  }
  return url.pathname + url.search
}

export const addressOf = (id) => addressOfPage(undefined, {task: id})

// Go to an address of this page's own; whoever shows a part of it listens to `popstate`.
export function go(address, {replace = false} = {}) {
  if (location.pathname + location.search === address) return
  history[replace ? "replaceState" : "pushState"](null, "", address)
  dispatchEvent(new PopStateEvent("popstate"))
}

export const openPage = (page, values = {}) => go(addressOfPage(page, values))
export const openTask = (_model, id) => go(addressOf(id))

const isPlain = (event) => !(event.metaKey || event.ctrlKey || event.shiftKey || event.button)

// A real link, so that it can be opened in a tab of its own too. `address` is asked when it is clicked.
export function pageLink(cls, address, text = null) {
  const link = h("a", cls, text)
  link._to = () => { link.href = address() }
  link._to()
  link.onclick = (event) => {
    if (!isPlain(event)) return
    event.preventDefault()
    go(address())
  }
  return link
}

export function taskLink(model, cls) {
  const link = h("a", cls)
  link._open = (id) => {
    if (link._task === id) return
    link._task = id
    if (id) link.href = addressOf(id)
    else link.removeAttribute("href")
  }
  link.onclick = (event) => {
    if (!link._task || !isPlain(event)) return
    event.preventDefault()
    openTask(model, link._task)
  }
  return link
}

// All that a task printed, as a file to keep.
export function outputLink(cls, text) {
  const link = h("a", cls, text)
  link.setAttribute("download", "")
  link._of = (id) => { link.href = `/output/${encodeURIComponent(id)}` }
  return link
}
