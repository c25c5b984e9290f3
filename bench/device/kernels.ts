// Kernels that a training lives from, at the sizes of real models, each as a share of the measured ceiling; PyTorch's beside
// them where it is installed.

import { join } from 'node:path'
import { capture, inChild, type Row, root, type Work } from '../harness.js'
import { ops, runOp } from '../library.js'
import { type DType, deviceSeconds, onDevice, random, type Tensor } from './measure.js'
import type { Ceilings, SuiteBenchmark, SuiteOptions } from './suite.js'

/** A kernel's size, and what it moves or computes. PyTorch's script knows the same kinds. */
export interface KernelCase {
  kind: 'adamw' | 'norm' | 'classifier' | 'matmul' | 'attention'
  name: string
  size: number[]
  dtype?: 'f32' | 'bf16'
  variant?: string
  bytes?: number
  flops?: number
}
type Times = Record<string, number>

const scaled = (dry: boolean, full: number, small: number): number => (dry ? small : full)

/** Bytes: as the issue of each kernel counts them, every tensor once in each direction that it must travel. */
export function kernelCases(dry: boolean): KernelCase[] {
  const optimizer = (dry ? [1 << 16] : [124_475_904, 355_000_000, 1_000_000_000]).map(
    (count): KernelCase => ({ kind: 'adamw', name: `AdamW, ${count} parameters`, size: [count], bytes: 28 * count }),
  )
  const [rows, cols] = [scaled(dry, 16384, 64), scaled(dry, 4096, 256)]
  const norms = ['layer', 'rms'].flatMap((variant) =>
    ['forward', 'backward'].map((direction): KernelCase => {
      const name = `${variant === 'layer' ? 'LayerNorm' : 'RMSNorm'} ${direction}, ${rows} x ${cols} bf16`
      const bytes = (direction === 'forward' ? 4 : 6) * rows * cols
      return { kind: 'norm', name, variant: `${variant} ${direction}`, size: [rows, cols], bytes }
    }),
  )
  const [tokens, vocabulary] = [scaled(dry, 16 * 1024, 64), scaled(dry, 50304, 512)]
  const classifier: KernelCase = {
    kind: 'classifier',
    name: `classifier, loss and gradient in place, ${tokens} x ${vocabulary} bf16`,
    size: [tokens, vocabulary],
    bytes: 4 * tokens * vocabulary,
  }
  return [...optimizer, ...norms, classifier, ...products(dry), ...attentions(dry)]
}

/** GPT-2's of 16 samples of 1024 tokens, Llama 8B's of 4096 tokens: (m, n, k). */
function products(dry: boolean): KernelCase[] {
  const full = [
    [8192, 8192, 8192],
    ...[
      [2304, 768],
      [768, 768],
      [3072, 768],
      [768, 3072],
      [50304, 768],
      [4800, 1600],
      [6400, 1600],
      [1600, 6400],
    ].map(([n, k]) => [16384, n as number, k as number]),
    ...[
      [6144, 4096],
      [4096, 4096],
      [28672, 4096],
      [4096, 14336],
    ].map(([n, k]) => [4096, n as number, k as number]),
  ]
  const sizes = dry
    ? [
        [64, 96, 32],
        [128, 128, 128],
      ]
    : full
  return sizes.map((size) => {
    const [m, n, k] = size as [number, number, number]
    return { kind: 'matmul', name: `matmul bf16 ${m} x ${n} x ${k}`, size, flops: 2 * m * n * k }
  })
}

/** Causal: half of the pairs count. Backward computes 5 products for forward's 2. */
function attentions(dry: boolean): KernelCase[] {
  const sizes = dry
    ? [[1, 32, 2, 16]]
    : [
        [16, 1024, 12, 64],
        [4, 2048, 32, 128],
        [2, 4096, 32, 128],
        [1, 16384, 32, 128],
      ]
  return sizes.flatMap((size) =>
    ['forward', 'backward'].map((variant): KernelCase => {
      const [b, t, h, d] = size as [number, number, number, number]
      const flops = (variant === 'forward' ? 4 : 10) * b * h * d * ((t * (t + 1)) / 2)
      return {
        kind: 'attention',
        name: `attention ${variant}, ${b} x ${t}, ${h} heads of ${d}, causal bf16`,
        variant,
        size,
        flops,
      }
    }),
  )
}

