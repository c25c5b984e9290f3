// Keeps JavaScript near the streams: it queues work much faster than they do it. Between pieces of work (micro-batches)
// the event loop gets its turn, and while more than a few pieces are not yet done the next one waits.

import { binding } from '../binding/native.js'
import { COMPUTE } from './tensor.js'

interface Piece {
  done: Promise<void>
  failed: boolean
}

export class RunAhead {
  readonly #queued: Piece[] = []

  /** `limit`: pieces that may be queued and not done; enough that the streams never wait for JavaScript. */
  constructor(readonly limit = 2) {}

  /** Whether a piece is known to have failed, which nobody was told yet: what is queued now would run without it. */
  get failed(): boolean {
    return this.#queued.some(({ failed }) => failed)
  }

  /** To be awaited when a piece has been queued. Rejects with the error of an earlier one; then none is left. */
  async queued(): Promise<void> {
    const piece: Piece = { done: binding().native.synchronize(COMPUTE), failed: false }
    piece.done.catch(() => {
      piece.failed = true // who waits for it below, or in settled(), tells
    })
    this.#queued.push(piece)
    await new Promise(setImmediate)
    if (this.#queued.length > this.limit) await this.#queued[0]?.done.catch(() => {})
    if (this.failed) await this.settled()
    else if (this.#queued.length > this.limit) this.#queued.shift()
  }

  /** When all pieces are done. Rejects with the first error; must be awaited before a result is believed. */
  async settled(): Promise<void> {
    const all = await Promise.allSettled(this.#queued.splice(0).map(({ done }) => done))
    const first = all.find((one) => one.status === 'rejected')
    if (first) throw first.reason
  }

  /** After a failure that was told: waits for all that is queued, on all streams, and forgets what else fails. Blocks. */
  abandon(): void {
    this.#queued.length = 0
    try {
      binding().native.synchronizeSync(-1)
    } catch {}
  }
}
