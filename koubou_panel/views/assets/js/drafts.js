// Texts that were typed and not saved: kept in this browser, by home, script and the version that they began from.

const PREFIX = "koubou-draft "

const keyOf = (home, name, base) => PREFIX + JSON.stringify([home, name, base])

// Whether it could be kept: a browser has room for some millions of characters.
export function keepDraft(home, name, base, text) {
  try {
    localStorage.setItem(keyOf(home, name, base), JSON.stringify({text, at: Date.now() / 1000}))
    return true
  } catch {
    return false
  }
}

export function dropDraft(home, name, base) {
  try { localStorage.removeItem(keyOf(home, name, base)) } catch { /* there is none */ }
}

// Drops a draft that `draftsOf` gave.
export function throwAway({key}) {
  try { localStorage.removeItem(key) } catch { /* there is none */ }
}

// Moves a draft out of the way of the next one from the same version, so that both are kept.
export function setAside(home, name, draft) {
  const key = PREFIX + JSON.stringify([home, name, draft.base, "before"])
  if (draft.key === key) return
  try {
    localStorage.setItem(key, JSON.stringify({text: draft.text, at: draft.at}))
    localStorage.removeItem(draft.key)
    draft.key = key
  } catch { /* no room: the newer one takes its place */ }
}

// The drafts of a script, the newest first: key, base, text, at.
export function draftsOf(home, name) {
  const found = []
  try {
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith(PREFIX)) continue
      try {
        const [of, script, base] = JSON.parse(key.slice(PREFIX.length)), {text, at} = JSON.parse(localStorage.getItem(key))
        if (of === home && script === name && typeof text === "string") found.push({key, base, text, at})
      } catch { localStorage.removeItem(key) }
    }
  } catch { /* this browser keeps nothing */ }
  return found.sort((one, other) => other.at - one.at)
}

// By the names alone: a list asks for each of its lines.
export function hasDraft(home, name) {
  const begin = PREFIX + JSON.stringify([home, name]).slice(0, -1) + ","
  try { return Object.keys(localStorage).some((key) => key.startsWith(begin)) } catch { return false }
}
