// What a rank holds, to the byte: the table of lifetimes (the paper's formula, padding counted) at every stage, on 1, 2
// and 4 ranks; the most that a step adds; what the estimators promised; and limits that stage 3 stays under.

import t from 'tap'
import { estimateModelStates } from '../../lib/parallel/zero/estimate.js'
import { closeCurves, losses, Workspace, whole } from '../helpers/program.js'

interface Bytes {
  parameters: number
  gradients: number
  optimizer: number
}

interface Measured {
  rank: number
  stage: number
  precision: 'fp32' | 'bf16'
  prefetch: number
  threshold: number
  accumulation: number
  estimate: Bytes
  start: Bytes
  after: Bytes
  peak: Bytes
  tensors: number
  left: number
}

/** A flat buffer of exact-memory.mjs's model: how many elements, and what is special about it. */
interface Flat {
  count: number
  frozen?: boolean
  whole?: boolean
}

const block = 13 * 13 + 13
const blocks = (flat: Flat[]): Flat[] => Array.from({ length: 6 }, () => flat).flat()

/** As written down from the model, not as the library lays it out. */
function flats(stage: number, ranks: number, threshold: number): Flat[] {
  if (stage < 3 || ranks === 1)
    // what is outside of blocks is one more unit
    return [{ count: 5 * 13 + 13 + 13 + 1 }, { count: block, frozen: true }, ...blocks([{ count: block }])]
  if (threshold === 0)
    return [{ count: 5 * 13 + 13 }, { count: block, frozen: true }, ...blocks([{ count: block }]), { count: 14 }]
  // Below 14 elements: biases, and the last layer's weight, stay whole.
  return [
    ...[{ count: 65 }, { count: 13, whole: true }, { count: 169, frozen: true }],
    { count: 13, frozen: true, whole: true },
    ...blocks([{ count: 169 }, { count: 13, whole: true }]),
    { count: 14, whole: true },
  ]
}

function expected({ stage, precision, threshold }: Measured, ranks: number, padded = true): Bytes {
  const element = precision === 'bf16' ? 2 : 4
  const perState = precision === 'bf16' ? 12 : 8
  const bytes = { parameters: 0, gradients: 0, optimizer: 0 }
  for (const { count, frozen, whole: persistent } of flats(stage, ranks, threshold)) {
    const quantum = 16 * ranks // equal shards, each of whole cache lines
    const size = padded ? Math.ceil(count / quantum) * quantum : count
    bytes.parameters += (element * size) / (stage === 3 && !persistent ? ranks : 1)
    if (frozen) continue
    bytes.gradients += (4 * size) / (stage >= 2 ? ranks : 1)
    bytes.optimizer += (perState * size) / (stage >= 1 ? ranks : 1)
  }
  return bytes
}

