// The entry in a node's context menu that takes its sampling to two GPUs, or back to one.
import { app } from '../../scripts/app.js'
import { actionFor, actionWithin, convert, convertWithin } from './convert.js'
import { say } from './words.js'

const CLOSED_MS = 30 // after which the menu is closed, which the page takes for a change
const LAID_OUT_MS = 150 // after which a new node has its size, which belongs to the same step of the undo
const SAID_MS = 5000
const PHRASES = { replace: 'use', insert: 'use', restore: 'back', remove: 'back', use: 'use', back: 'back' }

/** The graph that a node is in, as the page saves it. */
function savedGraph(workflow, node) {
  if (node.graph.isRootGraph ?? node.graph === app.rootGraph) return { graph: workflow, id: null }
  const { id } = node.graph
  return { graph: workflow.definitions?.subgraphs?.find((graph) => graph.id === id), id }
}

function turn(node) {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  const workflow = app.rootGraph.serialize()
  const { id } = savedGraph(workflow, node)
  // a subgraph's node stands for the samplers in it
  const within = actionWithin(workflow, node.type)
  const made = within ? convertWithin(workflow, node.type) : convert(workflow, { graph: id, node: node.id })
  app.rootGraph.configure(made)
  const subgraph = id && app.rootGraph.subgraphs?.get?.(id)
  app.canvas.setGraph(subgraph || app.rootGraph)
  setTimeout(() => {
    tracker?.captureCanvasState?.()
    app.canvas.setDirty(true, true)
  }, LAID_OUT_MS)
  if (!within) return
  const summary = say(within === 'use' ? 'used_within' : 'back_within') // the samplers themselves are not to be seen
  app.extensionManager?.toast?.add?.({ severity: 'success', summary, life: SAID_MS })
}

app.registerExtension({
  name: 'hybridiff.menu',
  getNodeMenuItems(node) {
    if (!node?.graph) return []
    const workflow = app.rootGraph.serialize()
    const { graph } = savedGraph(workflow, node)
    const saved = graph?.nodes.find(({ id }) => String(id) === String(node.id))
    const action = saved && (actionWithin(workflow, saved.type) ?? actionFor(saved, graph))
    return action ? [{ content: say(PHRASES[action]), callback: () => setTimeout(turn, CLOSED_MS, node) }] : []
  },
})
