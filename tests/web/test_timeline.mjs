import assert from 'node:assert/strict'
import { test } from 'node:test'
import { bandsOf, boundsOf, curveOf, draw, heightFor, scaleFor, statusOf, withEvent } from '../../web/timeline.js'

const times = (compute) => [{ compute, transfer: 0, wait: 0.1 }, { compute, transfer: 0.1, wait: 0 }]
const step = (number, stage, rel_mae, compute = 1) =>
  ({ step: number, stage, work: 'exact', rel_mae, seconds: 1.1, bytes: 1, times: times(compute) })
const STEPS = [
  step(0, 'warm-up', 0.4), step(1, 'warm-up', 0.3), step(2, 'parallelism', null), step(3, 'parallelism', 0.1),
  step(4, 'fully-connecting', 0.2),
]
const VIEW = {
  mode: 'predict', devices: ['cpu', 'cuda:1 (process 2)'], lines: [], total: 5, steps: STEPS, speed_up: 1.9, done: true,
}
const count = (text, part) => text.split(part).length - 1

test('bands and boundaries are the stages', () => {
  const bands = bandsOf(STEPS)
  assert.deepEqual(bands.map(({ first, last }) => [first, last]), [[0, 1], [2, 3], [4, 4]])
  assert.deepEqual(boundsOf(bands), { tau1: 1, tau2: 3 })
  assert.deepEqual(boundsOf(bandsOf(STEPS.slice(0, 3))), { tau1: 1, tau2: null })
  assert.deepEqual(boundsOf(bandsOf(STEPS.slice(0, 2))), { tau1: null, tau2: null })
})

test('a lane has its device\'s name, and the whole title as a tooltip', () => {
  const devices = ['cuda:0 (RTX 4090, 24 GB)', 'cuda:1 (Arc 140V GPU (16GB), 16 GB) (process 2)']
  const svg = draw({ ...VIEW, devices }, 400, 300)
  const names = [...svg.matchAll(/hybridiff-device"[^>]*>([^<]*)<title>([^<]*)/g)].map(([, ...found]) => found)
  assert.deepEqual(names, [['cuda:0', devices[0]], ['cuda:1 #2', devices[1]]])
})

test('a step that measured nothing lies between its neighbours', () => {
  assert.deepEqual(curveOf(STEPS)[2], { step: 2, value: 0.2, measured: false })
  assert.equal(curveOf(STEPS.slice(0, 3))[2].value, 0.3)
  assert.deepEqual(curveOf([step(0, null, null)]), [])
})

test('events put a run together, and another run begins anew', () => {
  let view = withEvent(undefined, { run: 1, steps: STEPS.slice(0, 2) })
  view = withEvent(view, { run: 1, steps: [step(1, 'warm-up', 0.35), STEPS[2]] })
  assert.deepEqual(view.steps.map(({ step, rel_mae }) => [step, rel_mae]), [[0, 0.4], [1, 0.35], [2, null]])
  assert.equal(withEvent(view, { run: 2, steps: [STEPS[0]] }).steps.length, 1)
})

test('the picture has a point a step, a band a stage, a lane a device, and both marks', () => {
  const svg = draw(VIEW, 300, heightFor(2), { id: 'a' })
  assert.equal(count(svg, 'class="hybridiff-point"'), 5)
  assert.equal(count(svg, 'class="hybridiff-band"'), 3)
  assert.equal(count(svg, 'class="hybridiff-device"'), 2)
  assert.match(svg, /tau1 1/)
  assert.match(svg, /tau2 3/)
  assert.match(svg, /about 1.90x one device/)
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/)
})

test('nothing is drawn outside of the picture, with few steps or many, narrow or wide', () => {
  for (const total of [1, 5, 50, 1000]) {
    for (const width of [120, 300, 900]) {
      const steps = Array.from({ length: total }, (_, i) => step(i, i < total / 2 ? 'warm-up' : 'parallelism', 0.1 + i, i))
      const svg = draw({ ...VIEW, total, steps }, width, heightFor(2))
      assert.doesNotMatch(svg, /NaN|undefined|Infinity|width="-/)
      for (const [, x] of svg.matchAll(/ c?x="(-?[\d.]+)"/g)) assert.ok(x >= -8 && x <= width, `${x} of ${width}`)
    }
  }
})

test('runs without a curve, without steps and on one device say so', () => {
  const alone = { ...VIEW, devices: ['cpu'], lines: ['ran on one device: no second GPU was found'], speed_up: null }
  assert.equal(statusOf(alone), 'ran on one device: no second GPU was found')
  assert.match(draw({ ...VIEW, steps: [step(0, null, null)] }, 300, 200), /no difference to show/)
  assert.doesNotMatch(draw({ ...VIEW, steps: [] }, 300, 200), /NaN/)
  assert.equal(statusOf({ ...VIEW, done: false }), 'predict')
  const steps = VIEW.steps.map((step) => ({ ...step, way: 'rows and tokens' }))
  assert.match(statusOf({ ...VIEW, steps }), /^predict, by images and tokens: about/)
})

test('names are shown as text', () => {
  const svg = draw({ ...VIEW, devices: ['<b>"&', 'x'], lines: ['<i>'] }, 300, 200)
  assert.doesNotMatch(svg, /<b>|<i>/)
})

test('a position is a step boundary', () => {
  const scale = scaleFor(VIEW, 300, heightFor(2))
  for (const at of [0, 2, 5]) assert.equal(scale.stepAt(scale.edge(at)), at)
  assert.equal(scale.stepAt(-100), 0)
  assert.equal(scale.stepAt(1000), 5)
})
