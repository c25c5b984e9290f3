// Dropout, of activations and of attention weights: the reference's mask, forward and backward; any cut draws what the
// whole does.

import t, { type Test } from 'tap'
import { backwardFrom } from '../../lib/autograd/functions.js'
import { binding } from '../../lib/binding/native.js'
import * as ops from '../../lib/ops/index.js'
import { beginDraws, siteOf } from '../../lib/ops/random.js'
import { tidy } from '../../lib/tensor/scope.js'
import { type Tensor, tensor } from '../../lib/tensor/tensor.js'
import { alive, type Case, compare, difference, sameBits } from '../helpers/compare.js'
import * as ref from '../reference/ops.js'
import { dropoutFactor, philox } from '../reference/philox.js'

binding().native.configure({ threads: 2, serial: false })
const [seed, step, site] = [0x1234567, 9, 'h.3.attn']
/** Before each draw: a second one of its site is another. */
const place = (more: Partial<Parameters<typeof beginDraws>[0]> = {}): void =>
  beginDraws({ seed, step, firstSample: 0, forward: 0, ...more })
/** `fn` as the first draw of its site. */
const placed = <T>(fn: () => T): T => {
  place()
  return fn()
}

t.test('the reference is Philox 4x32-10: known answers of its authors', async (t) => {
  const hex = (words: bigint[]): string => words.map((word) => word.toString(16).padStart(8, '0')).join(' ')
  t.equal(hex(philox([0n, 0n, 0n, 0n], [0n, 0n])), '6627e8d5 e169c58d bc57ac4c 9b00dbd8')
  const ones = 0xffffffffn
  t.equal(hex(philox([ones, ones, ones, ones], [ones, ones])), '408f276d 41c83b0e a20bc7c6 6d5451fd')
})

interface Shape {
  b: number
  tq: number
  tk: number
  h: number
  kv: number
  d: number
}
/** What element `index` of this site is multiplied with; remembered, for the reference is slow. */
function factors(p: number): (index: number) => number {
  const known = new Map<number, number>()
  return (index) => {
    let factor = known.get(index)
    if (factor === undefined) {
      factor = dropoutFactor(p, seed, siteOf('dropout', step, site), BigInt(index))
      known.set(index, factor)
    }
    return factor
  }
}
function factorOf(p: number, h: number, tq: number, length: number) {
  const at = factors(p)
  return (item: number, head: number, query: number, key: number): number =>
    at(((item * h + head) * length + length - tq + query) * length + key)
}

function dropped({ b, tq, tk, h, kv, d }: Shape, causal: boolean, p: number): Case {
  const at = factorOf(p, h, tq, tk)
  return {
    ...(tk > 64 && { dtypes: ['f32'] }),
    name: `attention ${causal} p ${p}`,
    shapes: [
      [b, tq, h * d],
      [b, tk, kv * d],
      [b, tk, kv * d],
    ],
    reference: (q, k, v) => ref.attention(q, k, v, h, kv, causal, at),
    run: (q, k, v) =>
      placed(() => ops.attention(q, k, v, { numHeads: h, numKeyValueHeads: kv, causal, dropout: { p, site } })),
  }
}

const packedFactor = factorOf(0.4, 2, 6, 6)
const cases: Case[] = [
  ...[[1], [3, 5, 37], [2, 300]].map((shape): Case => {
    const at = factors(0.4)
    return {
      name: 'dropout',
      shapes: [shape],
      reference: (x) => ref.map(x, (value, i) => value * at(i)),
      run: (x) => placed(() => ops.dropout(x, 0.4, site)),
    }
  }),
  dropped({ b: 2, tq: 5, tk: 5, h: 4, kv: 2, d: 3 }, true, 0.3),
  dropped({ b: 2, tq: 5, tk: 5, h: 2, kv: 2, d: 4 }, false, 0.9),
  dropped({ b: 1, tq: 3, tk: 7, h: 2, kv: 1, d: 5 }, true, 0.5),
  dropped({ b: 1, tq: 66, tk: 66, h: 1, kv: 1, d: 1 }, true, 0.1),
  dropped({ b: 1, tq: 2, tk: 131, h: 2, kv: 1, d: 1 }, false, 0.25),
  {
    name: 'packedAttention with dropout',
    shapes: [[2, 6, 3 * 8]],
    reference: (x) => {
      const part = (i: number) =>
        ref.array([2, 6, 8], (index) => x.data[Math.floor(index / 8) * 24 + i * 8 + (index % 8)] as number)
      return ref.attention(part(0), part(1), part(2), 2, 2, true, packedFactor)
    },
    run: (x) => placed(() => ops.packedAttention(x, { numHeads: 2, dropout: { p: 0.4, site } })),
  },
]
for (const test of cases) {
  for (const dtype of test.dtypes ?? (['f32', 'bf16', 'f16'] as const)) {
    t.test(`${test.name} ${JSON.stringify(test.shapes)} ${dtype}`, (t) => compare(t, test, dtype))
  }
}

