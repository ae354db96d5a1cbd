// Files that are dropped on a page: a script's text, for the form that adds one.

import {addressOfPage, go} from "./route.js"

let dropped = null  // on its way to the form

const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files")

// Calls `take(file)` for the first file that is dropped on `node`.
export function takesFiles(node, take) {
  node.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return
    event.preventDefault()
    node.classList.add("over")
  })
  node.addEventListener("dragleave", () => node.classList.remove("over"))
  node.addEventListener("drop", (event) => {
    node.classList.remove("over")
    if (!hasFiles(event)) return
    event.preventDefault()
    const [file] = event.dataTransfer.files
    if (file) take(file)
  })
}

// Opens the form with that file's text.
export function addFile(file) {
  dropped = file
  go(addressOfPage("scripts", {add: "1"}))
}

// What `addFile` has brought, once.
export function takeDropped() {
  const file = dropped
  dropped = null
  return file
}
