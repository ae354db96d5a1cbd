// A card asks its Python half, and gets one answer.

import {_} from "./language.js"

const PATIENCE_MS = 20000
let last = 0

// Resolves to what is answered. Rejects with an error whose message is fit to show, with `code` and `field` where the
// workshop told them.
export function ask(model, kind, payload = {}) {
  return new Promise((resolve, reject) => {
    const id = ++last
    const end = () => { clearTimeout(timer); model.off("msg:custom", hear) }
    const hear = ({answer, value}) => {
      if (answer !== id) return
      end()
      if (value.error === undefined) resolve(value)
      else reject(Object.assign(new Error(value.error), {code: value.code, field: value.field}))
    }
    hear.hearsAnswers = true  // see `live`
    const timer = setTimeout(() => {
      end()
      reject(new Error(_("No answer came. Is the page still live?")))
    }, PATIENCE_MS)
    model.on("msg:custom", hear)
    model.send_msg({type: "ask", ask: kind, id, ...payload})
  })
}
