// Every optimizer against float64: steps, clipping, decay, 16-bit copies, odd sizes, any cut.

import t, { type Test } from 'tap'
import { binding } from '../../lib/binding/native.js'
import * as ops from '../../lib/ops/index.js'
import { makeOptimizer, type UpdateCall } from '../../lib/optim/optimizer.js'
import { countOf, type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive, difference, values } from '../helpers/compare.js'
import { type Named, normOf, Part, type PartOptions } from '../helpers/optimizer.js'
import { random } from '../reference/ops.js'
import { clip, type Options, type Parameter64, type Update, updates } from '../reference/optim.js'

binding().native.configure({ threads: 2, serial: false })

interface Kind {
  name: string
  type: string
  params: Record<string, unknown>
  update: Update
  /** What differs from `defaults`. */
  options?: Partial<Options>
}

const defaults: Options = {
  lr: 0.02,
  beta1: 0.9,
  beta2: 0.98,
  eps: 1e-8,
  weightDecay: 0.1,
  momentum: 0.9,
  dampening: 0,
  nesterov: false,
  minCoeff: 0.01,
  maxCoeff: 10,
}
const betas = [0.9, 0.98]
const { adamW, adam, sgd, adagrad, lion, lamb, muon } = updates as Record<string, Update>
const kinds: Kind[] = [
  { name: 'AdamW', type: 'AdamW', params: { betas }, update: adamW as Update },
  { name: 'Adam is AdamW', type: 'Adam', params: { betas }, update: adamW as Update },
  { name: 'Adam with L2', type: 'Adam', params: { betas, adam_w_mode: false }, update: adam as Update },
  { name: 'Lion', type: 'Lion', params: { betas }, update: lion as Update },
  { name: 'Adagrad', type: 'Adagrad', params: { eps: 1e-8 }, update: adagrad as Update },
  { name: 'SGD', type: 'SGD', params: {}, update: sgd as Update, options: { momentum: 0 } },
  {
    name: 'SGD with momentum',
    type: 'SGD',
    params: { momentum: 0.9, dampening: 0.4 },
    update: sgd as Update,
    options: { dampening: 0.4 },
  },
  {
    name: 'SGD of Nesterov',
    type: 'SGD',
    params: { momentum: 0.9, nesterov: true },
    update: sgd as Update,
    options: { nesterov: true },
  },
  { name: 'Lamb', type: 'Lamb', params: { betas }, update: lamb as Update },
  {
    name: 'Lamb at its bounds',
    type: 'Lamb',
    params: { betas, min_coeff: 0.3, max_coeff: 0.4 },
    update: lamb as Update,
    options: { minCoeff: 0.3, maxCoeff: 0.4 },
  },
  {
    name: 'Muon',
    type: 'Muon',
    params: { momentum: 0.9, lr: 0.02 },
    update: muon as Update,
    options: { nesterov: true },
  },
]

/** Matrices, stacks of them, a vector, single elements, at odd sizes. */
const parameters: Named[] = [
  { name: 'h.0.up', shape: [7, 13] },
  { name: 'h.0.bias', shape: [1] },
  { name: 'h.0.down', shape: [13, 5] },
  { name: 'experts', shape: [2, 4, 6] },
  { name: 'norm', shape: [37] },
  { name: 'embed', shape: [9, 4] },
  { name: 'h.1.up', shape: [1, 1] },
]
const call: UpdateCall = { lr: 0.02, update: 1, maxNorm: 0, gradScale: 1, zeroGrad: true }

/** What Muon leaves to AdamW. */
const isRest = (type: string, { name, shape }: Named): boolean =>
  type === 'Muon' && (shape.length < 2 || name === 'embed')

const clone = (shape: readonly number[], values: number[]): Parameter64 => ({
  shape,
  values,
  first: values.map(() => 0),
  second: values.map(() => 0),
})

