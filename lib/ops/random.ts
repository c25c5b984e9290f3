// Dropout and random fills: pure functions of (seed, site and its uses before, element index), the same on every layout.

import { createHash } from 'node:crypto'
import { recomputeState } from '../autograd/functions.js'
import { record } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { isCapturing } from '../tensor/graph.js'
import { countOf, empty, runOp, type Tensor } from '../tensor/tensor.js'
import { checkFloat, lastDim } from './check.js'

/** A layer of a model that is a list of them: a pipeline may run it by itself, so what it draws is named by it. */
export interface DrawingLayer {
  /** Its place in the list. */
  label: string
  /** Whether the site lies in a module that this layer is the first to list: its draws need no label. */
  owns(site: string): boolean
}

/** What dropout draws from: the engine sets it before each micro-batch. */
export interface RandomState {
  seed: number
  /** Of the run: differs for each micro-batch. */
  step: number
  /** Index of this rank's first sample within the global batch. */
  firstSample: number
  /** Forwards of this micro-batch that came before. */
  forward: number
  /** The layer that runs. */
  layer: DrawingLayer | undefined
  /** How often each site has drawn in this forward. */
  uses: Map<string, number>
}

export const randomState: RandomState = {
  seed: 0,
  step: 0,
  firstSample: 0,
  forward: 0,
  layer: undefined,
  uses: new Map(),
}
recomputeState.save = () => ({ ...randomState, uses: new Map(randomState.uses) })
recomputeState.restore = (state) => void Object.assign(randomState, state)

/** Begins a forward: its sites draw for the first time. */
export function beginDraws(of: Omit<RandomState, 'layer' | 'uses'>): void {
  Object.assign(randomState, of, { layer: undefined, uses: new Map() })
}

/** Runs `fn` as the draws of a layer; within another layer, as a part of it. */
export function inLayer<T>({ label, owns }: DrawingLayer, fn: () => T): T {
  const outer = randomState.layer
  randomState.layer = outer
    ? { label: `${outer.label}.${label}`, owns: (site) => outer.owns(site) && owns(site) }
    : { label, owns }
  try {
    return fn()
  } finally {
    randomState.layer = outer
  }
}

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
 * The name of the next draw of a site, or of one without a name. Each is new, and a function of the site, the layer and
 * the uses before: whatever else a rank runs does not matter.
 */
function nextDraw(site: string | undefined): string {
  const { uses, layer, forward } = randomState
  const place = layer && !(site !== undefined && layer.owns(site)) ? ` in layer ${layer.label}` : ''
  const key = `${site === undefined ? 'draw' : `site ${site}`}${place}`
  const before = uses.get(key) ?? 0
  uses.set(key, before + 1)
  const again = before === 0 ? '' : ` #${before + 1}`
  const name = site === undefined ? `draw ${before}${place}` : `${site}${place}${again}`
  return forward === 0 ? name : `${name} of forward ${forward + 1}`
}

/**
 * The stream of numbers of one dropout: the next of its site in this forward, or of those without one. In a graph: of
 * the step that launches it.
 */
export function drawsAt(site?: string): () => Draws {
  const name = nextDraw(site)
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
 * Zeroes each element with probability p and scales the rest by 1/(1-p). x: (samples, …), or (samples, part, …). Every
 * call draws anew; `site` names the place in the model.
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
