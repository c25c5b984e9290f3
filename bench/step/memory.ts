// Resident memory of GPT-2 124M in f32, against what the library says it holds; and that a long run stays flat.

import type { Benchmark, Row } from '../harness.js'
import { type TrainResult, train } from '../train.js'

const megabytes = (bytes: number): number => bytes / 1e6

function resident(run: TrainResult): Row[] {
  const { peak, parameters, peakResident } = run
  const { activations = 0, buffers = 0, host = 0 } = peak
  const allowed = 16 * parameters + activations + buffers + host + 200e6
  return [
    {
      name: 'GPT-2 124M f32, peak resident memory',
      value: megabytes(peakResident),
      unit: 'MB',
      target: `<= ${Math.round(megabytes(allowed))}`,
      note: `16 bytes per parameter, ${megabytes(activations + buffers + host).toFixed(0)} MB of activations and buffers, 200 MB`,
    },
  ]
}

/** What grew between step 100 and the last one. */
function growth({ native, heap }: TrainResult): Row[] {
  const [early, late] = [native[2], native.at(-1)] as [TrainResult['native'][0], TrainResult['native'][0]]
  const rows: [string, number, string, string][] = [
    ['live native bytes', late.live - early.live, 'bytes', '<= 0'],
    ['live tensors', late.tensors - early.tensors, '', '<= 0'],
    ['reserved native memory', megabytes(late.reserved - early.reserved), 'MB', '<= 0'],
    ['JavaScript heap', megabytes((heap.at(-1) as number) - (heap[2] as number)), 'MB', '<= 0.3'],
    ['resident memory', megabytes(late.resident - early.resident), 'MB', '<= 10'],
  ]
  return rows.map(([name, value, unit, target]) => ({
    name: `growth from step 100 to 500: ${name}`,
    value,
    unit,
    target: target as `<= ${number}`,
  }))
}

export default {
  title: 'Memory',
  async run() {
    const large = await train({ dtype: 'f32', steps: 3, batch: 4, tokens: 64 })
    const model = { n_layer: 2, n_head: 2, n_embd: 64, vocab_size: 256, n_positions: 64 }
    const small = await train({ dtype: 'f32', steps: 500, batch: 4, tokens: 64, model, watchHeap: true })
    return [...resident(large), ...growth(small)]
  },
} satisfies Benchmark
