// What the page says, in the user's language: phrases and lines from locales/*/main.json, English where one is missing.

let words = {}
let english = {}

/** Choose a language. `found` is what the server has of each: {language: {hybridiff: {phrases, lines, ways}}}. */
export function setWords(found, language) {
  english = found.en?.hybridiff ?? {}
  words = found[language]?.hybridiff ?? {}
}

const filled = (template, fields) => template.replace(/{(\w+)}/g, (whole, name) => fields[name] ?? whole)

/** A phrase with its fields filled in. */
export const say = (phrase, fields = {}) =>
  filled(words.phrases?.[phrase] ?? english.phrases?.[phrase] ?? phrase, fields)

/** A line of a run (telling.py's told): in the user's language where it is known there, else as it was said. */
export function lineOf(told) {
  if (typeof told === 'string') return told
  const template = words.lines?.[told.key]
  if (!template) return told.text
  return filled(template, Object.fromEntries(Object.entries(told.fields).map(([name, value]) => [name, lineOf(value)])))
}

/** What a user can do about it; empty where nothing is known. */
export const wayOf = (told) => words.ways?.[told.cause] ?? told.way_out

// lines that name what the line within them is about, which says "it"
const NAMING = ['WORKER_OUT', 'GROUP_OUT', 'NOT_BY_AUTO', 'PACK_NOT_LOADED', 'NODE_FAILED', 'CANNOT_BE_CUT', 'NONE_PREDICTED']

/** The innermost line that can stand by itself: the cause, without what it led to. */
export const causeOf = (told) => {
  if (NAMING.includes(told.key)) return told
  const inner = Object.values(told.fields).find((value) => typeof value !== 'string' && value.cause === told.cause)
  return inner ? causeOf(inner) : told
}

/** A time as a user reads it. */
export function clock(seconds) {
  if (seconds < 9.95) return say('seconds', { s: seconds.toFixed(1) })
  const whole = Math.round(seconds)
  return whole < 60 ? say('seconds', { s: whole }) : say('minutes', { m: Math.floor(whole / 60), s: whole % 60 })
}
