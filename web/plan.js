// The plan node: presets fill fields, fields without effect are grey, boundaries can be dragged on a curve.
import { app } from '../../scripts/app.js'
import { boundsFor, dragged, idleFields, settled, tooLong, typicalCurve } from './plan_fields.js'
import { viewOf, watch } from './live_view.js'
import { Panel, fit } from './panel.js'
import { curveOf, drawCurves, scaleFor } from './timeline.js'
import { say } from './words.js'

const NODE = 'HybridiffPlan'
const HEIGHT = 150
const STEPS = 50 // where no sampler is connected

let presets = {}
let tolerance = 0 // auto's
let plans = 0
const previews = new Map() // by node

const fieldsOf = (node) => node.widgets.filter((widget) => widget.name in node.hybridiffFields)
const valuesOf = (node) => Object.fromEntries(fieldsOf(node).map(({ name, value }) => [name, value]))

function assign(node, values) {
  for (const widget of fieldsOf(node)) {
    if (widget.value !== values[widget.name]) widget.value = values[widget.name]
  }
  refresh(node)
}

/** The other renderer has a button of its own for advanced fields; the classic one would only leave gaps. */
const collapses = () => !window.LiteGraph?.vueNodesMode

function refresh(node) {
  const idle = idleFields(valuesOf(node))
  for (const widget of fieldsOf(node)) {
    widget.disabled = idle.includes(widget.name)
    if (widget.options?.advanced) widget.hidden = collapses() && !node.hybridiffAll
  }
  node.setDirtyCanvas?.(true, true)
  previews.get(node)?.redraw()
}

/** The samplers that this plan goes to. */
function samplersOf(node) {
  const links = node.outputs?.[0]?.links ?? []
  return links.map((id) => node.graph?.getNodeById(node.graph.getLink?.(id)?.target_id)).filter(Boolean)
}

/** What the preview shows: a view without lanes, its bounds, and whose curve it is. */
function planned(node) {
  const samplers = samplersOf(node)
  const given = samplers.flatMap(({ widgets }) => widgets ?? []).find(({ name }) => name === 'steps')?.value
  const run = samplers.map(viewOf).find((view) => view?.state === 'done' && (!given || view.total === given))
  const total = given ?? run?.total ?? STEPS
  const measured = run ? curveOf(run.steps) : []
  const last = measured.length === total
  const curve = last ? measured.map(({ value }) => value) : typicalCurve(total)
  const values = valuesOf(node)
  const bounds = boundsFor(values, curve)
  const stage = (step) => {
    if (!bounds) return null
    return step <= bounds.tau1 ? 'warm-up' : step <= bounds.tau2 ? 'parallelism' : 'fully-connecting'
  }
  const steps = curve.map((value, step) => {
    const rel_mae = last && !measured[step].measured ? null : value
    return { step, stage: stage(step), rel_mae, times: [] }
  })
  return {
    view: { total, steps },
    bounds,
    caption: last ? say('last_curve') : say('typical_curve', { total }),
    status: statusOf(values, bounds, total),
  }
}

function statusOf(values, bounds, total) {
  if (tooLong(values, total)) return say('too_long', { total })
  if (!bounds) return say('all_whole', { total })
  const { tau1, tau2 } = bounds
  return say('stages', { start: tau1 + 1, middle: tau2 - tau1, end: total - 1 - tau2, total })
}

function addPreview(node) {
  const id = `hybridiff-plan-${(plans += 1)}`
  const preview = new Panel(node, 'hybridiff_preview', (width) => {
    const { view, bounds, caption, status } = planned(node)
    const more = collapses()
      ? `<button class="hybridiff-more" aria-expanded="${node.hybridiffAll}">${say('all_fields')}</button>`
      : ''
    return `<div>${drawCurves(view, width, HEIGHT, { id, caption, bounds: bounds ?? {}, handles: true, status })}${more}</div>`
  })
  previews.set(node, preview)
  const { element } = preview
  element.addEventListener('click', (event) => {
    if (!event.target.closest('.hybridiff-more')) return
    node.hybridiffAll = !node.hybridiffAll
    refresh(node)
    node.setSize([node.size[0], node.computeSize()[1]])
  })
  let drag
  element.addEventListener('pointerdown', (event) => {
    const grip = event.target.closest('.hybridiff-grip')
    if (!grip || event.button !== 0) return
    event.stopPropagation()
    event.preventDefault()
    const { view, bounds } = planned(node)
    drag = { view, bounds, bound: grip.dataset.bound, values: valuesOf(node) }
    element.setPointerCapture(event.pointerId)
  })
  element.addEventListener('pointermove', (event) => {
    if (!drag) return
    event.stopPropagation()
    const frame = element.getBoundingClientRect()
    const scale = scaleFor(drag.view, element.clientWidth, HEIGHT, true)
    const step = scale.stepAt(((event.clientX - frame.left) * element.clientWidth) / frame.width)
    assign(node, dragged(drag.values, drag.bounds, drag.bound, step, scale.count, tolerance))
  })
  const end = () => {
    if (drag) app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.captureCanvasState?.() // to be undone
    drag = undefined
  }
  element.addEventListener('pointerup', end)
  element.addEventListener('pointercancel', end)
}

function setUp(node) {
  node.hybridiffFields = Object.fromEntries(node.widgets.map(({ name }) => [name, true]))
  node.hybridiffAll = false // whether the fields for experts are shown
  for (const widget of fieldsOf(node)) {
    const before = widget.callback
    widget.callback = function (...given) {
      const answer = before?.apply(this, given)
      assign(node, settled(valuesOf(node), widget.name, presets))
      return answer
    }
  }
  addPreview(node)
  for (const event of ['onConfigure', 'onConnectionsChange', 'onMouseEnter']) {
    const before = node[event]
    node[event] = function (...given) {
      const answer = before?.apply(this, given)
      refresh(node)
      return answer
    }
  }
  const removed = node.onRemoved
  node.onRemoved = function (...given) {
    previews.delete(node)
    return removed?.apply(this, given)
  }
  refresh(node)
  fit(node)
}

watch((sampler) => {
  for (const [node, preview] of previews) {
    if (samplersOf(node).includes(sampler) && viewOf(sampler)?.state === 'done') preview.redraw()
  }
})

app.registerExtension({
  name: 'hybridiff.plan',
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    const [, given] = nodeData.input.required.preset
    presets = given.hybridiff_presets ?? {}
    tolerance = given.hybridiff_tolerance ?? 0
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) setUp(node)
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) refresh(node)
  },
})
