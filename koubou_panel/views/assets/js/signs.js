// The bar's own signs, drawn as lines: fonts differ in which they have.

import {NS} from "./dom.js"

const SIGNS = {
  "": "M2.5 3 H7 V8 H2.5 Z M9.5 3 H13.5 V6 H9.5 Z M9.5 8.5 H13.5 V13 H9.5 Z M2.5 10.5 H7 V13 H2.5 Z",
  tasks: "M2.5 4 L3.5 5 L5.2 3 M2.5 8.2 L3.5 9.2 L5.2 7.2 M2.5 12.4 L3.5 13.4 L5.2 11.4 M7.5 4 H13.5 M7.5 8.2 H13.5 M7.5 12.4 H13.5",
  workers: "M2.5 3.5 H13.5 M2.5 8 H13.5 M2.5 12.5 H13.5 M5 2 V5 M10.5 6.5 V9.5 M7 11 V14",
  logs: "M2.5 3.5 H13.5 V12.5 H2.5 Z M5 6.5 L7 8 L5 9.5 M8.5 9.8 H11",
  plus: "M8 3 V13 M3 8 H13",
  menu: "M2.5 4 H13.5 M2.5 8 H13.5 M2.5 12 H13.5",
  more: "M4.5 6.5 L8 10 L11.5 6.5",
  search: "M7 2.5 A4.5 4.5 0 1 1 6.99 2.5 M10.4 10.4 L13.8 13.8",
  bell: "M3.5 11.5 C4.6 10.4 4.6 9 4.6 7.2 A3.4 3.4 0 0 1 11.4 7.2 C11.4 9 11.4 10.4 12.5 11.5 Z M6.8 13.6 A1.4 1.4 0 0 0 9.2 13.6",
  theme: "M8 2 A6 6 0 1 1 7.99 2",
}

export function sign(name) {
  const svg = document.createElementNS(NS, "svg"), path = document.createElementNS(NS, "path")
  svg.setAttribute("viewBox", "0 0 16 16")
  svg.setAttribute("class", `sign s-${name || "overview"}`)
  svg.setAttribute("aria-hidden", "true")
  path.setAttribute("d", SIGNS[name])
  svg.append(path)
  if (name === "theme") {
    const half = document.createElementNS(NS, "path")
    half.setAttribute("d", "M8 2 A6 6 0 0 1 8 14 Z")
    half.setAttribute("class", "fill")
    svg.append(half)
  }
  return svg
}
