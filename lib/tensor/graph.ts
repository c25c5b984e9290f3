// Work that the device records once and then does again as one piece (CUDA graphs). Shapes, memory and the order of the
// operations stay; scalars that were given to runOp as a function are asked for anew at each launch.

import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { type LiveScalars, liveCalls } from './tensor.js'

/** True while operations are captured and not done: what has no value yet cannot be read. */
export const isCapturing = (): boolean => liveCalls.list !== undefined

export class Graph {
  #disposed = false

  private constructor(
    readonly id: number,
    readonly live: readonly LiveScalars[],
  ) {}

  /**
   * Captures what `body` queues; nothing of it is done. Waits for the streams.
   *
   * @throws the first reason why something of it cannot be captured; the streams go on
   */
  static capture(body: () => void): Graph {
    const { native } = binding()
    native.graphBegin()
    const live: LiveScalars[] = []
    liveCalls.list = live
    try {
      body()
    } catch (error) {
      native.graphEnd(true)
      throw error
    } finally {
      liveCalls.list = undefined
    }
    return new Graph(native.graphEnd(), live)
  }

  /** Queues it once more, as one piece on the compute stream. */
  launch(): void {
    if (this.#disposed) throw new ZeroshardError('DISPOSED', '[graph] launched after dispose()')
    const changes = this.live.flatMap(({ call, scalars }) => [call, ...scalars()])
    binding().native.graphLaunch(this.id, Float64Array.from(changes))
  }

  /** Waits for the device, and gives the graph's memory back. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    binding().native.graphDrop(this.id)
  }
}
