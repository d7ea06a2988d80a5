import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CURVE_HEIGHT, bandsOf, boundsOf, curveOf, drawCurves, drawLanes, scaleFor } from '../../web/timeline.js'
import { compared, draw } from '../../web/view.js'
import { ALONE, STEPS, VIEW, step } from './runs.mjs'
import { speak } from './words.mjs'

speak('en')
const count = (text, part) => text.split(part).length - 1

test('bands and boundaries are the stages', () => {
  const bands = bandsOf(STEPS)
  assert.deepEqual(bands.map(({ first, last }) => [first, last]), [[0, 1], [2, 3], [4, 4]])
  assert.deepEqual(boundsOf(bands), { tau1: 1, tau2: 3 })
  assert.deepEqual(boundsOf(bandsOf(STEPS.slice(0, 3))), { tau1: 1, tau2: null })
  assert.deepEqual(boundsOf(bandsOf(STEPS.slice(0, 2))), { tau1: null, tau2: null })
})

test('a lane has its device\'s name, and the whole title as a tooltip', () => {
  const svg = drawLanes(VIEW, 400)
  const names = [...svg.matchAll(/hybridiff-device"[^>]*>([^<]*)<title>([^<]*)/g)].map(([, ...found]) => found)
  assert.deepEqual(names, [['cuda:0', VIEW.devices[0]], ['cuda:1 #2', VIEW.devices[1]]])
  for (const word of ['computing', 'sending', 'waiting']) assert.match(svg, new RegExp(`>${word}<`))
})

test('a step that measured nothing lies between its neighbours', () => {
  assert.deepEqual(curveOf(STEPS)[2], { step: 2, value: 0.2, measured: false })
  assert.equal(curveOf(STEPS.slice(0, 3))[2].value, 0.3)
  assert.deepEqual(curveOf([step(0, null, null)]), [])
})

test('the curve has a point a step, a band a stage and both marks', () => {
  const svg = drawCurves(VIEW, 300, CURVE_HEIGHT, { id: 'a' })
  assert.equal(count(svg, 'class="hybridiff-point"'), 5)
  assert.equal(count(svg, 'class="hybridiff-band"'), 3)
  assert.match(svg, /tau1 1/)
  assert.match(svg, /tau2 3/)
  assert.doesNotMatch(svg, /NaN|undefined|Infinity/)
})

test('nothing is drawn outside of the picture, with few steps or many, narrow or wide', () => {
  for (const total of [1, 5, 50, 1000]) {
    for (const width of [120, 300, 900]) {
      const steps = Array.from({ length: total }, (_, i) => step(i, i < total / 2 ? 'warm-up' : 'parallelism', 0.1 + i, i))
      const svg = drawCurves({ ...VIEW, total, steps }, width, 200) + drawLanes({ ...VIEW, total, steps }, width)
      assert.doesNotMatch(svg, /NaN|undefined|Infinity|width="-/)
      for (const [, x] of svg.matchAll(/ c?x="(-?[\d.]+)"/g)) assert.ok(x >= -8 && x <= width, `${x} of ${width}`)
    }
  }
})

test('the view shows the result first, and the curve on request', () => {
  const html = draw(VIEW, 300)
  assert.ok(html.indexOf('4.4 s') < html.indexOf('1.98x as fast as one') && html.indexOf('1.98x') < html.indexOf('hybridiff-device'))
  assert.equal(count(html, 'hybridiff-point'), 0)
  assert.equal(count(draw(VIEW, 300, { open: true }), 'class="hybridiff-point"'), 5)
  assert.match(draw(ALONE, 300), /data-state="alone" data-tone="reason".*What to do: Raise the CFG/)
  assert.match(draw(undefined, 300), /data-state="empty"/)
  assert.match(draw(undefined, 300, { before: { text: 'will use X', reason: 'no Y' } }), /will use X.*no Y.*Run the workflow/)
  assert.doesNotMatch(draw(VIEW, 300, { before: { text: 'will use X', reason: '' } }), /will use/)
  assert.equal(count(draw(ALONE, 300), '<svg'), 0) // its reason has their place
  assert.doesNotMatch(draw({ ...VIEW, steps: [] }, 300, { open: true }), /NaN|undefined/)
  assert.match(draw(ALONE, 300, { open: true }), /one prompt, so there is no difference to show/)
})

test('names and lines are shown as text', () => {
  const told = [{ ...ALONE.told[0], text: '<i>', way_out: '<u>', fields: {} }]
  const html = draw({ ...VIEW, devices: ['<b>"&', 'x'], told }, 300, { open: true })
  assert.doesNotMatch(html, /<b>|<i>|<u>/)
})

test('two pictures are compared in words first', () => {
  const html = compared({ verdict: 'practically', decibels: '52.31', ssim: '0.99812', largest: '0.0123' })
  assert.match(html, /practically the same: 52 dB.*PSNR 52.31 dB, SSIM 0.99812, largest difference 0.0123/)
  assert.match(compared(undefined), /Run the workflow/)
})

test('a position is a step boundary', () => {
  const scale = scaleFor(VIEW, 300, 150, true)
  for (const at of [0, 2, 5]) assert.equal(scale.stepAt(scale.edge(at)), at)
  assert.equal(scale.stepAt(-100), 0)
  assert.equal(scale.stepAt(1000), 5)
})
