// The entry in a node's context menu that takes its sampling to two GPUs, or back to one.
import { app } from '../../scripts/app.js'
import { actionFor, convert } from './convert.js'
import { say } from './words.js'

const LAID_OUT_MS = 150 // after which a new node has its size, which belongs to the same step of the undo
const PHRASES = { replace: 'use', insert: 'use', restore: 'back', remove: 'back' }

/** The graph that a node is in, as the page saves it. */
function savedGraph(workflow, node) {
  if (node.graph.isRootGraph ?? node.graph === app.rootGraph) return { graph: workflow, id: null }
  const { id } = node.graph
  return { graph: workflow.definitions?.subgraphs?.find((graph) => graph.id === id), id }
}

async function turn(node) {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  const workflow = app.rootGraph.serialize()
  const { id } = savedGraph(workflow, node)
  const made = convert(workflow, { graph: id, node: node.id })
  // as the page's own undo loads a state: what is looked at stays, and one step back is the graph of before
  await app.loadGraphData(made, false, false, app.extensionManager?.workflow?.activeWorkflow ?? null)
  if (id) {
    const subgraph = app.rootGraph.subgraphs?.get?.(id)
    if (subgraph) app.canvas.setGraph(subgraph)
  }
  setTimeout(() => tracker?.captureCanvasState?.(), LAID_OUT_MS)
}

app.registerExtension({
  name: 'hybridiff.menu',
  getNodeMenuItems(node) {
    if (!node?.graph) return []
    const { graph } = savedGraph(app.rootGraph.serialize(), node)
    const saved = graph?.nodes.find(({ id }) => String(id) === String(node.id))
    const action = saved && actionFor(saved, graph)
    return action ? [{ content: say(PHRASES[action]), callback: () => turn(node) }] : []
  },
})
