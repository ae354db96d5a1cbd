// The text area of the editor: Ace, which Panel brings along with its own files, so that nothing is asked of another
// host; and a plain text area where those are not there.

import {h} from "./dom.js"
import {_} from "./language.js"

const PHONE = matchMedia("(max-width: 700px)")
const MODES = {
  py: "python", sh: "sh", bash: "sh", zsh: "sh", js: "javascript", mjs: "javascript", rb: "ruby", pl: "perl", r: "r", lua: "lua", php: "php",
  toml: "toml", yaml: "yaml", yml: "yaml", json: "json", md: "markdown", ts: "typescript",
}
const PROGRAMS = [[/python|\buv\b/, "python"], [/node|deno|bun/, "javascript"], [/(^|\/)(ba|z|da|k)?sh\b/, "sh"], [/ruby/, "ruby"], [/perl/, "perl"], [/rscript/i, "r"], [/lua/, "lua"], [/php/, "php"]]
// Below the folder that this very module comes from, and nowhere else.
const FILES = /^bundled\/aceplot\/ace-builds@[\d.]+\/src-min-noconflict$/
const PATIENCE_MS = 8000
let loading = null

// What Ace itself says, in the page's language.
const messages = () => ({
  "text-input.aria-label": _("line $0"),
  "text-input.aria-roledescription": _("editor"),
  "editor.scroller.aria-label": _("Text: Enter to edit, Esc to leave"),
  "editor.scroller.aria-roledescription": _("editor"),
  "editor.gutter.aria-label": _("Line numbers: Enter to go along them, Esc to leave"),
  "editor.gutter.aria-roledescription": _("line numbers"),
  "editor.tooltip.disable-editing": _("Read only"),
  "gutter.code-folding.closed.title": _("Unfold"),
  "gutter.code-folding.open.title": _("Fold"),
  "gutter.code-folding.closed.aria-label": _("Fold or unfold lines $0 to $1"),
  "gutter.code-folding.range.aria-label": _("Fold or unfold lines $0 to $1"),
  "gutter.code-folding.open.aria-label": _("Fold or unfold from line $0"),
  "inline-fold.closed.title": _("Unfold"),
  "search-box.find.placeholder": _("Search for"),
  "search-box.replace.placeholder": _("Replace with"),
  "search-box.find-all.text": _("All"),
  "search-box.replace-all.text": _("All"),
  "search-box.replace-next.text": _("Replace"),
  "search-box.search-counter": _("$0 of $1"),
  "search-box.toggle-replace.title": _("Replace too"),
  "search-box.toggle-regexp.title": _("Regular expression"),
  "search-box.toggle-case.title": _("Upper and lower case differ"),
  "search-box.toggle-whole-word.title": _("Whole words"),
  "search-box.toggle-in-selection.title": _("In what is selected"),
})

function load(files) {
  loading ||= new Promise((resolve, reject) => {
    if (!FILES.test(files)) throw new Error("no Ace")
    const base = new URL(`../panel/${files}/`, import.meta.url).href
    const script = h("script")
    script.src = `${base}ace.js`
    script.onload = () => {
      const {ace} = window
      // No workers (they would be another script of another kind), and no theme of its own: our style sheet has one.
      ace.config.set("basePath", base)
      ace.config.set("loadWorkerFromBlob", false)
      ace.define("ace/theme/koubou", ["require", "exports"], (_require, exports) => Object.assign(exports, {isDark: false, cssClass: "ace-koubou", cssText: ""}))
      resolve(ace)
    }
    script.onerror = () => { loading = null; reject(new Error("no Ace")) }
    document.head.append(script)
  })
  return loading
}

// Which language a text is highlighted as: what its first line says, what runs it, or the end of its file's name.
export function modeOf(text, program, path) {
  const first = text.startsWith("#!") ? text.slice(2, 200).split("\n")[0] : ""
  for (const said of [first, program]) {
    const found = said && PROGRAMS.find(([pattern]) => pattern.test(said))
    if (found) return found[1]
  }
  return MODES[/\.(\w+)$/.exec(path)?.[1].toLowerCase()] || "text"
}

