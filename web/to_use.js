// Before a run: which devices a node will use, from what the server found when the page asked for its nodes.
import { lineOf, say } from './words.js'

const CHOOSES = 'HybridiffDevices'
const [RUNS, OTHERS] = [0, 'this machine and others']
const TITLED = /^(?:(.+): )?(\w+:\d+) \((.*?)(?:, \d+ GB)?\)(?: \(process \d+\))?$/

/** "RTX 3090" for "cuda:1 (RTX 3090, 24 GB)", "RTX 3090 (pc-b)" for another machine's. */
export function modelOf(title) {
  if (/(^|: )cpu( \(|$)/.test(title)) return say('processor')
  const [, machine, , model] = TITLED.exec(title) ?? [undefined, undefined, undefined, title]
  return machine ? `${model} (${machine})` : model
}

/** What Hybridiff Devices nodes chose for a node, in their order; undefined where that cannot be told from here. */
export function chosenFor(node) {
  const input = node.inputs?.find(({ name }) => name === 'devices')
  if (!input) return undefined
  const { link } = input
  if (link == null) return node.comfyClass === CHOOSES ? [] : ['auto']
  const origin = node.graph?.getNodeById(node.graph.getLink?.(link)?.origin_id)
  if (origin?.comfyClass !== CHOOSES || origin.mode !== RUNS) return undefined
  const before = chosenFor(origin)
  const value = (name) => origin.widgets?.find((widget) => widget.name === name)?.value
  if (!before || typeof value('device') !== 'string') return undefined
  return [...before, value('device'), ...(value('device') === 'auto' && value('where') === OTHERS ? ['others'] : [])]
}

/** The devices that `chosen` names, this process's own first. `found` is the server's {own, auto, others, said}. */
export function devicesOf(found, chosen) {
  const short = (title) => title.split(' (')[0]
  const named = chosen.filter((name) => !['auto', 'others'].includes(name)).map((name) => (name === 'same' ? found.own : name))
  const rest = [...(chosen.includes('auto') ? found.auto : []), ...(chosen.includes('others') ? found.others : [])]
  return [found.own, ...named, ...rest.filter((title) => !named.some((name) => short(name) === short(title)))]
}

/** What a node says before its first run: {text, reason}; undefined where nothing is known. */
export function before(found, chosen) {
  if (!found?.own || !chosen) return undefined
  const devices = devicesOf(found, chosen).map((title, place) =>
    place && title.split(' (')[0] === found.own.split(' (')[0] ? say('second_process') : modelOf(title))
  if (devices.length > 1) return { text: say('will_use', { devices: devices.join(' + ') }), reason: '' }
  const [said] = chosen.includes('auto') ? found.said : []
  return { text: say('will_use_alone', { device: devices[0] }), reason: said ? lineOf(said) : '' }
}
