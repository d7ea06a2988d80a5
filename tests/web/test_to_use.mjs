import assert from 'node:assert/strict'
import { test } from 'node:test'
import { before, chosenFor, devicesOf, modelOf } from '../../web/to_use.js'
import { line } from './runs.mjs'
import { speak } from './words.mjs'

speak('en')
const FOUND = {
  own: 'cuda:0 (RTX 4090, 24 GB)', auto: ['cuda:1 (RTX 3090, 24 GB)'], others: ['pc-b: cuda:0 (RTX 3080, 10 GB)'], said: [],
}
const none = line('NO_SECOND_GPU', 'no second GPU was found on this machine', '')

/** A graph of nodes by id: {id: {devices: the id of the node before, values}}; 1 is the sampler. */
function graph(nodes) {
  const made = {}
  const whole = { getNodeById: (id) => made[id], getLink: (link) => ({ origin_id: link }) }
  for (const [id, { devices = null, mode = 0, comfyClass = 'HybridiffDevices', ...values }] of Object.entries(nodes)) {
    const widgets = Object.entries(values).map(([name, value]) => ({ name, value }))
    made[id] = { comfyClass, mode, graph: whole, widgets, inputs: [{ name: 'devices', link: devices }] }
  }
  return made[1]
}
const sampler = { comfyClass: 'HybridiffKSampler', devices: 2 }

test('without a Devices node it is what auto takes', () => {
  const alone = graph({ 1: { ...sampler, devices: null } })
  assert.deepEqual(before(FOUND, chosenFor(alone)), { text: 'will use RTX 4090 + RTX 3090', reason: '' })
  const one = { ...FOUND, auto: [], said: [none] }
  assert.deepEqual(before(one, chosenFor(alone)), { text: 'will use RTX 4090 alone', reason: none.text })
})

test('Devices nodes in a chain are followed', () => {
  const chain = graph({
    1: sampler, 2: { devices: 3, device: 'cuda:2 (RTX 3060, 12 GB)', where: 'this machine' },
    3: { device: 'auto', where: 'this machine and others' },
  })
  assert.deepEqual(chosenFor(chain), ['auto', 'others', 'cuda:2 (RTX 3060, 12 GB)'])
  assert.equal(before(FOUND, chosenFor(chain)).text, 'will use RTX 4090 + RTX 3060 + RTX 3090 + RTX 3080 (pc-b)')
})

test('a device that is named is not taken once more', () => {
  assert.deepEqual(devicesOf(FOUND, ['cuda:1 (RTX 3090, 24 GB)', 'auto']), [FOUND.own, 'cuda:1 (RTX 3090, 24 GB)'])
  assert.equal(before(FOUND, ['same']).text, 'will use RTX 4090 + a second process')
})

test('what comes from elsewhere, or from a node that is bypassed, is not guessed', () => {
  assert.equal(chosenFor(graph({ 1: sampler })), undefined) // a subgraph's input, for one
  assert.equal(chosenFor(graph({ 1: sampler, 2: { device: 'auto', mode: 4 } })), undefined)
  assert.equal(chosenFor({ comfyClass: 'HybridiffReport', inputs: [{ name: 'report', link: 1 }] }), undefined)
  assert.equal(before(FOUND, undefined), undefined)
  assert.equal(before(undefined, ['auto']), undefined)
})

test('a device has the name of its model', () => {
  assert.equal(modelOf('xpu:0 (Arc 140V GPU (16GB), 16 GB)'), 'Arc 140V GPU (16GB)')
  assert.equal(modelOf('cpu'), 'the processor')
  assert.equal(modelOf('mps'), 'mps')
})
