import assert from 'node:assert/strict'
import { test } from 'node:test'
import { wrapped } from '../../web/wrapping.js'

const widthOf = (text) => text.length

test('text is broken between words, and cut at its end alone', () => {
  const text = '1 GPU: at CFG 1 only one prompt is computed'
  assert.deepEqual(wrapped(text, 50, widthOf, 2), [text])
  assert.deepEqual(wrapped(text, 26, widthOf, 2), ['1 GPU: at CFG 1 only one', 'prompt is computed'])
  assert.deepEqual(wrapped(text, 15, widthOf, 2), ['1 GPU: at CFG 1', 'only one promp\u2026'])
})

test('a word that is too long is cut, and nothing is nothing', () => {
  assert.deepEqual(wrapped('attn2_output_patch', 8, widthOf, 2), ['attn2_o\u2026'])
  assert.deepEqual(wrapped('', 8, widthOf, 2), [''])
})

test('Chinese is broken anywhere', () => {
  assert.deepEqual(wrapped('CFG 为 1 时只计算', 6, widthOf, 2), ['CFG 为', '1 时只计算'])
})
