// Ranges of JavaScript in a profiler's timeline (NVTX): phases of a step, instructions of a pipeline, the user's own.
// Operations and collectives have theirs where the streams launch them. Without a tool a call costs a look at a flag.

import { binding } from '../binding/native.js'

let attached: boolean | undefined

/** Whether a tool records ranges: it has put its library into NVTX_INJECTION64_PATH, as `nsys profile` does. */
function rangesOn(): boolean {
  attached ??= binding().native.rangesOn()
  return attached
}

/** Runs `work` within a range of that name; where it gives a promise, the range ends when that settles. */
export function inRange<T>(name: string | (() => string), work: () => T): T {
  if (!rangesOn()) return work()
  const { native } = binding()
  const id = native.rangeStart(typeof name === 'string' ? name : name())
  let result: T
  try {
    result = work()
  } catch (error) {
    native.rangeEnd(id)
    throw error
  }
  if (result instanceof Promise) return result.finally(() => native.rangeEnd(id)) as T
  native.rangeEnd(id)
  return result
}
