// evalBatch() of ranks with different numbers of batches: the mean of all, or an error on all; never a wait without end.

import t from 'tap'
import { Workspace } from '../helpers/program.js'

interface Told {
  loss?: number
  expected?: number
  code?: string
  message?: string
  after: number
  tensors: number
}

const zero = (stage: number) => ({ zero_optimization: { stage, stage3_param_persistence_threshold: 0 } })

async function evaluate(space: Workspace, config: object, counts: number[]): Promise<Told[]> {
  const args = [JSON.stringify(config), JSON.stringify(counts)]
  const { status, stdout, stderr } = await space.launch('evaluation.mjs', args, counts.length, {
    ZEROSHARD_TIMEOUT: '20',
  })
  if (status !== 0) throw new Error(stderr)
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line.replace(/^\[rank \d\] /, '')) as Told)
}

for (const stage of [0, 2]) {
  t.test(`stage ${stage}: three batches and two have the mean of five, on both ranks`, async (t) => {
    const told = await evaluate(new Workspace(t), zero(stage), [3, 2])
    t.equal(told.length, 2)
    for (const { loss, expected, tensors } of told) {
      t.ok(Math.abs((loss as number) - (expected as number)) < 1e-5 * (expected as number), `${loss}, ${expected}`)
      t.equal(loss, told[0]?.loss, 'the same on both')
      t.equal(tensors, 0)
    }
  })
}

const together: Record<string, object> = {
  'stage 3': zero(3),
  tensor: { mesh: { tensor: 2 } },
  context: { mesh: { context: 2 } },
  pipeline: { mesh: { pipeline: 2 } },
}
for (const [layout, config] of Object.entries(together)) {
  t.test(`${layout}: other numbers throw on both ranks, before anything is computed`, async (t) => {
    const space = new Workspace(t)
    const told = await evaluate(space, config, [3, 2])
    t.equal(told.length, 2)
    for (const { code, message, after, tensors } of told) {
      t.equal(code, 'ARGUMENT', message ?? 'nothing was thrown')
      t.match(message, /\[evalBatch\] rank 0 has 3 batches and rank 1 has 2.*give them as many/)
      t.equal(after, told[0]?.after, 'it goes on')
      t.equal(tensors, 0)
    }
    const equal = await evaluate(space, config, [2, 2])
    t.ok((equal[0]?.loss as number) > 0)
    t.equal(equal[0]?.loss, equal[1]?.loss)
  })
}

t.test('tensor groups of their own replicas may have different numbers', async (t) => {
  const told = await evaluate(new Workspace(t), { mesh: { tensor: 2 } }, [3, 3, 1, 1])
  t.strictSame(
    told.map(({ loss }) => loss),
    Array(4).fill(told[0]?.loss),
  )
  t.ok((told[0]?.loss as number) > 0)
})
