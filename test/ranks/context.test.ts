// Context parallelism with real processes: the attention of a cut sequence is that of the whole; streams and
// precision; evaluation.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { Workspace, whole } from '../helpers/program.js'
import { gpt2 } from '../helpers/tensor.js'

const sizes = { b: 2, t: 24, hq: 4, hkv: 4, d: 8, dtype: 'f32' }
const attentions = ['ring', 'ulysses'].flatMap((kind) => [
  { kind, ...sizes, packed: true },
  { kind, ...sizes, packed: true, dtype: 'bf16' },
  { kind, ...sizes, hkv: 2 },
  { kind, ...sizes, hkv: 1, b: 1 },
  { kind, ...sizes, hkv: 2, dtype: 'bf16' },
  { kind, ...sizes, causal: false },
  { kind, ...sizes, hkv: 2, p: 0.3 },
  { kind, ...sizes, packed: true, p: 0.3, causal: false },
  { kind, ...sizes, t: 272, b: 1, hq: 8, d: 4 },
])

t.test('values and gradients of a cut attention are those of the whole, the same bits twice', async (t) => {
  const space = new Workspace(t)
  for (const ranks of [1, 2, 4]) {
    // 24 tokens are 3 chunks of each kind for one rank and 8 for four; 1 and 2 heads of k and v are fewer than 4 ranks.
    const { status, stdout, stderr } = await space.launch('context-attention.mjs', [JSON.stringify(attentions)], ranks)
    t.equal(status, 0, stderr)
    const results = JSON.parse(stdout) as number[]
    t.equal(results.pop(), 0, 'nothing is left')
    for (const [index, each] of attentions.entries()) {
      const limit = each.dtype === 'bf16' ? 1e-2 : 2e-6
      t.ok((results[index] as number) <= limit, `${ranks} ranks, ${JSON.stringify(each)}: ${results[index]}`)
    }
  }
})

t.test('bf16, one stream or three: one bit pattern; evaluation sees whole sequences', async (t) => {
  const space = new Workspace(t)
  const evaluated = { steps: 4, seed: 3, eval_interval: 2, eval_batches: 2 }
  const validation = (run: string): number[] =>
    readFileSync(space.path(run), 'utf8')
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => (JSON.parse(line) as { validationLoss?: number }).validationLoss ?? [])
  const train = (more: Record<string, unknown>, ranks: number, metrics: string, args: string[] = []) =>
    space.train(space.config({ model: { config: gpt2() }, train: evaluated, ...more }), {
      ranks,
      args: ['--metrics', space.path(metrics), ...args],
    })
  whole(t, await train({}, 1, 'one'))
  for (const type of ['ulysses', 'ring']) {
    const cut = { mesh: { context: 2 }, context_parallel: { type } }
    whole(t, await train(cut, 2, type))
    t.equal(validation(type).length, 2)
    for (const [index, loss] of validation(type).entries())
      t.ok(Math.abs(loss / (validation('one')[index] as number) - 1) < 1e-5, `${type}: ${loss}`)
    const half = { ...cut, bf16: { enabled: true } }
    whole(t, await train(half, 2, `${type}-half`))
    whole(t, await train(half, 2, `${type}-serial`, ['--serial']))
    const bits = (name: string): number[] => space.steps(name).map(({ loss }) => loss)
    t.strictSame(bits(`${type}-serial`), bits(`${type}-half`), `${type}: bits`)
    const apart = bits(`${type}-half`).map((loss, index) => Math.abs(loss - (bits('one')[index] as number)))
    t.ok(Math.max(...apart) < 0.02, `${type}: bf16 is ${Math.max(...apart)} from f32`)
  }
})
