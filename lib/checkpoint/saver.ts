// An engine's saves, one at a time. One in the background lets the training go on; that it has ended, or failed, all
// ranks learn at the same step.

import type { ProcessGroup } from '../parallel/group.js'
import { unscoped } from '../tensor/scope.js'
import { tensor } from '../tensor/tensor.js'
import { Agreement, type Ranks } from './agreement.js'
import { stepName } from './folder.js'
import { type SaveRequest, type Snapshot, takeSnapshot, writeCheckpoint } from './save.js'
import type { ScalesCopy } from './scales.js'

type Request = Omit<SaveRequest, 'group' | 'scales'> & { scales: () => ScalesCopy | undefined }

interface Copies {
  scales?: ScalesCopy | undefined
  snapshot?: Snapshot
}

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
   * host memory are queued on all ranks; the checkpoint is durable after finish().
   */
  async save(request: Request, background: boolean): Promise<string> {
    const agreement = new Agreement(this.ranks, 'save')
    await this.finish()
    const { folder, head } = request
    const { scales, snapshot } = await this.#copies(request, background, agreement)
    const whole = { ...request, group: this.group, scales }
    if (!snapshot) return writeCheckpoint(whole, agreement)
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

  /** What is copied before the training goes on. Where a rank has no memory for it, none goes on with the save. */
  async #copies({ zero, scales }: Request, background: boolean, agreement: Agreement): Promise<Copies> {
    const made: Copies = {}
    try {
      await agreement.all('copies', async () => {
        made.scales = scales()
        if (background) made.snapshot = takeSnapshot(zero)
      })
      return made
    } catch (error) {
      made.snapshot?.dispose()
      made.scales?.dispose()
      throw error
    }
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
