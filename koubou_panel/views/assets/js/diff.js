// What differs between two texts: side by side where there is room, one below the other on a phone.

import {h} from "./dom.js"
import {_, ngettext} from "./language.js"

const PHONE = matchMedia("(max-width: 700px)")

const cell = (cls, text) => h("td", cls, text)

// A change told by its sign as well as by its colour.
function half(side, pair, mark) {
  const kind = pair ? (mark ? side : "") : "none"
  const number = cell(`no ${kind}`, pair ? String(pair[0]) : ""), text = cell(`text ${kind}`)
  if (pair) text.append(h("span", "sign", mark || " "), h("code", "", pair[1]))
  return [number, text]
}

function wide(body, block) {
  const isChange = block.tag === "change", rows = Math.max(block.left.length, block.right.length)
  for (let n = 0; n < rows; n++) {
    const row = h("tr")
    row.append(...half("removed", block.left[n], isChange && "−"), ...half("added", block.right[n], isChange && "+"))
    body.append(row)
  }
}

function narrow(body, block) {
  const sides = block.tag === "change" ? [["removed", "−", block.left], ["added", "+", block.right]] : [["", "", block.right]]
  for (const [side, mark, lines] of sides) for (const pair of lines) {
    const row = h("tr")
    row.append(...half(side, pair, mark))
    body.append(row)
  }
}

// `diff`: see `diff_of` in script_diff.py; `old` and `now` name the two texts.
export function diffTable(diff, {old, now}) {
  const box = h("div", "diff"), sums = h("p", "sums")
  const draw = () => {
    const isNarrow = PHONE.matches
    const table = h("table", isNarrow ? "narrow" : "wide"), body = h("tbody"), head = h("tr")
    table.append(h("caption", "spoken", _("What differs between {old} and {now}", {old, now})))
    if (!isNarrow) {
      for (const name of [old, now]) { const title = h("th", "", name); title.colSpan = 2; title.scope = "colgroup"; head.append(title) }
      const top = h("thead")
      top.append(head)
      table.append(top)
    }
    const widths = h("colgroup")
    for (const cls of isNarrow ? ["no", ""] : ["no", "", "no", ""]) widths.append(h("col", cls))
    table.insertBefore(widths, table.querySelector("thead"))
    for (const block of diff.blocks) {
      if (block.tag === "skip") {
        const row = h("tr", "skip"), all = cell("", ngettext("{n} line is the same", "{n} lines are the same", block.count))
        all.colSpan = isNarrow ? 2 : 4
        row.append(all)
        body.append(row)
      } else if (isNarrow) narrow(body, block)
      else wide(body, block)
    }
    table.append(body)
    box.replaceChildren(sums, table)
    if (diff.is_cut) box.append(h("p", "cut", _("There is more that differs than is shown here.")))
  }
  if (!diff.blocks.some((block) => block.tag === "change")) sums.textContent = _("Nothing differs.")
  else {
    sums.append(
      h("span", "added", ngettext("+ {n} line added", "+ {n} lines added", diff.added)),
      h("span", "removed", ngettext("− {n} line removed", "− {n} lines removed", diff.removed)),
    )
  }
  draw()
  const follow = () => { if (box.isConnected) draw(); else PHONE.removeEventListener("change", follow) }
  PHONE.addEventListener("change", follow)
  return box
}
