// Around the cards: the phone's chart segments, and coming back by itself after the server was away.
{
  for (const button of document.querySelectorAll(".k-segments button")) button.onclick = () => {
    document.querySelector(".k-grid").classList.toggle("k-show-host", button.dataset.show === "host")
    for (const other of document.querySelectorAll(".k-segments button")) other.setAttribute("aria-pressed", other === button)
    dispatchEvent(new Event("resize"))
  }

  // The bar's card notes each beat of the server in `koubouBeat`. When they stay away, ask how the server is:
  // if it answers, what this page was connected to is gone (another process: its boot id differs; a connection
  // that was cut; a session that ran out), and the page is loaded again, as it was.
  const ASK_AFTER_MS = 2500, GONE_AFTER_MS = 4000, MOST_PATIENCE_MS = 60000
  const boot = document.documentElement.dataset.boot
  let seenAt = performance.now(), asking = false
  document.addEventListener("visibilitychange", () => { seenAt = performance.now() })
  setInterval(async () => {
    if (document.hidden || asking || !boot) return
    const silent = performance.now() - Math.max(window.koubouBeat || 0, seenAt)
    if (silent < ASK_AFTER_MS) return
    asking = true
    try {
      const answer = await fetch("/healthz", {cache: "no-store", signal: AbortSignal.timeout(3000)})
      const isOther = answer.ok && (await answer.json()).boot !== boot
      if (isOther || silent > GONE_AFTER_MS) again()
    } catch { /* still away */ } finally { asking = false }
  }, 1000)

  // A page that cannot live is loaded again less and less often; one that has lived for a while, at once.
  function again() {
    const [last, wait] = JSON.parse(sessionStorage.getItem("koubou-again") || "[0, 0]"), now = Date.now()
    if (now - last < wait) return
    const next = now - last > 2 * MOST_PATIENCE_MS ? 2000 : Math.min(MOST_PATIENCE_MS, 2 * wait)
    sessionStorage.setItem("koubou-again", JSON.stringify([now, next]))
    window.koubouAgain = true  // nobody is asked whether to leave: what is typed is kept
    location.reload()
  }
}
