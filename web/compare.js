// The compare node: how close two pictures are, in words first.
import { app } from '../../scripts/app.js'
import { Panel } from './panel.js'
import { compared } from './view.js'

app.registerExtension({
  name: 'hybridiff.compare',
  nodeCreated(node) {
    if (node.comfyClass !== 'HybridiffCompare') return
    let found
    const panel = new Panel(node, 'hybridiff_compare', () => compared(found))
    const before = node.onExecuted
    node.onExecuted = function (output, ...more) {
      ;[found] = output?.hybridiff_compare ?? [found]
      panel.redraw()
      return before?.call(this, output, ...more)
    }
  },
})
