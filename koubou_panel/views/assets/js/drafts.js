// Texts that were typed and not saved, by home, script and the version that they began from: those of scripts are kept in
// this browser, those of forms in the tab alone, since what is typed there may be secret and belongs to one page.

const PREFIX = "koubou-draft "
// What is no script's text, but a form's, has a name that no script can have.
export const ADDING = "?add"
export const SETTINGS = "?settings"
export const changing = (script) => `?change ${script}`

const storeOf = (name) => (name.startsWith("?") ? sessionStorage : localStorage)
const keyOf = (home, name, base) => PREFIX + JSON.stringify([home, name, base])

const isForm = (key) => {
  try { return key.startsWith(PREFIX) && JSON.parse(key.slice(PREFIX.length))[1].startsWith("?") } catch { return false }
}

// Those of forms were kept in this browser once: what is left of them there may be secret, and is read by nothing.
try {
  for (const key of Object.keys(localStorage)) if (isForm(key)) localStorage.removeItem(key)
} catch { /* this browser keeps nothing */ }

// Whether it could be kept: a browser has room for some millions of characters.
export function keepDraft(home, name, base, text) {
  try {
    storeOf(name).setItem(keyOf(home, name, base), JSON.stringify({text, at: Date.now() / 1000}))
    return true
  } catch {
    return false
  }
}

export function dropDraft(home, name, base) {
  try { storeOf(name).removeItem(keyOf(home, name, base)) } catch { /* there is none */ }
}

// Drops a draft that `draftsOf` gave.
export function throwAway({key, name}) {
  try { storeOf(name).removeItem(key) } catch { /* there is none */ }
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

// The drafts of a script, the newest first: key, name, base, text, at.
export function draftsOf(home, name) {
  const found = []
  try {
    const store = storeOf(name)
    for (const key of Object.keys(store)) {
      if (!key.startsWith(PREFIX)) continue
      try {
        const [of, script, base] = JSON.parse(key.slice(PREFIX.length)), {text, at} = JSON.parse(store.getItem(key))
        if (of === home && script === name && typeof text === "string") found.push({key, name, base, text, at})
      } catch { store.removeItem(key) }
    }
  } catch { /* this browser keeps nothing */ }
  return found.sort((one, other) => other.at - one.at)
}

// What was kept last under such a name, as JSON: at, value; null where there is none that can be read.
export function readDraft(home, name) {
  const [draft] = draftsOf(home, name)
  if (!draft) return null
  try { return {at: draft.at, value: JSON.parse(draft.text)} } catch { throwAway(draft) }
  return null
}

// By the names alone: a list asks for each of its lines.
export function hasDraft(home, name) {
  const begin = PREFIX + JSON.stringify([home, name]).slice(0, -1) + ","
  try { return Object.keys(localStorage).some((key) => key.startsWith(begin)) } catch { return false }
}
