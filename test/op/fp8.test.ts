// Linears in 8 bits against float64: each operand as the nearest codes are worth, sums within what f32 and bf16 round.

import t, { type Test } from 'tap'
import { backwardFrom, checkpoint } from '../../lib/autograd/functions.js'
import { noGrad } from '../../lib/autograd/tape.js'
import { binding } from '../../lib/binding/native.js'
import { Conv1D, Linear, Sequential } from '../../lib/nn/layers.js'
import { normal } from '../../lib/nn/parameter.js'
import * as ops from '../../lib/ops/index.js'
import { applyFp8, checkDevices, type Fp8, type Fp8Options } from '../../lib/parallel/fp8/layers.js'
import { ProcessGroup } from '../../lib/parallel/group.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive, values } from '../helpers/compare.js'
import { device } from '../helpers/device.js'
import { type Format, inEightBits, multiplied, rounded8, transposed } from '../reference/float8.js'

binding().native.configure({ threads: 2, serial: false })

const options: Fp8Options = {
  ...{ format: 'hybrid', recipe: 'delayed', amax_history_len: 4, amax_compute_algo: 'max', margin: 0, exclude: [] },
}
const wave = (count: number, salt: number, scale = 1): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => scale * Math.sin(i * 1.7 + salt) * (1 + (i % 7)))

function bf16(data: Float32Array, shape: number[]): Tensor {
  const wide = tensor(data, shape)
  try {
    return ops.cast(wide, 'bf16')
  } finally {
    wide.dispose()
  }
}

/** A model in bf16 of one linear, in 8 bits. */
function eightBits<L extends Linear | Conv1D>(layer: L, more: Partial<Fp8Options> = {}): { layer: L; fp8: Fp8 } {
  const model = new Sequential(layer)
  model.visit(() => {})
  const { fp8 } = applyFp8(model, { ...options, ...more }, ProcessGroup.single())
  model.materialize({ seed: 5, dtype: 'bf16' })
  return { layer, fp8 }
}

const list = async (x: Tensor): Promise<number[]> => [...(await values(x))]

/** Of the sum of magnitudes: tensor cores keep some 13 bits of 8-bit products while they sum. */
const exact = device === 'cuda' ? 5e-4 : 1e-5

function within(
  t: Test,
  got: readonly number[],
  want: { sums: number[]; magnitudes: number[] },
  last: number,
  what: string,
): void {
  t.equal(got.length, want.sums.length, what)
  const off = got.findIndex((value, i) => {
    const [sum, magnitude] = [want.sums[i] as number, want.magnitudes[i] as number]
    return !(Math.abs(value - sum) <= magnitude * exact + Math.abs(sum) * last + 1e-30)
  })
  if (off >= 0) t.fail(`${what}: element ${off} is ${got[off]}, not ${want.sums[off]}`)
}

t.test('misuse is named with its cure', async (t) => {
  const model = (): Sequential => new Sequential(new Linear(16, 32), new Linear(32, 16))
  const apply = (more: Partial<Fp8Options>, of = model()) =>
    applyFp8(of, { ...options, ...more }, ProcessGroup.single())
  t.throws(() => apply({ exclude: ['layer.0'] }), {
    code: 'CONFIG',
    message: /'layer\.0' matches no linear layer; did you mean 'layers\.0'/,
  })
  t.throws(() => apply({ exclude: ['**'] }), {
    code: 'CONFIG',
    message: /no linear layer is left.*set fp8\.enabled to false/,
  })
  t.throws(() => apply({}, new Sequential(new Linear(16, 20))), {
    code: 'CONFIG',
    message: /layers\.0 \[20, 16\] does not divide by 16/,
  })
  const device = (index: number, name: string, capability: number) => ({
    ...{ index, name, capability, uuid: '' },
    ...{ totalBytes: 0, multiprocessors: 1, driver: 13, runtime: 13 },
  })
  checkDevices([device(0, 'H100', 9), device(1, 'L40', 8.9)])
  t.throws(() => checkDevices([device(0, 'H100', 9), device(1, 'A100', 8)]), {
    code: 'DEVICE',
    message: /device 1 \(A100\) has 8\.0; set fp8\.enabled to false/,
  })
  const mixed = apply({}, new Sequential(new Linear(16, 20), new Linear(32, 16)))
  t.match(mixed.notes, [/layers\.0 \[20, 16\] stay in bf16/])
  t.equal(mixed.fp8.scales.slots.length, 3)
  mixed.fp8.dispose()
  const { layer, fp8 } = eightBits(new Linear(16, 32))
  tidy(() =>
    t.throws(
      () =>
        ops.linear(tensor(wave(32, 1), [2, 16]), ops.cast(layer.weight.tensor, 'f32'), undefined, {
          quantizer: layer.quantizer,
        }),
      { code: 'UNSUPPORTED', message: /needs bf16 or f16.*fp8\.exclude/ },
    ),
  )
  layer.dispose()
  fp8.dispose()
})

t.test('casts to and from 8 bits round to the nearest code', async (t) => {
  for (const format of ['f8e4m3', 'f8e5m2'] as Format[]) {
    const given = [...wave(500, 2, 40), ...wave(500, 3, 1e-3), 1e9, -1e9, 0, 2 ** -10, -(2 ** -17)].map(Math.fround)
    const got = tidy(() => ops.cast(ops.cast(tensor(given), format), 'f32').dataSync())
    t.strictSame(
      [...(got as Float32Array)].map((x) => x + 0),
      given.map((x) => rounded8(x, format) + 0),
      format,
    )
  }
})

