// Time: the workshop's clock as this browser can tell it, and times in words.

import {_, language} from "./language.js"

let skew_s = 0
export const setClock = (now) => { if (now) skew_s = now - Date.now() / 1000 }
export const clock = () => Date.now() / 1000 + skew_s

const two = (n) => String(n).padStart(2, "0")
export function duration(s) {
  s = Math.max(0, s)
  if (s < 0.0995) return `${Math.round(1000 * s)} ms`
  if (s < 9.95) return `${s.toFixed(1)} s`
  s = Math.round(s)
  if (s < 60) return `${s} s`
  const m = Math.floor(s / 60), hours = Math.floor(m / 60)
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`
  return hours ? `${hours}:${two(m % 60)}:${two(s % 60)}` : `${m}:${two(s % 60)}`
}
export const about = (s) => (s < 60 ? `${Math.round(s)} s` : duration(s))
export function elapsed(s) {
  s = Math.max(0, Math.floor(s))
  const m = Math.floor(s / 60), hours = Math.floor(m / 60)
  return hours ? `${hours}:${two(m % 60)}:${two(s % 60)}` : `${m}:${two(s % 60)}`
}
export function ago(at) {
  const s = clock() - at
  if (s < 5) return _("now")
  if (s < 60) return _("{n} s ago", {n: Math.floor(s)})
  if (s < 3600) return _("{n} min ago", {n: Math.floor(s / 60)})
  return s < 86400 ? _("{n} h ago", {n: Math.floor(s / 3600)}) : _("{n} d ago", {n: Math.floor(s / 86400)})
}
// When a task that waits for its next try runs again; empty where it waits for none.
export function againIn({not_before}) {
  const wait = not_before ? not_before - clock() : 0
  return wait > 0 ? _("runs again in {time}", {time: about(Math.ceil(wait))}) : ""
}
// How long something has been there: seconds are told in its first minute only.
export function age(s) {
  if (s < 60) return `${Math.max(0, Math.floor(s))} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  return s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min` : `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`
}
// How times are written: as the browser has it where that speaks the page's language, else as that language does.
export const locale = () => {
  const [wanted] = language().split("-")
  return navigator.languages.find((name) => name.split("-")[0] === wanted) || language()
}
export const moment = (at) => new Date(at * 1000).toLocaleString(locale())
// The time alone, where that was today.
export function shortMoment(at) {
  const day = new Date(at * 1000), isToday = day.toDateString() === new Date(clock() * 1000).toDateString()
  return day.toLocaleString(locale(), {...(isToday ? {} : {dateStyle: "short"}), timeStyle: "short"})
}
