// The choices of our widgets that are words, in the user's language. What is saved stays as it is.
import { app } from '../../scripts/app.js'
import { say } from './words.js'

const PICTURE = { 'same as KSampler': 'same_as_ksampler', 'close to it, faster': 'close_to_it' }
const CHOICES = {
  HybridiffKSampler: { picture: PICTURE },
  HybridiffKSamplerAdvanced: { picture: PICTURE },
  HybridiffModel: { picture: PICTURE },
  HybridiffDevices: {
    where: { 'this machine': 'this_machine', 'this machine and others': 'every_machine' },
    other_packs: { 'run their nodes in the worker too': 'their_nodes', off: 'their_nodes_off' },
  },
  HybridiffPlan: { preset: { 'exact only': 'exact_only' } },
}

app.registerExtension({
  name: 'hybridiff.choices',
  nodeCreated(node) {
    for (const [name, phrases] of Object.entries(CHOICES[node.comfyClass] ?? {})) {
      const widget = node.widgets?.find((one) => one.name === name)
      if (widget) widget.options.getOptionLabel = (value) => (phrases[value] ? say(phrases[value]) : String(value ?? ''))
    }
  },
})
