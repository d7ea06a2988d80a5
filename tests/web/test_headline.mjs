import assert from 'node:assert/strict'
import { test } from 'node:test'
import { badgeOf, laneOf, reasons, result, stateOf, toneOf, what, withEvent } from '../../web/headline.js'
import { ALONE, STEPS, VIEW, line, step } from './runs.mjs'
import { speak } from './words.mjs'

speak('en')
const exact = { ...VIEW, mode: 'exact', shared: 5, steps: STEPS.map((one) => ({ ...one, work: 'exact' })) }

test('a shared run says its time, its gain and what it did', () => {
  assert.deepEqual(result(VIEW), { large: '4.4 s', gain: '1.98x as fast as one (estimated)' })
  assert.equal(what(exact), "2 GPUs: every step shared, the same picture as KSampler's")
  assert.equal(what(VIEW), "2 GPUs: 4 of 5 steps shared, close to KSampler's picture: 1 of 5 steps predicted")
  assert.equal(badgeOf(VIEW), '2 GPUs, 1.9x')
  assert.equal(badgeOf({ ...VIEW, gain: null, no_gain: 'same' }), '2 GPUs')
  assert.equal(badgeOf({ ...VIEW, devices: ['cpu', 'cpu (process 2)'], gain: null }), '2 devices')
  assert.equal(result({ ...VIEW, seconds: 125, gain: [1.5, true] }).large, '2 min 5 s')
})

test('a gain is never rounded up', () => {
  assert.equal(result({ ...exact, gain: [1.9999, true] }).gain, '1.99x as fast as one (measured)')
  assert.equal(badgeOf({ ...exact, gain: [1.9999, true] }), '2 GPUs, 1.9x')
})

test('a run on one device says why, and what to do', () => {
  assert.equal(stateOf(ALONE), 'alone')
  assert.equal(badgeOf(ALONE), '1 GPU: at CFG 1 only one prompt is computed')
  assert.equal(result(ALONE).gain, '')
  assert.deepEqual(reasons(ALONE), [
    { text: 'at CFG 1 only one prompt is computed', way: 'What to do: Raise the CFG.', group: 'SETTING' },
  ])
  assert.equal(toneOf(ALONE), 'reason')
})

test('of two reasons the badge has the one that can be mended', () => {
  const patched = line('NETWORK_PATCHED', 'a node changes the network', 'Leave it out.')
  const off = line('OTHER_PACKS_OFF', 'other_packs is off', 'Set other_packs.')
  const both = { ...line('AND_NOT_BY_GRAPH', 'a node changes the network; and other_packs is off', off.way_out, { reason: patched, why: off }), cause: off.key }
  const told = [{ ...line('RAN_ON_ONE_DEVICE', `ran on one device: ${both.text}`, off.way_out, { reason: both }), cause: off.key }]
  assert.equal(badgeOf({ ...ALONE, told }), '1 GPU: other_packs is off')
})

test('predicted steps alone are a gain too', () => {
  const alone = { ...ALONE, mode: 'predict', gain: [1.44, true], steps: STEPS }
  assert.equal(badgeOf(alone), '1 GPU, 1.4x')
  assert.match(what(alone), /1 of 5 steps predicted/)
})

test('a line that says "it" keeps what it is about', () => {
  const full = line('OUT_OF_MEMORY', 'its device has too little free memory', '', {}, 'MEMORY')
  const out = { ...line('WORKER_OUT', 'the worker on cuda:1 is out: its device has too little free memory', '', { device: 'cuda:1', reason: full }, 'MEMORY'), cause: full.key }
  const over = { ...line('TOOK_OVER', `${out.text}; this process took over`, '', { reason: out }, 'MEMORY'), cause: full.key }
  assert.equal(badgeOf({ ...exact, gain: null, told: [over] }), `2 GPUs: ${out.text}`)
})