for (const ranks of [1, 2, 4]) {
  t.test(`${ranks} ranks hold what the formula says, to the byte`, async (t) => {
    const outcome = await new Workspace(t).launch('exact-memory.mjs', [], ranks, { ZEROSHARD_TIMEOUT: '60' })
    t.equal(outcome.status, 0, outcome.stderr)
    const results = JSON.parse(outcome.stdout) as Measured[]
    t.equal(results.length, 18)
    for (const result of results) {
      const { stage, precision, prefetch, threshold, accumulation, peak } = result
      const name = `stage ${stage} ${precision} ${JSON.stringify({ prefetch, threshold, accumulation })}`
      const bytes = expected(result, ranks)
      t.strictSame(result.start, bytes, `${name}: after the start`)
      t.strictSame(result.after, bytes, `${name}: after steps`)
      if (threshold === 0) t.strictSame(result.estimate, expected(result, ranks, false), `${name}: estimated`)
      t.strictSame([result.tensors, result.left], [0, 0], `${name}: all is freed`)
      t.equal(peak.optimizer, bytes.optimizer, `${name}: no states come and go`)
      const element = precision === 'bf16' ? 2 : 4
      const unit = Math.ceil((threshold ? 169 : block) / (16 * ranks)) * 16 * ranks
      const moves = ranks > 1 && stage === 3
      const depth = Math.max(Math.floor(prefetch / unit), prefetch > 0 ? 1 : 0)
      const added = peak.parameters - bytes.parameters
      if (!moves) t.equal(added, 0, `${name}: parameters stay`)
      else {
        t.ok(
          added <= (depth + 1) * unit * element,
          `${name}: ${added} bytes of parameters are more than ${depth} + 1 units`,
        )
        t.ok(added >= unit * element, `${name}: a unit was gathered`)
      }
      const gathers = ranks > 1 && stage >= 2
      // A unit's gradients, then its shard; at stage 2 those outside of blocks wait for the end of backward.
      const root = stage === 2 ? Math.ceil(92 / (16 * ranks)) * 16 * ranks : 0
      const sum = accumulation > 1 ? unit / ranks : 0
      const most = threshold ? unit + 16 * ranks : root + unit + sum
      t.equal(peak.gradients - bytes.gradients, gathers ? 4 * most : 0, `${name}: the peak of gradients`)
    }
  })
}

t.test('under a limit below the model, stage 3 starts, trains, saves, loads and trains on; stage 0 ends', async (t) => {
  const space = new Workspace(t)
  const config = (stage: number) =>
    space.config({
      model: { config: { model_type: 'gpt2', n_layer: 12, n_head: 2, n_embd: 128, n_positions: 8, vocab_size: 256 } },
      train_batch_size: 8,
      train: { steps: 4, save_interval: 2, seed: 3 },
      zero_optimization: { stage, stage3_param_persistence_threshold: 200, stage3_prefetch_bucket_size: 0 },
    })
  const free = whole(t, await space.train(config(0), { ranks: 8 }))
  const model = free.steps[0]?.memory.parameters as number
  t.ok(model > 9e6, `${model} bytes of parameters`)
  // Nothing is offloaded: a rank's shares of parameters, gradients and two moments are half of this model in f32.
  const env = { ZEROSHARD_MEMORY_LIMIT: String(Math.round(0.85 * model)) }
  const output = space.path('limited')
  const run = whole(t, await space.train(config(3), { ranks: 8, env, output }))
  closeCurves(t, losses(run), losses(free), 'limited')
  const resume = ['--resume', `${output}/checkpoints/step-00000002`]
  const rest = whole(t, await space.train(config(3), { ranks: 8, env, args: resume }))
  t.strictSame(losses(rest), losses(run).slice(2), 'resumed, bit for bit')
  const { status, stderr, steps } = await space.train(config(0), { ranks: 8, env })
  t.equal(status, 1)
  t.match(stderr, /no memory for .* of \w+; live: parameters .*limit/, 'stage 0 holds it')
  t.equal(steps.length, 0)
})

t.test('estimates: the formulas, what is offloaded, and what is no model', async (t) => {
  const of = (more: object) => estimateModelStates({ model: 640, stage: 3, numRanks: 4, ...more })
  t.strictSame(of({}), { parameters: 320, gradients: 640, optimizer: 1920, host: 0, total: 2880 })
  t.strictSame(of({ stage: 1, precision: 'fp32' }).total, 2560 + 2560 + 1280)
  t.match(of({ numStates: 1 }), { optimizer: 1280 }, 'Lion')
  const away = of({ offloadOptimizer: true, offloadParameters: true })
  t.strictSame(away, { parameters: 0, gradients: 640, optimizer: 0, host: 2240, total: 2880 })
  for (const wrong of [{ model: 0 }, { numRanks: 0 }, { numRanks: 1.5 }, { model: Number.NaN }])
    t.throws(() => of(wrong), { code: 'ARGUMENT', message: /both must be positive/ })
})
