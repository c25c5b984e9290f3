// Collectives, with nccl-tests' definitions: size is that of the whole array, algbw = size / time, busbw = algbw times what
// the ring must carry: 2(n-1)/n for all-reduce, (n-1)/n for all-gather, reduce-scatter and all-to-all, 1 for broadcast and
// messages. Calls follow each other without a wait; the time is that of a batch, by the trace, over its calls.

import { inChild, median, type Row, type Work } from '../harness.js'
import { binding, trace } from '../library.js'
import { onDevice, random, type Tensor } from './measure.js'
import { type SuiteBenchmark, type SuiteOptions, spread } from './suite.js'

export const kinds = ['allReduce', 'allGather', 'reduceScatter', 'allToAll', 'broadcast', 'sendRecv'] as const
export type Kind = (typeof kinds)[number]

interface Options {
  cases: { kind: Kind; bytes: number }[]
  dry: boolean
}

/** What the slowest link carries for each byte of the array. */
export function busFactor(kind: Kind, ranks: number): number {
  if (kind === 'allReduce') return (2 * (ranks - 1)) / ranks
  return kind === 'broadcast' || kind === 'sendRecv' ? 1 : (ranks - 1) / ranks
}

/** 1 KiB to 1 GiB; dry, to 64 KiB. */
export const sizes = (dry: boolean): number[] => Array.from({ length: dry ? 4 : 11 }, (_, i) => 2 ** 10 * 4 ** i)

type Group = Awaited<Parameters<Parameters<typeof onDevice>[0]>[0]['group']>

/** Queues one; its array has `bytes` bytes, and as many more as make parts equal. */
function prepare(group: Group, kind: Kind, bytes: number): { body: () => void; bytes: number; tensors: Tensor[] } {
  const n = group.size
  const part = Math.max(1, Math.ceil(bytes / 4 / n))
  const [whole, other] = [random([part * n], 'f32'), random([part * n], 'f32')]
  const own = random([part], 'f32')
  const next = (group.rank + 1) % n
  const before = (group.rank + n - 1) % n
  const bodies: Record<Kind, () => void> = {
    allReduce: () => void group.allReduce(whole),
    allGather: () => void group.allGather(whole, own),
    reduceScatter: () => void group.reduceScatter(own, whole),
    allToAll: () => void group.allToAll(other, whole),
    broadcast: () => void group.broadcast(whole),
    sendRecv: () => {
      group.send(whole, next)
      group.recv(other, before)
    },
  }
  return { body: bodies[kind], bytes: 4 * part * n, tensors: [whole, other, own] }
}

/** Seconds of one call, by case. */
export const work: Work<Options, number[]> = ({ cases, dry }) =>
  onDevice(async ({ group }) => {
    const { native } = binding()
    const results: number[] = []
    for (const { kind, bytes } of cases) {
      const { body, tensors } = prepare(group, kind, bytes)
      const calls = dry ? 3 : bytes >= 2 ** 24 ? 20 : 100
      for (let i = 0; i < 3; i++) body()
      const batches: number[] = []
      for (let batch = 0; batch < (dry ? 2 : 5); batch++) {
        native.synchronizeSync(-1)
        await group.barrier()
        trace.start(1 << 12)
        for (let i = 0; i < calls; i++) body()
        native.synchronizeSync(-1)
        const { records } = trace.take()
        trace.stop()
        const moved = Array.from(records.kind.keys()).filter((i) => (records.kind[i] as number) > 0)
        const begin = Math.min(...moved.map((i) => records.start[i] as number))
        batches.push((Math.max(...moved.map((i) => records.end[i] as number)) - begin) / 1e9 / calls)
      }
      results.push(median(batches))
      for (const x of tensors) x.dispose()
      await group.barrier()
    }
    return results
  })

const label = (bytes: number): string =>
  bytes >= 2 ** 30 ? `${bytes / 2 ** 30} GiB` : bytes >= 2 ** 20 ? `${bytes / 2 ** 20} MiB` : `${bytes / 2 ** 10} KiB`

/** 2, 4, 8, … of the ranks, and all of them. */
export const rankCounts = (ranks: number): number[] => {
  const counts: number[] = []
  for (let n = 2; n < ranks; n *= 2) counts.push(n)
  return ranks > 1 ? [...counts, ranks] : []
}

async function ofRanks(ranks: number, { dry, every, ceilings }: SuiteOptions): Promise<Row[]> {
  const all = kinds.flatMap((kind) => sizes(dry).map((bytes) => ({ kind, bytes })))
  const cases = spread(all, every)
  const options: Options = { cases, dry }
  const seconds = await inChild<Options, number[]>(import.meta.url, options, { ranks, ...(dry && { threads: 1 }) })
  return cases.map(({ kind, bytes }, i): Row => {
    const algbw = bytes / (seconds[i] as number)
    const busbw = algbw * busFactor(kind, ranks)
    return {
      name: `${kind}, ${label(bytes)} f32, ${ranks} ranks`,
      value: busbw / 1e9,
      unit: 'GB/s bus',
      ...(ceilings?.link && { share: busbw / ceilings.link }),
      note: `${((seconds[i] as number) * 1e6).toFixed(1)} µs, algorithm ${(algbw / 1e9).toPrecision(3)} GB/s`,
    }
  })
}

export default {
  title: 'Collectives',
  async run(options) {
    const rows: Row[] = []
    for (const ranks of rankCounts(options.ranks)) rows.push(...(await ofRanks(ranks, options)))
    return rows
  },
} satisfies SuiteBenchmark
