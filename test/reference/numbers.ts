// Rounding to the element types, ordering and norms, from their definitions. Imports nothing from lib/.

const formats = { f32: [8, 23], bf16: [8, 7], f16: [5, 10] } as const

/** The nearest value that an element type has; ties to even; out of range: infinity, integers cut off and wrapped. */
export function rounded(value: number, dtype: string): number {
  if (dtype === 'i32') return Math.trunc(value) | 0
  if (dtype === 'u8') return Math.trunc(value) & 255
  if (dtype === 'i64') return Math.trunc(value)
  if (!Number.isFinite(value) || value === 0) return value
  const [exponentBits, fractionBits] = formats[dtype as keyof typeof formats]
  const bias = 2 ** (exponentBits - 1) - 1
  const exponent = Math.max(exponentOf(value), 1 - bias)
  const unit = 2 ** (exponent - fractionBits)
  const whole = Math.abs(value) / unit
  const down = Math.floor(whole)
  const up = whole - down > 0.5 || (whole - down === 0.5 && down % 2 === 1)
  const result = (up ? down + 1 : down) * unit
  const largest = (2 - 2 ** -fractionBits) * 2 ** bias
  return Math.sign(value) * (result > largest ? Infinity : result)
}

/** e with 2^e <= |value| < 2^(e+1). */
function exponentOf(value: number): number {
  let [e, x] = [0, Math.abs(value)]
  for (; x >= 2; x /= 2) e++
  for (; x < 1; x *= 2) e--
  return e
}

/** Indices of the k largest, descending; equal values by lower index. */
export const largest = (values: readonly number[], k: number): number[] =>
  values
    .map((_, index) => index)
    .sort((a, b) => (values[b] as number) - (values[a] as number) || a - b)
    .slice(0, k)

/** The Euclidean norm; scaled, so that squares stay in range. */
export function globalNorm(values: readonly number[]): number {
  const top = values.reduce((max, value) => Math.max(max, Math.abs(value)), 0)
  return top && Math.sqrt(values.reduce((sum, value) => sum + (value / top) ** 2, 0)) * top
}
