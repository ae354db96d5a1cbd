// An error, with its traceback behind it.

import {h, setText} from "./dom.js"
import {_} from "./language.js"

// The error first, then where it was raised; all of the traceback when it is asked for.
export function faultPart() {
  const node = h("details", "fault"), summary = h("summary"), error = h("span", "said"), place = h("span", "place"), trace = h("pre", "trace")
  trace.tabIndex = 0
  summary.append(error, place)
  node.append(summary, trace)
  return {
    node,
    draw(f) {
      node.hidden = !f.error
      setText(error, f.error || "")
      setText(place, f.place || "")
      place.hidden = !f.place
      setText(trace, f.trace || "")
      trace.hidden = !f.trace
      node.classList.toggle("plain", !f.trace)
      trace.setAttribute("aria-label", _("Traceback"))
      summary.title = f.trace ? _("Show the whole traceback") : ""
    },
  }
}
