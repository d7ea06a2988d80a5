import assert from 'node:assert/strict'
import { test } from 'node:test'
import { actionFor, actionWithin, convert, convertAll, convertWithin } from '../../web/convert.js'

const input = (name, type, link = null, more = {}) => ({ name, type, link, ...more })
const widget = (name, type) => input(name, type, null, { widget: { name } })
const VALUES = [7, 'fixed', 20, 8, 'euler', 'normal', 1]

const sampler = (links) => ({
  id: 3, type: 'KSampler', pos: [500, 300], size: [270, 262], flags: {}, order: 2, mode: 0, title: 'KSampler',
  inputs: [
    ...['MODEL', 'CONDITIONING', 'CONDITIONING', 'LATENT'].map((type, place) =>
      input(['model', 'positive', 'negative', 'latent_image'][place], type, links[place] ?? null)),
    widget('seed', 'INT'), widget('steps', 'INT'),
  ],
  outputs: [{ name: 'LATENT', type: 'LATENT', links: [9] }],
  properties: { 'Node name for S&R': 'KSampler', cnr_id: 'comfy-core', ver: '0.3.0' }, widgets_values: [...VALUES],
})
const loader = (links) => ({
  id: 1, type: 'UNETLoader', pos: [0, 0], inputs: [], outputs: [{ name: 'MODEL', type: 'MODEL', links }], properties: {},
})
const save = { id: 4, type: 'VAEDecode', pos: [900, 0], inputs: [input('samples', 'LATENT', 9)], outputs: [], properties: {} }
const guider = (id, link) => ({
  id, type: 'CFGGuider', pos: [500, 700], inputs: [input('model', 'MODEL', link)],
  outputs: [{ name: 'GUIDER', type: 'GUIDER', links: [] }], properties: {},
})
const root = () => ({
  id: 'w', last_node_id: 9, last_link_id: 9, nodes: [loader([1]), sampler([1]), structuredClone(save)],
  links: [[1, 1, 0, 3, 0, 'MODEL'], [9, 3, 0, 4, 0, 'LATENT']], version: 0.4,
})
const guided = () => ({
  ...root(), nodes: [loader([1, 2]), guider(5, 1), guider(6, 2)], links: [[1, 1, 0, 5, 0, 'MODEL'], [2, 1, 0, 6, 0, 'MODEL']],
})
const SUB = 'aaaa-1111'
/** The same sampler in a subgraph, its model from outside. */
const nested = () => ({
  id: 'w', last_node_id: 9, last_link_id: 1, links: [[1, 1, 0, 8, 0, 'MODEL']], version: 0.4,
  nodes: [loader([1]), { id: 8, type: SUB, inputs: [input('model', 'MODEL', 1)], outputs: [], properties: {} }],
  definitions: { subgraphs: [{
    id: SUB, state: { lastNodeId: 9, lastLinkId: 2 }, inputNode: { id: -10 }, outputNode: { id: -20 },
    inputs: [{ name: 'model', linkIds: [1] }], outputs: [{ name: 'GUIDER', linkIds: [2] }],
    nodes: [{ ...guider(3, 1), outputs: [{ name: 'GUIDER', type: 'GUIDER', links: [2] }] }],
    links: [
      { id: 1, origin_id: -10, origin_slot: 0, target_id: 3, target_slot: 0, type: 'MODEL' },
      { id: 2, origin_id: 3, origin_slot: 0, target_id: -20, target_slot: 0, type: 'GUIDER' },
    ],
  }] },
})

/** Every link is named by both of its ends, and by nothing else. */
function assertWhole(workflow) {
  for (const graph of [workflow, ...(workflow.definitions?.subgraphs ?? [])]) {
    const links = graph.links.map((link) => (Array.isArray(link)
      ? link
      : [link.id, link.origin_id, link.origin_slot, link.target_id, link.target_slot, link.type]))
    assert.equal(new Set(links.map(([id]) => id)).size, links.length)
    const node = (id) => graph.nodes.find((other) => other.id === id)
    for (const [id, from, out, to, into] of links) {
      const leaving = from === graph.inputNode?.id ? graph.inputs[out].linkIds : node(from).outputs[out].links
      assert.ok(leaving.includes(id), `link ${id} leaves`)
      if (to === graph.outputNode?.id) assert.ok(graph.outputs[into].linkIds.includes(id))
      else assert.equal(node(to).inputs[into].link, id, `link ${id} arrives`)
    }
    const ids = links.map(([id]) => id)
    for (const { inputs, outputs } of graph.nodes) {
      for (const { link } of inputs) assert.ok(link == null || ids.includes(link))
      for (const { links: of } of outputs) for (const link of of ?? []) assert.ok(ids.includes(link))
    }
  }
}

test('a KSampler becomes ours, with its links and values, and back', () => {
  const before = root()
  const made = convert(before, { node: 3 })
  assert.deepEqual(before, root(), 'what was given is not changed')
  assertWhole(made)
  const node = made.nodes[1]
  assert.equal(node.type, 'HybridiffKSampler')
  assert.deepEqual(node.widgets_values, [...VALUES, 'same as KSampler'])
  assert.deepEqual(node.inputs.map(({ name }) => name), [
    'model', 'positive', 'negative', 'latent_image', 'seed', 'steps', 'plan', 'devices', 'picture',
  ])
  assert.deepEqual(node.outputs.map(({ type }) => type), ['LATENT', 'HYBRIDIFF_REPORT'])
  assert.equal(node.title, undefined)
  assert.equal(node.properties['Node name for S&R'], 'HybridiffKSampler')
  const again = convert(made, { node: 3 })
  const expected = root()
  delete expected.nodes[1].title
  delete expected.nodes[1].properties.ver
  assert.deepEqual(again, expected)
})

