// `zeroshard train` with tensor and sequence parallelism: memory, bf16, checkpoints of one layout resumed on another.

import t from 'tap'
import { losses, type Row, Workspace, whole } from '../helpers/program.js'
import { gpt2, lawful, llama } from '../helpers/tensor.js'

const sequence = { sequence_parallel: true }

t.test(
  "memory falls with the ranks: states, and a block's activations where the sequence is cut, by half",
  async (t) => {
    const space = new Workspace(t)
    const run = async (
      n_layer: number,
      tensor: number,
      tensor_parallel = {},
    ): Promise<[states: number, peak: number]> => {
      const model = { config: gpt2({ n_layer, n_embd: 64, n_positions: 32 }) }
      const config = space.config({ model, train: { steps: 2, seed: 1 }, mesh: { tensor }, tensor_parallel })
      const { memory, memoryPeak } = whole(t, await space.train(config, { ranks: tensor })).steps[1] as Row
      return [memory.optimizer as number, memoryPeak.activations as number]
    }
    const [one, oneDeep] = [await run(1, 1), await run(4, 1)]
    const [two, twoDeep] = [await run(1, 2, sequence), await run(4, 2, sequence)]
    const [states, perBlock] = [twoDeep[0] / oneDeep[0], (twoDeep[1] - two[1]) / (oneDeep[1] - one[1])]
    t.ok(states > 0.5 && states < 0.53, `optimizer states: ${states}`)
    t.ok(perBlock > 0.49 && perBlock < 0.51, `activations of a block: ${perBlock}`)
    const replicated = (await run(4, 2))[1]
    t.ok(replicated > twoDeep[1] && replicated < oneDeep[1], `${replicated} where the sequence is whole`)
  },
)

t.test('bf16 on two tensor ranks learns as on one', async (t) => {
  const space = new Workspace(t)
  const config = { model: { config: gpt2() }, bf16: { enabled: true }, train: { steps: 12, seed: 3 } }
  const one = whole(t, await space.train(space.config(config)))
  for (const tensor_parallel of [{}, sequence]) {
    const two = whole(
      t,
      await space.train(space.config({ ...config, mesh: { tensor: 2 }, tensor_parallel }), { ranks: 2 }),
    )
    t.ok((losses(two).at(-1) as number) < (losses(two)[0] as number) - 0.3, 'it learns')
    const gap = Math.max(...losses(two).map((loss, index) => Math.abs(loss - (losses(one)[index] as number))))
    t.ok(gap < 0.05, `at most ${gap} from one rank`)
  }
})

t.test('one stream or several have one bit pattern; products in pieces that of whole ones', async (t) => {
  const space = new Workspace(t)
  for (const more of [{}, sequence]) {
    const run = async (tensor_parallel: object, args: string[] = []): Promise<number[]> => {
      const shared = { model: { config: gpt2() }, train: { steps: 4, seed: 3 }, mesh: { tensor: 2 }, tensor_parallel }
      return losses(whole(t, await space.train(space.config(shared), { ranks: 2, args })))
    }
    const pieces = { ...more, tp_overlap_comm: true, overlap_chunks: 3 }
    const expected = await run(pieces)
    t.strictSame(await run(pieces, ['--serial']), expected)
    const gaps = (await run(more)).map((loss, index) => Math.abs(loss / (expected[index] as number) - 1))
    t.ok(Math.max(...gaps) < 1e-6, `${gaps}`)
  }
})

t.test('LAMB and Muon see whole parameters, wherever those are cut', async (t) => {
  const space = new Workspace(t)
  for (const type of ['Lamb', 'Muon']) {
    const shared = {
      model: { config: llama() },
      optimizer: { type, params: { lr: 0.01 } },
      train: { steps: 5, seed: 3 },
    }
    const one = whole(t, await space.train(space.config(shared)))
    for (const more of [
      { mesh: { tensor: 4 } },
      { mesh: { tensor: 2 }, zero_optimization: { stage: 2 }, tensor_parallel: sequence },
    ]) {
      const run = await space.train(space.config({ ...shared, ...more }), { ranks: 4 })
      lawful(t, whole(t, run), one, `${type} ${JSON.stringify(more)}`)
    }
  }
})

t.test('a checkpoint of one layout goes on on another', async (t) => {
  const space = new Workspace(t)
  const shared = (more: object): Record<string, unknown> =>
    space.config({ model: { config: llama() }, train: { steps: 8, seed: 3 }, ...more })
  const one = whole(t, await space.train(shared({})))
  const cut = { mesh: { tensor: 4 } }
  const both = { mesh: { tensor: 2 }, zero_optimization: { stage: 1 }, tensor_parallel: sequence }
  const replicated = { zero_optimization: { stage: 2 } }
  for (const [from, fromRanks, to, toRanks] of [
    [cut, 4, {}, 1],
    [cut, 4, both, 4],
    [both, 4, replicated, 2],
    [replicated, 2, cut, 4],
  ] as const) {
    const output = space.path(`from-${JSON.stringify(from).length}-${JSON.stringify(to).length}`)
    whole(t, await space.train(shared(from), { ranks: fromRanks, output, args: ['--steps', '4'] }))
    const rest = whole(t, await space.train(shared(to), { ranks: toRanks, output, args: ['--resume', 'auto'] }))
    const expected = { ...one, steps: one.steps.slice(4) }
    lawful(t, rest, expected, `${JSON.stringify(from)} to ${JSON.stringify(to)}`)
  }
})
