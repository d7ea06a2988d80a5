// An element in a node that is as high as what is in it.
import { STYLE } from './view.js'

const style = document.createElement('style')
style.textContent = STYLE
document.head.append(style)

/** HTML in a node, made anew by `paint(width)` when `redraw` is called or the width changes, at most once a frame. */
export class Panel {
  /** `least` is the height that is kept free, so that a usual run changes no size. */
  constructor(node, name, paint, least = 0) {
    this.node = node
    this.paint = paint
    this.least = least
    this.height = Math.max(least, 48)
    this.element = document.createElement('div')
    this.element.className = 'hybridiff-view'
    this.widget = node.addDOMWidget(name, name.toUpperCase(), this.element, {
      serialize: false,
      hideOnZoom: false,
      hideInPanel: true,
      getMinHeight: () => this.height + this.margins(),
      getMaxHeight: () => this.height + this.margins(),
    })
    this.widget.serialize = false
    // what of it takes the pointer still lets the canvas zoom
    this.element.addEventListener('wheel', (event) => window.app?.canvas?.processMouseWheel?.(event))
    new ResizeObserver(() => this.redraw()).observe(this.element)
    this.redraw()
  }

  /** What the page's classic renderer keeps free above and below an element. */
  margins() {
    return growsByItself() ? 0 : 2 * (this.widget?.margin ?? 10)
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined
      const width = this.element.clientWidth
      if (!width) return
      const html = this.paint(width)
      if (html !== this.html) {
        this.html = html
        this.element.innerHTML = html
      }
      this.measure()
    })
  }

  /** Give the node the room that is needed now, and take back what was given before. */
  measure() {
    const needed = Math.max(Math.ceil(this.element.firstChild?.offsetHeight ?? 0), this.least)
    if (!needed || needed === this.height) return
    this.element.style.minHeight = `${needed}px`
    if (growsByItself()) {
      this.height = needed
      return
    }
    const before = this.node.computeSize()[1]
    const spare = this.node.size[1] - before // the user's own
    this.height = needed
    const [width, height] = this.node.computeSize()
    const wanted = height > before ? Math.max(this.node.size[1], height) : height + Math.max(spare, 0)
    this.node.setSize([Math.max(this.node.size[0], width), wanted])
    this.node.setDirtyCanvas?.(true, true)
  }
}

/** Whether the page's renderer makes nodes as high as what is in them. */
const growsByItself = () => Boolean(window.LiteGraph?.vueNodesMode)

/** Make the node as high as its widgets need. */
export function fit(node) {
  if (growsByItself()) return
  const [width, height] = node.computeSize()
  if (node.size[0] < width || node.size[1] < height) {
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  }
}
