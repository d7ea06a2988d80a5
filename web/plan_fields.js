// What the plan node's fields mean to each other: pure functions over a {field: value} object.

const SLOPE = ['slope_window', 'slope_threshold', 'warmup_cap']
const PLANNED_FOR = 50 // the run that slope_window, warmup_cap and parallel_steps are for, with warmup slope

const AUTO_START = 4 // as in rules.py
const LAST_STEPS = 2

const isAuto = (values) => values.mode === 'auto' && values.preset === 'auto'

/** The fields that have no effect with these values. */
export function idleFields(values) {
  if (values.mode === 'exact' || values.preset === 'exact only') {
    return ['warmup', 'start_step', ...SLOPE, 'parallel_steps', 'tolerance', 'predict_stride']
  }
  // auto has its own values for all but the tolerance
  if (isAuto(values)) return ['warmup', 'start_step', ...SLOPE, 'parallel_steps', 'predict_stride']
  const idle = values.warmup === 'fixed' ? [...SLOPE] : ['start_step']
  if (values.mode === 'paper') idle.push('predict_stride')
  return idle
}

/**
 * The values after `field` was chosen anew: a preset fills its fields, a field of its changed ends it, and mode and
 * preset do not contradict. `presets`: {name: {field: value}}.
 */
export function settled(values, field, presets) {
  const next = { ...values }
  if (field === 'preset') {
    if (next.preset === 'exact only') next.mode = 'exact'
    if (presets[next.preset]) {
      Object.assign(next, presets[next.preset], { warmup: 'slope' })
      if (next.mode === 'exact') next.mode = 'auto'
    }
  }
  if (presets[next.preset] && (field === 'warmup' || field in presets[next.preset])) {
    next.preset = 'auto'
    if (next.mode === 'auto') next.mode = 'predict' // else the change would count for nothing
  }
  if (field === 'mode') {
    const contradicts = next.mode === 'exact' ? presets[next.preset] : next.preset === 'exact only'
    if (contradicts) next.preset = 'auto'
    if (next.mode === 'paper') next.predict_stride = 0
    if (next.mode === 'predict' && next.predict_stride === 1) next.predict_stride = 0
  }
  return next
}

/** A discrepancy curve as the paper shows it: falling, flat, rising a little. For where no run was yet. */
export function typicalCurve(steps) {
  return Array.from({ length: steps }, (_, step) => {
    const t = step / Math.max(steps - 1, 1)
    return 0.045 + 0.08 * Math.exp(-5 * t) + 0.03 * t ** 4
  })
}

// as Python rounds: a half to the even neighbour
function rounded(value) {
  const low = Math.floor(value)
  return value - low === 0.5 ? low + (low % 2) : Math.round(value)
}

/** Whether a run of so many steps would be refused: a fixed middle that goes beyond it (plan.py). */
export const tooLong = (values, steps) =>
  !['exact', 'auto'].includes(values.mode) && values.preset === 'auto' && values.warmup === 'fixed' &&
  values.start_step + Math.max(values.parallel_steps, 1) > steps

/** tau1 and tau2 that these values give on `curve`, or null for a run without a middle (plan.py, schedule.py). */
export function boundsFor(values, curve) {
  const steps = curve.length
  if (values.mode === 'exact' || values.preset === 'exact only' || steps < 3) return null
  const scale = steps / PLANNED_FOR
  let first
  let length
  if (isAuto(values)) {
    first = AUTO_START
    length = steps
  } else if (values.warmup === 'fixed') {
    first = values.start_step
    length = values.parallel_steps || steps
  } else {
    const window = Math.max(1, rounded(values.slope_window * scale))
    const cap = Math.max(1, rounded(values.warmup_cap * scale))
    first = 2
    const flat = (step) => {
      if (step <= window) return false // the curve up to the step before has `step` values
      const drop = (curve[step - 1 - window] - curve[step - 1]) / window
      return drop >= 0 && drop < values.slope_threshold / scale
    }
    while (first < steps && first - 1 < cap && !flat(first)) first += 1
    length = values.parallel_steps ? Math.max(1, rounded(values.parallel_steps * scale)) : steps
  }
  // where only the tolerance ends the middle, the last steps are computed
  const last = isAuto(values) || !values.parallel_steps ? steps - 1 - LAST_STEPS : steps - 1
  return first > last ? null : { tau1: first - 1, tau2: Math.min(first - 1 + length, last) }
}

/**
 * The values after a boundary was dragged so that `step` is the first one behind it. auto, which has no boundaries of
 * the user's, becomes predict with auto's `tolerance`.
 */
export function dragged(values, bounds, bound, step, steps, tolerance) {
  const [first, end] = [bounds.tau1 + 1, bounds.tau2 + 1]
  const limit = (value, low, high) => Math.min(Math.max(value, low), high)
  const start = bound === 'tau1' ? limit(step, 1, end - 1) : first
  const stop = bound === 'tau2' ? limit(step, first + 1, steps) : end
  const free = isAuto(values) ? { mode: 'predict', tolerance: values.tolerance || tolerance } : {}
  return { ...values, ...free, preset: 'auto', warmup: 'fixed', start_step: start, parallel_steps: stop - start }
}
