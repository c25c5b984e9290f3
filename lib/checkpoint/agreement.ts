// Ranks agree over the rendezvous, not over the process group: a save in the background must not stand between the
// collectives of the training. What fails on one rank fails on all, with the same words.

import { type ErrorCode, ZeroshardError } from '../binding/errors.js'
import type { Exchange } from '../parallel/group.js'

/** What agreement needs of the rendezvous. */
export type Ranks = Pick<Exchange, 'rank' | 'worldSize' | 'exchange'>

/** This process by itself. */
export const alone: Ranks = { rank: 0, worldSize: 1, exchange: async (_, value) => [value] }

interface Told<T> {
  value?: T
  failure?: { code: ErrorCode; message: string }
}

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
    const { rank, worldSize } = this.ranks
    let own: unknown
    const told: Told<T> = await work().then(
      (value) => ({ value }),
      (error: unknown) => {
        own = error
        return { failure: failureOf(error) }
      },
    )
    if (worldSize === 1) {
      if (told.failure) throw own instanceof ZeroshardError ? own : errorOf(told.failure, own)
      return [told.value as T]
    }
    const all = (await this.ranks.exchange(`${this.#name} ${step}`, JSON.stringify(told))).map(
      (text) => JSON.parse(text) as Told<T>,
    )
    const failed = all.findIndex(({ failure }) => failure)
    const failure = all[failed]?.failure
    if (failure) {
      // what is wrong with a checkpoint is so for all
      const where = failure.code === 'CHECKPOINT' ? '' : `rank ${failed}: `
      throw errorOf({ ...failure, message: where + failure.message }, failed === rank ? own : undefined)
    }
    return all.map(({ value }) => value as T)
  }

  /** Rank 0 does it; all get what it says, or throw what it threw. */
  async byFirst<T>(step: string, work: () => Promise<T>): Promise<T> {
    const [value] = await this.all(step, async () => (this.first ? await work() : undefined))
    return value as T
  }
}

function failureOf(error: unknown): { code: ErrorCode; message: string } {
  if (error instanceof ZeroshardError) return { code: error.code, message: error.message }
  const { code, message = String(error) } = error as NodeJS.ErrnoException
  return { code: code === undefined ? 'INTERNAL' : 'IO', message }
}

const errorOf = ({ code, message }: { code: ErrorCode; message: string }, cause: unknown): ZeroshardError =>
  new ZeroshardError(code, message, { cause })