const sizes: Record<string, Named[]> = {
  several: parameters,
  'one element': [{ name: 'w', shape: [1] }],
  'a large vector': [{ name: 'w', shape: [10_007] }],
}

async function against(t: Test, kind: Kind, named: Named[], options: PartOptions, clipping: boolean): Promise<void> {
  const before = alive()
  const next = random(11)
  const optimizer = makeOptimizer(kind)
  const count = named.reduce((sum, { shape }) => sum + countOf(shape), 0)
  const start = Float32Array.from({ length: count }, () => 2 * next() - 1)
  const part = new Part(optimizer, named, (i) => start[i] as number, { padding: 5, ...options })
  let at = 0
  const expected = named.map(({ shape }) => {
    const size = countOf(shape)
    return clone(shape, Array.from(start.slice(at, (at += size))))
  })
  const [gradScale, maxNorm] = clipping ? [1 / 8, 0.3] : [1, 0]
  for (let step = 1; step <= 4; step++) {
    part.setGradient(() => 2 * next() - 1)
    const given = await values(part.grad)
    const norm = normOf(part)
    optimizer.update(part, { ...call, update: step, gradScale, maxNorm, norm }, defaults.weightDecay)
    norm.dispose()
    at = 0
    const gradients = expected.map(({ values: { length } }) => Array.from(given.slice(at, (at += length))))
    const clipped = clip(gradients, gradScale, maxNorm)
    expected.forEach((p, index) => {
      const rest = isRest(kind.type, named[index] as Named)
      const o = { ...defaults, ...kind.options, ...(rest && { beta2: 0.95, eps: 1e-10 }) }
      ;(rest ? (adamW as Update) : kind.update)(p, clipped[index] as number[], o, step)
    })
  }
  const actual = await values(part.param)
  const gap = difference(
    actual.subarray(0, count),
    expected.flatMap(({ values }) => values),
  )
  t.ok(gap < 4e-6, `values: ${gap}`)
  t.ok(
    (await values(part.grad)).every((g) => g === 0),
    'the gradient is zero',
  )
  t.ok(
    actual.subarray(count).every((x) => x === 0),
    'padding stays zero',
  )
  if (part.out) {
    const rounded = ops.cast(part.param, part.out.dtype)
    t.strictSame(await part.out.data(), await rounded.data(), 'the copy is the rounded value')
    rounded.dispose()
  }
  part.dispose()
  t.equal(alive(), before, 'nothing is left')
}

for (const kind of kinds) {
  t.test(`${kind.name} is what float64 says`, async (t) => {
    for (const [size, named] of Object.entries(sizes)) {
      for (const clipping of [false, true]) {
        for (const dtype of [undefined, 'bf16', 'f16'] as const) {
          const title = `${size}${clipping ? ', clipped' : ''}, ${dtype ?? 'no copy'}`
          await t.test(title, (t) => against(t, kind, named, dtype ? { out: dtype } : {}, clipping))
        }
      }
    }
    for (const dtype of ['bf16', 'f16'] as const)
      await t.test(`${dtype} gradients`, (t) => against(t, kind, parameters, { gradient: dtype }, true))
  })

  t.test(`${kind.name}: an update with a norm that is not finite does nothing`, async (t) => {
    const before = alive()
    const optimizer = makeOptimizer(kind)
    const part = new Part(optimizer, parameters, (i) => Math.sin(i), { out: 'bf16' })
    const step = (update: number, norm: Tensor | undefined, bad?: number): void => {
      part.setGradient((i) => (i === 3 && bad !== undefined ? bad : Math.cos(i * update)))
      optimizer.update(part, { ...call, update, maxNorm: 1, ...(norm && { norm }) }, 0.1)
      norm?.dispose()
    }
    step(1, undefined)
    const bits = await part.bits()
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      step(2, tensor(Float32Array.of(bad)), bad)
      t.strictSame(await part.bits(), bits, `${bad}: nothing changed`)
      const left = await values(part.grad)
      t.ok(
        left.every((g, i) => (i === 3 ? Object.is(g, bad) : g !== 0)),
        'the gradient is still there',
      )
    }
    step(2, tensor(Float32Array.of(1)))
    t.notSame((await part.bits()).param, bits.param, 'a finite one goes on')
    part.dispose()
    t.equal(alive(), before, 'nothing is left')
  })

  t.test(`${kind.name} keeps the gradient where it is told to, and takes an empty part`, async (t) => {
    const before = alive()
    const optimizer = makeOptimizer(kind)
    const part = new Part(optimizer, parameters, (i) => Math.sin(i), { padding: 3 })
    part.setGradient((i) => Math.cos(i))
    const given = await values(part.grad)
    optimizer.update(part, { ...call, zeroGrad: false }, 0)
    t.strictSame(await values(part.grad), given)
    part.dispose()
    const empty = new Part(optimizer, [], () => 0, { out: 'f16' })
    optimizer.update(empty, call, 0.1)
    const padding = new Part(optimizer, [], () => 0, { padding: 16 })
    optimizer.update(padding, call, 0.1)
    t.ok((await values(padding.param)).every((x) => x === 0))
    empty.dispose()
    padding.dispose()
    t.equal(alive(), before, 'nothing is left')
  })
}

