// Operations in float64, written from their definitions. Imports nothing from lib/, so that no bug can agree with itself.

export interface Array64 {
  shape: number[]
  data: Float64Array
}

export const array = (shape: number[], at: (index: number) => number): Array64 => {
  const count = shape.reduce((product, size) => product * size, 1)
  return { shape, data: Float64Array.from({ length: count }, (_, index) => at(index)) }
}

/** A small seeded generator (mulberry32). */
export function random(seed: number): () => number {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const get = (x: Array64, index: number): number => x.data[index] as number
const cols = (x: Array64): number => x.shape.at(-1) as number

export function map(x: Array64, fn: (value: number, index: number) => number): Array64 {
  return array(x.shape, (index) => fn(get(x, index), index))
}

/** Elementwise with numpy's broadcasting. */
export function broadcast(a: Array64, b: Array64, fn: (a: number, b: number) => number): Array64 {
  const rank = Math.max(a.shape.length, b.shape.length)
  const padded = (x: Array64): number[] => [...new Array(rank - x.shape.length).fill(1), ...x.shape]
  const [sa, sb] = [padded(a), padded(b)]
  const shape = sa.map((size, dim) => (size === 1 ? (sb[dim] as number) : size))
  const offset = (sizes: number[], coordinates: number[]): number =>
    sizes.reduce((sum, size, dim) => sum * size + (size === 1 ? 0 : (coordinates[dim] as number)), 0)
  return array(shape, (index) => {
    const coordinates: number[] = []
    let rest = index
    for (let dim = rank - 1; dim >= 0; dim--) {
      const size = shape[dim] as number
      coordinates[dim] = rest % size
      rest = Math.floor(rest / size)
    }
    return fn(get(a, offset(sa, coordinates)), get(b, offset(sb, coordinates)))
  })
}

function erf(x: number): number {
  // Series for small arguments, continued fraction beyond; both to float64's precision.
  const z = Math.abs(x)
  let value: number
  if (z < 3) {
    let term = z
    value = z
    for (let n = 1; n < 200; n++) {
      term *= (-z * z) / n
      value += term / (2 * n + 1)
    }
    value *= 2 / Math.sqrt(Math.PI)
  } else {
    let fraction = z
    for (let n = 60; n >= 1; n--) fraction = z + n / 2 / fraction
    value = 1 - Math.exp(-z * z) / fraction / Math.sqrt(Math.PI)
  }
  return x < 0 ? -value : value
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x))
export const functions: Record<string, (x: number) => number> = {
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x * sigmoid(x),
  relu: (x) => Math.max(x, 0),
  tanh: Math.tanh,
  sigmoid,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  square: (x) => x * x,
  abs: Math.abs,
  reciprocal: (x) => 1 / x,
}

export const swiglu = (gate: Array64, up: Array64): Array64 => broadcast(gate, up, (g, u) => g * sigmoid(g) * u)

/** a (batch, M, K) by b (batch or 1, K, N). */
export function matmul(a: Array64, b: Array64): Array64 {
  const [m, k] = [a.shape.at(-2) as number, cols(a)]
  const n = cols(b)
  const shared = b.shape.length === 2
  return array([...a.shape.slice(0, -1), n], (index) => {
    const [j, i, item] = [index % n, Math.floor(index / n) % m, Math.floor(index / (n * m))]
    let sum = 0
    for (let p = 0; p < k; p++) sum += get(a, (item * m + i) * k + p) * get(b, ((shared ? 0 : item) * k + p) * n + j)
    return sum
  })
}

export function transpose2d(x: Array64): Array64 {
  const [rows, width] = x.shape as [number, number]
  return array([width, rows], (index) => get(x, (index % rows) * width + Math.floor(index / rows)))
}

export function softmax(x: Array64, log = false): Array64 {
  const n = cols(x)
  let [top, total] = [0, 0]
  return map(x, (value, index) => {
    if (index % n === 0) {
      const row = x.data.subarray(index, index + n)
      top = Math.max(...row)
      total = row.reduce((sum, other) => sum + Math.exp(other - top), 0)
    }
    return log ? value - top - Math.log(total) : Math.exp(value - top) / total
  })
}

