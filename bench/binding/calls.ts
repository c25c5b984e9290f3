// From the call in JavaScript to the operation's place in the queue: what one operation costs the event loop.

import { type Benchmark, inChild, median, type Work } from '../harness.js'
import { binding, empty, ops, runOp, tidy } from '../library.js'

type Times = Record<'run' | 'make' | 'op' | 'recorded', number>
const calls = 2000

/** Seconds per call. The stream works meanwhile; it is waited for outside of the time taken. */
export const work: Work<object, Times> = async () => {
  const { native } = binding()
  native.configure({ threads: 1, serial: false })
  const [a, b, y] = [0, 1, 2].map(() => empty([8], { zero: true })) as [ReturnType<typeof empty>, any, any]
  const measure = (fn: () => void): number => {
    const times: number[] = []
    for (let round = -20; round < 60; round++) {
      const start = performance.now()
      for (let i = 0; i < calls; i++) fn()
      if (round >= 0) times.push((performance.now() - start) / 1000 / calls)
      native.synchronizeSync(0)
    }
    return median(times)
  }
  const run = measure(() => runOp('binary', [y], [a, b], [0]))
  const make = measure(() => empty([8]).dispose())
  const op = measure(() => tidy(() => void ops.add(a, b)))
  a.requiresGrad = true
  const recorded = measure(() => tidy(() => void ops.add(a, b)))
  return { run, make, op, recorded }
}

export default {
  title: 'Cost of a call from JavaScript',
  async run() {
    const { run, make, op, recorded } = await inChild<object, Times>(import.meta.url, {})
    return [
      { name: 'an operation queued (3 tensors)', value: run * 1e6, unit: 'µs', target: '<= 1' },
      { name: 'a tensor made and disposed', value: make * 1e6, unit: 'µs' },
      { name: 'ops.add: checked, output made, queued, disposed', value: op * 1e6, unit: 'µs' },
      { name: 'the same, recorded for backward', value: recorded * 1e6, unit: 'µs' },
    ]
  },
} satisfies Benchmark
