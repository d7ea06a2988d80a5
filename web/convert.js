// From one GPU to several and back, in a workflow as the page saves it: pure functions from data to data.
//
// KSampler and KSamplerAdvanced become ours; before any other sampler or guider comes Hybridiff Model. Works in the
// workflow's own graph and in its subgraphs' definitions, and keeps all links, values and titles; places too, but for
// what our taller nodes would cover.
import { grow, standAbove } from './room.js'

const OURS = { KSampler: 'HybridiffKSampler', KSamplerAdvanced: 'HybridiffKSamplerAdvanced' }
const STOCK = Object.fromEntries(Object.entries(OURS).map(([stock, ours]) => [ours, stock]))
const VALUES = { KSampler: 7, KSamplerAdvanced: 10 } // how many widgets' values a page saves of them
const MODEL = 'HybridiffModel'
const PICTURE = 'same as KSampler'
const SAMPLED = ['LATENT', 'GUIDER', 'IMAGE'] // what a sampler, a guider or a whole pipeline gives
const LOOSE = ['HybridiffPlan', 'HybridiffDevices', 'HybridiffReport'] // of no use without one of our samplers
const OPTIONAL = 7 // the shape of an optional input's slot
const USING = ['replace', 'insert']
const TALLER = 308 // so much taller than ComfyUI's are our samplers, with their view
const MODEL_WIDTH = [210, 270] // at least, and at most: as wide as its sampler
const MODEL_HEIGHT = 342

const pick = (link, object, place) => (Array.isArray(link) ? link[place] : link[object])
const put = (link, object, place, value) => {
  if (Array.isArray(link)) link[place] = value
  else link[object] = value
}
const idOf = (link) => pick(link, 'id', 0)
const originOf = (link) => [pick(link, 'origin_id', 1), pick(link, 'origin_slot', 2)]
const targetOf = (link) => [pick(link, 'target_id', 3), pick(link, 'target_slot', 4)]

const graphsOf = (workflow) => [workflow, ...(workflow.definitions?.subgraphs ?? [])]
/** The graph of a workflow with this id: its own where none is given, else a subgraph's definition. */
const graphOf = (workflow, id) => (id == null ? workflow : workflow.definitions?.subgraphs?.find((graph) => graph.id === id))
const nodeOf = (graph, id) => graph?.nodes.find((node) => String(node.id) === String(id))
const linkOf = (graph, id) => (graph.links ?? []).find((link) => idOf(link) === id)
const modelInput = (node) => (node.inputs ?? []).find(({ type, link }) => type === 'MODEL' && link != null)

/** What can be done with a node: "replace", "insert", "restore" or "remove"; undefined where nothing. */
export function actionFor(node, graph) {
  if (OURS[node.type]) return fedByOurs(node, graph) ? undefined : 'replace'
  if (STOCK[node.type]) return 'restore'
  if (node.type === MODEL) return 'remove'
  const samples = (node.outputs ?? []).some(({ type }) => SAMPLED.includes(type))
  return samples && modelInput(node) && !fedByOurs(node, graph) ? 'insert' : undefined
}

/** Whether a node's model comes from Hybridiff Model already. */
function fedByOurs(node, graph) {
  const input = modelInput(node)
  const link = input && graph && linkOf(graph, input.link)
  return Boolean(link) && nodeOf(graph, originOf(link)[0])?.type === MODEL
}

/** The workflow with one node turned to several GPUs or back. `graph` is its subgraph's id; none for the workflow's own. */
export function convert(workflow, { graph: graphId, node: nodeId }) {
  const made = structuredClone(workflow)
  const graph = graphOf(made, graphId)
  const node = nodeOf(graph, nodeId)
  const action = node && actionFor(node, graph)
  if (action) ACTIONS[action](made, graph, node)
  return made
}

/** What can be done with the samplers within a subgraph of this id: "use", else "back"; undefined for nothing or none. */
export function actionWithin(workflow, id) {
  const found = within(workflow, id).flatMap((graph) => graph.nodes.map((node) => actionFor(node, graph)))
  if (found.some((action) => USING.includes(action))) return 'use'
  return found.some(Boolean) ? 'back' : undefined
}

/** The workflow with all samplers within a subgraph turned, wherever it stands: to several GPUs if any is not, else back. */
export function convertWithin(workflow, id) {
  const made = structuredClone(workflow)
  const using = actionWithin(made, id) === 'use'
  for (const graph of within(made, id)) {
    for (const node of [...graph.nodes]) {
      const action = graph.nodes.includes(node) && actionFor(node, graph)
      if (action && USING.includes(action) === using) ACTIONS[action](made, graph, node)
    }
  }
  return made
}