for (const recipe of ['current', 'delayed'] as const)
  for (const kind of ['Linear', 'Conv1D'] as const)
    for (const format of ['hybrid', 'e4m3'] as const)
      t.test(`${kind}, ${format}, ${recipe}: forward and gradients of the codes`, async (t) => {
        const before = alive()
        const [m, k, n] = [21, 48, 32]
        const made = kind === 'Linear' ? new Linear(k, n) : new Conv1D(k, n, normal(0.2))
        const { layer, fp8 } = eightBits(made as Linear, { recipe, format })
        const x = bf16(wave(m * k, 1), [3, 7, k])
        x.requiresGrad = true
        const slopes = bf16(wave(m * n, 4, 1e-4), [3, 7, n])
        const y = layer.forward(x)
        tidy(() => backwardFrom(ops.cast(ops.sum(ops.mul(y, slopes)), 'f32')))
        const backward = format === 'hybrid' ? 'f8e5m2' : 'f8e4m3'
        const [x8, w8, g8] = [
          inEightBits(await list(x), 'f8e4m3'),
          inEightBits(await list(layer.weight.tensor), 'f8e4m3'),
          inEightBits(await list(slopes), backward),
        ]
        // As (in, out).
        const w = kind === 'Linear' ? transposed(w8, n, k) : w8
        const forward = multiplied(x8, w, [m, n, k])
        const bias = await list((layer.bias as NonNullable<Linear['bias']>).tensor)
        forward.sums = forward.sums.map((sum, i) => sum + (bias[i % n] as number))
        within(t, await list(y), forward, 2 ** -8, 'y')
        const dx = multiplied(g8, transposed(w, k, n), [m, k, n])
        within(t, await list(x.grad as Tensor), dx, 2 ** -8, 'dx')
        const dw =
          kind === 'Linear'
            ? multiplied(transposed(g8, m, n), x8, [n, k, m])
            : multiplied(transposed(x8, m, k), g8, [k, n, m])
        within(t, await list(layer.weight.tensor.grad as Tensor), dw, 2 ** -23, 'dw')
        const db = multiplied(new Array(m).fill(1), await list(slopes), [1, n, m])
        within(
          t,
          await list((layer.bias as NonNullable<Linear['bias']>).tensor.grad as Tensor),
          db,
          2 ** -8,
          'db is that of bf16',
        )
        for (const each of [x.grad as Tensor, x, slopes, y]) each.dispose()
        layer.dispose()
        fp8.dispose()
        t.equal(alive(), before, 'nothing is left')
      })

t.test('delayed scales follow from what recorded passes saw; others leave no trace', async (t) => {
  const { layer, fp8 } = eightBits(new Linear(16, 16, { bias: false }), { margin: 1 })
  const step = (scale: number): void =>
    tidy(() => {
      const x = bf16(wave(64, 1, scale), [4, 16])
      x.requiresGrad = true
      backwardFrom(ops.cast(ops.sum(layer.forward(x)), 'f32'))
      x.grad?.dispose()
    })
  const largest = (scale: number): number => Math.max(...[...wave(64, 1, scale)].map(Math.abs))
  const input = async (): Promise<number> => ((await fp8.scales.scale.data()) as Float32Array)[0] as number
  const near = (got: number, want: number, what: string): void => {
    t.ok(Math.abs(got / want - 1) < 2 ** -8, `${what}: ${got}, ${want}`)
  }
  step(3)
  step(1)
  tidy(() => noGrad(() => layer.forward(bf16(wave(64, 1, 1000), [4, 16]))))
  fp8.update()
  fp8.scales.known = true
  near(await input(), 448 / largest(3) / 2, 'the larger of two micro-batches')
  for (let i = 0; i < 3; i++) {
    step(1)
    fp8.update()
  }
  near(await input(), 448 / largest(3) / 2, 'still in the history of four')
  step(1)
  fp8.update()
  near(await input(), 448 / largest(1) / 2, 'and out of it')
  step(Number.POSITIVE_INFINITY)
  fp8.update()
  near(await input(), 448 / largest(1) / 2, 'a step that overflowed counts for nothing')
  layer.dispose()
  fp8.dispose()
})

t.test('a weight is brought into 8 bits once for each version of it', async (t) => {
  const { layer, fp8 } = eightBits(new Linear(16, 16, { bias: false }))
  const x = bf16(wave(64, 1), [4, 16])
  const run = (): string => tidy(() => String(noGrad(() => ops.cast(layer.forward(x), 'f32')).dataSync()))
  const first = run()
  layer.weight.tensor.write(new Uint16Array(256))
  t.equal(run(), first, 'the codes are those of before')
  layer.weight.version++
  t.not(run(), first, 'a new version')
  x.dispose()
  layer.dispose()
  fp8.dispose()
})

t.test('recomputation gives the same gradients, and an infinite gradient stays infinite', async (t) => {
  const gradients: string[] = []
  for (const again of [false, true]) {
    const { layer, fp8 } = eightBits(new Linear(32, 32, { activation: 'gelu' }))
    const x = bf16(wave(128, 2), [4, 32])
    x.requiresGrad = true
    const block = (x: Tensor): Tensor => layer.forward(x)
    tidy(() => backwardFrom(ops.cast(ops.sum(again ? checkpoint(block, x) : block(x)), 'f32')))
    gradients.push(String(await list(layer.weight.tensor.grad as Tensor)) + String(await list(x.grad as Tensor)))
    tidy(() => backwardFrom(ops.cast(ops.scale(ops.sum(block(x)), Number.POSITIVE_INFINITY), 'f32')))
    t.notOk(
      (await list(layer.weight.tensor.grad as Tensor)).some(Number.isFinite),
      'no clipped gradient passes for a good one',
    )
    x.grad?.dispose()
    x.dispose()
    layer.dispose()
    fp8.dispose()
  }
  t.equal(gradients[1], gradients[0])
})
