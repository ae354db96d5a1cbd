// Tells the server which of its frames has been painted: it makes no other before.

const UNPAINTED_MS = 500 // a page that is not seen paints nothing

export function tellPainted(model) {
  model.on("msg:custom", ({frame}) => {
    if (frame === undefined) return
    let timer = 0
    const tell = () => {
      if (!timer) return
      clearTimeout(timer)
      timer = 0
      model.send_msg({type: "painted", frame})
    }
    timer = setTimeout(tell, UNPAINTED_MS)
    // What is asked for before a painting comes ahead of it; what that asks for, after.
    requestAnimationFrame(() => setTimeout(tell))
  })
  model.send_msg({type: "painted", frame: 0})
}
