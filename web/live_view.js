// The live view in the sampler nodes: hears of a run's steps, and shows the last run again after a reload.
import { app } from '../../scripts/app.js'
import { api } from '../../scripts/api.js'
import { draw, heightFor, withEvent } from './timeline.js'

const NODES = ['HybridiffKSampler', 'HybridiffKSamplerAdvanced', 'HybridiffModel']
const WIDGET = 'hybridiff_view'
const KEPT = 'hybridiff ' // views in the tab's own storage
const MOST_KEPT = 50
const LEAST_DEVICES = 2 // room that is kept for lanes before a run
const EMPTY = { mode: '', devices: [], lines: [], total: 0, steps: [], speed_up: null, done: true }

const views = new Map() // by workflow and execution id
const panels = new WeakMap() // by node
const watchers = new Set() // told of every node whose view changed

const root = () => app.rootGraph ?? app.graph
const keyOf = (workflow, executionId) => `${workflow ?? root().id} ${executionId}`

/** A node by its execution id, "1:2" within a subgraph. */
function nodeAt(executionId) {
  const path = String(executionId).split(':')
  const id = path.pop()
  let graph = root()
  for (const part of path) graph = graph?.getNodeById(Number(part))?.subgraph
  return graph?.getNodeById(Number(id))
}

/** The last run's view that a node shows; undefined where there is none. */
export const viewOf = (node) => panels.get(node)?.view

/** Be told of each node whose view changed. */
export const watch = (listener) => watchers.add(listener)

/** A drawing of the size its element has, redrawn at most once a frame. */
export class Drawing {
  constructor(node, name, least, paint) {
    this.paint = paint
    this.element = document.createElement('div')
    Object.assign(this.element.style, { pointerEvents: 'none', overflow: 'hidden', position: 'relative', width: '100%' })
    this.widget = node.addDOMWidget(name, name.toUpperCase(), this.element, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => least(),
    })
    this.widget.serialize = false
    this.least = least
    new ResizeObserver(() => this.redraw()).observe(this.element)
    this.redraw()
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined
      this.element.style.minHeight = `${this.least()}px`
      const { clientWidth: width, clientHeight: height } = this.element
      if (!width) return
      this.element.innerHTML = this.paint(width, Math.max(height, this.least()))
      this.element.firstChild.style.position = 'absolute' // in the flow its height would hold the element's up
    })
  }
}

let drawings = 0

function addPanel(node) {
  const id = `hybridiff-${(drawings += 1)}`
  const panel = { view: undefined }
  panels.set(node, panel)
  const least = () => heightFor(Math.max(panel.view?.devices.length ?? 0, LEAST_DEVICES))
  panel.drawing = new Drawing(node, WIDGET, least, (width, height) => {
    if (panel.view) return draw(panel.view, width, height, { id })
    return draw(EMPTY, width, height, { id, caption: 'a run shows here, step by step', status: '' })
  })
  fit(node)
}

/** Make the node as high as its widgets need. */
export function fit(node) {
  const [width, height] = node.computeSize()
  if (node.size[0] < width || node.size[1] < height) {
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  }
}

function show(executionId) {
  const node = nodeAt(executionId)
  const panel = node && panels.get(node)
  const view = views.get(keyOf(undefined, executionId))
  if (!panel || !view) return
  const lanes = panel.view?.devices.length ?? 0
  panel.view = view
  if (view.devices.length !== lanes) fit(node)
  panel.drawing.redraw()
  for (const listener of watchers) listener(node)
}

api.addEventListener('hybridiff.step', ({ detail }) => {
  const key = keyOf(detail.workflow, detail.node)
  views.set(key, withEvent(views.get(key), detail))
  if (detail.done) keep(key)
  show(detail.node)
})

/** Keep a run's view for a reload of this tab: HybridiffModel runs before the sampling, so no history has its view. */
function keep(key) {
  const kept = Object.keys(sessionStorage).filter((name) => name.startsWith(KEPT))
  if (kept.length >= MOST_KEPT) for (const name of kept) sessionStorage.removeItem(name)
  try {
    sessionStorage.setItem(KEPT + key, JSON.stringify(views.get(key)))
  } catch (error) {
    console.debug('hybridiff: the last run is not kept', error) // the tab's storage is full
  }
}

function showKept(id) {
  for (const name of Object.keys(sessionStorage)) {
    const key = name.slice(KEPT.length)
    if (!name.startsWith(`${KEPT}${id} `) || views.has(key)) continue
    const executionId = key.slice(key.indexOf(' ') + 1)
    if (nodeAt(executionId)?.comfyClass !== 'HybridiffModel') continue
    views.set(key, JSON.parse(sessionStorage.getItem(name)))
    show(executionId)
  }
}

/** Fetch the last run's views of this workflow that the page does not have. */
async function restore() {
  const id = root().id
  for (const key of views.keys()) {
    if (key.startsWith(`${id} `)) show(key.slice(key.indexOf(' ') + 1))
  }
  showKept(id)
  const answer = await api.fetchApi('/history?max_items=20')
  if (!answer.ok || root().id !== id) return
  const entries = Object.values(await answer.json())
  for (const { prompt, outputs } of entries.reverse()) {
    const [, , graph, extra] = prompt
    const ran = extra?.extra_pnginfo?.workflow?.id
    if (ran && ran !== id) continue
    for (const [executionId, output] of Object.entries(outputs)) {
      const [view] = output.hybridiff_view ?? []
      const node = view && nodeAt(executionId)
      if (!node || node.comfyClass !== graph[executionId]?.class_type || views.has(keyOf(id, executionId))) continue
      views.set(keyOf(id, executionId), view)
      show(executionId)
    }
  }
}

let restoring
function restoreSoon() {
  clearTimeout(restoring)
  restoring = setTimeout(() => restore().catch((error) => console.debug('hybridiff: no last run', error)), 200)
}

app.registerExtension({
  name: 'hybridiff.live_view',
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return
    addPanel(node)
    restoreSoon()
  },
  afterConfigureGraph: restoreSoon,
})
