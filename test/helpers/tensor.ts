// Small models for tests of tensor parallelism, and the law that every layout must keep.

import type { Test } from 'tap'
import { losses, type Outcome } from './program.js'

export const gpt2 = (more: Record<string, unknown> = {}) => ({
  model_type: 'gpt2',
  n_layer: 2,
  n_head: 4,
  n_embd: 32,
  n_positions: 16,
  vocab_size: 259,
  resid_pdrop: 0.1,
  embd_pdrop: 0.1,
  attn_pdrop: 0.1,
  ...more,
})
export const llama = (more: Record<string, unknown> = {}) => ({
  model_type: 'llama',
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_size: 32,
  intermediate_size: 64,
  max_position_embeddings: 16,
  vocab_size: 259,
  attention_dropout: 0.1,
  ...more,
})

/** The law for layouts in f32: relative, 1e-6 at the median step and 1e-4 at every one. */
export function lawful(t: Test, run: Outcome, one: Outcome, name: string): void {
  const expected = losses(one)
  const gaps = losses(run).map((loss, index) => Math.abs(loss / (expected[index] as number) - 1))
  t.equal(gaps.length, expected.length, `${name}: as many steps`)
  gaps.sort((a, b) => a - b)
  const [median, worst] = [gaps[gaps.length >> 1], gaps.at(-1)]
  t.ok((median as number) <= 1e-6 && (worst as number) <= 1e-4, `${name}: median ${median}, worst ${worst}`)
  run.steps.forEach((row, index) => {
    const gap = Math.abs(row.gradNorm / (one.steps[index] as { gradNorm: number }).gradNorm - 1)
    if (!(gap < 1e-4)) t.fail(`${name}: gradient norm of step ${index + 1} is off by ${gap}`)
  })
}
