// The widget `picture`: a connected plan decides in its place.
import { app } from '../../scripts/app.js'

const NODES = ['HybridiffKSampler', 'HybridiffKSamplerAdvanced', 'HybridiffModel']

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
