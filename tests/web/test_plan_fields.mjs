import assert from 'node:assert/strict'
import { test } from 'node:test'
import { boundsFor, dragged, idleFields, settled, tooLong, typicalCurve } from '../../web/plan_fields.js'

const PRESETS = {
  'SDXL (paper)': { slope_window: 12, slope_threshold: 0.0004, warmup_cap: 15, parallel_steps: 5 },
  'SD3 (paper)': { slope_window: 15, slope_threshold: 0.0001, warmup_cap: 40, parallel_steps: 5 },
}
const DEFAULT = {
  mode: 'predict', warmup: 'slope', start_step: 10, slope_window: 12, slope_threshold: 0.0004, warmup_cap: 15,
  parallel_steps: 20, tolerance: 0, predict_stride: 0, preset: 'auto',
}
const AUTO = { ...DEFAULT, mode: 'auto' }
const FIXED = { ...DEFAULT, warmup: 'fixed' }

test('fields without effect', () => {
  assert.deepEqual(idleFields(DEFAULT), ['start_step'])
  assert.equal(idleFields(AUTO).length, 7)
  assert.ok(!idleFields(AUTO).includes('tolerance'))
  assert.deepEqual(idleFields({ ...AUTO, preset: 'SD3 (paper)' }), ['start_step'])
  assert.deepEqual(idleFields(FIXED), ['slope_window', 'slope_threshold', 'warmup_cap'])
  assert.ok(idleFields({ ...DEFAULT, mode: 'paper' }).includes('predict_stride'))
  assert.equal(idleFields({ ...DEFAULT, mode: 'exact' }).length, 8)
  assert.equal(idleFields({ ...DEFAULT, preset: 'exact only' }).length, 8)
})

test('a preset fills its fields, and one of them changed ends it', () => {
  const chosen = settled({ ...FIXED, mode: 'exact', preset: 'SD3 (paper)' }, 'preset', PRESETS)
  assert.deepEqual(chosen, { ...AUTO, ...PRESETS['SD3 (paper)'], preset: 'SD3 (paper)' })
  const changed = settled({ ...chosen, warmup_cap: 30 }, 'warmup_cap', PRESETS)
  assert.deepEqual([changed.preset, changed.mode], ['auto', 'predict'])
  assert.equal(settled({ ...chosen, warmup: 'fixed' }, 'warmup', PRESETS).preset, 'auto')
  assert.equal(settled({ ...chosen, tolerance: 0.1 }, 'tolerance', PRESETS).preset, 'SD3 (paper)')
})

test('mode and preset never contradict', () => {
  const exact = settled({ ...DEFAULT, preset: 'exact only' }, 'preset', PRESETS)
  assert.equal(exact.mode, 'exact')
  assert.equal(settled({ ...exact, mode: 'predict' }, 'mode', PRESETS).preset, 'auto')
  assert.equal(settled({ ...DEFAULT, preset: 'SDXL (paper)', mode: 'exact' }, 'mode', PRESETS).preset, 'auto')
  assert.equal(settled({ ...DEFAULT, mode: 'paper', predict_stride: 3 }, 'mode', PRESETS).predict_stride, 0)
})

test('boundaries are those of the schedule', () => {
  assert.deepEqual(boundsFor(FIXED, typicalCurve(50)), { tau1: 9, tau2: 29 })
  assert.deepEqual(boundsFor({ ...FIXED, parallel_steps: 0 }, typicalCurve(20)), { tau1: 9, tau2: 17 })
  assert.equal(boundsFor({ ...FIXED, start_step: 30 }, typicalCurve(20)), null)
  assert.equal(boundsFor({ ...DEFAULT, mode: 'exact' }, typicalCurve(50)), null)
  // falling steadily: the cap decides; flat: the slope, once more than L values are known
  const falling = Array.from({ length: 50 }, (_, i) => 1 - i / 100)
  assert.deepEqual(boundsFor(DEFAULT, falling), { tau1: 15, tau2: 35 })
  assert.deepEqual(boundsFor(DEFAULT, Array(50).fill(0.1)), { tau1: 12, tau2: 32 })
  // for 50 steps, scaled to 25, a half to the even neighbour: 7.5 is 8, 10
  assert.deepEqual(boundsFor(DEFAULT, falling.slice(0, 25)), { tau1: 8, tau2: 18 })
})

test('auto begins early and ends by what is measured', () => {
  assert.deepEqual(boundsFor(AUTO, typicalCurve(20)), { tau1: 3, tau2: 17 })
  assert.equal(tooLong({ ...AUTO, warmup: 'fixed', start_step: 30 }, 20), false)
  const moved = dragged(AUTO, { tau1: 3, tau2: 17 }, 'tau2', 12, 20, 0.01)
  assert.deepEqual(moved, { ...FIXED, start_step: 4, parallel_steps: 8, tolerance: 0.01 })
})

test('dragging fixes the boundaries and keeps the middle within the run', () => {
  const bounds = { tau1: 9, tau2: 29 }
  const moved = dragged({ ...DEFAULT, preset: 'SDXL (paper)' }, bounds, 'tau1', 14, 50)
  assert.deepEqual(moved, { ...FIXED, start_step: 14, parallel_steps: 16 })
  assert.equal(dragged(FIXED, bounds, 'tau2', 40, 50).parallel_steps, 30)
  assert.equal(dragged(FIXED, bounds, 'tau2', 3, 50).parallel_steps, 1)
  assert.equal(dragged(FIXED, bounds, 'tau1', 45, 50).start_step, 29)
  assert.equal(dragged(FIXED, bounds, 'tau1', 0, 50).start_step, 1)
})

test('a fixed middle beyond the run is told of', () => {
  assert.equal(tooLong({ ...FIXED, start_step: 10, parallel_steps: 11 }, 20), true)
  assert.equal(tooLong({ ...FIXED, start_step: 10, parallel_steps: 10 }, 20), false)
  assert.equal(tooLong({ ...FIXED, mode: 'exact', start_step: 30 }, 20), false)
  assert.equal(tooLong(DEFAULT, 20), false)
})
