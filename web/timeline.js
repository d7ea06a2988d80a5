// The pictures of a run, drawn as SVG: pure functions from a view (headline.js) to text.
import { laneOf } from './headline.js'
import { KINDS, NO_STAGES, STAGES } from './palette.js'
import { say } from './words.js'

const GUTTER = 66 // left of the plot: scale and device names
const RIGHT = 8
const TOP = 17 // caption
const BAND = 15
const MARKS = 15
const LANE = 18
const LEGEND = 18
const STATUS = 16
const CHAR = 5.6 // width of a character, about, at the size used
const WIDE = 11 // and of one of Chinese, Japanese or Korean
const SIZE = 11
const POINTS = 200 // with more steps than that the curve has no points
const INK = 'currentColor'
const FAINT = 'var(--hybridiff-faint, #a2a2ac)'
const PANEL = 'var(--hybridiff-panel, #1c1c20)'

export const lanesHeight = (devices) => LANE * devices + LEGEND
export const CURVE_HEIGHT = TOP + BAND + 84 + MARKS

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c])
const widthOf = (text) => [...text].reduce((sum, letter) => sum + (letter > '\u2e80' ? WIDE : CHAR), 0)
const short = (text, width) => {
  if (widthOf(text) <= width) return text
  let kept = text
  while (kept && widthOf(kept) + CHAR > width) kept = kept.slice(0, -1)
  return `${kept}\u2026`
}
const n = (value) => Number(value.toFixed(2))

/** The stages in order: {stage, first, last}. */
export function bandsOf(steps) {
  const bands = []
  for (const { step, stage } of steps) {
    const open = bands.at(-1)
    if (open && open.stage === stage) open.last = step
    else bands.push({ stage, first: step, last: step })
  }
  return bands
}

/** tau1 and tau2: the last step before the middle and the middle's last; null where there is none yet. */
export function boundsOf(bands) {
  const at = bands.findIndex(({ stage }) => stage === 'parallelism')
  if (at < 0) return { tau1: null, tau2: null }
  const over = bands.findIndex(({ stage }) => stage === 'fully-connecting')
  return { tau1: bands[at].first - 1, tau2: over < 0 ? null : bands[over].first - 1 }
}

/** The curve, a point a step: {step, value, measured}. What no step measured is taken from its neighbours. */
export function curveOf(steps) {
  const known = steps.filter(({ rel_mae }) => rel_mae != null)
  if (!known.length) return []
  return steps.map(({ step, rel_mae }) => {
    if (rel_mae != null) return { step, value: rel_mae, measured: true }
    const before = known.findLast((other) => other.step < step)
    const after = known.find((other) => other.step > step)
    const [a, b] = [before ?? after, after ?? before]
    const share = a === b ? 0 : (step - a.step) / (b.step - a.step)
    return { step, value: a.rel_mae + share * (b.rel_mae - a.rel_mae), measured: false }
  })
}

/** How many columns a run's pictures have. */
const columnsOf = (view) => Math.max(view.total || 0, (view.steps.at(-1)?.step ?? -1) + 1, 1)

/** Where steps and values lie in a curve's picture of this size; `status` is a line below it. */
export function scaleFor(view, width, height, status = false) {
  const count = columnsOf(view)
  const [left, right, top, bottom] = [GUTTER, width - RIGHT, TOP + BAND, height - MARKS - (status ? STATUS : 0)]
  const column = (right - left) / count
  return {
    count, column, left, right, top, bottom,
    edge: (step) => left + step * column,
    centre: (step) => left + (step + 0.5) * column,
    stepAt: (x) => Math.min(Math.max(Math.round((x - left) / column), 0), count),
  }
}

function text(x, y, content, { anchor = 'start', colour = INK, size = SIZE, title, name = '' } = {}) {
  const more = title ? `<title>${escaped(title)}</title>` : ''
  return (
    `<text class="${name}" x="${n(x)}" y="${n(y)}" fill="${colour}" font-size="${size}" text-anchor="${anchor}">` +
    `${escaped(content)}${more}</text>`
  )
}

const box = (x, y, width, height, fill, more = '') =>
  `<rect x="${n(x)}" y="${n(y)}" width="${n(Math.max(width, 0))}" height="${n(height)}" fill="${fill}" ${more}/>`

