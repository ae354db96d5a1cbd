// Dark and light, and the figures, which paint themselves with the theme's colours.

export function toggleTheme() {
  const html = document.documentElement
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"
  const next = (html.dataset.theme || system) === "dark" ? "light" : "dark"
  if (next === system) {
    delete html.dataset.theme
    localStorage.removeItem("koubou-theme")
  } else {
    html.dataset.theme = next
    localStorage.setItem("koubou-theme", next)
  }
  repaintFigures()
}

// Figures read the theme's variables when they paint, so a new theme asks them to paint.
export function repaintFigures() {
  requestAnimationFrame(() => {
    for (const view of Bokeh.index.query((v) => typeof v.request_repaint === "function")) view.request_repaint()
  })
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaintFigures)

// Bokeh drops the models that a document holds no more 30 s after the last change. On a page that changes every
// second that is never (bokeh 3.9, `_schedule_recompute_all_models`), so what a closed task's figures held would stay.
export const FORGET_MS = 1000
export const forgetFigures = () => { for (const doc of Bokeh.documents) doc._recompute_all_models?.() }