const wave = (shape: number[], phase: number): Tensor =>
  tensor(
    Float32Array.from({ length: shape.reduce((p, s) => p * s, 1) }, (_, i) => Math.sin(0.7 * i + phase)),
    shape,
  )

interface Run {
  o: Float32Array
  gradients: Float32Array[]
}

/** Attention of parts of q, k, v, and the gradients of these parts where the output's gradient is a fixed wave's part. */
function run(parts: (x: Tensor, which: number) => Tensor, options: ops.AttentionOptions, firstSample = 0): Run {
  return tidy(() => {
    place({ firstSample })
    const [q, k, v] = [0, 1, 2].map((which) => parts(wave([2, 72, which ? 2 * 4 : 4 * 4], which), which)) as [
      Tensor,
      Tensor,
      Tensor,
    ]
    for (const x of [q, k, v]) x.requiresGrad = true
    const o = ops.attention(q, k, v, options)
    backwardFrom(ops.sum(ops.mul(o, parts(wave([2, 72, 16], 5), 0))))
    const gradients = [q, k, v].map((x) => {
      const values = x.grad?.dataSync() as Float32Array
      x.grad?.dispose()
      return values
    })
    return { o: o.dataSync() as Float32Array, gradients }
  })
}

/** Rows of dim 0 or columns of dim 2 of a (B, T, C) array. */
const cut = (x: Float32Array, c: number, from: number, to: number): Float32Array =>
  x.filter((_, i) => i % c >= from && i % c < to)

t.test('any cut over samples, heads or sequence draws what the whole does', async (t) => {
  const before = alive()
  const options = { numHeads: 4, numKeyValueHeads: 2, dropout: { p: 0.3, site } }
  const whole = run((x) => x, options)

  const second = run((x) => ops.slice(x, 0, 1, 2), options, 1)
  t.ok(sameBits(second.o, whole.o.slice(72 * 16)), 'the second sample alone')
  t.ok(sameBits(second.gradients[0], whole.gradients[0]?.slice(72 * 16)), 'and its gradient')

  for (const [first, heads] of [
    [0, 2],
    [2, 2],
  ] as const) {
    const half = run((x, which) => ops.slice(x, 2, first * (which ? 2 : 4), (first + heads) * (which ? 2 : 4)), {
      numHeads: 2,
      numKeyValueHeads: 1,
      dropout: { p: 0.3, site, firstHead: first, totalHeads: 4 },
    })
    t.ok(sameBits(half.o, cut(whole.o, 16, first * 4, (first + heads) * 4)), `heads from ${first}`)
    whole.gradients.forEach((gradient, i) => {
      const scale = i ? 2 : 4
      const expected = cut(gradient, scale * 4, first * scale, (first + heads) * scale)
      t.ok(sameBits(half.gradients[i], expected), `gradient ${i} of heads from ${first}`)
    })
  }

  const late = run((x, which) => (which === 0 ? ops.slice(x, 1, 40, 72) : x), options)
  const tail = (x: Float32Array, sample: number): Float32Array =>
    x.slice((sample * 72 + 40) * 16, (sample + 1) * 72 * 16)
  t.ok(sameBits(late.o, Float32Array.from([0, 1].flatMap((s) => [...tail(whole.o, s)]))), 'queries from 40')

  const early = run((x) => ops.slice(x, 1, 0, 40), {
    ...options,
    dropout: { ...options.dropout, length: 72, firstQuery: 0, firstKey: 0 },
  })
  const head = [0, 1].flatMap((s) => [...whole.o.slice(s * 72 * 16, (s * 72 + 40) * 16)])
  t.ok(sameBits(early.o, Float32Array.from(head)), 'queries and keys to 40')
  t.equal(alive(), before, 'nothing is left')
})

t.test('a rank that begins at another sample drops what the whole does there', async (t) => {
  const before = alive()
  place()
  const all = tidy(() => ops.dropout(wave([4, 3, 50], 1), 0.4, site).dataSync()) as Float32Array
  place({ firstSample: 2 })
  const half = tidy(() => ops.dropout(ops.slice(wave([4, 3, 50], 1), 0, 2, 4), 0.4, site).dataSync()) as Float32Array
  place()
  t.ok(sameBits(half, all.slice(300)))
  const infinite = tidy(() => {
    const x = tensor(new Float32Array(64).fill(Infinity))
    return ops.dropout(x, 0.4, site).dataSync() as Float32Array
  })
  t.strictSame([...new Set(infinite)].sort(), [0, Infinity], 'what is dropped is 0, whatever it was')
  t.equal(alive(), before, 'nothing is left')
})

