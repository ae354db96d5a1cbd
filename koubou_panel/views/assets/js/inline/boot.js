(() => {
  const ID = KOUBOU_ID, VERSION = KOUBOU_VERSION, LIMIT_MS = 8000, TRIES_MS = [[0, 120], [1200, 800], [4000, 3000]]
  const TURN_MS = 500, BEAT_MS = 20000, QUIET_MS = 5000, AGAIN_MS = 3000, ANSWER_MS = 4000, MOST_TRIES = 5
  const own = document.currentScript, place = own && own.previousElementSibling
  if (!place || !place.matches(".koubou-output")) return
  const begun = performance.now(), code = (window.koubouInline ||= {})[VERSION] ||= {askedAt: -AGAIN_MS, tries: 0, waits: []}
  let view = null, live = null, ended = false, early = []
  let last = 0, isLost = false, lostAt = -AGAIN_MS - 1, heardAt = begun, beatAt = begun, isAsked = false, leftAt = 0, isAlone = false, wantedAt = 0
  const kernel = () => window.PyViz && window.PyViz.kernels && window.PyViz.kernels[ID]
  const tell = (words) => { const at = place.querySelector(".koubou-foot"); if (at) at.textContent = words }
  const send = (message) => { try { if (live) live.send({text: JSON.stringify(message)}) } catch { /* the kernel is gone */ } }
  // Where kernel and page can, what is sent is heard on a thread (a subshell) that no cell holds up. A comm is told of its
  // own a moment after it was made, so it is opened after that: at first soon, and where that was too soon, once more.
  const begin = () => {
    const through = kernel()
    if (!through) { if (performance.now() - begun < LIMIT_MS) setTimeout(begin, 50); return }
    for (const [at, wait] of TRIES_MS) setTimeout(() => { if (!live && !ended && kernel() === through) open(through, wait) }, at)
    const hidden = () => { if (!ended) send({type: "hidden", hidden: document.hidden}) }
    document.addEventListener("visibilitychange", hidden)
    const turns = setInterval(() => {
      const now = performance.now()
      if (kernel() !== through && !place.isConnected) {
        clearInterval(turns)
        document.removeEventListener("visibilitychange", hidden)
        if (!ended) send({type: "bye"})
        ended = true
        if (view) view.close()
      } else if (!ended) {
        if (kernel() !== through && !isAlone) outlive(now)
        pulse(now)
      }
      if (early.length && !code.loaded) need(now)
    }, TURN_MS)
  }
  // The entry is shared by all views of one output, and goes with the first that is closed, or with the kernel: that answers.
  const outlive = (now) => {
    if (!leftAt) { leftAt = now; send({type: "beat"}) }
    else if (heardAt > leftAt) isAlone = true
    else if (now - leftAt > ANSWER_MS) { ended = true; early = []; (view ? view.over : tell)(KOUBOU_GONE) }
  }
  // What comes is numbered: Jupyter's server leaves out what is too much for it. A beat's answer shows what was left out
  // last of all.
  const pulse = (now) => {
    if (isLost && now - lostAt > AGAIN_MS) { lostAt = now; send({type: "again"}) }
    const isQuiet = !isAsked && !document.hidden && now - heardAt > QUIET_MS
    if (isQuiet || now - beatAt > BEAT_MS) { beatAt = now; isAsked = true; send({type: "beat"}) }
  }
  // All displays of a page share the code: one asks for it, and the others when that one's kernel does not answer.
  const need = (now) => {
    wantedAt ||= now
    if ((now - code.askedAt < AGAIN_MS && now - wantedAt < AGAIN_MS) || code.tries >= MOST_TRIES) return
    code.askedAt = wantedAt = now
    send({type: "code"})
  }
  const load = async (message) => {
    if (code.loaded) return
    const words = document.getElementById("k-words") || document.createElement("script")
    Object.assign(words, {id: "k-words", type: "application/json", textContent: JSON.stringify(message.words)})
    document.head.append(words)
    const url = URL.createObjectURL(new Blob([message.code], {type: "text/javascript"}))
    try {
      const module = await import(url)
      code.loaded ||= {module, css: message.css}
    } catch (error) {
      code.tries += 1
      console.error(error)
    }
    URL.revokeObjectURL(url)
    if (code.loaded) for (const go of code.waits.splice(0)) go()
    else if (code.tries >= MOST_TRIES) tell(KOUBOU_DEAD)
  }
  const open = (through, wait) => {
    const comm = through.connectToComm("koubou")
    comm.onMsg = (message) => { hear(comm, message.content.data) }
    const go = (left) => {
      if (comm.active) comm.open({display: ID, lang: document.documentElement.lang})
      else if (left) setTimeout(() => go(left - 1), 300)
    }
    setTimeout(() => { if (!live && !ended) go(10) }, wait)
  }
  // Nothing is given back: Jupyter would hold up all that the kernel sends until that is done.
  const hear = (comm, data) => {
    if (live && live !== comm) { comm.send({text: JSON.stringify({type: "bye"})}); return }
    const message = JSON.parse(data.text)
    live = comm
    heardAt = performance.now()
    if (!message.beat) isAsked = false
    if (message.all) isLost = false
    else if (data.n !== last + 1) isLost = true
    last = data.n
    if (message.code) { load(message); return }
    if (message.gone) ended = true
    if (isLost && message.now) { pulse(heardAt); return } // it follows what was left out
    if (message.beat) { if (isLost) pulse(heardAt); return }
    if (message.gone && !view && !early.length) { tell(message.gone); return }
    if (!view && !early.length && !message.all) return // what comes before all there is, is in that
    show(message)
  }
  const show = (message) => {
    if (view) { view.hear(message); return }
    if (message.all) early = []
    early.push(message)
    if (early.length === 1 || code.loaded) {
      if (code.loaded) drain()
      else { code.waits.push(drain); need(performance.now()) }
    }
  }
  const drain = () => {
    if (!early.length) return
    view ||= code.loaded.module.mount(place, code.loaded.css, {send})
    for (const message of early.splice(0)) view.hear(message)
  }
  begin()
})()
