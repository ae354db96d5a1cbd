// The page's words in its language. `_("…")` gives them; `live` has a card drawn anew when another one is chosen.

import {giveBack, hold} from "./keep.js"

const words = new Map()
const redraws = new Set()
let chosen = document.documentElement.lang || "en"

export const language = () => chosen

// Words come with the page for the language that it was made in; see `setLanguage` for the others.
take(JSON.parse(document.getElementById("k-words")?.textContent || "{}"))

function take(found) {
  words.clear()
  for (const [message, said] of Object.entries(found)) words.set(message, said)
}

// What takes the place of `message`, of which each {name} is then one of `values`.
export const _ = (message, values = null) => fill(words.get(message)?.[0] || message, values)

// The same for what is counted: English has two forms, Japanese and Chinese have one.
export function ngettext(one, many, number, values = null) {
  const forms = words.get(one), rest = {n: number, ...values}
  if (forms) return fill(forms[Math.min(forms.length - 1, number === 1 ? 0 : 1)] || one, rest)
  return fill(number === 1 ? one : many, rest)
}

function fill(text, values) {
  return values ? text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole)) : text
}

export function setLanguage(name, found) {
  chosen = name
  document.documentElement.lang = name
  document.cookie = `koubou-language=${name}; path=/; max-age=31536000; samesite=lax`
  take(found)
  for (const redraw of [...redraws]) redraw()
}

// What came from the server, the server knows. Bokeh takes it for new, and sends all of it back with the first message
// that names it (bokeh 3.9, `create_json_patch`), which the server warns of.
const knowAll = () => { for (const doc of Bokeh.documents) doc._new_models?.clear() }

// A card that is made again, with all that it listens to, when the language changes.
export const live = (card) => ({
  render({model}) {
    let listened = []
    const heard = new Proxy(model, {
      get(_target, name) {
        if (name !== "on") return model[name]
        return (what, act) => {
          if (act.hearsAnswers) return model.on(what, act)  // who asked, see ask.js; to others an answer is nothing
          const call = what === "msg:custom" ? (message) => { if (message.answer === undefined) act(message) } : act
          listened.push([what, call])
          model.on(what, call)
        }
      },
    })
    knowAll()
    let root = card.render({model: heard})
    const redraw = () => {
      const before = listened, held = hold(root)
      listened = []
      for (const [what, call] of before) {
        model.off(what, call)
        if (what === "lifecycle:remove") call()
      }
      const next = card.render({model: heard})
      root.replaceWith(next)
      root = next
      giveBack(root, held)
    }
    redraws.add(redraw)
    model.on("lifecycle:remove", () => redraws.delete(redraw))
    return root
  },
})