/** The definition of a subgraph, and of those within it. */
function within(workflow, id, seen = new Set()) {
  const graph = seen.has(id) ? undefined : workflow.definitions?.subgraphs?.find((other) => other.id === id)
  seen.add(id)
  return graph ? [graph, ...graph.nodes.flatMap(({ type }) => within(workflow, type, seen))] : []
}

/** The workflow with every sampler on several GPUs, and what was done: {workflow, changed: [{graph, node, action}]}. */
export function convertAll(workflow) {
  const made = structuredClone(workflow)
  const changed = []
  for (const graph of graphsOf(made)) {
    for (const node of [...(graph.nodes ?? [])]) {
      const action = actionFor(node, graph)
      if (!USING.includes(action)) continue
      ACTIONS[action](made, graph, node)
      changed.push({ graph: graph === made ? null : graph.id, node: node.id, action })
    }
  }
  return { workflow: made, changed }
}

const ACTIONS = { replace, insert, restore, remove }

function replace(workflow, graph, node) {
  rename(node, OURS[node.type])
  const asSlots = node.inputs.some(({ widget }) => widget) // newer pages save a slot for each widget
  node.inputs.push(slot('plan', 'HYBRIDIFF_PLAN'), slot('devices', 'HYBRIDIFF_DEVICES'))
  if (asSlots) node.inputs.push({ ...slot('picture', 'COMBO'), widget: { name: 'picture' } })
  node.outputs.push({ name: 'report', type: 'HYBRIDIFF_REPORT', links: null })
  if (Array.isArray(node.widgets_values)) node.widgets_values.push(PICTURE)
  else if (node.widgets_values) node.widgets_values.picture = PICTURE
  if (node.widgets_values_named) node.widgets_values_named.picture = PICTURE
  if (node.size) grow(graph, node, Number(node.size[1]) + TALLER)
}

function restore(workflow, graph, node) {
  for (const name of ['plan', 'devices', 'picture']) {
    const place = node.inputs.findIndex((input) => input.name === name)
    if (place < 0) continue
    cut(graph, node.inputs[place].link)
    node.inputs.splice(place, 1)
    for (const link of graph.links) {
      const [id, at] = targetOf(link)
      if (String(id) === String(node.id) && at > place) put(link, 'target_slot', 4, at - 1)
    }
  }
  for (const output of node.outputs.filter(({ type }) => type === 'HYBRIDIFF_REPORT')) {
    for (const link of [...(output.links ?? [])]) cut(graph, link)
  }
  node.outputs = node.outputs.filter(({ type }) => type !== 'HYBRIDIFF_REPORT')
  if (Array.isArray(node.widgets_values)) node.widgets_values.splice(VALUES[STOCK[node.type]])
  else if (node.widgets_values) delete node.widgets_values.picture
  if (node.widgets_values_named) delete node.widgets_values_named.picture
  if (node.size) node.size = [Number(node.size[0]), Math.max(Number(node.size[1]) - TALLER, 0)]
  rename(node, STOCK[node.type])
  sweep(graph)
}

function insert(workflow, graph, node) {
  const input = modelInput(node)
  const old = linkOf(graph, input.link)
  const [from, slotFrom] = originOf(old)
  const [, slotTo] = targetOf(old)
  // samplers of one model share one of ours
  const standing = graph.nodes.find((other) => other.type === MODEL && fedBy(graph, other, from, slotFrom))
  const ours = standing ?? addModel(workflow, graph, node)
  const link = nextLink(graph)
  if (standing) cut(graph, idOf(old))
  else {
    put(old, 'target_id', 3, ours.id)
    put(old, 'target_slot', 4, 0)
    ours.inputs[0].link = idOf(old)
  }
  graph.links.push(
    graph.links.every(Array.isArray) && !isDefinition(graph)
      ? [link, ours.id, 0, node.id, slotTo, 'MODEL']
      : { id: link, origin_id: ours.id, origin_slot: 0, target_id: node.id, target_slot: slotTo, type: 'MODEL' },
  )
  input.link = link
  ours.outputs[0].links.push(link)
}

