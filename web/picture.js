// The widget `picture`: a connected plan decides in its place, and its choices are in the user's language.
import { app } from '../../scripts/app.js'
import { say } from './words.js'

const NODES = ['HybridiffKSampler', 'HybridiffKSamplerAdvanced', 'HybridiffModel']
const PHRASES = { 'same as KSampler': 'same_as_ksampler', 'close to it, faster': 'close_to_it' }

function refresh(node) {
  const widget = node.widgets?.find(({ name }) => name === 'picture')
  if (!widget) return
  const ruled = node.inputs?.find(({ name }) => name === 'plan')?.link != null
  if (widget.disabled !== ruled) widget.disabled = ruled
  node.setDirtyCanvas?.(true, true)
}

app.registerExtension({
  name: 'hybridiff.picture',
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return
    const widget = node.widgets?.find(({ name }) => name === 'picture')
    if (widget) widget.options.getOptionLabel = (value) => (PHRASES[value] ? say(PHRASES[value]) : String(value ?? ''))
    for (const event of ['onConfigure', 'onConnectionsChange']) {
      const before = node[event]
      node[event] = function (...given) {
        const answer = before?.apply(this, given)
        refresh(this)
        return answer
      }
    }
  },
  loadedGraphNode(node) {
    if (NODES.includes(node.comfyClass)) refresh(node)
  },
})
