// What is wrong, each with the way to where something can be done; nothing when all is well.

import {ask} from "./ask.js"
import {h, icon, keyed, plainButton, setText, watch} from "./dom.js"
import {_} from "./language.js"
import {addressOfPage, pageLink} from "./route.js"
import {shortMoment} from "./time.js"

// What was put away stays so in this browser, until what it counts is another number.
const KEY = "koubou.dismissed"
const away = new Map()
const isAway = (i) => {
  if (i.stamp === undefined) return false
  try { return localStorage.getItem(`${KEY}.${i.key}`) === i.stamp } catch { return away.get(i.key) === i.stamp }
}
const putAway = (i) => {
  try { localStorage.setItem(`${KEY}.${i.key}`, i.stamp) } catch { away.set(i.key, i.stamp) }
}

export const AttentionStrip = {
  render({model}) {
    const root = h("div", "attention"), list = h("ul", "notices")
    root.setAttribute("role", "status")
    root.append(list)
    const draw = () => {
      const items = model.items.filter((i) => !isAway(i))
      root.hidden = items.length === 0
      root.classList.toggle("note", items.every((i) => i.tone === "note"))
      keyed(list, items, (i) => i.key, () => {
        const node = h("li"), words = h("span")
        node._link = pageLink("go", () => addressOfPage(node._item?.page || "", node._item?.asked || {}), "")
        node._words = words
        node._act = plainButton("go", "", async () => {
          node._act.disabled = true
          try { await ask(model, node._item.ask) } catch (error) { setText(words, error.message) }
          node._act.disabled = false
        })
        node._away = plainButton("away", null, () => {
          putAway(node._item)
          draw()
        })
        node._away.append(icon("close"))
        node._away.setAttribute("aria-label", _("Hide this until there is more of it"))
        node._away.title = _("Hide this until there is more of it")
        node.append(icon("warn"), words, node._link, node._act, node._away)
        return node
      }, (node, i) => {
        node._item = i
        node.className = `notice ${i.tone}`
        setText(node._words, i.at ? _("{text} ({time})", {text: i.text, time: shortMoment(i.at)}) : i.text)
        setText(node._link, i.go || "")
        setText(node._act, i.go || "")
        node._link.hidden = !i.go || Boolean(i.ask)
        node._act.hidden = !i.go || !i.ask
        node._link._to()
        node._away.hidden = i.stamp === undefined
      })
    }
    watch(model, ["items"], draw)
    return root
  },
}
