// The picture of a run, drawn as SVG: pure functions from plain data to text.
//
// A view is what hybridiff_core/account.py's timeline() gives: {mode, devices, lines, total, steps, speed_up, done},
// a step {step, stage, work, rel_mae, seconds, bytes, times, way}, times one {compute, transfer, wait} a device.

const GUTTER = 62 // left of the plot: scale and device names
const RIGHT = 8
const TOP = 17 // caption
const BAND = 15
const MARKS = 14
const LANE = 16
const LEGEND = 15
const STATUS = 15
const CURVE = 58 // least height of the curve
const CHAR = 5.1 // width of a character, about, at the size used
const POINTS = 200 // with more steps than that the curve has no points

export const STAGES = {
  'warm-up': { word: 'warm-up', colour: '#56b4e9', pattern: 'plain' },
  parallelism: { word: 'middle', colour: '#e69f00', pattern: 'hatch' },
  'fully-connecting': { word: 'finish', colour: '#6fd3b0', pattern: 'dots' },
}
const NO_STAGES = { word: 'all steps', colour: '#9a9aa6', pattern: 'plain' }
const KINDS = { compute: '#56b4e9', transfer: '#e69f00', wait: '#8a8a94' }
const INK = '#ececf0'
const FAINT = '#a2a2ac'
const PANEL = '#1c1c20'

export const heightFor = (devices) =>
  TOP + BAND + CURVE + MARKS + (devices ? LANE * devices + LEGEND : 0) + STATUS

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c])
const short = (text, width) => {
  const fits = Math.max(Math.floor(width / CHAR), 1)
  return text.length <= fits ? text : `${text.slice(0, fits - 1)}\u2026`
}
const n = (value) => Number(value.toFixed(2))

/** Take an event's steps into a view: a step that is there already is replaced. */
export function withEvent(view, event) {
  const begun = view?.run === event.run ? view.steps : []
  const fresh = new Map(event.steps.map((step) => [step.step, step]))
  const steps = [...begun.filter((step) => !fresh.has(step.step)), ...fresh.values()]
  steps.sort((a, b) => a.step - b.step)
  return { ...event, steps }
}

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

/** Where steps and values lie in a picture of this size. */
export function scaleFor(view, width, height) {
  const count = Math.max(view.total || 0, (view.steps.at(-1)?.step ?? -1) + 1, 1)
  const devices = view.devices.length
  const below = MARKS + (devices ? LANE * devices + LEGEND : 0) + STATUS
  const [left, right, top, bottom] = [GUTTER, width - RIGHT, TOP + BAND, height - below]
  const column = (right - left) / count
  return {
    count, column, left, right, top, bottom,
    edge: (step) => left + step * column,
    centre: (step) => left + (step + 0.5) * column,
    stepAt: (x) => Math.min(Math.max(Math.round((x - left) / column), 0), count),
  }
}

