import assert from 'node:assert/strict'
import { test } from 'node:test'
import { convert } from '../../web/convert.js'

const node = (id, type, pos, size, more = {}) => ({
  id, type, pos, size, flags: {}, properties: {}, inputs: [], outputs: [], ...more,
})
const sampler = (more = {}) => node(1, 'KSampler', [0, 0], [270, 262], { widgets_values: [], ...more })
const flow = (nodes, groups = []) => ({ nodes, groups, links: [], last_node_id: 9, last_link_id: 9 })
const placed = (workflow) => Object.fromEntries(workflow.nodes.map(({ id, pos }) => [id, pos]))
const GROWN = 308

test('what stands below a KSampler moves down with it, and what stands below that', () => {
  const made = convert(flow([
    sampler(), node(2, 'VAEDecode', [20, 310], [200, 46]), node(3, 'SaveImage', [20, 420], [270, 300]),
    node(4, 'Note', [300, 310], [200, 80]), node(5, 'Note', [20, 2000], [200, 80]), node(6, 'Note', [0, -200], [200, 80]),
  ]), { node: 1 })
  assert.equal(made.nodes[0].size[1], 262 + GROWN)
  const { 2: decode, 3: save, 4: beside, 5: far, 6: above } = placed(made)
  assert.deepEqual([decode, beside, far, above], [[20, 310 + GROWN], [300, 310], [20, 2000], [0, -200]])
  const between = save[1] - decode[1]
  assert.ok(between >= 46 + 30 + 30 && between <= 110, 'of the space between them 30 is kept')
})

test('pinned nodes stay, a collapsed sampler does not grow, and one that is taken back is as high as before', () => {
  const pinned = flow([sampler(), node(2, 'VAEDecode', [0, 310], [200, 46], { flags: { pinned: true } })])
  assert.deepEqual(placed(convert(pinned, { node: 1 }))[2], [0, 310])
  const collapsed = flow([sampler({ flags: { collapsed: true } }), node(2, 'VAEDecode', [0, 310], [200, 46])])
  assert.deepEqual(placed(convert(collapsed, { node: 1 }))[2], [0, 310])
  const back = convert(convert(flow([sampler()]), { node: 1 }), { node: 1 })
  assert.deepEqual(back.nodes[0].size, [270, 262])
})

test('groups move as a whole, and the one that the sampler is in becomes longer', () => {
  const around = { title: 'sampling', bounding: [-20, -60, 320, 360] }
  const below = { title: 'output', bounding: [-20, 320, 320, 200] }
  const made = convert(flow([sampler(), node(2, 'VAEDecode', [0, 400], [200, 46])], [around, below]), { node: 1 })
  assert.ok(made.groups[0].bounding[1] + made.groups[0].bounding[3] >= 262 + GROWN)
  const moved = made.groups[1].bounding[1] - 320
  assert.ok(moved > GROWN - 60 && placed(made)[2][1] === 400 + moved)
})

test('Hybridiff Model stands where its sampler was, which moves down', () => {
  const workflow = flow([
    node(1, 'UNETLoader', [-400, 0], [270, 82], { outputs: [{ name: 'MODEL', type: 'MODEL', links: [1] }] }),
    node(2, 'CFGGuider', [0, 0], [270, 98], {
      inputs: [{ name: 'model', type: 'MODEL', link: 1 }], outputs: [{ name: 'GUIDER', type: 'GUIDER', links: [] }],
    }),
    node(3, 'Note', [0, 160], [200, 80]),
  ])
  workflow.links.push([1, 1, 0, 2, 0, 'MODEL'])
  const made = convert(workflow, { node: 2 })
  const ours = made.nodes.find(({ type }) => type === 'HybridiffModel')
  const { 2: guider, 3: note } = placed(made)
  assert.deepEqual(ours.pos, [0, 0])
  assert.ok(guider[1] - 30 > ours.size[1] && note[1] - guider[1] >= 98 + 30)
})
