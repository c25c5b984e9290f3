// The section fp8: what it refuses, with the cure, and what it fills in.

import t from 'tap'
import { type Config, resolveConfig } from '../../lib/config/index.js'

const resolve = (more: object): Config =>
  resolveConfig({ train_micro_batch_size_per_gpu: 2, ...more }, { source: 'c.json', directory: '/work', worldSize: 4 })

function refusal(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    return (error as Error).message
  }
  return 'accepted'
}

t.test("fp8 needs bf16, takes Transformer Engine's words, and says what changes nothing", async (t) => {
  const fp8 = (more: object, beside: object = { bf16: { enabled: true } }): string =>
    refusal(() => resolve({ fp8: { enabled: true, ...more }, ...beside }))
  t.match(fp8({}, {}), /fp8\.enabled needs bf16.*set bf16\.enabled to true/)
  t.match(fp8({}, { fp16: { enabled: true } }), /fp16 is enabled: disable it, and set bf16\.enabled to true/)
  t.match(fp8({ format: 'e5m2' }), /fp8\.format is "e5m2"; it must be "hybrid" or "e4m3"/)
  t.match(fp8({ recipe: 'delaied' }), /fp8\.recipe is "delaied".*did you mean delayed\?/)
  t.match(fp8({ amax_history_len: 0 }), /fp8\.amax_history_len is 0; it must be an integer at least 1/)
  t.match(fp8({ margin: -1 }), /fp8\.margin is -1/)
  t.match(
    fp8({ amax_compute_algorithm: 'max' }),
    /unknown key fp8\.amax_compute_algorithm; did you mean fp8\.amax_compute_algo\?/,
  )
  t.match(fp8({ exclude: [3] }), /fp8\.exclude is \[3\]/)
  t.equal(
    refusal(() => resolve({ fp8: { enabled: false } })),
    'accepted',
    'off needs nothing',
  )
  const { fp8: read, hints } = resolve({ bf16: { enabled: true }, fp8: { enabled: true, format: 'HYBRID' } })
  const defaults = { recipe: 'delayed', amax_history_len: 1024, amax_compute_algo: 'max', margin: 0, exclude: [] }
  t.strictSame(read, { enabled: true, format: 'hybrid', ...defaults })
  t.strictSame(hints, [])
  const current = { enabled: true, recipe: 'current', amax_history_len: 16 }
  t.match(resolve({ bf16: { enabled: true }, fp8: current }).hints, [/^fp8\.amax_history_len: .*keeps no history/])
})