function text(x, y, content, { anchor = 'start', colour = INK, size = 10, title, name = '' } = {}) {
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
    const { word, colour, pattern } = STAGES[stage] ?? NO_STAGES
    const [x, width] = [scale.edge(first), (last - first + 1) * scale.column]
    const fill = pattern === 'plain' ? colour : `url(#${id}-${pattern})`
    const label = word.length * CHAR + 6 <= width
    return (
      `<g class="hybridiff-band" data-stage="${stage ?? ''}" data-first="${first}" data-last="${last}">` +
      `<title>${word}: steps ${first} to ${last}</title>` +
      box(x, TOP, width, BAND - 2, fill, pattern === 'plain' ? 'fill-opacity="0.55"' : '') +
      box(x, scale.top, width, scale.bottom - scale.top, colour, 'fill-opacity="0.1"') +
      (label
        ? box(x + width / 2 - word.length * CHAR / 2 - 3, TOP + 1, word.length * CHAR + 6, BAND - 4, PANEL) +
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
    `<title>step ${step}: ${measured ? value.toPrecision(3) : 'not measured'}</title></circle>`)
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

function drawLanes(scale, view, id) {
  // the first step waits for workers to start; longer ones than all others are cut off
  const lasting = view.steps.map(({ times }) => times.reduce((most, t) => Math.max(most, t.compute + t.transfer + t.wait), 0))
  const whole = Math.max(...(lasting.length > 1 ? lasting.slice(1) : lasting), 1e-9)
  const fills = { compute: KINDS.compute, transfer: `url(#${id}-transfer)`, wait: 'none' }
  return view.devices.flatMap((device, place) => {
    const y = scale.bottom + MARKS + place * LANE
    const paths = { compute: '', transfer: '', wait: '' }
    for (const { step, times } of view.steps) {
      let [from, left] = [scale.edge(step), scale.column * 0.94]
      for (const kind of Object.keys(paths)) {
        const width = Math.min(((times[place]?.[kind] ?? 0) / whole) * scale.column * 0.94, left)
        if (width > 0.05) paths[kind] += `M${n(from)} ${y + 3}h${n(width)}v${LANE - 6}h${n(-width)}z`
        from += width
        left -= width
      }
    }
    // without its card's title, which the tooltip has
    const plain = device.replace(/ ?\(process (\d+)\)/, ' #$1').replace(/ \(.*\)/, '')
    const name = short(plain, GUTTER - 8)
    return [
      box(scale.left, y + 2, scale.right - scale.left, LANE - 4, '#ffffff', 'fill-opacity="0.04"'),
      text(scale.left - 4, y + 11, name, { anchor: 'end', title: device, name: 'hybridiff-device' }),
      ...Object.entries(paths).map(([kind, d]) =>
        `<path class="hybridiff-${kind}" d="${d}" fill="${fills[kind]}" ` +
        `${kind === 'wait' ? `stroke="${KINDS.wait}" stroke-width="0.7"` : ''}/>`),
    ]
  })
}

function drawLegend(scale, view, id, hollow) {
  const y = scale.bottom + MARKS + LANE * view.devices.length + 3
  let x = 4
  const parts = []
  for (const [kind, fill] of [['compute', KINDS.compute], ['transfer', `url(#${id}-transfer)`], ['wait', 'none']]) {
    if (x + 12 + kind.length * 4.8 > scale.right) break
    parts.push(box(x, y, 9, 8, fill, kind === 'wait' ? `stroke="${KINDS.wait}"` : ''))
    parts.push(text(x + 12, y + 8, kind, { colour: FAINT, size: 9 }))
    x += kind.length * 4.8 + 21
  }
  if (hollow && x + 72 < scale.right) {
    parts.push(`<circle cx="${n(x + 4)}" cy="${y + 4.5}" r="2.4" stroke="${INK}" fill="${PANEL}"/>`)
    parts.push(text(x + 10, y + 8, 'not measured', { colour: FAINT, size: 9 }))
  }
  return parts
}

/** The last line under the picture: what the run gained, or why it did not. */
export function statusOf(view) {
  const alone = view.lines.find((line) => line.startsWith('ran on one device: '))
  if (alone) return alone
  if (!view.done) return view.mode
  const faster = view.speed_up ? `about ${view.speed_up.toFixed(2)}x one device` : 'done'
  const way = view.steps.findLast((step) => step.way)?.way ?? 'conds'
  const how = way === 'conds' ? '' : `, by ${way.replace('rows', 'images')}`
  return `${view.mode}${how}: ${faster}`
}

/** A run's picture. `id` names its patterns; `caption`, `bounds`, `handles` are for the plan's preview. */
export function draw(view, width, height, { id = 'hybridiff', caption, bounds, handles = false, status } = {}) {
  const scale = scaleFor(view, width, height)
  const bands = bandsOf(view.steps)
  const curve = curveOf(view.steps)
  const last = view.steps.at(-1)
  const line = status ?? statusOf(view)
  const shown = caption ?? (curve.length || !last ? 'difference between the branches' : 'one branch: no difference to show')
  const count = view.devices.length && last ? `step ${last.step + 1} of ${scale.count}` : ''
  const parts = [
    patterns(id),
    box(0, 0, width, height, PANEL, 'rx="4"'),
    text(4, 12, short(shown, width - 12 - count.length * CHAR), { name: 'hybridiff-caption' }),
    text(width - 4, 12, count, { anchor: 'end', colour: FAINT, name: 'hybridiff-count' }),
    ...drawBands(scale, bands, id),
    `<path d="M${scale.left} ${n(scale.bottom)}H${n(scale.right)}" stroke="${FAINT}" stroke-width="0.6"/>`,
    ...(curve.length ? drawCurve(scale, curve, 'hybridiff-curve') : []),
    ...drawMarks(scale, bounds ?? boundsOf(bands), handles),
    ...(view.devices.length ? drawLanes(scale, view, id) : []),
    ...(view.devices.length ? drawLegend(scale, view, id, curve.some(({ measured }) => !measured)) : []),
    text(4, height - 4, short(line, width - 8), { colour: FAINT, title: [line, ...view.lines].join('\n'), name: 'hybridiff-status' }),
  ]
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${n(width)}" height="${n(height)}" ` +
    `viewBox="0 0 ${n(width)} ${n(height)}" font-family="sans-serif">${parts.join('')}</svg>`
  )
}