export function norm(x: Array64, weight: Array64, bias: Array64 | undefined, eps: number, centred: boolean): Array64 {
  const n = cols(x)
  return map(x, (value, index) => {
    const row = x.data.subarray(index - (index % n), index - (index % n) + n)
    const mean = centred ? row.reduce((sum, other) => sum + other, 0) / n : 0
    const variance = row.reduce((sum, other) => sum + (other - mean) ** 2, 0) / n
    return ((value - mean) / Math.sqrt(variance + eps)) * get(weight, index % n) + (bias ? get(bias, index % n) : 0)
  })
}

/** q (B, T, Hq D), k and v (B, S, Hkv D); causal: query t sees keys up to t + S - T. `factor` multiplies each weight. */
export function attention(
  q: Array64,
  k: Array64,
  v: Array64,
  heads: number,
  kvHeads: number,
  causal: boolean,
  factor: (item: number, head: number, query: number, key: number) => number = () => 1,
): Array64 {
  const [b, t, width] = q.shape as [number, number, number]
  const s = k.shape[1] as number
  const d = width / heads
  const out = array([b, t, width], () => 0)
  for (let item = 0; item < b; item++)
    for (let h = 0; h < heads; h++)
      for (let i = 0; i < t; i++) {
        const kv = Math.floor((h * kvHeads) / heads)
        const keys = causal ? i + s - t + 1 : s
        const at = (x: Array64, row: number, head: number, count: number, c: number): number =>
          get(x, ((item * (x.shape[1] as number) + row) * count + head) * d + c)
        const scores = Array.from({ length: keys }, (_, j) => {
          let sum = 0
          for (let c = 0; c < d; c++) sum += at(q, i, h, heads, c) * at(k, j, kv, kvHeads, c)
          return sum / Math.sqrt(d)
        })
        const weights = softmax({ shape: [keys], data: Float64Array.from(scores) }).data
        for (let c = 0; c < d; c++) {
          let sum = 0
          for (let j = 0; j < keys; j++)
            sum += (weights[j] as number) * factor(item, h, i, j) * at(v, j, kv, kvHeads, c)
          out.data[((item * t + i) * heads + h) * d + c] = sum
        }
      }
  return out
}

/** Rotates pairs (c, c + D/2) of every head by position · 10000^(-2c/D). */
export function rotary(x: Array64, heads: number, position: number): Array64 {
  const [, t, width] = x.shape as [number, number, number]
  const d = width / heads
  return map(x, (value, index) => {
    const c = index % d
    const at = position + (Math.floor(index / width) % t)
    const angle = at * 10000 ** ((-2 * (c % (d / 2))) / d)
    const other = get(x, c < d / 2 ? index + d / 2 : index - d / 2)
    return value * Math.cos(angle) + (c < d / 2 ? -other : other) * Math.sin(angle)
  })
}

export function crossEntropy(logits: Array64, targets: readonly number[], ignore = -100): Array64 {
  const logs = softmax(logits, true)
  const n = cols(logits)
  const sum = targets.reduce((total, target, row) => total - (target === ignore ? 0 : get(logs, row * n + target)), 0)
  return array([], () => sum / targets.length)
}

export function rows(table: Array64, ids: readonly number[], shape: number[]): Array64 {
  const n = table.data.length / (table.shape[0] as number)
  return array([...shape, ...table.shape.slice(1)], (index) =>
    get(table, (ids[Math.floor(index / n)] as number) * n + (index % n)),
  )
}

export function permute(x: Array64, order: readonly number[]): Array64 {
  const strides = x.shape.map((_, dim) => x.shape.slice(dim + 1).reduce((product, size) => product * size, 1))
  const shape = order.map((dim) => x.shape[dim] as number)
  return array(shape, (index) => {
    let rest = index
    let from = 0
    for (let dim = order.length - 1; dim >= 0; dim--) {
      from += (rest % (shape[dim] as number)) * (strides[order[dim] as number] as number)
      rest = Math.floor(rest / (shape[dim] as number))
    }
    return get(x, from)
  })
}
