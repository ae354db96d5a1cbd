// A chart's heading: what each colour is, and its value now; and on a phone which one of the charts is seen.

import {h, keyed, plainButton, setText, watch, watchTogether} from "./dom.js"
import {_} from "./language.js"
import {spanName} from "./stream.js"

export const ChartHead = {
  render({model}) {
    const root = h("div", "charthead")
    const title = h("h2"), items = h("div", "legend"), empty = h("p", "nothing"), span = h("select", "span")
    span.setAttribute("aria-label", _("How much time the charts show"))
    span.append(...model.spans.map((s) => {
      const option = h("option", "", spanName(s))
      option.value = s
      return option
    }))
    span.onchange = () => model.send_msg({type: "range", span: Number(span.value)})
    span.hidden = !model.spans.length
    root.append(title, span, items, empty)
    watchTogether(model, ["title", "items", "empty", "span"], () => {
      setText(title, model.title)
      setText(empty, model.empty)
      span.value = model.span
      keyed(items, model.items, (i) => i.label, (i) => {
        const node = h("span", "key"), swatch = h("i", i.shape || "line")
        swatch.style.setProperty("--c", i.colour)
        node.append(swatch, h("span", "", i.label), h("b"))
        return node
      }, (node, i) => { setText(node.lastChild, i.value); node.lastChild.hidden = !i.value })
    })
    return root
  },
}

const HOST = ["cpu", "memory", "gpu", "disk"]
let shown = "throughput"

// One chart for a phone. Of the host's lines it has one at a time; a wider page has all of them.
export const ChartSegments = {
  render({model}) {
    const root = h("div", "one-of"), narrow = matchMedia("(max-width: 700px)")
    const words = {throughput: _("Throughput"), cpu: "CPU", memory: _("Memory"), gpu: "GPU"}
    root.setAttribute("role", "group")
    root.setAttribute("aria-label", _("Chart"))
    const show = () => {
      if (!model.names.includes(shown)) shown = "throughput"
      for (const button of root.children) button.setAttribute("aria-pressed", button._name === shown)
      document.querySelector(".k-grid")?.classList.toggle("k-show-host", shown !== "throughput")
      for (const doc of Bokeh.documents) for (const name of HOST) {
        const line = doc.get_model_by_name(`host-${name}`)
        const isThere = name === "disk" ? !model.names.includes("gpu") : model.names.includes(name)
        line?.setv({visible: isThere && (!narrow.matches || name === shown)}, {sync: false})
      }
      dispatchEvent(new Event("resize"))
    }
    watch(model, ["names"], () => {
      keyed(root, model.names, (name) => name, (name) => {
        const button = plainButton("", words[name], () => { shown = name; show() })
        button._name = name
        return button
      }, () => {})
      show()
    })
    narrow.addEventListener("change", show)
    model.on("lifecycle:remove", () => narrow.removeEventListener("change", show))
    return root
  },
}
