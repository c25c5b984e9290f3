// Optimizers in float64, one element (or one matrix) after the other, from their papers. Imports nothing from lib/.

export interface Options {
  lr: number
  beta1: number
  beta2: number
  eps: number
  weightDecay: number
  /** SGD's and Muon's. */
  momentum: number
  dampening: number
  nesterov: boolean
  /** LAMB's. */
  minCoeff: number
  maxCoeff: number
}

export interface Parameter64 {
  shape: readonly number[]
  values: number[]
  /** First and second state. */
  first: number[]
  second: number[]
}

/** One update of one parameter; the gradient is scaled and clipped already. `step` counts from 1. */
export type Update = (p: Parameter64, gradient: readonly number[], o: Options, step: number) => void

/** Gradients of all parameters times `scale`, and then so much shorter that their norm is at most `maxNorm`. */
export function clip(gradients: readonly (readonly number[])[], scale: number, maxNorm: number): number[][] {
  let sum = 0
  for (const gradient of gradients) for (const g of gradient) sum += (g * scale) ** 2
  const norm = Math.sqrt(sum)
  const factor = maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1
  return gradients.map((gradient) => gradient.map((g) => g * scale * factor))
}

const eachOf =
  (fn: (p: Parameter64, i: number, g: number, o: Options, step: number) => void): Update =>
  (p, gradient, o, step) => {
    for (let i = 0; i < p.values.length; i++) fn(p, i, gradient[i] as number, o, step)
  }

/** Moments with bias correction, after taking in g. */
function moments(p: Parameter64, i: number, g: number, o: Options, step: number): [number, number] {
  p.first[i] = o.beta1 * (p.first[i] as number) + (1 - o.beta1) * g
  p.second[i] = o.beta2 * (p.second[i] as number) + (1 - o.beta2) * g * g
  return [(p.first[i] as number) / (1 - o.beta1 ** step), (p.second[i] as number) / (1 - o.beta2 ** step)]
}

const adamW = eachOf((p, i, g, o, step) => {
  const [m, v] = moments(p, i, g, o, step)
  const w = p.values[i] as number
  p.values[i] = w - o.lr * o.weightDecay * w - (o.lr * m) / (Math.sqrt(v) + o.eps)
})

const adam = eachOf((p, i, g, o, step) => {
  const w = p.values[i] as number
  const [m, v] = moments(p, i, g + o.weightDecay * w, o, step)
  p.values[i] = w - (o.lr * m) / (Math.sqrt(v) + o.eps)
})

const sgd = eachOf((p, i, g, o, step) => {
  const w = p.values[i] as number
  const gradient = g + o.weightDecay * w
  let direction = gradient
  if (o.momentum > 0) {
    p.first[i] = step === 1 ? gradient : o.momentum * (p.first[i] as number) + (1 - o.dampening) * gradient
    direction = o.nesterov ? gradient + o.momentum * p.first[i] : p.first[i]
  }
  p.values[i] = w - o.lr * direction
})

const adagrad = eachOf((p, i, g, o) => {
  const w = p.values[i] as number
  const gradient = g + o.weightDecay * w
  p.first[i] = (p.first[i] as number) + gradient * gradient
  p.values[i] = w - (o.lr * gradient) / (Math.sqrt(p.first[i]) + o.eps)
})

const lion = eachOf((p, i, g, o) => {
  const m = p.first[i] as number
  const w = p.values[i] as number
  p.values[i] = w - o.lr * (Math.sign(o.beta1 * m + (1 - o.beta1) * g) + o.weightDecay * w)
  p.first[i] = o.beta2 * m + (1 - o.beta2) * g
})

const norm = (values: readonly number[]): number => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0))

const lamb: Update = (p, gradient, o, step) => {
  const direction = p.values.map((w, i) => {
    const [m, v] = moments(p, i, gradient[i] as number, o, step)
    return m / (Math.sqrt(v) + o.eps) + o.weightDecay * w
  })
  const [ofValues, ofDirection] = [norm(p.values), norm(direction)]
  let ratio = 1
  if (ofValues > 0 && ofDirection > 0) ratio = Math.min(o.maxCoeff, Math.max(o.minCoeff, ofValues / ofDirection))
  p.values = p.values.map((w, i) => w - o.lr * ratio * (direction[i] as number))
}

type Matrix = number[][]
const transpose = (x: Matrix): Matrix => (x[0] as number[]).map((_, j) => x.map((row) => row[j] as number))
const multiply = (x: Matrix, y: Matrix): Matrix =>
  x.map((row) => transpose(y).map((column) => row.reduce((sum, value, k) => sum + value * (column[k] as number), 0)))
const combine = (x: Matrix, y: Matrix, a: number, b: number): Matrix =>
  x.map((row, i) => row.map((value, j) => a * value + b * ((y[i] as number[])[j] as number)))

/** Newton-Schulz, with a wide matrix turned on its side. */
export function orthogonal(x: Matrix): Matrix {
  if (x.length > (x[0] as number[]).length) return transpose(orthogonal(transpose(x)))
  const size = norm(x.flat()) + 1e-7
  let y = x.map((row) => row.map((value) => value / size))
  for (let step = 0; step < 5; step++) {
    const gram = multiply(y, transpose(y))
    const polynomial = combine(gram, multiply(gram, gram), -4.775, 2.0315)
    y = combine(y, multiply(polynomial, y), 3.4445, 1)
  }
  return y
}

/** All but the last two dims are a stack of matrices. */
const muon: Update = (p, gradient, o) => {
  const [rows, cols] = p.shape.slice(-2) as [number, number]
  const direction = p.values.map((_, i) => {
    const g = gradient[i] as number
    p.first[i] = o.momentum * (p.first[i] as number) + (1 - o.momentum) * g
    return o.nesterov ? (1 - o.momentum) * g + o.momentum * p.first[i] : p.first[i]
  })
  for (let at = 0; at < p.values.length; at += rows * cols) {
    const matrix = Array.from({ length: rows }, (_, r) => direction.slice(at + r * cols, at + (r + 1) * cols))
    orthogonal(matrix)
      .flat()
      .forEach((step, i) => {
        const w = p.values[at + i] as number
        p.values[at + i] = w - o.lr * o.weightDecay * w - o.lr * Math.sqrt(Math.max(1, rows / cols)) * step
      })
  }
}

export const updates: Record<string, Update> = { adamW, adam, sgd, adagrad, lion, lamb, muon }
