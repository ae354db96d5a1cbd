// What is wrong, each with the way to where something can be done; nothing when all is well.

import {ask} from "./ask.js"
import {h, icon, keyed, plainButton, setText, watch} from "./dom.js"
import {addressOfPage, pageLink} from "./route.js"

export const AttentionStrip = {
  render({model}) {
    const root = h("div", "attention"), list = h("ul", "notices")
    root.setAttribute("role", "status")
    root.append(list)
    watch(model, ["items"], () => {
      root.hidden = model.items.length === 0
      root.classList.toggle("note", model.items.every((i) => i.tone === "note"))
      keyed(list, model.items, (i) => i.key, () => {
        const node = h("li"), words = h("span")
        node._link = pageLink("go", () => addressOfPage(node._item?.page || "", node._item?.asked || {}), "")
        node._words = words
        node._act = plainButton("go", "", async () => {
          node._act.disabled = true
          try { await ask(model, node._item.ask) } catch (error) { setText(words, error.message) }
          node._act.disabled = false
        })
        node.append(icon("warn"), words, node._link, node._act)
        return node
      }, (node, i) => {
        node._item = i
        node.className = `notice ${i.tone}`
        setText(node._words, i.text)
        setText(node._link, i.go || "")
        setText(node._act, i.go || "")
        node._link.hidden = !i.go || Boolean(i.ask)
        node._act.hidden = !i.go || !i.ask
        node._link._to()
      })
    })
    return root
  },
}
