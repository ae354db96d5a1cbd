// The scripts of the catalogue: the list, one script, its editor; which of them, the address says.

import {addView} from "./script_add.js"
import {detailView} from "./script_detail.js"
import {listView} from "./script_list.js"
import {h, watch} from "./dom.js"
import {makeEditor} from "./editor.js"
import {pageInAddress, paramInAddress} from "./route.js"

export const ScriptsCard = {
  render({model}) {
    const root = h("section", "scripts"), canAct = model.role === "full"
    let view = null, key = null, told = "", shown = {}

    function place() {
      const script = paramInAddress("script"), isAdd = canAct && !!paramInAddress("add")
      const mode = script ? (paramInAddress("edit") ? "edit" : "detail") : isAdd ? "add" : "list"
      return {mode, script, find: paramInAddress("find"), page: Math.max(0, Number.parseInt(paramInAddress("from"), 10) - 1 || 0)}
    }

    function see() {
      if (pageInAddress() !== "scripts") return
      const {mode, script, find, page} = place(), asked = JSON.stringify([script, find, page])
      if (asked !== told) {
        told = asked
        model.send_msg({type: "see", script, find, page})
      }
      const wanted = `${mode} ${script}`
      if (wanted !== key) {
        view?.close?.()
        key = wanted
        shown = {mode, script}
        view = mode === "edit" ? makeEditor(model, script, {canSave: canAct})
          : mode === "detail" ? detailView(model, script) : mode === "add" ? addView(model) : listView(model)
        root.replaceChildren(view.node)
        view.begin?.()
      }
      draw()
    }

    // As what is there was made, wherever the address has gone meanwhile.
    function draw() {
      if (!view) return
      const {mode, script} = shown
      if (mode === "list" || mode === "add") view.update?.()
      else if (model.detail.name === script) view.update(model.detail)
    }

    addEventListener("popstate", see)
    watch(model, ["rows", "total", "all", "detail"], draw)
    model.on("lifecycle:remove", () => {
      removeEventListener("popstate", see)
      view?.close?.({again: true})
    })
    see()
    return root
  },
}
