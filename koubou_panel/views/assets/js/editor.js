// The editor of a script's text: a save that overwrites nobody, versions, what differs, and a draft that outlives the page.

import {modeOf, textArea} from "./ace.js"
import {ask} from "./ask.js"
import {diffTable} from "./diff.js"
import {everySecond, h, icon, plainButton, setText, sureButton} from "./dom.js"
import {draftsOf, dropDraft, keepDraft, setAside, throwAway} from "./drafts.js"
import {_} from "./language.js"
import {addressOfPage, pageLink} from "./route.js"
import {ago, moment} from "./time.js"

const DRAFT_AFTER_MS = 400
const MINE = "mine"
const HANDED_ON_MS = 5000
let handedOn = null  // what was typed while the card is made again in another language

const sure = (cls, text, act) => sureButton(cls, {
  rest: (b) => { b.textContent = text },
  ask: (b) => { b.textContent = _("Sure?") },
  act,
})

function banner(kind, text, ...buttons) {
  const box = h("div", `banner ${kind}`), words = h("p", "", text)
  box.setAttribute("role", kind === "bad" ? "alert" : "status")
  box.append(icon(kind === "bad" ? "fail" : "warn"), words)
  if (buttons.length) {
    const row = h("div", "buttons")
    row.append(...buttons)
    box.append(row)
  }
  return box
}

