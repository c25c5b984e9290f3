// Optimizers against PyTorch (test/reference/optim.py made the numbers), and what their options do.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import { makeOptimizer, type UpdateCall } from '../../lib/optim/optimizer.js'
import { difference, values } from '../helpers/compare.js'
import { normOf, Part } from '../helpers/optimizer.js'

binding().native.configure({ threads: 2, serial: false })

const call: UpdateCall = { lr: 0.02, update: 1, maxNorm: 0, gradScale: 1, zeroGrad: true }

t.test('against PyTorch', async (t) => {
  const file = new URL('../reference/optim.json', import.meta.url)
  const { cases, steps } = JSON.parse(readFileSync(file, 'utf8')) as {
    steps: number
    cases: Record<string, { shape: number[]; maxNorm: number; values: number[] }>
  }
  const configs: Record<string, [type: string, lr: number, weightDecay: number, params: Record<string, unknown>]> = {
    AdamW: ['AdamW', 0.01, 0.2, { betas: [0.8, 0.97], eps: 1e-6 }],
    'AdamW clipped': ['AdamW', 0.01, 0.1, { betas: [0.9, 0.95] }],
    'Adam with L2': ['Adam', 0.01, 0.2, { adam_w_mode: false }],
    SGD: ['SGD', 0.1, 0.05, {}],
    'SGD with momentum': ['SGD', 0.1, 0, { momentum: 0.9, dampening: 0.3 }],
    'SGD of Nesterov': ['SGD', 0.1, 0.05, { momentum: 0.8, nesterov: true }],
    Adagrad: ['Adagrad', 0.1, 0.05, { lr_decay: 0.2 }],
    'Muon wide': ['Muon', 0.1, 0.1, { momentum: 0.9 }],
    'Muon tall': ['Muon', 0.1, 0.1, { momentum: 0.9, nesterov: false }],
  }
  t.strictSame(Object.keys(cases), Object.keys(configs))
  for (const [name, { shape, maxNorm, values: expected }] of Object.entries(cases)) {
    const [type, lr, weightDecay, params] = configs[name] as (typeof configs)[string]
    const optimizer = makeOptimizer({ type, params })
    const part = new Part(optimizer, [{ name: 'w', shape }], (i) => (((i * 37) % 101) - 50) / 32)
    for (let update = 1; update <= steps; update++) {
      part.setGradient((i) => (((i * 53 + update * 29) % 97) - 48) / 64)
      const norm = normOf(part)
      optimizer.update(part, { ...call, lr, update, maxNorm, norm }, weightDecay)
      norm.dispose()
    }
    const gap = difference(await values(part.param), expected)
    // PyTorch's Newton-Schulz has 8 bits; five steps of 0.1.
    t.ok(gap < (type === 'Muon' ? 1e-2 : 1e-6), `${name}: ${gap}`)
    part.dispose()
  }
})

t.test('a momentum given with the call replaces the first beta, where there is one', async (t) => {
  const run = async (type: string, params: Record<string, unknown>, momentum?: number): Promise<Float32Array> => {
    const optimizer = makeOptimizer({ type, params })
    const part = new Part(optimizer, [{ name: 'w', shape: [5, 3] }], (i) => Math.sin(i))
    for (let update = 1; update <= 2; update++) {
      part.setGradient((i) => Math.cos(i * update))
      optimizer.update(part, { ...call, update, ...(momentum !== undefined && { momentum }) }, 0)
    }
    const result = await values(part.param)
    part.dispose()
    return result
  }
  for (const type of ['AdamW', 'Adam', 'Lamb', 'Lion'])
    t.strictSame(await run(type, { betas: [0.9, 0.95] }, 0.7), await run(type, { betas: [0.7, 0.95] }), type)
  t.strictSame(await run('SGD', { momentum: 0.5 }, 0.7), await run('SGD', { momentum: 0.5 }), 'SGD')
})

t.test('Muon: rates of its halves, which parameters it takes', async (t) => {
  const run = async (params: Record<string, unknown>, lr: number): Promise<Float32Array> => {
    const optimizer = makeOptimizer({ type: 'Muon', params })
    const part = new Part(
      optimizer,
      [
        { name: 'a', shape: [3, 4] },
        { name: 'b', shape: [4] },
      ],
      (i) => Math.sin(i),
    )
    part.setGradient((i) => Math.cos(i))
    optimizer.update(part, { ...call, lr }, 0)
    const result = await values(part.param)
    part.dispose()
    return result
  }
  const [half, whole] = [await run({ lr: 0.1 }, 0.05), await run({ lr: 0.1 }, 0.1)]
  const mixed = await run({ lr: 0.1, muon_lr: 0.05, adam_lr: 0.1 }, 0.1)
  t.strictSame(mixed.subarray(0, 12), half.subarray(0, 12), 'muon_lr')
  t.strictSame(mixed.subarray(12), whole.subarray(12), 'adam_lr')
  const start = Float32Array.from({ length: 12 }, (_, i) => Math.sin(i))
  const adam = await run({ lr: 0.1, use_muon: () => false }, 0.1)
  const steps = adam.subarray(0, 12).map((x, i) => Math.abs(x - (start[i] as number)))
  t.ok(
    steps.every((step) => Math.abs(step - 0.1) < 1e-5),
    'without Muon: first steps of Adam, of one size',
  )
})

t.test('wrong hyperparameters are told', async (t) => {
  t.throws(() => makeOptimizer({ type: 'Adamw', params: {} }), { code: 'CONFIG', message: /did you mean AdamW\?/ })
  t.throws(() => makeOptimizer({ type: 'toString', params: {} }), { code: 'CONFIG', message: /not one of AdamW/ })
  t.throws(() => makeOptimizer({ type: 'SGD', params: { nesterov: true } }), { code: 'CONFIG', message: /momentum/ })
  t.throws(() => makeOptimizer({ type: 'Lamb', params: { min_coeff: 3, max_coeff: 2 } }), {
    code: 'CONFIG',
    message: /min_coeff 3 .* max_coeff 2/,
  })
})
