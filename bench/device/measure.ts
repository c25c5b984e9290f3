// In the process that measures: the device, random data, and times by the device's own clock (through the trace).

import { median } from '../harness.js'
import { binding, empty, joinWorld, leaveWorld, now, runOp, tidy, trace } from '../library.js'

export type Tensor = ReturnType<typeof empty>
export type DType = 'f32' | 'bf16' | 'i32'

let sites = 0

/** Normal random numbers, other ones each time: power, and so speed, depends on what is multiplied. */
export function random(shape: number[], dtype: DType = 'bf16', deviation = 1): Tensor {
  const x = empty(shape, { dtype, category: 'buffers' })
  runOp('random_fill', [x], [], [1, 0, deviation, Date.now() % 1e6, sites++, 0])
  return x
}

/** Runs `body` as one rank of the world (there may be no other), on the device that the environment names. */
export async function onDevice<T>(body: (world: Awaited<ReturnType<typeof joinWorld>>) => Promise<T> | T): Promise<T> {
  const world = await joinWorld()
  try {
    return await body(world)
  } finally {
    await leaveWorld(world)
  }
}

const LEAST_SECONDS = 0.05

/**
 * Seconds of one call on the device: the median over calls of the time from the start of its first kernel to the end of
 * its last, after some that warm up. Calls are queued without a wait, so that the device is never idle between them.
 */
export function deviceSeconds(body: () => void, dry = false): number {
  const { native } = binding()
  const queue = (count: number): number[] =>
    Array.from({ length: count }, () => {
      const at = now()
      tidy(body)
      return at
    })
  queue(2)
  native.synchronizeSync(-1)
  const start = performance.now()
  queue(2)
  native.synchronizeSync(-1)
  const each = (performance.now() - start) / 2000
  const count = dry ? 5 : Math.max(10, Math.min(500, Math.ceil(LEAST_SECONDS / each)))
  trace.start(1 << 18)
  const marks = queue(count)
  native.synchronizeSync(-1)
  const { records } = trace.take()
  trace.stop()
  return median(spans(records, marks)) / 1e9
}

/** For each mark: from the start of the first to the end of the last task that was queued between it and the next one. */
function spans({ queued, start, end }: ReturnType<typeof trace.take>['records'], marks: number[]): number[] {
  const first = marks.map(() => Number.POSITIVE_INFINITY)
  const last = marks.map(() => 0)
  const order = Array.from(queued.keys()).sort((a, b) => (queued[a] as number) - (queued[b] as number))
  let call = -1
  for (const i of order) {
    while (call + 1 < marks.length && (marks[call + 1] as number) <= (queued[i] as number)) call++
    if (call < 0) continue
    first[call] = Math.min(first[call] as number, start[i] as number)
    last[call] = Math.max(last[call] as number, end[i] as number)
  }
  const found = first.map((begin, i) => (last[i] as number) - begin)
  if (!found.every(Number.isFinite)) throw new Error('a call left no task in the trace')
  return found
}
