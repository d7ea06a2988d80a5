// Text in few lines of a width, for a canvas.

/**
 * `text` in at most `most` lines, none wider than `room` by `widthOf`. Breaks between words, in Chinese, Japanese and
 * Korean between letters; what does not fit ends with an ellipsis.
 */
export function wrapped(text, room, widthOf, most) {
  const pieces = text.match(/\s*(?:[\u2e80-\ufffd]|[^\s\u2e80-\ufffd]+)/g) ?? []
  const lines = ['']
  while (pieces.length) {
    const longer = (lines.at(-1) + pieces[0]).trimStart()
    if (widthOf(longer) <= room) {
      lines[lines.length - 1] = longer
      pieces.shift()
    } else if (lines.length < most && lines.at(-1)) lines.push('')
    else break
  }
  if (pieces.length) lines[lines.length - 1] = cut(lines.at(-1) + pieces.join(''), room, widthOf)
  return lines
}

function cut(text, room, widthOf) {
  let kept = text.trimStart()
  while (kept && widthOf(`${kept}\u2026`) > room) kept = kept.slice(0, -1)
  return `${kept.trimEnd()}\u2026`
}
