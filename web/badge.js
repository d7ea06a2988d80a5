// A few words above a node's title: what its last run came to. Readable at any zoom, also of a collapsed node.
import { app } from '../../scripts/app.js'
import { FAULT, GAIN, REASON } from './palette.js'
import { wrapped } from './wrapping.js'

const COLOURS = { good: [GAIN, '#ffffff'], reason: [REASON, '#1a1a1a'], fault: [FAULT, '#ffffff'], plain: ['#6b7280', '#ffffff'] }
const SIZE = 13 // on the screen at 100 %
const LEAST = 10.5 // and at any smaller zoom
const LEAST_WIDTH = 160 // on the screen, where the node itself is less wide
const MOST_LINES = 3
const OF_THE_HOST = 56 // the host's own badge at the right of a node that is not collapsed
const GONE = 0.2 // the zoom at which nodes are too small for words

const badges = new WeakMap() // by node: {text, tone}

/** What a node's badge says; empty where it has none. */
export const badgeTextOf = (node) => badges.get(node)?.text ?? ''

/** Give a node a badge, or take it off where there is no text. */
export function setBadge(node, text, tone) {
  badges.set(node, { text, tone })
  node.setDirtyCanvas?.(true, true)
}

function drawAll(context, canvas) {
  if (canvas.ds.scale < GONE) return
  for (const node of canvas.graph?.nodes ?? []) {
    const badge = badges.get(node)
    if (badge?.text) draw(context, node, badge, canvas.ds.scale)
  }
}

function draw(context, node, { text: whole, tone }, zoom) {
  const [[x, y], size] = [node.pos, Math.max(SIZE, LEAST / zoom)]
  const [ground, ink] = COLOURS[tone]
  context.save()
  context.font = `600 ${size}px sans-serif`
  const widthOf = (text) => context.measureText(text).width
  const taken = node.flags?.collapsed || window.LiteGraph?.vueNodesMode ? 0 : OF_THE_HOST
  const lines = wrapped(whole, Math.max(node.size[0] - taken, LEAST_WIDTH / zoom) - size, widthOf, MOST_LINES)
  const line = size * 1.3
  const [width, height] = [Math.max(...lines.map(widthOf)) + size, lines.length * line + size * 0.2]
  const top = y - (window.LiteGraph?.NODE_TITLE_HEIGHT ?? 30) - height - 2
  context.fillStyle = ground
  context.beginPath()
  context.roundRect(x, top, width, height, size * 0.35)
  context.fill()
  context.fillStyle = ink
  context.textAlign = 'left'
  context.textBaseline = 'middle'
  lines.forEach((text, place) => context.fillText(text, x + size / 2, top + size * 0.1 + (place + 0.5) * line))
  context.restore()
}

app.registerExtension({
  name: 'hybridiff.badge',
  setup() {
    // of the whole canvas, which both renderers draw; a node's own hook is one renderer's
    const draws = app.canvas.onDrawForeground
    app.canvas.onDrawForeground = function (context, ...more) {
      const answer = draws?.call(this, context, ...more)
      drawAll(context, this)
      return answer
    }
  },
})
