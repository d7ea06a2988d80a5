// What a run came to, in words: pure functions from a view to text. account.py says the same in English.
//
// A view is what hybridiff_core/account.py's timeline() gives: {mode, devices, total, steps, state, starting, seconds,
// calls, shared, workers, gain, no_gain, told}; a step {step, stage, work, rel_mae, seconds, bytes, times, way}, times
// one {compute, transfer, wait} a device.
import { causeOf, clock, lineOf, say, wayOf } from './words.js'

const ALONE = 'RAN_ON_ONE_DEVICE'
const WORTH = 1.05 // a gain below this is none: why, is said in its place
const WAYS = { rows: 'by_images', tokens: 'by_tokens', 'rows and tokens': 'by_images_and_tokens' }

/** "cuda:1" for "cuda:1 (RTX 3090, 24 GB) (process 2)". */
export const nameOf = (device) => device.split(' (')[0]

/** "cuda:1 #2": two processes may have one device. */
export function laneOf(device) {
  const process = /\(process (\d+)\)/.exec(device)?.[1]
  return process ? `${nameOf(device)} #${process}` : nameOf(device)
}

/** Take an event's steps into a view: a step that is there already is replaced. */
export function withEvent(view, event) {
  const begun = view?.run === event.run ? view.steps : []
  const fresh = new Map(event.steps.map((step) => [step.step, step]))
  const steps = [...begun.filter((step) => !fresh.has(step.step)), ...fresh.values()]
  steps.sort((a, b) => a.step - b.step)
  return { ...event, steps }
}

const notComputed = (view) => view.steps.filter((step) => step.work !== 'exact').length
const stepOf = (view) => ({ step: (view.steps.at(-1)?.step ?? -1) + 1, total: view.total })

/** The devices that computed: "2 GPUs". */
export function who(view) {
  const names = view.workers.map((place) => nameOf(view.devices[place]))
  const kind = names.some((name) => name.endsWith('cpu')) ? 'device' : 'gpu'
  return names.length === 1 ? say(kind) : say(`${kind}s`, { count: names.length })
}

/** The gain over one device as a number, rounded down; undefined where there is none to tell. */
export function gainOf(view, digits) {
  if (!view.gain || (view.workers.length < 2 && !notComputed(view))) return undefined
  return (Math.floor(view.gain[0] * 10 ** digits) / 10 ** digits).toFixed(digits)
}

/** "starting", "running", "done", "failed" or "stopped"; "alone" is a run that is done and was not shared. */
export function stateOf(view) {
  if (!view) return 'empty'
  if (view.state === 'running') return view.steps.length ? 'running' : 'starting'
  return view.state === 'done' && !view.shared && !gainOf(view, 1) ? 'alone' : view.state
}

const starting = (view) => view.starting.map(nameOf).join(', ')

/** The result, large, and the gain beside it. */
export function result(view) {
  const state = stateOf(view)
  if (state === 'empty') return { large: '', gain: '' }
  if (state === 'starting') {
    return { large: view.starting.length ? say('starting', { devices: starting(view) }) : say('step', stepOf(view)), gain: '' }
  }
  if (state === 'running') return { large: say('step', stepOf(view)), gain: '' }
  if (state === 'failed' || state === 'stopped') {
    return { large: say(view.steps.length ? state : `${state}_early`, stepOf(view)), gain: '' }
  }
  const times = gainOf(view, 2)
  return { large: clock(view.seconds), gain: times ? say(view.gain[1] ? 'gain_measured' : 'gain_estimated', { times }) : '' }
}

/** What the devices did, and which picture that makes. */
export function what(view) {
  const state = stateOf(view)
  if (state === 'empty') return say('empty')
  const [sent] = view.state === 'running' ? view.sending ?? [] : []
  if (sent) return say('sending', { file: sent.name, machine: sent.machine, percent: Math.floor(100 * sent.share) })
  if (view.state === 'running' && !view.shared && view.starting.length) return say('joins_later', { devices: starting(view) })
  if (state === 'starting') return ''
  const [total, count] = [view.calls, notComputed(view)]
  const shared = view.shared === total ? 'shared_all' : view.shared ? 'shared_some' : 'shared_none'
  const parts = [say(shared, { count: view.shared, total })]
  const way = WAYS[view.steps.findLast((step) => step.way)?.way]
  if (way) parts.push(say(way))
  if (count) parts.push(say(view.mode === 'predict' ? 'predicted' : 'in_parts', { count, total, mode: view.mode }))
  else if (view.state === 'done') parts.push(say('same_picture'))
  return `${who(view)}: ${parts.join(', ')}`
}

/** What a user should read, and can do something about: {text, way, group}; `aside` where it is no fault of the run's. */
export function reasons(view) {
  const said = (view?.told ?? []).filter(({ matters }) => matters).map((told) => ({
    text: lineOf(told.key === ALONE ? told.fields.reason ?? told : told), // that it was one device is said above it
    way: wayOf(told) && say('way_out', { way: wayOf(told) }), group: told.group,
  }))
  if (view?.no_gain && view.state === 'done') {
    said.push({ text: say(`no_figure_${view.no_gain}`), way: '', group: 'NOTHING', aside: true })
  }
  return said
}

/** The run in a few words, for the node's title; empty where there was none. */
export function badgeOf(view) {
  const state = stateOf(view)
  if (state === 'empty') return ''
  if (state === 'starting' || state === 'failed' || state === 'stopped') return result(view).large
  if (state === 'running') return say('with_reason', { who: who(view), reason: say('step', stepOf(view)) })
  const first = view.told.find(({ matters }) => matters)
  if (first && !gained(view)) return say('with_reason', { who: who(view), reason: lineOf(causeOf(first)) })
  const times = gainOf(view, 1)
  return times ? say('with_gain', { who: who(view), times }) : who(view)
}

/** How well it went, for colours: "good", "plain", "reason" or "fault". */
export function toneOf(view) {
  const state = stateOf(view)
  if (state === 'failed') return 'fault'
  if (state === 'alone' || state === 'stopped') return 'reason'
  if (state !== 'done' || gained(view)) return state === 'done' ? 'good' : 'plain'
  return view.told.some(({ matters }) => matters) ? 'reason' : 'plain'
}

/** Whether more than one device's work, or steps that were not computed, brought something that can be told. */
const gained = (view) => gainOf(view, 1) !== undefined && view.gain[0] >= WORTH