test('a run that gained nothing says why in its badge', () => {
  const slow = line('TOO_SLOW', 'cuda:1 is left out: it takes 2.4 times as long', '', {}, 'NOTHING')
  const run = { ...VIEW, mode: 'exact', shared: 2, gain: [1.02, true], told: [slow], steps: exact.steps }
  assert.equal(badgeOf(run), '2 GPUs: cuda:1 is left out: it takes 2.4 times as long')
  assert.equal(toneOf(run), 'reason')
  assert.equal(badgeOf({ ...run, gain: [1.5, true] }), '2 GPUs, 1.5x')
  assert.equal(toneOf({ ...run, gain: null, no_gain: 'same', told: [] }), 'plain')
})

test('what matters not is in no reason', () => {
  const joined = line('JOINED', 'cuda:1 joined at step 2 of 5, when it was ready', 'Nothing.', {}, 'NOTHING', false)
  assert.deepEqual(reasons({ ...VIEW, told: [joined] }), [])
  assert.equal(reasons({ ...VIEW, no_gain: 'cpu' })[0].text, 'a helper on the processor is for tests, so no gain is shown')
})

test('a run that begins, goes on, fails or is stopped says so', () => {
  const begun = { ...VIEW, state: 'running', steps: [], shared: 0, calls: 0, starting: [VIEW.devices[1]], devices: [VIEW.devices[0]], workers: [0], gain: null }
  assert.equal(badgeOf(begun), 'starting cuda:1')
  assert.equal(what(begun), 'one device begins; cuda:1 joins when it is ready')
  const sending = [{ name: 'sdxl.safetensors', machine: 'pc-b', share: 0.358 }]
  assert.equal(what({ ...begun, sending }), 'sdxl.safetensors is being sent to pc-b: 35 %')
  assert.equal(what({ ...VIEW, sending }), what(VIEW))
  const alone = { ...begun, steps: STEPS.slice(0, 2), calls: 2 }
  assert.equal(badgeOf(alone), '1 GPU: step 2 of 5')
  assert.equal(what(alone), 'one device begins; cuda:1 joins when it is ready')
  const running = { ...VIEW, state: 'running', steps: STEPS.slice(0, 2), calls: 2, shared: 2, gain: null }
  assert.equal(badgeOf(running), '2 GPUs: step 2 of 5')
  assert.equal(what(running), '2 GPUs: every step shared')
  assert.equal(badgeOf({ ...running, state: 'failed' }), 'failed at step 2 of 5')
  assert.equal(badgeOf({ ...running, state: 'stopped' }), 'stopped at step 2 of 5')
  assert.equal(badgeOf({ ...begun, state: 'failed' }), 'failed before the first step')
  assert.equal(toneOf({ ...running, state: 'failed' }), 'fault')
  assert.equal(badgeOf(undefined), '')
})

test('events put a run together, and another run begins anew', () => {
  let view = withEvent(undefined, { run: 1, steps: STEPS.slice(0, 2) })
  view = withEvent(view, { run: 1, steps: [step(1, 'warm-up', 0.35), STEPS[2]] })
  assert.deepEqual(view.steps.map((one) => [one.step, one.rel_mae]), [[0, 0.4], [1, 0.35], [2, null]])
  assert.equal(withEvent(view, { run: 2, steps: [STEPS[0]] }).steps.length, 1)
})

test('a lane has its device\'s name without the title', () => {
  assert.deepEqual(VIEW.devices.map(laneOf), ['cuda:0', 'cuda:1 #2'])
  assert.equal(laneOf('cuda:1 (Arc 140V GPU (16GB), 16 GB) (process 2)'), 'cuda:1 #2')
})

test('other languages say phrases and lines, and fall back to English', () => {
  speak('ja')
  assert.equal(badgeOf(VIEW), 'GPU 2 台、1.9 倍')
  assert.equal(reasons(ALONE)[0].text, 'CFG 1 ではプロンプトを一つだけ計算します')
  assert.match(reasons(ALONE)[0].way, /^対処：CFG 1/)
  const unknown = { ...ALONE, told: [line(null, 'out of coffee', '')] }
  assert.equal(reasons(unknown)[0].text, 'out of coffee')
  speak('xx')
  assert.equal(badgeOf(VIEW), '2 GPUs, 1.9x')
  speak('en')
})