function patterns(id) {
  const hatch = (name, colour, gap) =>
    `<pattern id="${id}-${name}" width="${gap}" height="${gap}" patternUnits="userSpaceOnUse" ` +
    `patternTransform="rotate(45)"><rect width="${gap}" height="${gap}" fill="${colour}" fill-opacity="0.35"/>` +
    `<rect width="1.5" height="${gap}" fill="${colour}"/></pattern>`
  const { colour } = STAGES['fully-connecting']
  return (
    '<defs>' + hatch('hatch', STAGES.parallelism.colour, 5) + hatch('transfer', KINDS.transfer, 3) +
    `<pattern id="${id}-dots" width="5" height="5" patternUnits="userSpaceOnUse"><rect width="5" height="5" ` +
    `fill="${colour}" fill-opacity="0.25"/><circle cx="2.5" cy="2.5" r="1.1" fill="${colour}"/></pattern></defs>`
  )
}

function drawBands(scale, bands, id) {
  return bands.map(({ stage, first, last }) => {
    const { phrase, colour, pattern } = STAGES[stage] ?? NO_STAGES
    const word = say(phrase)
    const half = widthOf(word) / 2 + 3
    const [x, width] = [scale.edge(first), (last - first + 1) * scale.column]
    const fill = pattern === 'plain' ? colour : `url(#${id}-${pattern})`
    const label = 2 * half <= width
    return (
      `<g class="hybridiff-band" data-stage="${stage ?? ''}" data-first="${first}" data-last="${last}">` +
      `<title>${escaped(say('band', { stage: word, first, last }))}</title>` +
      box(x, TOP, width, BAND - 2, fill, pattern === 'plain' ? 'fill-opacity="0.55"' : '') +
      box(x, scale.top, width, scale.bottom - scale.top, colour, 'fill-opacity="0.1"') +
      (label
        ? box(x + width / 2 - half, TOP + 1, 2 * half, BAND - 4, PANEL) +
          text(x + width / 2, TOP + 10, word, { anchor: 'middle' })
        : '') +
      '</g>'
    )
  })
}

function drawCurve(scale, curve, name) {
  const top = Math.max(...curve.map(({ value }) => value)) * 1.12 || 1
  const y = (value) => scale.bottom - (value / top) * (scale.bottom - scale.top)
  const line = curve.map(({ step, value }, i) => `${i ? 'L' : 'M'}${n(scale.centre(step))} ${n(y(value))}`).join('')
  const points = curve.length > POINTS ? [] : curve.map(({ step, value, measured }) =>
    `<circle class="hybridiff-point" data-step="${step}" cx="${n(scale.centre(step))}" cy="${n(y(value))}" ` +
    `r="${n(Math.min(2.2, Math.max(scale.column / 3, 0.8)))}" stroke="${INK}" fill="${measured ? INK : PANEL}">` +
    `<title>${escaped(say('point', { step, value: measured ? value.toPrecision(3) : say('not_measured') }))}</title></circle>`)
  return [
    text(scale.left - 4, scale.top + 8, top.toPrecision(2), { anchor: 'end', colour: FAINT }),
    text(scale.left - 4, scale.bottom, '0', { anchor: 'end', colour: FAINT }),
    `<path class="${name}" d="${line}" fill="none" stroke="${INK}" stroke-width="1.3"/>`,
    ...points,
  ]
}

function drawMarks(scale, bounds, handles) {
  const label = (name) => `${name} ${bounds[name]}`
  const at = (name) => (bounds[name] == null ? null : scale.edge(bounds[name] + 1))
  // tau2's label stands right of its line, tau1's left of its own: where there is no room both move to the left
  const second = at('tau2') && Math.min(at('tau2') + 3, scale.right + RIGHT - 2 - label('tau2').length * CHAR)
  const first = at('tau1') && Math.min(at('tau1') - 3, (second ?? Infinity) - 6)
  const labels = { tau1: { x: first, anchor: 'end' }, tau2: { x: second, anchor: 'start' } }
  return Object.keys(labels).filter(at).map((name) => {
    const x = at(name)
    const grip = handles
      ? box(x - 3, scale.top - 4, 6, 12, INK, 'rx="2"') +
        box(x - 8, TOP, 16, scale.bottom - TOP + MARKS, 'transparent', `class="hybridiff-grip" data-bound="${name}"`)
      : ''
    return (
      `<g class="hybridiff-mark" data-bound="${name}" data-step="${bounds[name]}"><line x1="${n(x)}" x2="${n(x)}" ` +
      `y1="${scale.top}" y2="${n(scale.bottom + 3)}" stroke="${INK}" stroke-dasharray="3 2"/>` +
      text(labels[name].x, scale.bottom + 11, label(name), { anchor: labels[name].anchor }) + grip + '</g>'
    )
  })
}

