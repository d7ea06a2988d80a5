// Room for a node that grows, in a workflow as the page saves it: what would lie under it moves down, groups as a whole.

const TITLE = 30 // above a node's place
const COLLAPSED = 160 // a width; the page does not save it
const GAP = 30 // of the space between two nodes so much is kept, if there was so much
const SLACK = 10 // nodes that overlap a little stand below each other nevertheless
const EDGE = 10 // below the last node of a group

const at = (list, place) => Number(list?.[place] ?? 0)

/** Give a node this height, and what stands below it the room. */
export function grow(graph, node, height) {
  if (!node.pos || node.flags?.collapsed || height <= at(node.size, 1)) return
  const before = boxOf(node)
  node.size = [at(node.size, 0), height]
  push(graph, [{ ...before, now: boxOf(node).bottom }], new Set([node]))
}

/** Make room for a node of this size where `node` stands, which moves down as what stands below it does. */
export function standAbove(graph, node, [width, height]) {
  const { left, top } = boxOf(node)
  const place = [left, top + TITLE]
  push(graph, [{ left, right: left + width, bottom: top, now: top + TITLE + height + GAP }], new Set())
  return place
}

function boxOf({ pos, size, flags }) {
  const [left, y] = [at(pos, 0), at(pos, 1)]
  const [width, height] = flags?.collapsed ? [COLLAPSED, 0] : [at(size, 0), at(size, 1)]
  return { left, right: left + width, top: y - TITLE, bottom: y + height }
}

function boxOfGroup({ bounding }) {
  const [left, top] = [at(bounding, 0), at(bounding, 1)]
  return { left, right: left + at(bounding, 2), top, bottom: top + at(bounding, 3) }
}

const isIn = (inner, outer) => {
  const [x, y] = [(inner.left + inner.right) / 2, (inner.top + inner.bottom) / 2]
  return x > outer.left && x < outer.right && y > outer.top && y < outer.bottom
}

/** Move down what lies below the boxes in `grown`, as far as these reach now; nodes in `kept` stay where they are. */
function push(graph, grown, kept) {
  const nodes = graph.nodes.map((node) => ({ node, box: boxOf(node), move: (down) => moveNode(node, down) }))
  const groups = (graph.groups ?? []).map((group) => {
    const box = boxOfGroup(group)
    return { group, box, nodes: nodes.filter((item) => isIn(item.box, box)), move: (down) => moveGroup(group, down) }
  })
  const isAround = ({ box, nodes: within }) => within.some(({ node }) => kept.has(node)) || grown.some((one) =>
    one.left < box.right && one.right > box.left && one.bottom > box.top && one.bottom < box.bottom)
  const around = groups.filter(isAround)
  const whole = outermost(groups.filter((item) => !around.includes(item)))
  const single = nodes.filter((item) => !kept.has(item.node) && !whole.some(({ box }) => isIn(item.box, box)))
  const items = [...whole, ...single].filter(({ node }) => !node?.flags?.pinned).sort((a, b) => a.box.top - b.box.top)
  for (const { box, nodes: within = [], move } of items) {
    const wanted = grown
      .filter(({ left, right, bottom }) => bottom <= box.top + SLACK && left < box.right && right > box.left)
      .map(({ bottom, now }) => now + Math.min(GAP, Math.max(box.top - bottom, 0)) - box.top)
    const down = Math.max(0, ...wanted)
    if (!down) continue
    move(down)
    for (const item of within) item.move(down)
    for (const inner of groups) if (move !== inner.move && within.length && isIn(inner.box, box)) inner.move(down)
    grown.push({ ...box, now: box.bottom + down })
  }
  for (const { group, box, nodes: within } of around) {
    const bottom = Math.max(box.bottom, ...within.map(({ node }) => boxOf(node).bottom + EDGE))
    group.bounding = [box.left, box.top, box.right - box.left, bottom - box.top]
  }
}

const outermost = (groups) => groups.filter((item) => !groups.some((other) => other !== item && isIn(item.box, other.box)
  && other.nodes.length > item.nodes.length))

function moveNode(node, down) {
  node.pos = [at(node.pos, 0), at(node.pos, 1) + down]
}

function moveGroup(group, down) {
  const { bounding } = group
  group.bounding = [at(bounding, 0), at(bounding, 1) + down, at(bounding, 2), at(bounding, 3)]
}
