// The live view in the nodes: hears of a run's steps, and shows the last run again after a reload.
import { app } from '../../scripts/app.js'
import { api } from '../../scripts/api.js'
import { setBadge } from './badge.js'
import { before, chosenFor } from './to_use.js'
import { badgeOf, toneOf, withEvent } from './headline.js'
import { Panel } from './panel.js'
import { draw } from './view.js'
import { setWords } from './words.js'

const NODES = ['HybridiffKSampler', 'HybridiffKSamplerAdvanced', 'HybridiffModel', 'HybridiffReport']
const CHOOSES = 'HybridiffDevices'
const OPEN = ['HybridiffReport'] // all of it is shown from the first
const WIDGET = 'hybridiff_view'
const KEPT = 'hybridiff ' // views in the tab's own storage
const MOST_KEPT = 50
const LEAST_HEIGHT = 220 // of any run, until its details are opened
const BYPASSED = [2, 4] // a node's modes in which it does not run

const views = new Map() // by workflow and execution id
const panels = new Map() // by node
const watchers = new Set() // told of every node whose view changed

const root = () => app.rootGraph ?? app.graph
const keyOf = (workflow, executionId) => `${workflow ?? root().id} ${executionId}`
const executionIdOf = (key) => key.slice(key.indexOf(' ') + 1)

/** The nodes on the way to an execution id, "1:2" within a subgraph: the subgraphs' own, then the node. */
function pathTo(executionId) {
  const found = []
  let graph = root()
  for (const part of String(executionId).split(':')) {
    const node = graph?.getNodeById(Number(part))
    if (!node) return undefined
    found.push(node)
    graph = node.subgraph
  }
  return found
}

/** The last run's view that a node shows; undefined where there is none. */
export const viewOf = (node) => panels.get(node)?.view

/** Be told of each node whose view changed. */
export const watch = (listener) => watchers.add(listener)

let drawings = 0
let toUse // the devices as the server found them when the page asked for its nodes

/** Show again which devices will be used, in all nodes that show no run: what was chosen may have changed. */
function redrawIdle() {
  setTimeout(() => {
    for (const { view, panel } of panels.values()) if (!view) panel.redraw()
  })
}

/** Have a node's links, and what is chosen in a Devices node, lead to that. */
function tellChanges(node) {
  const widgets = node.comfyClass === CHOOSES ? node.widgets : []
  for (const [object, name] of [[node, 'onConnectionsChange'], ...widgets.map((widget) => [widget, 'callback'])]) {
    const given = object[name]
    object[name] = function (...values) {
      const answer = given?.apply(this, values)
      redrawIdle()
      return answer
    }
  }
}

function addPanel(node) {
  const id = `hybridiff-${(drawings += 1)}`
  const panel = { view: undefined, open: OPEN.includes(node.comfyClass) }
  panels.set(node, panel)
  const paint = (width) =>
    draw(panel.view, width, { id, open: panel.open, before: panel.view ? undefined : before(toUse, chosenFor(node)) })
  panel.panel = new Panel(node, WIDGET, paint, LEAST_HEIGHT)
  panel.panel.element.addEventListener('click', (event) => {
    if (!event.target.closest('.hybridiff-more')) return
    panel.open = !panel.open
    panel.panel.redraw()
  })
  const removed = node.onRemoved
  node.onRemoved = function (...given) {
    panels.delete(node)
    return removed?.apply(this, given)
  }
}

function show(executionId) {
  const path = pathTo(executionId)
  const node = path?.at(-1)
  const panel = node && panels.get(node)
  const view = views.get(keyOf(undefined, executionId))
  if (!panel || !view) return
  if (BYPASSED.includes(node.mode)) return
  panel.view = view
  panel.panel.redraw()
  if (node.comfyClass !== 'HybridiffReport') for (const shown of path) setBadge(shown, badgeOf(view), toneOf(view))
  for (const listener of watchers) listener(node)
}

/** A node that does not run any more shows no run. */
function forget(node) {
  const panel = panels.get(node)
  if (!panel?.view) return
  panel.view = undefined
  panel.panel.redraw()
  setBadge(node, '', 'plain')
}