/** The lanes: what each device did in each step, and how much of it was sending and waiting. */
export function drawLanes(view, width, { id = 'hybridiff' } = {}) {
  const [left, right] = [GUTTER, width - RIGHT]
  const column = (right - left) / columnsOf(view)
  // the first step waits for workers to start; longer ones than all others are cut off
  const lasting = view.steps.map(({ times }) => times.reduce((most, t) => Math.max(most, t.compute + t.transfer + t.wait), 0))
  const whole = Math.max(...(lasting.length > 1 ? lasting.slice(1) : lasting), 1e-9)
  const fills = { compute: KINDS.compute, transfer: `url(#${id}-transfer)`, wait: 'none' }
  const lanes = view.devices.flatMap((device, place) => {
    const y = place * LANE
    const paths = { compute: '', transfer: '', wait: '' }
    for (const { step, times } of view.steps) {
      let [from, room] = [left + step * column, column * 0.94]
      for (const kind of Object.keys(paths)) {
        const length = Math.min(((times[place]?.[kind] ?? 0) / whole) * column * 0.94, room)
        if (length > 0.05) paths[kind] += `M${n(from)} ${y + 3}h${n(length)}v${LANE - 6}h${n(-length)}z`
        from += length
        room -= length
      }
    }
    return [
      box(left, y + 2, right - left, LANE - 4, INK, 'fill-opacity="0.06"'),
      text(left - 4, y + 13, short(laneOf(device), GUTTER - 6), { anchor: 'end', title: device, name: 'hybridiff-device' }),
      ...Object.entries(paths).map(([kind, d]) =>
        `<path class="hybridiff-${kind}" d="${d}" fill="${fills[kind]}" ` +
        `${kind === 'wait' ? `stroke="${KINDS.wait}" stroke-width="0.7"` : ''}/>`),
    ]
  })
  const y = LANE * view.devices.length + 4
  let x = 8
  const legend = Object.entries(fills).flatMap(([kind, fill]) => {
    const [at, word] = [x, say(kind)]
    if (at + 14 + widthOf(word) > right) return []
    x += 26 + widthOf(word)
    return [
      box(at, y + 1, 10, 9, fill, kind === 'wait' ? `stroke="${KINDS.wait}"` : ''),
      text(at + 14, y + 10, word, { colour: FAINT }),
    ]
  })
  return svg(width, lanesHeight(view.devices.length), [patterns(id), ...lanes, ...legend])
}

/** The curve of the difference with the stages. `caption`, `bounds`, `handles` and `status` are for the plan's preview. */
export function drawCurves(view, width, height, { id = 'hybridiff', caption, bounds, handles = false, status } = {}) {
  const scale = scaleFor(view, width, height, status !== undefined)
  const bands = bandsOf(view.steps)
  const curve = curveOf(view.steps)
  const shown = caption ?? say(curve.length || !view.steps.length ? 'curve' : 'no_curve')
  return svg(width, height, [
    patterns(id),
    text(4, 12, short(shown, width - 12), { name: 'hybridiff-caption', title: shown }),
    ...drawBands(scale, bands, id),
    `<path d="M${scale.left} ${n(scale.bottom)}H${n(scale.right)}" stroke="${FAINT}" stroke-width="0.6"/>`,
    ...(curve.length ? drawCurve(scale, curve, 'hybridiff-curve') : []),
    ...drawMarks(scale, bounds ?? boundsOf(bands), handles),
    ...(status === undefined
      ? []
      : [text(4, height - 4, short(status, width - 8), { title: status, name: 'hybridiff-status' })]),
  ])
}

const svg = (width, height, parts) =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="${n(width)}" height="${n(height)}" ` +
  `viewBox="0 0 ${n(width)} ${n(height)}" font-family="sans-serif">${parts.join('')}</svg>`
