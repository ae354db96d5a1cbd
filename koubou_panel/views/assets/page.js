// Around the cards: the phone's chart segments, and coming back by itself after the server was away.
{
  for (const button of document.querySelectorAll(".k-segments button")) button.onclick = () => {
    document.querySelector(".k-grid").classList.toggle("k-show-host", button.dataset.show === "host")
    for (const other of document.querySelectorAll(".k-segments button")) other.setAttribute("aria-pressed", other === button)
    dispatchEvent(new Event("resize"))
  }

  // The bar's card notes each beat of the server in `koubouBeat`. When they stay away, ask how the server is:
  // another process (its boot id differs) or a session that is gone means loading the page again, as it was.
  const ASK_AFTER_MS = 2500, GONE_AFTER_MS = 12000
  const boot = document.documentElement.dataset.boot
  const loaded = performance.now()
  let seenAt = loaded, asking = false
  document.addEventListener("visibilitychange", () => { seenAt = performance.now() })
  setInterval(async () => {
    if (document.hidden || asking || !boot) return
    const silent = performance.now() - Math.max(window.koubouBeat || 0, seenAt)
    if (silent < ASK_AFTER_MS) return
    asking = true
    try {
      const answer = await fetch("/healthz", {cache: "no-store", signal: AbortSignal.timeout(3000)})
      if (answer.status === 401 || answer.status === 403) return again(10)
      if (answer.status === 404 && silent > GONE_AFTER_MS) return again(30)
      if (!answer.ok) return
      const health = await answer.json()
      if (health.boot !== boot) return again(1)
      if (silent > GONE_AFTER_MS) return again(10)
    } catch { /* still away */ } finally { asking = false }
  }, 1000)

  // Not over and over: a page that cannot live is loaded again less and less often.
  function again(patience_s) {
    const last = Number(sessionStorage.getItem("koubou-again") || 0), now = Date.now()
    if (now - last < patience_s * 1000) return
    sessionStorage.setItem("koubou-again", String(now))
    location.reload()
  }
}