test('a node of before, without a picture widget, keeps all its values', () => {
  const made = convert(root(), { node: 3 })
  made.nodes[1].widgets_values.pop()
  assert.deepEqual(convert(made, { node: 3 }).nodes[1].widgets_values, VALUES)
})

test('a name of the user\'s own stays', () => {
  const flow = root()
  flow.nodes[1].title = 'second pass'
  assert.equal(convert(flow, { node: 3 }).nodes[1].title, 'second pass')
})

test('before another sampler comes Hybridiff Model, and goes again', () => {
  const made = convert(guided(), { node: 5 })
  assertWhole(made)
  const ours = made.nodes.at(-1)
  assert.equal(ours.type, 'HybridiffModel')
  assert.deepEqual(made.links.map(([, from, , to]) => [from, to]), [[1, ours.id], [1, 6], [ours.id, 5]])
  assert.equal(made.last_node_id, ours.id)
  const back = convert(made, { node: ours.id })
  assertWhole(back)
  assert.deepEqual(back.links.map(([, from, , to]) => [from, to]).sort(), [[1, 5], [1, 6]])
  assert.deepEqual(back.nodes.map(({ type }) => type), ['UNETLoader', 'CFGGuider', 'CFGGuider'])
})

test('samplers of one model share one Hybridiff Model', () => {
  const { workflow, changed } = convertAll(guided())
  assertWhole(workflow)
  assert.equal(workflow.nodes.filter(({ type }) => type === 'HybridiffModel').length, 1)
  assert.deepEqual(changed, [{ graph: null, node: 5, action: 'insert' }, { graph: null, node: 6, action: 'insert' }])
  assert.deepEqual(convertAll(workflow).changed, [])
})

test('in a subgraph too, where links have another form', () => {
  const { workflow, changed } = convertAll(nested())
  assertWhole(workflow)
  assert.deepEqual(changed, [{ graph: SUB, node: 3, action: 'insert' }])
  const [inner] = workflow.definitions.subgraphs
  const ours = inner.nodes.find(({ type }) => type === 'HybridiffModel')
  assert.equal(inner.state.lastNodeId, ours.id)
  assert.ok(ours.id > 9)
  const back = convert(workflow, { graph: SUB, node: ours.id })
  assertWhole(back)
  assert.deepEqual(back.definitions.subgraphs[0].inputs[0].linkIds, [1].map(() => back.definitions.subgraphs[0].links[1].id))
})

test('going back takes what only ours needs away, and the report\'s links', () => {
  const made = convert(root(), { node: 3 })
  const node = made.nodes[1]
  made.nodes.push(
    { id: 10, type: 'HybridiffDevices', inputs: [input('devices', 'HYBRIDIFF_DEVICES')], outputs: [{ type: 'HYBRIDIFF_DEVICES', links: [20] }] },
    { id: 11, type: 'HybridiffReport', inputs: [input('report', 'HYBRIDIFF_REPORT', 21)], outputs: [{ type: 'IMAGE', links: [22] }] },
    { id: 12, type: 'PreviewImage', inputs: [input('images', 'IMAGE', 22)], outputs: [] },
  )
  made.links.push([20, 10, 0, 3, 7, 'HYBRIDIFF_DEVICES'], [21, 3, 1, 11, 0, 'HYBRIDIFF_REPORT'], [22, 11, 0, 12, 0, 'IMAGE'])
  node.inputs[7].link = 20
  node.outputs[1].links = [21]
  const back = convert(made, { node: 3 })
  assertWhole(back)
  assert.deepEqual(back.nodes.map(({ type }) => type), ['UNETLoader', 'KSampler', 'VAEDecode', 'PreviewImage'])
})

test('only samplers and guiders with a model are asked', () => {
  const scheduler = { id: 7, type: 'BasicScheduler', inputs: [input('model', 'MODEL', 1)], outputs: [{ type: 'SIGMAS' }] }
  const lora = { id: 7, type: 'LoraLoader', inputs: [input('model', 'MODEL', 1)], outputs: [{ type: 'MODEL' }] }
  for (const node of [scheduler, lora, save, guider(5, null)]) assert.equal(actionFor(node, root()), undefined)
  assert.equal(actionFor(guider(5, 1), root()), 'insert')
  assert.equal(actionFor(sampler([1]), root()), 'replace')
})

test('the node of a subgraph stands for the samplers in it, those of a subgraph within it too', () => {
  const before = nested()
  const [inner] = before.definitions.subgraphs
  const outer = {
    id: 'bbbb-2222', state: { lastNodeId: 9, lastLinkId: 0 }, inputNode: { id: -10 }, outputNode: { id: -20 },
    inputs: [], outputs: [], links: [], nodes: [{ id: 7, type: SUB, inputs: [], outputs: [], properties: {} }],
  }
  before.definitions.subgraphs.push(outer)
  assert.equal(actionWithin(before, 'KSampler'), undefined)
  assert.equal(actionWithin(before, outer.id), 'use')
  const after = convertWithin(before, outer.id)
  assertWhole(after)
  assert.deepEqual(after.definitions.subgraphs[0].nodes.map(({ type }) => type), ['CFGGuider', 'HybridiffModel'])
  assert.equal(actionWithin(after, outer.id), 'back')
  const back = convertWithin(after, outer.id)
  assertWhole(back)
  assert.deepEqual(back.definitions.subgraphs[0].nodes, inner.nodes.map((node) => ({ ...node, inputs: back.definitions.subgraphs[0].nodes[0].inputs })))
})
