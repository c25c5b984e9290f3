// One rank of test/ranks/gathered.test.ts: edits of gathered parameters at one ZeRO stage and precision. Prints a list of
// failed expectations and the tensors that are left (rank 0).
import { initialize, memory, nn, ops, tensor } from '../../../dist/index.js'
import { expect, failed } from './helpers.mjs'

const [stage, precision, folder] = process.argv.slice(2)
const narrow = precision !== 'fp32'

class Net extends nn.Module {
  table = new nn.Embedding(6, 4)
  frozen = new nn.Linear(4, 4)
  blocks = [new nn.Linear(4, 4), new nn.Linear(4, 4)]
  constructor() {
    super()
    for (const parameter of this.frozen.parameters()) parameter.trainable = false
  }
  forward(ids) {
    let h = this.frozen.forward(this.table.forward(ids))
    for (const block of this.blocks) h = ops.gelu(block.forward(h))
    return ops.mean(ops.cast(ops.square(h), 'f32'))
  }
}

const disk = { device: 'nvme', nvme_path: folder }
const model = new Net()
const engine = await initialize({
  model,
  config: {
    train_micro_batch_size_per_gpu: 1,
    ...(narrow && { bf16: { enabled: true } }),
    optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
    zero_optimization: {
      stage: Number(stage),
      stage3_param_persistence_threshold: 0,
      ...(folder && { offload_optimizer: disk, ...(stage === '3' && { offload_param: disk }) }),
    },
  },
})
const { rank, size } = engine.group
const writer = size - 1
const train = () => engine.trainBatch(() => [tensor(Int32Array.of(rank, 1, 2, 5), [1, 4])])
const numbersOf = (values) =>
  values instanceof Uint16Array ? new Float32Array(Uint32Array.from(values, (v) => v << 16).buffer) : values
const encode = (numbers) =>
  narrow ? Uint16Array.from(new Uint32Array(Float32Array.from(numbers).buffer), (v) => v >>> 16) : numbers
/** Masters, and the values that the model computes with, by name. */
async function everything() {
  const found = {}
  for (const name of engine.access.names()) found[`master of ${name}`] = [...(await engine.access.getFull(name))]
  const all = model.parameters()
  await engine.gathered(all, async () => {
    for (const { name, tensor } of all) found[`model's ${name}`] = [...numbersOf(await tensor.data())]
  })
  return found
}
const same = (a, b) => a.length === b.length && a.every((value, i) => Object.is(value, b[i]))
function unchanged(what, before, after, except = []) {
  for (const [name, values] of Object.entries(before))
    if (!except.some((part) => name.endsWith(part))) expect(`${what}: ${name} is as it was`, same(values, after[name]))
}
const throws = async (what, pattern, fn) => {
  try {
    await fn()
    failed.push(`${what}: nothing was thrown`)
  } catch (error) {
    expect(what, error.code === 'ARGUMENT' && pattern.test(error.message), `${error.code}: ${error.message}`)
  }
}
/** Sets some elements of a parameter. */
const edit = async ({ tensor }, elements) => {
  const numbers = Float32Array.from(numbersOf(await tensor.data()))
  for (const [at, value] of Object.entries(elements)) numbers[at] = value
  tensor.write(encode(numbers))
}

for (let i = 0; i < 3; i++) await train()
const { weight } = model.table
const { weight: other, bias } = model.blocks[0]
let before = await everything()
if (narrow) {
  const rounded = before['master of table.weight'].some((v, i) => v !== before["model's table.weight"][i])
  expect('masters have more bits than the model', rounded)
}

// A value is asked for without the rest of its unit.
memory.resetPeak()
const { live } = memory.stats()
await engine.access.getFull('blocks.0.bias')
const extra = memory.stats().peak.buffers - live.buffers
expect('the buffers of a whole bias', extra <= 2 * 16, `${extra} bytes`)

// Refused, and put back.
for (const modifierRank of [-1, size, 0.5])
  await throws(`modifierRank ${modifierRank}`, /data-parallel rank/, () =>
    engine.gathered([weight], () => {}, { modifierRank }),
  )
await throws('no writer', /table\.weight .*modifierRank/, () =>
  engine.gathered([weight], () => edit(weight, { 3: rank + 2 })),
)
await throws('one rank, no writer', /table\.weight/, () =>
  engine.gathered([weight], () => rank === writer && edit(weight, { 3: 2 })),
)
await throws('another parameter', /blocks\.0\.bias .*only blocks\.0\.weight/, () =>
  engine.gathered([other], () => edit(bias, { 0: 9 }), { modifierRank: writer }),
)
await throws('a callback that throws on one rank', rank === writer ? /mine/ : /another rank/, () =>
  engine.gathered(
    [weight],
    async () => {
      await edit(weight, { 3: 2 })
      if (rank === writer) throw Object.assign(new Error('mine'), { code: 'ARGUMENT' })
    },
    { modifierRank: writer },
  ),
)
unchanged('refused', before, await everything())

// One row of one parameter, by the writer; what others write is nothing.
await engine.gathered([weight], () => edit(weight, rank === writer ? { 4: 0.5, 7: -2 } : { 0: 9, 4: 1, 20: 3 }), {
  modifierRank: writer,
})
let after = await everything()
for (const kind of ["model's", 'master of']) {
  const expected = before[`${kind} table.weight`].map((value, at) => ({ 4: 0.5, 7: -2 })[at] ?? value)
  expect(
    `${kind}: the writer's elements alone`,
    same(expected, after[`${kind} table.weight`]),
    `${after[`${kind} table.weight`]}`,
  )
}
unchanged('one row', before, after, ['table.weight'])

// Trained and frozen ones together, and nothing at all.
before = after
await engine.gathered(
  [model.frozen.weight, bias],
  async () => {
    await edit(model.frozen.weight, { 15: 0.25 })
    await edit(bias, { 3: 4 })
  },
  { modifierRank: 0 },
)
await engine.gathered([weight], () => {}, { modifierRank: 0 })
after = await everything()
unchanged('two', before, after, ['frozen.weight', 'blocks.0.bias'])
for (const [name, at, value] of [
  ['frozen.weight', 15, 0.25],
  ['blocks.0.bias', 3, 4],
])
  for (const kind of ["model's", 'master of'])
    expect(
      `${kind} ${name}`,
      same(
        before[`${kind} ${name}`].map((old, i) => (i === at ? value : old)),
        after[`${kind} ${name}`],
      ),
    )

// A NaN that was there is no change.
const values = Float32Array.from(after['master of table.weight'])
values[2] = Number.NaN
engine.access.setFull('table.weight', values)
await engine.gathered([weight], () => {})
values[2] = 1
engine.access.setFull('table.weight', values)

const { loss } = await train()
expect('it trains on', Number.isFinite(loss))
await engine.close()
if (rank === 0) console.log(JSON.stringify({ failed, tensors: memory.stats().tensors }))
else if (failed.length) {
  console.error(failed.join('\n'))
  process.exitCode = 1
}