// A text area with: node, ready (which of both it is, is settled: nothing that is set or typed then is lost), value(),
// set(text), onChange, mode(name), readOnly(bool), find(), focus(), close().
export function textArea(files, {label, onChange, onSave}) {
  const node = h("div", "code"), area = h("textarea", "plain")
  let settle, ace = null, wanted = {text: "", mode: "text", readOnly: false}, silent = false, closed = false
  const ready = new Promise((resolve) => { settle = resolve })
  area.spellcheck = false
  area.setAttribute("aria-label", label)
  area.setAttribute("autocapitalize", "off")
  area.oninput = () => onChange()
  area.onkeydown = (event) => { if ((event.ctrlKey || event.metaKey) && event.key === "s") { event.preventDefault(); onSave() } }
  node.append(area)

  const fit = () => {
    ace?.setOptions({fontSize: PHONE.matches ? 16 : 13, wrap: PHONE.matches, showFoldWidgets: !PHONE.matches})
    ace?.resize()
  }
  const put = () => {
    silent = true
    // A step of its own, which can be undone, unless it is the first.
    if (wanted.first) ace.session.setValue(wanted.text)
    else ace.session.doc.setValue(wanted.text)
    wanted.first = false
    silent = false
  }
  const start = (found) => {
    if (closed || ace || node.dataset.ready) return
    const box = h("div", "box")
    node.replaceChildren(box)
    found.config.setMessages(messages())
    ace = found.edit(box, {
      theme: "ace/theme/koubou", useWorker: false, tabSize: 4, useSoftTabs: true, showPrintMargin: false, fontFamily: "var(--k-mono)",
      enableKeyboardAccessibility: true, textInputAriaLabel: label, highlightActiveLine: true, scrollPastEnd: 0.3, fixedWidthGutter: true,
    })
    ace.renderer.attachToShadowRoot()
    // The element that takes the focus from the keyboard, before Enter leads into the text.
    ace.renderer.scroller.setAttribute("aria-label", _("{label}: Enter to edit, Esc to leave", {label}))
    ace.commands.addCommand({name: "save", bindKey: {win: "Ctrl-S", mac: "Cmd-S"}, exec: onSave, readOnly: true})
    ace.commands.removeCommand("showSettingsMenu")
    ace.session.setMode(`ace/mode/${wanted.mode}`)
    ace.setReadOnly(wanted.readOnly)
    put()
    ace.session.on("change", () => { if (!silent) onChange() })
    fit()
    PHONE.addEventListener("change", fit)
    node.dataset.ready = "1"
    settle()
  }
  const stayPlain = () => {
    if (node.dataset.ready) return
    if (area.parentNode !== node) node.replaceChildren(area)
    ace = null
    node.dataset.ready = "plain"
    settle()
  }
  setTimeout(stayPlain, PATIENCE_MS)
  load(files).then((found) => {
    const wait = () => {
      if (!node.isConnected) { if (!closed) setTimeout(wait, 30); return }
      try { start(found) } catch { stayPlain() }
    }
    wait()
  }, stayPlain)

  return {
    node, ready,
    value: () => (ace ? ace.getValue() : area.value),
    set(text, {first = false} = {}) {
      wanted = {...wanted, text, first: first || !ace}
      if (ace) put()
      else area.value = text
    },
    mode(name) { wanted.mode = name; ace?.session.setMode(`ace/mode/${name}`) },
    readOnly(is) { wanted.readOnly = area.readOnly = is; ace?.setReadOnly(is) },
    find() { if (ace) { ace.focus(); ace.execCommand("find") } },
    undo() { ace?.undo() },
    focus() { (ace || area).focus() },
    resize() { ace?.resize() },
    hasSearch: () => !!ace,
    close() { closed = true; PHONE.removeEventListener("change", fit); ace?.destroy() },
  }
}
