// A chart's heading: what each colour is, and its value now.

import {h, keyed, setText, watch} from "./dom.js"

export const ChartHead = {
  render({model}) {
    const root = h("div", "charthead")
    const title = h("h2"), items = h("div", "legend"), empty = h("p", "nothing")
    root.append(title, items, empty)
    watch(model, ["title", "items", "empty"], () => {
      setText(title, model.title)
      setText(empty, model.empty)
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
