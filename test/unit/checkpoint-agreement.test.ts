// Agreement between ranks that take unequally long, or fail. The ranks are in one process, the rendezvous is a map.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ZeroshardError } from '../../lib/binding/errors.js'
import { Agreement, alone, type Ranks } from '../../lib/checkpoint/agreement.js'
import { Saver } from '../../lib/checkpoint/saver.js'
import type { ScalesCopy } from '../../lib/checkpoint/scales.js'
import { ProcessGroup } from '../../lib/parallel/group.js'
import type { Zero } from '../../lib/parallel/zero/zero.js'

/** Ranks that meet by key; `rounds` counts complete exchanges. */
function meeting(worldSize: number): { ranks: Ranks[]; rounds: () => number } {
  const waiting = new Map<string, { values: string[]; wake: ((values: string[]) => void)[] }>()
  let rounds = 0
  const exchange = (rank: number, name: string, value: string): Promise<string[]> => {
    const key = name.replace(/^(\w+) \d+ /, '$1 ') // numbered per process
    const place = waiting.get(key) ?? { values: [], wake: [] }
    waiting.set(key, place)
    place.values[rank] = value
    return new Promise((resolve) => {
      place.wake.push(resolve)
      if (place.wake.length < worldSize) return
      waiting.delete(key)
      rounds++
      for (const wake of place.wake) wake(place.values)
    })
  }
  const ranks = Array.from({ length: worldSize }, (_, rank) => ({
    rank,
    worldSize,
    exchange: (key: string, value: string) => exchange(rank, key, value),
  }))
  return { ranks, rounds: () => rounds }
}

t.test(
  'all get what all say, in order, however long one takes; a slow one keeps the others waiting in rounds',
  async (t) => {
    const { ranks, rounds } = meeting(3)
    const agreements = ranks.map((one) => new Agreement(one, 'test'))
    const work = async (rank: number): Promise<number> => {
      if (rank === 1) await sleep(2300)
      return rank * 10
    }
    const start = Date.now()
    const said = await Promise.all(agreements.map((one, rank) => one.all('step', () => work(rank))))
    t.strictSame(said, [
      [0, 10, 20],
      [0, 10, 20],
      [0, 10, 20],
    ])
    t.ok(rounds() >= 3, `${rounds()} rounds: nobody waits for longer than a second for a word`)
    t.ok(Date.now() - start < 10_000)
    t.strictSame(await Promise.all(agreements.map((one) => one.byFirst('first', async () => 'x'))), ['x', 'x', 'x'])
  },
)

t.test('a failure of one is a failure of all, with its code, once their own work is over', async (t) => {
  const { ranks } = meeting(3)
  const ended: number[] = []
  const outcomes = await Promise.allSettled(
    ranks.map((one) =>
      new Agreement(one, 'test').all('step', async () => {
        if (one.rank === 2) throw new ZeroshardError('IO', 'the disk is full')
        await sleep(1200 * one.rank)
        ended.push(one.rank)
      }),
    ),
  )
  for (const outcome of outcomes) {
    const { code, message } = (outcome as PromiseRejectedResult).reason as ZeroshardError
    t.strictSame([code, message], ['IO', 'rank 2: the disk is full'])
  }
  t.strictSame(ended, [0, 1])
})

t.test('alone: system errors become coded ones', async (t) => {
  const failing = (error: Error): Promise<unknown> =>
    new Agreement(alone, 'test').all('step', async () => {
      throw error
    })
  await t.rejects(failing(Object.assign(new Error('EACCES: denied'), { code: 'EACCES' })), { code: 'IO' })
  await t.rejects(failing(new TypeError('no')), { code: 'INTERNAL' })
  await t.rejects(failing(new ZeroshardError('CHECKPOINT', 'torn')), { code: 'CHECKPOINT', message: 'torn' })
  t.strictSame(await new Agreement(alone, 'test').all('step', async () => 7), [7])
})

t.test('a save for whose copies one rank has no memory fails on all ranks, and none keeps copies', async (t) => {
  for (const [failing, background] of [
    ['snapshot', true],
    ['scales', true],
    ['scales', false],
  ] as const) {
    const { ranks } = meeting(3)
    const folder = join(t.testdir(), failing)
    let [made, disposed] = [0, 0]
    const full = (): never => {
      throw new ZeroshardError('OUT_OF_MEMORY', 'no memory for it')
    }
    const outcomes = await Promise.allSettled(
      ranks.map((one) => {
        const fails = (what: string): boolean => one.rank === 1 && failing === what
        const scales = (): ScalesCopy | undefined => {
          if (fails('scales')) return full()
          made++
          return { dispose: () => disposed++ } as unknown as ScalesCopy
        }
        const zero = { options: { group: { rank: one.rank } }, units: [] } as unknown as Zero
        if (fails('snapshot')) Object.defineProperty(zero, 'units', { get: full })
        const head = { state: { step: 1 } } as Parameters<Saver['save']>[0]['head']
        const saver = new Saver(ProcessGroup.single(), one)
        return saver.save({ folder, zero, head, retain: 0, scales }, background)
      }),
    )
    for (const outcome of outcomes) {
      const { code, message } = (outcome as PromiseRejectedResult).reason as ZeroshardError
      t.strictSame([code, message], ['OUT_OF_MEMORY', 'rank 1: no memory for it'], `${failing} ${background}`)
    }
    t.equal(disposed, made)
    t.equal(made, failing === 'scales' ? 2 : 3)
    t.notOk(existsSync(folder), 'nothing was written')
  }
})
