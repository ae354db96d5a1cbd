// A card that is made anew keeps what was typed, opened, scrolled and focused in the old one.

const FIELDS = "input, textarea, select:not(.languages), details"
const kindOf = (node) => `${node.tagName} ${node.name || ""} ${node.className}`
const stateOf = (node) => (node.tagName === "DETAILS" ? node.open : node.type === "checkbox" || node.type === "radio" ? node.checked : node.value)

// Each element of a kind by its place among those.
function counted(nodes) {
  const counts = new Map()
  return nodes.map((node) => {
    const kind = kindOf(node), n = counts.get(kind) || 0
    counts.set(kind, n + 1)
    return [`${kind} ${n}`, node]
  })
}

export function hold(root) {
  const all = counted([...root.querySelectorAll("*")]), focus = root.getRootNode().activeElement
  const held = {fields: [], open: [], scrolled: [], focused: ""}
  for (const [key, node] of all) {
    if (node.matches(FIELDS)) held.fields.push([key, stateOf(node)])
    if (node.tagName === "DIALOG" && node.open) held.open.push(key)
    if (node.scrollTop > 0) held.scrolled.push([key, node.scrollTop])
    if (node === focus) held.focused = key
  }
  return held
}

export function giveBack(root, held) {
  const there = new Map(counted([...root.querySelectorAll("*")]))
  for (const key of held.open) { const dialog = there.get(key); if (dialog && !dialog.open && dialog.isConnected) dialog.showModal() }
  for (const [key, state] of held.fields) {
    const node = there.get(key)
    if (!node || stateOf(node) === state) continue
    if (node.tagName === "DETAILS") node.open = state
    else if (node.type === "checkbox" || node.type === "radio") {
      node.checked = state
      if (state || node.type === "checkbox") node.dispatchEvent(new Event("change", {bubbles: true}))
    } else {
      node.value = state
      node.dispatchEvent(node.tagName === "SELECT" ? new Event("change", {bubbles: true}) : new InputEvent("input", {bubbles: true, composed: true}))
    }
  }
  for (const [key, top] of held.scrolled) { const node = there.get(key); if (node) node.scrollTop = top }
  if (held.focused) there.get(held.focused)?.focus({preventScroll: true})
}
