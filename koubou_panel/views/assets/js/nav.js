// The ways to the pages: a row of links in the bar, with those that do not fit behind "More"; on a phone tabs at the
// bottom, and all pages behind the menu.

import {h, plainButton} from "./dom.js"
import {_} from "./language.js"
import {closeButton, modal} from "./modal.js"
import {addressOfPage, go, pageInAddress, pageLink} from "./route.js"
import {openRun} from "./run.js"
import {sign} from "./signs.js"

const TABS = ["", "tasks", null, "workers", "logs"]  // null: a run
const MORE_PX = 64

// Calls `show(name, label)` whenever another page is seen; an address of no page goes to the Overview, and is told of.
export function followPage(model, show, tell) {
  const html = document.documentElement
  let shown
  const follow = () => {
    const page = pageInAddress(), known = model.pages.find(([name]) => name === page)
    if (!known) {
      tell(_("There is no page “{name}” here: this is the Overview.", {name: page.slice(0, 40)}))
      return go(addressOfPage(""), {replace: true})
    }
    show(...known)
    if (shown === page) return
    shown = html.dataset.page = page
    for (const loading of document.querySelectorAll(".k-loading span")) loading.textContent = _("Opening …")
    document.title = `${known[1]} · 工房`
    model.send_msg({type: "page", page})
    // What was not shown has had no size to draw itself in.
    requestAnimationFrame(() => dispatchEvent(new Event("resize")))
  }
  addEventListener("popstate", follow)
  model.on("lifecycle:remove", () => removeEventListener("popstate", follow))
  return follow
}

function linkTo(page, label) {
  const link = pageLink("", () => addressOfPage(page), label)
  link._page = page
  return link
}

function mark(links, page) {
  for (const link of links) {
    if (link._page === undefined) continue
    link._to()
    if (link._page === page) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
}

// The row in the bar.
export function pageRow(model) {
  const nav = h("nav", "pages"), more = plainButton("more", null, () => toggle(menu.hidden)), menu = h("div", "moremenu")
  nav.setAttribute("aria-label", _("Pages"))
  const word = h("span", "", _("More"))
  more.append(word, sign("more"))
  menu.hidden = true
  const links = model.pages.map(([page, label]) => linkTo(page, label))
  const others = model.pages.map(([page, label]) => linkTo(page, label))
  menu.append(...others)
  nav.append(...links, more, menu)
  const toggle = (isOpen) => {
    menu.hidden = !isOpen
    more.setAttribute("aria-expanded", isOpen)
    if (isOpen) others.find((link) => !link.hidden)?.focus()
  }
  toggle(false)
  menu.onclick = () => toggle(false)
  nav.onkeydown = (event) => {
    if (event.key !== "Escape" || menu.hidden) return
    event.stopPropagation()
    toggle(false)
    more.focus()
  }
  nav.addEventListener("focusout", (event) => { if (!nav.contains(event.relatedTarget)) toggle(false) })
  let current = ""
  const fit = () => {
    const room = nav.clientWidth
    if (!room) return
    more.hidden = false
    for (const link of links) link.hidden = false
    let used = 0, fits = 0
    for (const link of links) {
      used += link.offsetWidth + 2
      if (used + (fits < links.length - 1 ? MORE_PX : 0) > room) break
      fits += 1
    }
    links.forEach((link, n) => { link.hidden = n >= fits })
    others.forEach((link, n) => { link.hidden = n < fits })
    more.hidden = fits === links.length
    const isThere = links.findIndex((link) => link._page === current) >= fits
    more.classList.toggle("on", isThere)
    word.textContent = isThere ? model.pages.find(([name]) => name === current)[1] : _("More")
  }
  new ResizeObserver(fit).observe(nav)
  document.fonts?.ready.then(fit)
  nav._mark = (page) => { current = page; mark([...links, ...others], page); fit() }
  return nav
}

// The tabs of a phone.
export function tabs(model) {
  const nav = h("nav", "tabs")
  nav.setAttribute("aria-label", _("Main pages"))
  for (const page of TABS) {
    const known = model.pages.find(([name]) => name === page)
    if (page === null && model.may === "read") continue
    if (page !== null && !known) continue
    const tab = page === null ? plainButton("tabrun", null, () => openRun("")) : linkTo(page, null)
    tab.append(sign(page === null ? "plus" : page), h("span", "", page === null ? _("Run") : known[1]))
    nav.append(tab)
  }
  nav._mark = (page) => mark(nav.children, page)
  return nav
}

// All pages, and what there is no room for in the bar of a phone.
export function menuButton(model, extras) {
  const button = plainButton("menubutton", null, () => menu._open()), menu = modal("menu", _("Menu"))
  button.append(sign("menu"))
  button.setAttribute("aria-haspopup", "dialog")
  button.setAttribute("aria-label", _("Menu"))
  const head = h("header"), nav = h("nav", "allpages"), foot = h("footer")
  nav.setAttribute("aria-label", _("All pages"))
  head.append(h("h2", "", _("Menu")), closeButton(menu))
  nav.append(...model.pages.map(([page, label]) => linkTo(page, label)))
  nav.onclick = (event) => { if (event.target.closest("a")) menu.close() }
  foot.append(...extras, h("span", "place", model.place))
  menu.append(head, nav, foot)
  button._menu = menu
  button._mark = (page) => mark(nav.children, page)
  return button
}
