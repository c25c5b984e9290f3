// 8-bit floating point by its definition, in float64: values of all codes, the nearest one, scaled matrices.

export type Format = 'f8e4m3' | 'f8e5m2'

/** Finite values of 0 and above, ascending: the code is the index. */
export const magnitudes: Record<Format, number[]> = { f8e4m3: table(3, 7, 0x7e), f8e5m2: table(2, 15, 0x7b) }

function table(mantissa: number, bias: number, largest: number): number[] {
  return Array.from({ length: largest + 1 }, (_, code) => {
    const exponent = code >> mantissa
    const rest = code % 2 ** mantissa
    return exponent === 0
      ? rest * 2 ** (1 - bias - mantissa)
      : (2 ** mantissa + rest) * 2 ** (exponent - bias - mantissa)
  })
}

/** The value of the nearest code, the even one of two; what is too large gets the largest. */
export function rounded8(x: number, format: Format): number {
  const all = magnitudes[format]
  let best = 0
  for (let code = 1; code < all.length; code++) {
    const [gap, known] = [code, best].map((at) => Math.abs((all[at] as number) - Math.abs(x))) as [number, number]
    if (gap < known || (gap === known && code % 2 === 0)) best = code
  }
  if (Math.abs(x) >= (all.at(-1) as number)) best = all.length - 1
  return (x < 0 ? -1 : 1) * (all[best] as number)
}

/** What a tensor is worth in 8 bits with its own scale, largest / max|x|, as f32 arithmetic makes it. */
export function inEightBits(x: readonly number[], format: Format): number[] {
  const largest = x.reduce((top, value) => Math.max(top, Math.abs(value)), 0)
  const scale = largest === 0 ? 1 : Math.fround(Math.fround(magnitudes[format].at(-1) as number) / largest)
  const inverse = Math.fround(1 / scale)
  return x.map((value) => rounded8(Math.fround(value * scale), format) * inverse)
}

/** a (m, k) · b (k, n) and the same of magnitudes. */
export function multiplied(
  a: readonly number[],
  b: readonly number[],
  [m, n, k]: readonly [number, number, number],
): { sums: number[]; magnitudes: number[] } {
  const terms = (row: number, col: number): number[] =>
    Array.from({ length: k }, (_, i) => (a[row * k + i] as number) * (b[i * n + col] as number))
  const each = (of: (value: number) => number): number[] =>
    Array.from({ length: m * n }, (_, at) =>
      terms(Math.floor(at / n), at % n).reduce((sum, value) => sum + of(value), 0),
    )
  return { sums: each((value) => value), magnitudes: each(Math.abs) }
}

export const transposed = (x: readonly number[], rows: number, cols: number): number[] =>
  Array.from({ length: rows * cols }, (_, at) => x[(at % rows) * cols + Math.floor(at / rows)] as number)
