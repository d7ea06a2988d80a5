// The live view of a run, as HTML: pure functions from a view (headline.js) to text.
import { reasons, result, stateOf, toneOf, what } from './headline.js'
import { FAULT, GAIN, REASON } from './palette.js'
import { CURVE_HEIGHT, drawCurves, drawLanes } from './timeline.js'
import { lineOf, say } from './words.js'

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c])
const part = (name, text, more = '') => (text ? `<div class="hybridiff-${name}"${more}>${escaped(text)}</div>` : '')

/**
 * A run's view of this width. `open` says whether the curve and all lines are shown too; `id` names its patterns;
 * `before` is what is known of the devices before a run (to_use.js).
 */
export function draw(view, width, { id = 'hybridiff', open = false, before } = {}) {
  const { large, gain } = result(view)
  const said = reasons(view)
  const head = [
    ...(view || !before ? [] : [part('gain', before.text), part('what', before.reason)]),
    part('large', large), part('gain', gain), part('what', what(view)),
    ...said.map(({ text, way, group }) =>
      `<div class="hybridiff-reason" data-group="${group}" title="${escaped(`${text}. ${way}`)}">` +
      `<span>${escaped(text)}</span>${way ? `<div>${escaped(way)}</div>` : ''}</div>`),
  ]
  // a reason takes the place of the lanes, so that the node need not grow over those below it
  const lanes = open || said.every(({ aside }) => aside)
  const more = view?.steps.length
    ? [lanes ? drawLanes(view, width, { id }) : '', `<button class="hybridiff-more" aria-expanded="${open}">${escaped(say('details'))}</button>`]
    : []
  if (open && view?.steps.length) {
    more.push(drawCurves(view, width, CURVE_HEIGHT, { id: `${id}-curve` }), ...view.told.map((told) => part('line', lineOf(told))))
  }
  const data = `data-state="${stateOf(view)}" data-tone="${toneOf(view)}" data-open="${open}"`
  return `<div class="hybridiff-body" ${data}>${[...head, ...more].join('')}</div>`
}

const CLOSE = ['identical', 'rounding', 'practically']

/** How close two pictures are: the compare node's {verdict, decibels, ssim, largest}; undefined before a run. */
export function compared(found) {
  if (!found) return `<div class="hybridiff-body" data-state="empty">${part('what', say('empty'))}</div>`
  const verdict = say(found.verdict, { decibels: Math.round(found.decibels) })
  const tone = CLOSE.includes(found.verdict) ? 'good' : 'plain'
  return `<div class="hybridiff-body" data-state="done" data-tone="${tone}">${part('verdict', verdict)}${part('what', say('figures', found))}</div>`
}

export const STYLE = `
.hybridiff-view { box-sizing: border-box; width: 100%; overflow: hidden; border-radius: 6px; pointer-events: none;
  --hybridiff-panel: var(--comfy-input-bg, #222); --hybridiff-faint: var(--descrip-text, #999);
  background: var(--hybridiff-panel); color: var(--input-text, #ddd); font: 13px/1.35 sans-serif; text-align: left; }
.hybridiff-body { padding: 6px 8px; }
.hybridiff-body svg { display: block; margin: 6px -8px 0; pointer-events: auto; }
.hybridiff-large { font-size: 24px; line-height: 1.15; font-weight: 700; overflow-wrap: anywhere; }
.hybridiff-gain { font-size: 16px; font-weight: 600; }
[data-tone=good] :is(.hybridiff-gain, .hybridiff-verdict) { color: color-mix(in srgb, ${GAIN} 75%, currentColor); }
[data-tone=fault] .hybridiff-large { color: color-mix(in srgb, ${FAULT} 75%, currentColor); }
.hybridiff-verdict { font-size: 20px; line-height: 1.2; font-weight: 700; overflow-wrap: anywhere; }
.hybridiff-what { font-size: 14px; overflow-wrap: anywhere; }
.hybridiff-reason { margin-top: 5px; padding: 4px 8px; border-left: 4px solid ${REASON}; border-radius: 3px;
  background: color-mix(in srgb, ${REASON} 20%, transparent); font-size: 15px; line-height: 1.25;
  overflow-wrap: anywhere; pointer-events: auto; user-select: text; }
.hybridiff-reason[data-group=FAULT] { border-color: ${FAULT}; background: color-mix(in srgb, ${FAULT} 20%, transparent); }
.hybridiff-reason[data-group=NOTHING] { border-color: var(--hybridiff-faint); background: none; }
.hybridiff-reason div { margin-top: 2px; font-size: 13px; opacity: 0.85; }
[data-open=false] .hybridiff-reason > * { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3;
  overflow: hidden; }
.hybridiff-more { all: unset; margin: 4px 0 2px 4px; color: var(--hybridiff-faint); cursor: pointer; font-size: 12px;
  pointer-events: auto; }
.hybridiff-more::before { content: '\\25b8\\00a0'; }
.hybridiff-more[aria-expanded=true]::before { content: '\\25be\\00a0'; }
.hybridiff-more:focus-visible { outline: 1px solid currentColor; }
.hybridiff-line { margin-top: 3px; font-size: 12px; color: var(--hybridiff-faint); overflow-wrap: anywhere; }
.hybridiff-view .hybridiff-grip { pointer-events: all; cursor: ew-resize; touch-action: none; }
`
