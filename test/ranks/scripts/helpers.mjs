// What the scripts of one rank share: a list of failed expectations, values that depend on a place, comparisons.
import { tensor } from '../../../dist/index.js'

export const failed = []
export const expect = (name, condition, detail = '') => condition || failed.push(`${name} ${detail}`)

/** `shape` of smooth values that differ with `salt`. */
export function filled(shape, salt = 0) {
  const count = shape.reduce((product, size) => product * size, 1)
  return tensor(
    Float32Array.from({ length: count }, (_, i) => Math.sin(i * 0.37 + salt * 1.3 + 0.1)),
    shape,
  )
}

/** Largest difference, relative to the larger of 1 and the expected values. */
export function gap(actual, expected) {
  if (!actual || actual.length !== expected.length) return Number.POSITIVE_INFINITY
  let [worst, scale] = [0, 1]
  for (let i = 0; i < expected.length; i++) {
    scale = Math.max(scale, Math.abs(expected[i]))
    const difference = Math.abs(actual[i] - expected[i])
    worst = Math.max(worst, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference)
  }
  return worst / scale
}

export function close(name, actual, expected, tolerance = 2e-6) {
  const difference = gap(actual, expected)
  expect(name, difference <= tolerance, `differs by ${difference}`)
}

/** Elements [start, end) of dim `dim` of dense values, in order; `ranges`: several of them. */
export function part(values, shape, dim, ranges) {
  const outer = shape.slice(0, dim).reduce((a, b) => a * b, 1)
  const inner = shape.slice(dim + 1).reduce((a, b) => a * b, 1)
  const out = []
  for (let o = 0; o < outer; o++)
    for (const [start, end] of ranges)
      for (let i = start * inner; i < end * inner; i++) out.push(values[o * shape[dim] * inner + i])
  return Float32Array.from(out)
}
