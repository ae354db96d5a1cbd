// What is wrong, each with the way to where something can be done; nothing when all is well.

import {h, icon, keyed, setText, watch} from "./dom.js"
import {addressOfPage, pageLink} from "./route.js"

export const AttentionStrip = {
  render({model}) {
    const root = h("div", "attention"), list = h("ul", "notices")
    root.setAttribute("role", "status")
    root.append(list)
    watch(model, ["items"], () => {
      root.hidden = model.items.length === 0
      keyed(list, model.items, (i) => i.key, () => {
        const node = h("li"), words = h("span")
        node._link = pageLink("go", () => addressOfPage(node._item?.page || "", node._item?.asked || {}), "")
        node._words = words
        node.append(icon("warn"), words, node._link)
        return node
      }, (node, i) => {
        node._item = i
        node.className = `notice ${i.tone}`
        setText(node._words, i.text)
        setText(node._link, i.go || "")
        node._link.hidden = !i.go
        node._link._to()
      })
    })
    return root
  },
}
