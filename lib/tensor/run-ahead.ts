// Keeps JavaScript near the streams: it queues work much faster than they do it. Between pieces of work (micro-batches)
// the event loop gets its turn, and while more than a few pieces are not yet done the next one waits.

import { binding } from '../binding/native.js'
import { COMPUTE } from './tensor.js'

export class RunAhead {
  readonly #queued: Promise<void>[] = []

  /** `limit`: pieces that may be queued and not done; enough that the streams never wait for JavaScript. */
  constructor(readonly limit = 2) {}

  /** To be awaited when a piece has been queued. Rejects with the error of an earlier one. */
  async queued(): Promise<void> {
    const done = binding().native.synchronize(COMPUTE)
    done.catch(() => {}) // who waits for it below, or in settled(), tells
    this.#queued.push(done)
    await new Promise(setImmediate)
    if (this.#queued.length > this.limit) await this.#queued.shift()
  }

  /** When all pieces are done. Rejects with the first error; must be awaited before a result is believed. */
  async settled(): Promise<void> {
    await Promise.all(this.#queued.splice(0))
  }
}
