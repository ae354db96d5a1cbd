// A card asks its Python half, and gets one answer.

import {_} from "./language.js"

const PATIENCE_MS = 20000
let last = 0

// All that is wrong, by field.
const faultsOf = ({error, field, faults}) => faults || (field ? {[field]: error} : {})

// Resolves to what is answered. Rejects with an error whose message is fit to show, with `code`, `field` and `faults`
// where the workshop told them.
export function ask(model, kind, payload = {}) {
  return new Promise((resolve, reject) => {
    const id = ++last
    const end = () => { clearTimeout(timer); model.off("msg:custom", hear) }
    const hear = ({answer, value}) => {
      if (answer !== id) return
      end()
      if (value.error === undefined) resolve(value)
      else reject(Object.assign(new Error(value.error), {code: value.code, field: value.field, faults: faultsOf(value)}))
    }
    hear.hearsAnswers = true  // see `live`
    const timer = setTimeout(() => {
      end()
      reject(Object.assign(new Error(_("No answer came. Is the page still live?")), {faults: {}}))
    }, PATIENCE_MS)
    model.on("msg:custom", hear)
    model.send_msg({type: "ask", ask: kind, id, ...payload})
  })
}
