// Around the cards: that a page is being opened, and coming back by itself after the server was away.
{
  // A page is there once something of it can be seen; it is another's affair what that is.
  const seen = (part) => part.nodeType === Node.TEXT_NODE ? part.data.trim() !== ""
    : part.nodeType === Node.ELEMENT_NODE && !part.matches("style, link, script, template") && (part.matches("canvas, svg, input") || holds(part))
  const holds = (node) => [...(node.shadowRoot ?? node).childNodes].some(seen)
  const look = () => {
    const view = document.querySelector(`.k-view-${CSS.escape(document.documentElement.dataset.page)}:not([data-there])`)
    if (!view) return
    if (holds(view.querySelector(":scope > :not(.k-loading)"))) view.dataset.there = ""
    else requestAnimationFrame(look)
  }
  new MutationObserver(look).observe(document.documentElement, {attributeFilter: ["data-page"]})
  look()
}
{
  // The bar's card notes each beat of the server, by both clocks: the one on the wall (`koubouBeatAt`) goes on while the
  // machine sleeps. When beats stay away, ask how the server is: if it answers, what this page was connected to is gone
  // (another process: its boot id differs; a connection that was cut; a session that ran out), and the page is loaded
  // again, as it was.
  const ASK_AFTER_MS = 2500, GONE_AFTER_MS = 4000, WOKEN_WAITS_MS = 800, ASLEEP_MS = 5000, MOST_PATIENCE_MS = 60000
  const FIRST_BEAT_MS = 20000  // a busy machine may take long to make a page: loaded again, it would take longer still
  const boot = document.documentElement.dataset.boot
  let seenAt = performance.now(), lookedAt = Date.now(), wokeAt = 0, asking = false

  const beatAge = () => Math.max(performance.now() - (window.koubouBeat || 0), Date.now() - (window.koubouBeatAt || 0))
  const patience = () => (window.koubouBeat ? GONE_AFTER_MS : FIRST_BEAT_MS)
  const isBack = () => window.koubouBeat > (wokeAt || seenAt)
  // Seen again, connected again, thawed, awake: a server that still knows this page answers at once with a beat.
  const wake = () => {
    if (document.hidden || !window.koubouBeat) return
    seenAt = wokeAt = performance.now()
    setTimeout(look, WOKEN_WAITS_MS)
  }
  document.addEventListener("visibilitychange", wake)
  document.addEventListener("resume", wake)
  addEventListener("online", wake)
  addEventListener("pageshow", (event) => { if (event.persisted) wake() })

  async function look() {
    const now = Date.now(), slept = now - lookedAt
    lookedAt = now
    if (document.hidden || asking || !boot) return
    if (slept > ASLEEP_MS && !wokeAt) return wake()
    if (wokeAt && isBack()) wokeAt = 0
    const silent = wokeAt ? performance.now() - wokeAt : Math.min(beatAge(), performance.now() - seenAt)
    if (silent < (wokeAt ? WOKEN_WAITS_MS - 50 : ASK_AFTER_MS)) return
    asking = true
    try {
      const answer = await fetch("/healthz", {cache: "no-store", signal: AbortSignal.timeout(3000)})
      const isOther = answer.ok && (await answer.json()).boot !== boot
      // What was on its way before the answer is here by now.
      if (isOther || (wokeAt ? !isBack() : silent > patience() && beatAge() > patience())) again()
    } catch { /* still away */ } finally { asking = false }
  }
  setInterval(look, 1000)

  // A page that cannot live is loaded again less and less often; one that has lived for a while, at once.
  function again() {
    const [last, wait] = JSON.parse(sessionStorage.getItem("koubou-again") || "[0, 0]"), now = Date.now()
    if (now - last < wait) return
    const next = now - last > 2 * MOST_PATIENCE_MS ? 2000 : Math.min(MOST_PATIENCE_MS, 2 * wait)
    sessionStorage.setItem("koubou-again", JSON.stringify([now, next]))
    try { keepTyped() } catch { /* there is no room for it */ }
    location.reload()
  }
  window.koubouAgain = again

  // -- what was typed and not yet sent comes back with the page --
  const KEPT_MS = 120000, TRIES = 40, TRY_MS = 250
  const nameOf = (field) => `${field.tagName} ${field.name} ${field.getAttribute("aria-label") || field.placeholder || ""}`
  // Those that are seen: others may be emptied when what they are for is known. Those of a form that keeps what is typed
  // there by itself (`data-kept`) are its own affair: it fills them, too, and many of them have no name.
  function fields(root, found = []) {
    for (const node of root.querySelectorAll("*")) {
      const isField = node.matches("textarea:not(.ace_text-input), input:not([type]), input[type=text], input[type=search]")
      if (isField && node.checkVisibility() && !node.closest("[data-kept]")) found.push(node)
      if (node.shadowRoot) fields(node.shadowRoot, found)
    }
    return found
  }
  function keepTyped() {
    const typed = fields(document).filter((field) => field.value && field.value !== field.defaultValue)
    const kept = typed.map((field) => [nameOf(field), field.value])
    sessionStorage.setItem("koubou-typed", JSON.stringify({at: Date.now(), address: location.search, kept}))
  }
  function bringBack(left, tries) {
    const there = new Map(fields(document).map((field) => [nameOf(field), field])), missing = []
    for (const [name, value] of left) {
      const field = there.get(name)
      if (!field) missing.push([name, value])
      else if (!field.value) {
        field.value = value
        field.dispatchEvent(new InputEvent("input", {bubbles: true, composed: true}))
      }
    }
    if (missing.length && tries) setTimeout(() => bringBack(missing, tries - 1), TRY_MS)
  }
  const typed = JSON.parse(sessionStorage.getItem("koubou-typed") || "null")
  sessionStorage.removeItem("koubou-typed")
  if (typed && Date.now() - typed.at < KEPT_MS && typed.address === location.search) setTimeout(() => bringBack(typed.kept, TRIES), TRY_MS)
}