api.addEventListener('hybridiff.step', ({ detail }) => {
  const key = keyOf(detail.workflow, detail.node)
  views.set(key, withEvent(views.get(key), detail))
  if (detail.done) keep(key)
  show(detail.node)
})

api.addEventListener('executed', ({ detail }) => {
  const [view] = detail.output?.hybridiff_view ?? []
  if (!view || pathTo(detail.node)?.at(-1).comfyClass !== 'HybridiffReport') return
  views.set(keyOf(undefined, detail.node), view)
  show(detail.node)
})

api.addEventListener('execution_start', () => {
  for (const node of panels.keys()) if (BYPASSED.includes(node.mode)) forget(node)
})

/** Keep a run's view for a reload of this tab: the history has only those of runs that ended, and of nodes with outputs. */
function keep(key) {
  const kept = Object.keys(sessionStorage).filter((name) => name.startsWith(KEPT))
  if (kept.length >= MOST_KEPT) for (const name of kept) sessionStorage.removeItem(name)
  try {
    sessionStorage.setItem(KEPT + key, JSON.stringify(views.get(key)))
  } catch (error) {
    console.debug('hybridiff: the last run is not kept', error) // the tab's storage is full
  }
}

window.addEventListener('pagehide', () => {
  for (const [key, view] of views) if (view.state === 'running') keep(key)
})

function showKept(id) {
  for (const name of Object.keys(sessionStorage)) {
    const key = name.slice(KEPT.length)
    if (!name.startsWith(`${KEPT}${id} `) || views.has(key)) continue
    const executionId = executionIdOf(key)
    if (!NODES.includes(pathTo(executionId)?.at(-1).comfyClass)) continue
    views.set(key, JSON.parse(sessionStorage.getItem(name)))
    show(executionId)
  }
}

/** Fetch the last run's views of this workflow that the page does not have. */
async function restore() {
  const id = root().id
  for (const key of views.keys()) if (key.startsWith(`${id} `)) show(executionIdOf(key))
  showKept(id)
  const answer = await api.fetchApi('/history?max_items=20')
  if (!answer.ok || root().id !== id) return
  const entries = Object.values(await answer.json())
  const taken = new Set()
  for (const { prompt, outputs } of entries.reverse()) {
    const [, , graph, extra] = prompt
    const ran = extra?.extra_pnginfo?.workflow?.id
    if (ran && ran !== id) continue
    for (const [executionId, output] of Object.entries(outputs)) {
      const [view] = output.hybridiff_view ?? []
      const node = view && pathTo(executionId)?.at(-1)
      const key = keyOf(id, executionId)
      if (!node || node.comfyClass !== graph[executionId]?.class_type || taken.has(key)) continue
      taken.add(key)
      if (views.get(key)?.run > view.run) continue // a later one, that has not ended
      views.set(key, view)
      show(executionId)
    }
  }
}

let restoring
function restoreSoon() {
  clearTimeout(restoring)
  restoring = setTimeout(() => restore().catch((error) => console.debug('hybridiff: no last run', error)), 200)
}

async function loadWords() {
  const answer = await api.fetchApi('/i18n')
  setWords(await answer.json(), app.extensionManager?.setting?.get('Comfy.Locale') ?? 'en')
  for (const [node, { view, panel }] of panels) {
    panel.redraw()
    if (view && node.comfyClass !== 'HybridiffReport') setBadge(node, badgeOf(view), toneOf(view))
  }
}

app.registerExtension({
  name: 'hybridiff.live_view',
  async init() {
    app.ui?.settings?.addEventListener?.('Comfy.Locale.change', () => loadWords())
    await loadWords()
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name === NODES[0]) toUse = nodeData.input.optional.devices[1]?.hybridiff_to_use
  },
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass) || node.comfyClass === CHOOSES) tellChanges(node)
    if (!NODES.includes(node.comfyClass)) return
    addPanel(node)
    restoreSoon()
  },
  afterConfigureGraph: restoreSoon,
})