/** A call of the kernel, and what it works on. */
function prepare({ kind, size, variant = '' }: KernelCase): { body: () => void; tensors: Tensor[] } {
  const tensors: Tensor[] = []
  const make = (shape: number[], dtype: DType = 'bf16', deviation = 1): Tensor => {
    const x = random(shape, dtype, deviation)
    tensors.push(x)
    return x
  }
  switch (kind) {
    case 'adamw': {
      const [p, m, out, g] = [make(size, 'f32'), make(size, 'f32'), make(size), make(size)]
      const v = make(size, 'f32', 0)
      const scalars = [1e-4, 0.9, 0.95, 1e-8, 0.1, 0.1, 0.05, 1, 0, 1, 0]
      return { tensors, body: () => runOp('adamw', [p, m, v, out, g], [undefined], scalars) }
    }
    case 'norm': {
      const [rows, cols] = size as [number, number]
      const layer = variant.startsWith('layer')
      const [x, dy, y] = [make(size), make(size), make(size)]
      const [weight, bias] = [make([cols]), make([cols])]
      const [mean, rstd] = [make([rows], 'f32'), make([rows], 'f32')]
      const [dweight, dbias] = [make([cols], 'f32'), make([cols], 'f32')]
      const forward = (): void =>
        layer
          ? runOp('layer_norm_forward', [y, mean, rstd, undefined], [x, weight, bias, undefined], [rows, cols, 1e-5])
          : runOp('rms_norm_forward', [y, rstd, undefined], [x, weight, undefined], [rows, cols, 1e-5])
      const backward = (): void =>
        layer
          ? runOp('layer_norm_backward', [y, dweight, dbias], [dy, x, weight, mean, rstd, undefined], [rows, cols])
          : runOp('rms_norm_backward', [y, dweight], [dy, x, weight, rstd, undefined], [rows, cols])
      forward()
      return { tensors, body: variant.endsWith('forward') ? forward : backward }
    }
    case 'classifier': {
      const [rows, vocabulary] = size as [number, number]
      const [logits, losses] = [make(size), make([rows], 'f32')]
      const uniform = make([rows], 'f32')
      runOp('random_fill', [uniform], [], [0, 0, vocabulary, 1, 1, 0])
      const targets = ops.cast(uniform, 'i32')
      tensors.push(targets)
      const scalars = [rows, vocabulary, vocabulary, -100, 1, 1 / rows]
      return { tensors, body: () => runOp('classifier', [logits, losses, undefined], [targets], scalars) }
    }
    case 'matmul': {
      const [m, n, k] = size as [number, number, number]
      const [a, b, y] = [make([m, k]), make([k, n]), make([m, n])]
      const inputs = [a, b, undefined, undefined, undefined]
      return { tensors, body: () => runOp('matmul', [y, undefined], inputs, [1, m, n, k, 0, 0, 0, 0]) }
    }
    case 'attention': {
      const [b, t, h, d] = size as [number, number, number, number]
      const shape = [b, t, h * d]
      const [q, k, v, o, dO] = [make(shape), make(shape), make(shape), make(shape), make(shape)]
      const [dq, dk, dv, lse] = [make(shape), make(shape), make(shape), make([b, h, t], 'f32')]
      const dense = [0, h * d, t * h * d]
      const whole = [0, 0, 0, 0, 0, h, 0, 0, t, 0, 0, t]
      const scalars = [b, t, t, h, h, d, d ** -0.5, 1, 0, ...dense, ...dense, ...dense, ...whole]
      const forward = (): void => runOp('attention_forward', [o, lse], [q, k, v], scalars)
      const backward = (): void => runOp('attention_backward', [dq, dk, dv], [dO, q, k, v, o, lse], scalars)
      forward()
      return { tensors, body: variant === 'forward' ? forward : backward }
    }
    default:
      return kind satisfies never
  }
}

/** Seconds by name. */
export const work: Work<{ dry: boolean }, Times> = ({ dry }) =>
  onDevice(() => {
    const times: Times = {}
    for (const one of kernelCases(dry)) {
      const { body, tensors } = prepare(one)
      times[one.name] = deviceSeconds(body, dry)
      for (const x of tensors) x.dispose()
    }
    return times
  })

/** PyTorch's seconds by name; none where it is not installed. */
async function peerTimes({ python, device, dry }: SuiteOptions): Promise<Times> {
  if (!python) return {}
  const script = join(root, 'bench/peers/torch_device.py')
  const cases = JSON.stringify(kernelCases(dry))
  return JSON.parse(await capture(python, [script, 'kernels', '--device', device, '--cases', cases])) as Times
}

export function kernelRow(one: KernelCase, seconds: number, ceilings: Ceilings, peer?: number): Row {
  const { name, bytes, flops = 0 } = one
  const rate = (bytes ?? flops) / seconds
  const note = [
    `${(seconds * 1e6).toFixed(1)} µs`,
    peer && `PyTorch ${(peer * 1e6).toFixed(1)} µs: ${(peer / seconds).toFixed(2)} x`,
  ]
  return {
    name,
    value: rate / (bytes ? 1e9 : 1e12),
    unit: bytes ? 'GB/s' : 'TFLOP/s',
    share: rate / (bytes ? ceilings.copy : ceilings.bf16),
    note: note.filter(Boolean).join(', '),
  }
}

export default {
  title: 'Kernels',
  async run(options) {
    const ours = await inChild<{ dry: boolean }, Times>(import.meta.url, { dry: options.dry })
    const theirs = await peerTimes(options)
    return kernelCases(options.dry).map((one) =>
      kernelRow(one, ours[one.name] as number, options.ceilings as Ceilings, theirs[one.name]),
    )
  },
} satisfies SuiteBenchmark
