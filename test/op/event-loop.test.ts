// While a step runs the event loop is free: timers, signals and progress go on. Measured in processor time of the main
// thread between two turns of the event loop, against that of all threads: on a slow or busy machine both grow alike.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import { initialize, type Tensor, tensor } from '../../lib/index.js'
import { createModel } from '../../lib/nn/models/index.js'
import { alive } from '../helpers/compare.js'

/** Seconds that the main thread has been on a processor. */
const mainThread = (): number =>
  Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ')[0]) / 1e9
const allThreads = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

interface Watched {
  /** Turns of a timer of 1 ms. */
  turns: number
  /** Processor seconds of the longest stretch without a turn. */
  longest: number
  /** Processor seconds of all threads. */
  total: number
}

async function watch(work: () => Promise<unknown>): Promise<Watched> {
  const watched: Watched = { turns: 0, longest: 0, total: allThreads() }
  let last = mainThread()
  const turn = (): void => {
    const now = mainThread()
    watched.turns++
    watched.longest = Math.max(watched.longest, now - last)
    last = mainThread() // the reading itself is not the engine's
  }
  const timer = setInterval(turn, 1)
  await work()
  turn()
  clearInterval(timer)
  watched.total = allThreads() - watched.total
  return watched
}

/** The depth of GPT-2 124M, so as many operations as it has; narrower, as JavaScript does not see the width. */
const config = {
  ...{ model_type: 'gpt2', n_layer: 12, n_head: 4, n_embd: 128, n_positions: 64, vocab_size: 2048 },
  ...{ resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0 },
}

for (const [micro, accumulation] of [
  [16, 1],
  [2, 40],
] as const) {
  t.test(`a step of ${accumulation} micro-batches of ${micro} leaves the event loop free`, async (t) => {
    const before = alive()
    const engine = await initialize({
      model: createModel(config),
      config: {
        train_micro_batch_size_per_gpu: micro,
        gradient_accumulation_steps: accumulation,
        gradient_clipping: 1,
        optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
      },
    })
    const inputs = (): [Tensor, Tensor] => {
      const ids = Int32Array.from({ length: micro * 64 }, (_, i) => (i * i) % 2048)
      return [tensor(ids, [micro, 64]), tensor(ids, [micro, 64])]
    }
    await engine.trainBatch(inputs)
    const { turns, longest, total } = await watch(() => engine.trainBatch(inputs))
    const told = `${turns} turns, longest stretch ${(longest * 1e3).toFixed(1)} ms of ${(total * 1e3).toFixed(0)} ms`
    t.comment(told)
    t.ok(longest < 0.1 * total, told)
    t.ok(turns >= 5 * accumulation ** 0.5, told)
    t.ok(longest < 0.05, `a timer of 100 ms is late by less than 50 ms: ${told}`)
    await engine.close()
    t.equal(alive(), before, 'nothing is left')
  })
}

t.test('an evaluation too, and its batches are not queued far ahead', async (t) => {
  const engine = await initialize({ model: createModel(config), config: { train_batch_size: 4 } })
  const opsDone = (): number => binding().native.streamStats().ops[0] as number
  const first = opsDone()
  const done: number[] = []
  function* batches(): Generator<[Tensor, Tensor]> {
    for (let i = 0; i < 40; i++) {
      done.push(opsDone() - first)
      const ids = Int32Array.from({ length: 256 }, (_, at) => (at * at + i) % 2048)
      yield [tensor(ids, [4, 64]), tensor(ids, [4, 64])]
    }
  }
  const { turns, longest, total } = await watch(() => engine.evalBatch(batches()))
  t.ok(turns > 5 && longest < 0.1 * total, `${turns} turns, longest ${longest} of ${total} s`)
  const each = (opsDone() - first) / 40
  const ahead = done.map((ops, index) => index - ops / each)
  t.ok(Math.max(...ahead) < 5, `at most ${Math.max(...ahead)} batches ahead`)
  await engine.close()
})
