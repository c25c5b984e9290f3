// Ranks agree over the rendezvous, not over the process group: a save in the background must not stand between the
// collectives of the training. What fails on one rank fails on all, with the same words.

import { type ErrorCode, ZeroshardError } from '../binding/errors.js'
import type { Exchange } from '../parallel/group.js'

/** What agreement needs of the rendezvous. */
export type Ranks = Pick<Exchange, 'rank' | 'worldSize' | 'exchange'>

/** This process by itself. */
export const alone: Ranks = { rank: 0, worldSize: 1, exchange: async (_, value) => [value] }

/** What a rank says of its part: nothing yet, its value, or how it failed. */
interface Told<T> {
  busy?: true
  value?: T
  failure?: { code: ErrorCode; message: string }
}

/** Milliseconds after which a rank says that it is still at work: far below the time that ranks are waited for. */
const PATIENCE = 1000

let numAgreements = 0

/** The steps of one collective call. Made by all ranks in the same order: before anything is waited for. */
export class Agreement {
  readonly #name: string

  constructor(
    readonly ranks: Ranks,
    what: string,
  ) {
    this.#name = `${what} ${numAgreements++}`
  }

  get first(): boolean {
    return this.ranks.rank === 0
  }

  /** Every rank does its part; → what each has to tell (as JSON). Where one fails, all throw the first failure. */
  async all<T>(step: string, work: () => Promise<T>): Promise<T[]> {
    let own: Told<T> = { busy: true }
    let cause: unknown
    const over = work().then(
      (value) => {
        own = { value }
      },
      (error: unknown) => {
        cause = error
        own = { failure: failureOf(error) }
      },
    )
    for (let round = 0; ; round++) {
      await withPatience(over)
      const all = await this.#exchange(`${step} ${round}`, own)
      const failed = all.findIndex(({ failure }) => failure)
      if (failed >= 0) {
        await over // what it writes to is free again
        throw this.#errorOf(all[failed]?.failure as Failure, failed, cause)
      }
      if (!all.some(({ busy }) => busy)) return all.map(({ value }) => value as T)
    }
  }

  async #exchange<T>(key: string, told: Told<T>): Promise<Told<T>[]> {
    const all = await this.ranks.exchange(`${this.#name} ${key}`, JSON.stringify(told))
    return all.map((text) => JSON.parse(text) as Told<T>)
  }

  /** Of the rank that failed: its own error as the cause. What is wrong with a checkpoint is so for all. */
  #errorOf({ code, message }: Failure, failed: number, cause: unknown): ZeroshardError {
    const { rank, worldSize } = this.ranks
    const where = worldSize === 1 || code === 'CHECKPOINT' ? '' : `rank ${failed}: `
    return new ZeroshardError(code, where + message, failed === rank ? { cause } : undefined)
  }

  /** Rank 0 does it; all get what it says, or throw what it threw. */
  async byFirst<T>(step: string, work: () => Promise<T>): Promise<T> {
    const [value] = await this.all(step, async () => (this.first ? await work() : undefined))
    return value as T
  }
}

type Failure = NonNullable<Told<never>['failure']>

function failureOf(error: unknown): Failure {
  if (error instanceof ZeroshardError) return { code: error.code, message: error.message }
  const { code, message = String(error) } = error as NodeJS.ErrnoException
  return { code: code === undefined ? 'INTERNAL' : 'IO', message }
}

async function withPatience(over: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([
    over,
    new Promise((done) => {
      timer = setTimeout(done, PATIENCE)
    }),
  ])
  clearTimeout(timer)
}