// One script's editor: node, update(detail), isDirty(), close().
export function makeEditor(model, name, {canSave}) {
  const node = h("div", "editor"), head = h("header"), title = h("h1"), state = h("span", "state")
  const back = pageLink("back", () => addressOfPage("scripts", {script: name}), _("‹ Back"))
  const notes = h("div", "notes"), body = h("div", "body"), stage = h("div", "stage"), side = h("aside", "versions")
  const saved = {text: "", baseline: "", version: null, at: null}
  let detail = null, dirty = false, busy = false, timer = 0, changedAt = null, closed = false, conflict = null, versions = [], offered = null, isKept = false, hasRoom = true

  const area = textArea(model.editor, {label: _("Text of {name}", {name}), onChange: changed, onSave: save})
  const saveButton = plainButton("primary", _("Save"), save), find = plainButton("", _("Find"), () => { showText(); area.find() })
  const toggle = plainButton("", _("Versions"), () => showVersions(side.hidden))
  saveButton.title = _("Ctrl+S or ⌘S")
  const close = () => area.focus()
  head.append(back, title, state, find, toggle, ...(canSave ? [saveButton] : []))
  setText(title, name)
  side.hidden = true
  side.setAttribute("aria-label", _("Versions"))
  toggle.setAttribute("aria-expanded", "false")
  state.setAttribute("role", "status")
  stage.append(area.node)
  body.append(stage, side)
  node.append(head, notes, body)
  area.readOnly(true)

  // -- what is shown --------------------------------------------------------------------------------------------

  const slots = {}
  function note(slot, box) {
    slots[slot]?.remove()
    slots[slot] = box
    if (box) notes.append(box)
  }

  function showState() {
    const words = !canSave ? _("Read only") : busy ? _("Saving…") : dirty ? _("Not saved") : saved.at ? _("Saved {ago}", {ago: ago(saved.at)}) : ""
    setText(state, words)
    state.className = `state ${dirty ? "dirty" : ""}`
    state.title = saved.at ? moment(saved.at) : ""
    saveButton.disabled = !dirty || busy
  }

  // What is to be seen last was asked for last: a comparison may be long on its way.
  let looks = 0

  function showText() {
    looks += 1
    if (area.node.parentNode !== stage) stage.replaceChildren(area.node)
    area.resize()
  }

  function showDiff(diff, names, ...buttons) {
    const view = h("div", "diffview"), bar = h("div", "buttons")
    bar.append(plainButton("", _("Back to the text"), () => { showText(); close() }), ...buttons)
    view.append(bar, diffTable(diff, names))
    stage.replaceChildren(view)
    view.tabIndex = -1
    view.focus({preventScroll: true})
    stage.scrollIntoView({block: "nearest"})
  }

  // -- the text -------------------------------------------------------------------------------------------------

  const read = () => ask(model, "text", {name})

  async function load() {
    const [found] = await Promise.all([read(), area.ready])
    if (!closed) show(found)
  }

  // At once: what is typed while one waits for another answer would be overwritten.
  function show(found) {
    Object.assign(saved, {text: found.text, version: found.version, at: found.at})
    area.set(found.text, {first: saved.baseline === ""})
    saved.baseline = area.value()
    // A text whose lines end in different ways is put down with one kind: nothing is changed by that until a save.
    note("lines", canSave && saved.baseline !== found.text && /\r/.test(found.text) ? banner("warn", _("Its lines end in different ways; a save makes them alike.")) : null)
    note("gone", found.note ? banner("warn", found.note) : null)
    area.mode(modeOf(found.text, detail?.program || "", detail?.form?.path || ""))
    area.readOnly(!canSave)
    measure()
  }

  function measure() {
    dirty = area.value() !== saved.baseline
    showState()
  }

  function changed() {
    if (!canSave || saved.version === null) return
    clearTimeout(timer)
    if (offered?.base === saved.version) setAside(model.home, name, offered)
    timer = setTimeout(keepNow, DRAFT_AFTER_MS)
    if (!dirty) { dirty = true; showState() }
  }

  function keepNow() {
    clearTimeout(timer)
    if (saved.version === null || closed) return
    measure()
    if (!dirty) {
      // Only what was kept here: another draft may still be on offer.
      if (isKept) dropDraft(model.home, name, saved.version)
      isKept = false
      return
    }
    const had = hasRoom
    isKept = true
    hasRoom = keepDraft(model.home, name, saved.version, area.value())
    if (!hasRoom) note("draft", banner("warn", _("This browser has no room to keep a draft: save before you leave.")))
    else if (!had) note("draft", null)
  }

  function offerDraft() {
    if (!canSave) return
    const [draft] = draftsOf(model.home, name).filter((one) => {
      if (one.text !== saved.text && one.text !== saved.baseline) return true
      throwAway(one)
      return false
    })
    offered = draft || null
    if (!draft) return note("draft", null)
    const take = () => {
      note("draft", null)
      offered = null
      throwAway(draft)
      area.set(draft.text)
      saved.version = draft.base
      measure()
      keepNow()
      area.focus()
    }
    if (handedOn?.name === name && Date.now() - handedOn.at < HANDED_ON_MS) { handedOn = null; return take() }
    const isOld = draft.base !== saved.version
    const words = isOld
      ? _("There is a draft of yours from {when}. The text was saved anew since it was begun: a save will show both.", {when: moment(draft.at)})
      : _("There is a draft of yours from {when} that was not saved.", {when: moment(draft.at)})
    note("draft", banner("warn", words, plainButton("primary", _("Go on with the draft"), take),
      plainButton("", _("What differs"), () => compare("", MINE, [_("saved"), _("draft")], draft.text)),
      sure("", _("Throw it away"), () => { throwAway(draft); offerDraft() })))
  }

  async function compare(old, now, names, text = area.value()) {
    const look = ++looks
    try {
      const diff = await ask(model, "diff", {name, old, new: now, ...(old === MINE || now === MINE ? {text} : {})})
      if (look === looks) showDiff(diff, {old: names[0], now: names[1]})
    } catch (error) { note("wrong", banner("bad", error.message)) }
  }

  // -- saving ---------------------------------------------------------------------------------------------------

  async function save() {
    if (!canSave || busy) return
    measure()
    if (!dirty) return
    await put(area.value(), saved.version)
  }

  async function put(text, base) {
    busy = true
    showState()
    note("wrong", null)
    try {
      const {version} = await ask(model, "save_text", {name, text, base})
      taken(text, version, base)
    } catch (error) {
      if (error.code === "conflict" && error.field === "base") await showConflict(text)
      else note("wrong", banner("bad", error.message))
    } finally {
      busy = false
      measure()
      if (!side.hidden) readVersions()
    }
  }

  function taken(text, version, base) {
    clearTimeout(timer)
    for (const one of [base, saved.version]) dropDraft(model.home, name, one)
    isKept = false
    offered = null
    Object.assign(saved, {text, baseline: text, version, at: Date.now() / 1000})
    conflict = null
    for (const slot of ["conflict", "draft", "meanwhile", "lines", "gone"]) note(slot, null)
    showText()
    area.mode(modeOf(text, detail?.program || "", detail?.form?.path || ""))
    if (area.value() !== text) keepNow()  // somebody went on typing while it was saved
  }

  // Both texts are kept by the workshop as versions: nothing is lost whatever is chosen.
  async function showConflict(mine) {
    keepNow()
    let theirs = null
    try { theirs = await read() } catch (error) { return note("wrong", banner("bad", error.message)) }
    if (closed) return
    conflict = {theirs, mine}
    note("meanwhile", null)
    note("conflict", banner("bad", _("Somebody else saved this text meanwhile: nothing was overwritten. Both texts are kept as versions."),
      sure("", _("Take theirs"), () => {
        dropDraft(model.home, name, saved.version)
        isKept = false
        note("conflict", null)
        Object.assign(saved, {text: theirs.text, version: theirs.version, at: theirs.at})
        area.set(theirs.text)
        saved.baseline = area.value()
        conflict = null
        showText()
        measure()
      }),
      sure("primary", _("Keep mine as the new text"), () => put(area.value(), theirs.version)),
      plainButton("", _("Go on editing"), () => { showText(); area.focus() }),
      plainButton("", _("What differs"), () => compare(theirs.version, MINE, [_("theirs"), _("yours")]))))
    await compare(theirs.version, MINE, [_("theirs"), _("yours")], mine)
  }

  // -- versions -------------------------------------------------------------------------------------------------

  function showVersions(is) {
    side.hidden = !is
    toggle.setAttribute("aria-expanded", String(is))
    area.resize()
    if (is) readVersions().then(() => side.scrollIntoView({block: "nearest"}))
  }

  async function readVersions() {
    try { ({versions} = await ask(model, "versions", {name})) } catch (error) { return note("wrong", banner("bad", error.message)) }
    if (closed) return
    drawVersions()
  }

  function drawVersions() {
    const heading = h("h2", "", _("Versions")), list = h("ol")
    heading.append(h("span", "count", String(versions.length)))
    const [from, to] = [choice(_("From")), choice(_("To"))], pick = h("div", "pick")
    pick.append(from.label, to.label, plainButton("", _("Compare"), () => compare(from.select.value, to.select.value, [named(from), named(to)])))
    if (versions.length > 1) from.select.value = versions[1].version
    to.select.value = dirty ? MINE : versions[0]?.version
    for (const one of versions) list.append(versionRow(one))
    side.replaceChildren(heading, ...(versions.length ? [pick] : [h("p", "empty", _("None is kept yet: the first save makes one."))]), list)
  }

  const named = ({select}) => select.selectedOptions[0]?.textContent || ""

  function choice(text) {
    const label = h("label", "", text), select = h("select")
    select.append(new Option(_("what I typed"), MINE), ...versions.map((one) => new Option(`${moment(one.at)} · ${one.version.slice(0, 6)}`, one.version)))
    label.append(select)
    return {label, select}
  }

  function versionRow(one) {
    const row = h("li"), when = h("time", "when", ago(one.at)), tags = h("span", "tags"), buttons = h("div", "buttons")
    row._when = when
    row._at = one.at
    when.title = moment(one.at)
    if (one.current) tags.append(h("b", "tag2 ok", _("present")))
    if (one.refused) tags.append(h("b", "tag2 warn", _("not taken: made on an older text")))
    const facts = h("span", "facts2", `${one.version.slice(0, 8)} · ${one.size}`), by = h("span", "by", one.by)
    const changes = plainButton("", _("What differs"), () => compare(one.version, MINE, [moment(one.at), _("what I typed")]))
    changes.setAttribute("aria-label", _("What differs from the version of {when}", {when: moment(one.at)}))
    buttons.append(changes)
    if (canSave && !one.current) buttons.append(sure("", _("Restore"), () => restore(one)))
    row.append(when, by, facts, tags, buttons)
    return row
  }

  async function restore(one) {
    note("wrong", null)
    busy = true
    area.readOnly(true)
    try {
      keepNow()
      await ask(model, "restore", {name, version: one.version, base: saved.version})
      const found = await read()
      if (closed) return
      show(found)
      showText()
      offerDraft()
      readVersions()
    } catch (error) {
      note("wrong", banner("bad", error.message))
    } finally {
      busy = false
      if (!closed) { area.readOnly(!canSave); showState() }
    }
  }

  // -- what others do -------------------------------------------------------------------------------------------

  // The text may be another: whoever wrote it, what is typed here stays.
  async function lookAgain() {
    const found = await read()
    if (closed || busy || saved.version === null || found.version === saved.version) return
    if (conflict?.theirs.version === found.version) return
    measure()
    if (dirty) {
      note("meanwhile", banner("warn", _("Somebody else has saved this text. Yours is not saved yet; a save will show both."),
        plainButton("", _("What differs"), () => compare(found.version, MINE, [_("theirs"), _("yours")]))))
    } else {
      show(found)
      note("meanwhile", banner("warn", _("Somebody else has saved this text: this is the new one.")))
    }
  }

  const ask_ = (event) => {
    keepNow()
    if (dirty && !hasRoom) event.preventDefault()  // a draft outlives the page
  }
  const leave = () => keepNow()
  addEventListener("beforeunload", ask_)
  addEventListener("pagehide", leave)
  const clock = setInterval(() => { if (!document.hidden) showState() }, 5000)
  // It ends where the window does, whatever stands above it.
  const fit = () => {
    const above = `${Math.max(0, Math.round(node.getBoundingClientRect().top))}px`
    if (node._above === above) return
    node.style.setProperty("--above", node._above = above)
    area.resize()
  }
  everySecond(node, fit)
  everySecond(side, () => { for (const row of side.querySelectorAll("li")) setText(row._when, ago(row._at)) })
  load().then(offerDraft, (error) => { showState(); note("wrong", banner("bad", error.message)) })
  showState()

  return {
    node,
    begin: fit,
    update(now) {
      const isFirst = detail === null
      detail = now
      note("removed", now.gone ? banner("bad", _("This script was removed from the catalogue. What you typed is kept as a draft for when it is added again.")) : null)
      if (now.gone) return keepNow()
      if (isFirst || changedAt === now.changed_at) {
        if (isFirst) area.mode(modeOf(saved.text, now.program || "", now.form?.path || ""))
      } else lookAgain().catch(() => {})
      changedAt = now.changed_at
    },
    isDirty: () => dirty,
    close({again = false} = {}) {
      keepNow()
      if (again && dirty) handedOn = {name, at: Date.now()}
      closed = true
      clearInterval(clock)
      removeEventListener("beforeunload", ask_)
      removeEventListener("pagehide", leave)
      area.close()
    },
  }
}