t.test('elementwise optimizers give the same bits for any cut', async (t) => {
  const size = 9_001
  for (const kind of kinds) {
    const optimizer = makeOptimizer(kind)
    if (optimizer.needsWholeParameters) continue
    const run = async (counts: number[]): Promise<Float32Array> => {
      const results: number[] = []
      let from = 0
      for (const count of counts) {
        const first = from
        const part = new Part(optimizer, [{ name: 'w', shape: [count] }], (i) => Math.sin(first + i))
        for (let update = 1; update <= 3; update++) {
          part.setGradient((i) => Math.cos((first + i) * update))
          optimizer.update(part, { ...call, update }, 0.1)
        }
        results.push(...(await values(part.param)))
        part.dispose()
        from += count
      }
      return Float32Array.from(results)
    }
    t.strictSame(await run([1, 4_999, 17, size - 5_017]), await run([size]), kind.name)
  }
})

t.test('the 16-bit copy and 16-bit gradients are rounded like casts, every kind of value', async (t) => {
  const next = random(5)
  const bits = Uint32Array.from({ length: 4_101 }, (_, i) => {
    const exponent = i % 3 === 0 ? 0 : i % 3 === 1 ? 0x7f800000 : Math.floor(next() * 256) << 23
    return exponent | Math.floor(next() * 2 ** 23) | (i % 2 ? 0x80000000 : 0)
  })
  bits.set([0, 0x80000000, 0x7f800000, 0xff800000, 0x477fefff, 0x477ff000, 0x33000000, 0x33000001, 0x387fc000])
  const given = new Float32Array(bits.buffer)
  const optimizer = makeOptimizer({ type: 'SGD', params: {} })
  for (const dtype of ['bf16', 'f16'] as const) {
    const named = [{ name: 'w', shape: [given.length] }]
    const kept = new Part(optimizer, named, () => 0, { out: dtype })
    kept.param.write(given)
    optimizer.update(kept, { ...call, lr: 0 }, 0)
    const rounded = ops.cast(kept.param, dtype)
    t.strictSame(await kept.out?.data(), await rounded.data(), `${dtype} copy`)
    const moved = new Part(optimizer, named, () => 0, { gradient: dtype })
    moved.grad.write((await rounded.data()) as Uint16Array)
    const wide = ops.cast(rounded, 'f32')
    const expected = await values(wide)
    optimizer.update(moved, { ...call, lr: -1 }, 0)
    const same = (await values(moved.param)).every((x, i) => Object.is(x + 0, (expected[i] as number) + 0))
    t.ok(same, `${dtype} gradient`)
    for (const each of [rounded, wide]) each.dispose()
    kept.dispose()
    moved.dispose()
  }
})