t.test('keys may be cut too: the parts, weighed by their sums, are the whole', async (t) => {
  const common = { numHeads: 4, numKeyValueHeads: 2, causal: false }
  const whole = run((x) => x, { ...common, dropout: { p: 0.3, site } })
  const plain = (x: Tensor, which: number, from: number, to: number): Tensor => (which ? ops.slice(x, 1, from, to) : x)
  const sums = (from: number, to: number): number[] => sumsOfExp(from, to)
  const parts = [
    [0, 24],
    [24, 72],
  ].map(([from, to]) => ({
    ...run((x, which) => plain(x, which, from as number, to as number), {
      ...common,
      dropout: { p: 0.3, site, firstKey: from as number, firstQuery: 0, length: 72 },
    }),
    total: sums(from as number, to as number),
  }))
  const merged = whole.o.map((_, i) => {
    const row = Math.floor(i / 4)
    const total = parts.reduce((sum, part) => sum + (part.total[row] as number), 0)
    return parts.reduce((sum, part) => sum + ((part.o[i] as number) * (part.total[row] as number)) / total, 0)
  })
  t.ok(difference(merged, whole.o) < 1e-6, `${difference(merged, whole.o)}`)
})

/** Σ exp(q·k / √D) over keys [from, to), for each sample, query and head: in the order of rows of the output. */
function sumsOfExp(from: number, to: number): number[] {
  const at = (i: number, phase: number): number => Math.fround(Math.sin(0.7 * i + phase))
  const result: number[] = []
  for (let b = 0; b < 2; b++)
    for (let i = 0; i < 72; i++)
      for (let h = 0; h < 4; h++) {
        let sum = 0
        for (let j = from; j < to; j++) {
          let dot = 0
          for (let c = 0; c < 4; c++)
            dot += at(((b * 72 + i) * 4 + h) * 4 + c, 0) * at(((b * 72 + j) * 2 + Math.floor(h / 2)) * 4 + c, 1)
          sum += Math.exp(dot / 2)
        }
        result.push(sum)
      }
  return result
}

async function weights(t: Test, p: number, more: Parameters<typeof place>[0] = {}): Promise<Float32Array> {
  const before = alive()
  place(more)
  const o = tidy(() => {
    const zeros = tensor(new Float32Array(4 * 64 * 64), [4, 64, 64])
    const one = tensor(
      Float32Array.from({ length: 4 * 64 * 64 }, (_, i) => (Math.floor(i / 64) % 64 === i % 64 ? 1 : 0)),
      [4, 64, 64],
    )
    return ops.attention(zeros, zeros, one, { numHeads: 1, causal: false, dropout: { p, site } })
  })
  const values = (await o.data()) as Float32Array
  o.dispose()
  t.equal(alive(), before)
  return values
}

t.test('a share p of the weights is dropped; steps, seeds and sites differ', async (t) => {
  for (const p of [0.1, 0.5, 0.99]) {
    const first = await weights(t, p)
    const share = first.filter((value) => value === 0).length / first.length
    t.ok(Math.abs(share - p) < 4 * Math.sqrt((p * (1 - p)) / first.length), `${share} of ${p}`)
    t.ok(Math.abs(Math.max(...first) * 64 * (1 - p) - 1) < 1e-5, 'what is kept is scaled')
    t.ok(sameBits(await weights(t, p), first), 'the same draws again')
    t.notOk(sameBits(await weights(t, p, { step: step + 1 }), first), 'another step')
    t.notOk(sameBits(await weights(t, p, { seed: seed + 1 }), first), 'another seed')
    t.notOk(sameBits(await weights(t, p, { forward: 1 }), first), 'another forward')
  }
})

t.test('throws where p is no probability, or the part lies outside the whole', async (t) => {
  const x = tensor(new Float32Array(24), [1, 3, 8])
  const call = (dropout: ops.AttentionDropout) => (): unknown => ops.attention(x, x, x, { numHeads: 2, dropout })
  for (const p of [1, -0.1, Number.NaN]) t.throws(call({ p }), /p .* must be in \[0, 1\)/)
  t.throws(call({ p: 0.1, firstHead: 1 }), { code: 'ARGUMENT', message: /heads 1 to 3 of 2/ })
  t.throws(call({ p: 0.1, length: 2 }), { code: 'ARGUMENT' })
  const zero = ops.attention(x, x, x, { numHeads: 2, dropout: { p: 0 } })
  const none = ops.attention(x, x, x, { numHeads: 2 })
  t.strictSame(await zero.data(), await none.data(), 'p 0 is no dropout')
  for (const tensor of [x, zero, none]) tensor.dispose()
})
