// Views of runs, as hybridiff_core/account.py gives them.
const times = (compute) => [{ compute, transfer: 0, wait: 0.1 }, { compute, transfer: 0.1, wait: 0 }]

export const step = (number, stage, rel_mae, compute = 1, work = 'exact') =>
  ({ step: number, stage, work, rel_mae, seconds: 1.1, bytes: 1, times: times(compute), way: 'conds' })

export const STEPS = [
  step(0, 'warm-up', 0.4), step(1, 'warm-up', 0.3), step(2, 'parallelism', null, 0, 'predicted'), step(3, 'parallelism', 0.1),
  step(4, 'fully-connecting', 0.2),
]

export const VIEW = {
  run: 1, mode: 'predict', devices: ['cuda:0 (RTX 4090, 24 GB)', 'cuda:1 (RTX 3090, 24 GB) (process 2)'], total: 5,
  steps: STEPS, state: 'done', starting: [], seconds: 4.4, calls: 5, shared: 4, workers: [0, 1], gain: [1.987, false],
  no_gain: null, told: [],
}

export const line = (key, text, way_out, fields = {}, group = 'SETTING', matters = true) =>
  ({ key, text, way_out, fields, group, matters, cause: key })

const cfg = line('CFG_1', 'at CFG 1 only one prompt is computed', 'Raise the CFG.')
export const ALONE = {
  ...VIEW, mode: 'exact', devices: [VIEW.devices[0]], shared: 0, workers: [0], gain: [1.0, true],
  steps: [0, 1, 2, 3, 4].map((n) => step(n, null, null)),
  told: [{ ...line('RAN_ON_ONE_DEVICE', 'ran on one device: at CFG 1 only one prompt is computed', cfg.way_out, { reason: cfg }), cause: 'CFG_1' }],
}
