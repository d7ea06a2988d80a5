// The colours of a run; hybridiff_core/palette.py has the same. Text and ground are the page's theme's own.
export const STAGES = {
  'warm-up': { phrase: 'warm_up', colour: '#56b4e9', pattern: 'plain' },
  parallelism: { phrase: 'middle', colour: '#e69f00', pattern: 'hatch' },
  'fully-connecting': { phrase: 'finish', colour: '#6fd3b0', pattern: 'dots' },
}
export const NO_STAGES = { phrase: 'all_steps', colour: '#9a9aa6', pattern: 'plain' }
export const KINDS = { compute: '#56b4e9', transfer: '#e69f00', wait: '#8a8a94' }
export const REASON = '#f0b429'
export const FAULT = '#e5484d'
export const GAIN = '#2f9e6e'
