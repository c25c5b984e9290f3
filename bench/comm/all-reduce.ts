// All-reduce between two local processes, as training queues it: from JavaScript, on the communication stream.

import { type Benchmark, inChild, median, type Work } from '../harness.js'
import { binding, empty, joinWorld, leaveWorld } from '../library.js'

interface Options {
  bytes: number
  /** In memory that the other rank can read. */
  shared: boolean
  calls: number
}

/** Seconds per call: calls follow each other in a batch, and the batch is waited for. */
export const work: Work<Options, number> = async ({ bytes, shared, calls }) => {
  const world = await joinWorld()
  const { native } = binding()
  const x = empty([bytes / 4], { zero: true, shared })
  const times: number[] = []
  for (let round = -3; round < 15; round++) {
    await world.group.barrier()
    const start = performance.now()
    for (let i = 0; i < calls; i++) world.group.allReduce(x)
    native.synchronizeSync(1)
    if (round >= 0) times.push((performance.now() - start) / 1000 / calls)
  }
  x.dispose()
  await leaveWorld(world)
  return median(times)
}

export default {
  title: 'All-reduce, f32, two processes of one thread',
  async run() {
    const measure = (bytes: number, shared: boolean, calls: number): Promise<number> =>
      inChild<Options, number>(import.meta.url, { bytes, shared, calls }, { ranks: 2, threads: 1 })
    const large = 64 << 20
    const [arena, staged, small] = [
      await measure(large, true, 4),
      await measure(large, false, 4),
      await measure(4, true, 1000),
    ]
    const rate = (seconds: number): string => `${(large / seconds / 1e9).toFixed(1)} GB/s of bus bandwidth`
    return [
      { name: '64 MiB, shared memory', value: arena * 1e3, unit: 'ms', target: '<= 15', note: rate(arena) },
      { name: '64 MiB, staged', value: staged * 1e3, unit: 'ms', note: rate(staged) },
      { name: '4 bytes', value: small * 1e6, unit: 'µs', target: '<= 20' },
    ]
  },
} satisfies Benchmark