function remove(workflow, graph, node) {
  const before = node.inputs.find(({ name }) => name === 'model')?.link
  const source = before == null ? undefined : originOf(linkOf(graph, before))
  for (const id of [...(node.outputs[0].links ?? [])]) {
    if (!source) {
      cut(graph, id)
      continue
    }
    const link = linkOf(graph, id)
    put(link, 'origin_id', 1, source[0])
    put(link, 'origin_slot', 2, source[1])
    linksFrom(graph, ...source)?.push(id)
  }
  for (const { link } of node.inputs) cut(graph, link)
  graph.nodes.splice(graph.nodes.indexOf(node), 1)
  sweep(graph)
}

const isDefinition = (graph) => graph.inputNode !== undefined

function rename(node, type) {
  const before = node.type
  node.type = type
  if (node.title === before) delete node.title
  if (!node.properties) return
  if (node.properties['Node name for S&R'] === before) node.properties['Node name for S&R'] = type
  delete node.properties.ver
  delete node.properties.aux_id
  if (STOCK[type]) delete node.properties.cnr_id
  else node.properties.cnr_id = 'comfy-core'
}

const slot = (name, type) => ({ name, type, shape: OPTIONAL, link: null })

function addModel(workflow, graph, node) {
  const id = 1 + Math.max(0, ...graphsOf(workflow).flatMap(({ nodes, last_node_id, state }) => [
    last_node_id ?? 0, state?.lastNodeId ?? 0, ...nodes.map((other) => Number(other.id) || 0),
  ]))
  for (const other of graphsOf(workflow)) {
    if (other.last_node_id !== undefined) other.last_node_id = id
    if (other.state?.lastNodeId !== undefined) other.state.lastNodeId = id
  }
  const [least, most] = MODEL_WIDTH
  const size = [Math.min(Math.max(Number(node.size?.[0] ?? most), least), most), MODEL_HEIGHT]
  const made = {
    id, type: MODEL, pos: standAbove(graph, node, size), size, flags: {}, order: node.order ?? 0, mode: 0,
    inputs: [{ name: 'model', type: 'MODEL', link: null }, slot('plan', 'HYBRIDIFF_PLAN'), slot('devices', 'HYBRIDIFF_DEVICES')],
    outputs: [{ name: 'MODEL', type: 'MODEL', links: [] }],
    properties: { 'Node name for S&R': MODEL }, widgets_values: [PICTURE],
  }
  graph.nodes.push(made)
  return made
}

function nextLink(graph) {
  const id = 1 + Math.max(0, graph.last_link_id ?? 0, graph.state?.lastLinkId ?? 0, ...graph.links.map(idOf))
  if (graph.last_link_id !== undefined) graph.last_link_id = id
  if (graph.state?.lastLinkId !== undefined) graph.state.lastLinkId = id
  return id
}

function fedBy(graph, node, from, slotFrom) {
  const link = linkOf(graph, node.inputs?.[0]?.link)
  const [id, place] = link ? originOf(link) : []
  return link !== undefined && String(id) === String(from) && place === slotFrom
}

/** The list of the links that leave an output, or a subgraph's own input. */
function linksFrom(graph, id, place) {
  if (isDefinition(graph) && id === graph.inputNode.id) return graph.inputs[place]?.linkIds
  const output = nodeOf(graph, id)?.outputs?.[place]
  if (output) output.links ??= []
  return output?.links
}

/** Take a link away at both of its ends. */
function cut(graph, id) {
  const link = id == null ? undefined : linkOf(graph, id)
  if (!link) return
  const leaving = linksFrom(graph, ...originOf(link))
  leaving?.splice(leaving.indexOf(id), 1)
  const [target, place] = targetOf(link)
  const arriving = isDefinition(graph) && target === graph.outputNode?.id
    ? graph.outputs[place]?.linkIds
    : undefined
  arriving?.splice(arriving.indexOf(id), 1)
  for (const input of nodeOf(graph, target)?.inputs ?? []) if (input.link === id) input.link = null
  graph.links.splice(graph.links.indexOf(link), 1)
}

/** Take away our plans, devices and reports that nothing is connected to any more. */
function sweep(graph) {
  const loose = (node) => {
    if (!LOOSE.includes(node.type)) return false
    if (node.type === 'HybridiffReport') return node.inputs?.[0]?.link == null
    return !(node.outputs ?? []).some(({ links }) => links?.length)
  }
  for (let found = graph.nodes.find(loose); found; found = graph.nodes.find(loose)) {
    for (const { link } of found.inputs ?? []) cut(graph, link)
    for (const { links } of found.outputs ?? []) for (const link of [...(links ?? [])]) cut(graph, link)
    graph.nodes.splice(graph.nodes.indexOf(found), 1)
  }
}
