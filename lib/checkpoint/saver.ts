// An engine's saves, one at a time. One in the background lets the training go on; that it has ended, or failed, all
// ranks learn at the same step.

import type { ProcessGroup } from '../parallel/group.js'
import { unscoped } from '../tensor/scope.js'
import { tensor } from '../tensor/tensor.js'
import { Agreement, type Ranks } from './agreement.js'
import { stepName } from './folder.js'
import { type SaveRequest, takeSnapshot, writeCheckpoint } from './save.js'

interface Pending {
  /** Never rejects. */
  ended: Promise<void>
  settled: boolean
  error?: unknown
}

export class Saver {
  #pending: Pending | undefined

  constructor(
    readonly group: ProcessGroup,
    readonly ranks: Ranks,
  ) {}

  /**
   * Collective. Waits for the save before, and throws what that one failed with. `background`: resolves when copies in
   * host memory are queued; the checkpoint is durable after finish().
   */
  async save(request: Omit<SaveRequest, 'group'>, background: boolean): Promise<string> {
    const agreement = new Agreement(this.ranks, 'save')
    await this.finish().catch((error: unknown) => {
      request.scales?.dispose()
      throw error
    })
    const { folder, zero, head } = request
    const whole = { ...request, group: this.group }
    if (!background) return writeCheckpoint(whole, agreement)
    const snapshot = takeSnapshot(zero)
    const pending: Pending = { ended: Promise.resolve(), settled: false }
    pending.ended = writeCheckpoint(whole, agreement, snapshot.source)
      .catch((error: unknown) => {
        pending.error = error
      })
      .then(() => {
        snapshot.dispose()
        pending.settled = true
      })
    this.#pending = pending
    return `${folder}/${stepName(head.state.step)}`
  }

  /** Collective, once a step. @throws what a save in the background failed with, on all ranks, once. */
  async check(): Promise<void> {
    const pending = this.#pending
    if (!pending || !(await this.#settledEverywhere(pending))) return
    await this.finish()
  }

  /** The outcome is agreed on; when it arrives differs. */
  async #settledEverywhere({ settled }: Pending): Promise<boolean> {
    const { group } = this
    if (group.size === 1) return settled
    const flag = unscoped(() => tensor(Float32Array.of(settled ? 1 : 0), [1], { category: 'buffers' }))
    try {
      group.allReduce(flag)
      return (await flag.data())[0] === group.size
    } finally {
      flag.dispose()
    }
  }

  /** Collective. Waits for a save in the background. @throws what it failed with, once. */
  async finish(): Promise<void> {
    const pending = this.#pending
    if (!pending) return
    await pending.ended
    this.#pending = undefined
    if (pending.error) throw pending.error
  }
}
