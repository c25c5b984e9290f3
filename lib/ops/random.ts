// Dropout and random fills: pure functions of (seed, site, element index), the same on every layout.

import { createHash } from 'node:crypto'
import { recomputeState } from '../autograd/functions.js'
import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { isCapturing } from '../tensor/graph.js'
import { countOf, empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkFloat, lastDim } from './check.js'

/** What dropout draws from: the engine sets it before each micro-batch. */
export interface RandomState {
  seed: number
  /** Of the run: differs for each micro-batch. */
  step: number
  /** Index of this rank's first sample within the global batch. */
  firstSample: number
  /** Counts draws without a site of their own. */
  draws: number
}

export const randomState: RandomState = { seed: 0, step: 0, firstSample: 0, draws: 0 }
recomputeState.save = () => ({ ...randomState })
recomputeState.restore = (state) => void Object.assign(randomState, state)

/** A 53-bit number for a name: where a stream of random numbers begins. */
export function siteOf(...parts: readonly (string | number)[]): number {
  const digest = createHash('sha256').update(parts.join('\0')).digest()
  return Number(digest.readBigUInt64LE(0) >> 11n)
}

/** Where the numbers of one dropout come from. */
export interface Draws {
  seed: number
  site: number
}

/**
 * The stream of numbers of one dropout: by name, or the next draw of this micro-batch. In a graph: of the step that
 * launches it.
 */
export function drawsAt(site?: string): () => Draws {
  const name = site ?? `draw ${randomState.draws++}`
  const now = (): Draws => ({ seed: randomState.seed, site: siteOf('dropout', randomState.step, name) })
  if (isCapturing()) return now
  const draws = now()
  return () => draws
}

export function checkProbability(op: string, p: number): void {
  if (!(p >= 0 && p < 1)) throw new ZeroshardError('ARGUMENT', `[${op}] p ${p} must be in [0, 1)`)
}

/**
 * Where the tokens of a part of the sequence lie: from position `first` on, and from token `split` on from position
 * `second`; and the length of the whole.
 */
export interface SequencePart {
  first: number
  length: number
  split?: number
  second?: number
}

/**
 * Zeroes each element with probability p and scales the rest by 1/(1-p). x: (samples, …), or (samples, part, …).
 *
 * @example
 * const x = tensor(new Float32Array(1000).fill(1), [10, 100])
 * await ops.mean(ops.dropout(x, 0.5, 'here')).item() // about 1: half of them are 2
 */
export function dropout(x: Tensor, p: number, site?: string, part?: SequencePart): Tensor {
  checkFloat('dropout', x)
  checkProbability('dropout', p)
  if (p === 0) return x
  const cols = lastDim('dropout', x)
  const rows = x.count / Math.max(cols, 1)
  const { firstSample } = randomState
  const draws = drawsAt(site)
  const rowOffset = firstSample * (rows / Math.max(x.shape[0] as number, 1))
  const indices = part ? indicesIn(x, part, firstSample) : [rows, cols, cols, rowOffset, 0, cols, 0]
  const scalars = (): number[] => {
    const { seed, site } = draws()
    return [p, seed, site, ...indices]
  }
  const draw = (source: Tensor): Tensor => {
    const y = empty(source.shape, { dtype: source.dtype })
    runOp('dropout', [y], [source], scalars)
    return y
  }
  const y = draw(x)
  record('dropout', [y], [x], [], ([dy]) => [dy && draw(dy)])
  return y
}

/** The scalars from DROPOUT_ROWS on (native/ops/random.h): x (B, S, …) as the rows of its samples, of which it has a part. */
function indicesIn(x: Tensor, { first, length, split, second = 0 }: SequencePart, firstSample: number): number[] {
  const [samples, positions] = x.shape as [number, number]
  const inner = countOf(x.shape.slice(2))
  const sizes = [first, split ?? positions, second].map((size) => size * inner) as [number, number, number]
  return [samples, positions * inner, length * inner, firstSample, ...sizes]
}

/** Fills with a + b·N(0, 1), or uniformly in [a, b). `offset`: index of the first element in the whole tensor. */
export function randomFill(
  x: Tensor,
  kind: 'uniform' | 'normal',
  a: number,
  b: number,
  seed: number,
  site: number,
  offset = 0,
): void {
  runOp('random_fill', [x], [], [kind === 'normal' ? 1 : 0, a, b, seed, site, offset])
}
