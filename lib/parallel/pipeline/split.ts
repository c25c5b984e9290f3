// Cuts a list of layers into contiguous parts, one for each virtual stage. Pure. The slowest part decides the speed of a
// pipeline, so the largest part is made as small as it can be; among those cuts, the most even one.

import { nearest, ZeroshardError } from '../../binding/errors.js'
import { type Placement, virtualStageOf } from './placement.js'

export interface LayerInfo {
  /** What `type:regex` is matched with: the class of the layer. */
  type: string
  numParameters: number
  /** Measured or estimated, in any unit; needed by the method `time`. */
  time?: number
}

/** `uniform`: by number of layers. `type:regex`: equal numbers of layers whose type matches, in upper or lower case. */
export type SplitMethod = 'uniform' | 'parameters' | 'time' | `type:${string}`

/** Bounds b: part p has the layers b[p] … b[p + 1] - 1, at least one. Throws CONFIG where that cannot be. */
export function splitLayers(layers: readonly LayerInfo[], numParts: number, method: SplitMethod): number[] {
  checkCount('layers', layers.length, numParts)
  if (method.startsWith('type:')) {
    const matches = matcher(method.slice('type:'.length))
    const weights = layers.map(({ type }) => Number(matches(type)))
    checkCount(`layers that match ${method}`, weights.filter(Boolean).length, numParts)
    return splitBalanced(weights, numParts)
  }
  switch (method) {
    case 'uniform':
      return splitUniform(layers.length, numParts)
    case 'parameters':
      return splitBalanced(
        layers.map((layer) => layer.numParameters),
        numParts,
      )
    case 'time': {
      const without = layers.findIndex((layer) => layer.time === undefined)
      if (without < 0)
        return splitBalanced(
          layers.map((layer) => layer.time as number),
          numParts,
        )
      const which = `layer ${without} (${layers[without]?.type})`
      throw new ZeroshardError('CONFIG', `[pipeline] ${which} has no time; measure all, or split by 'parameters'`)
    }
    default: {
      const guess = nearest(method, ['uniform', 'parameters', 'time'])
      const hint = guess ? `did you mean '${guess}'?` : "known: 'uniform', 'parameters', 'time', 'type:regex'"
      throw new ZeroshardError('CONFIG', `[pipeline] no way to split is called '${method}'; ${hint}`)
    }
  }
}

/** Parts whose numbers of layers differ by one at most; the first ones are the longer ones. */
export function splitUniform(numLayers: number, numParts: number): number[] {
  checkCount('layers', numLayers, numParts)
  return Array.from({ length: numParts + 1 }, (_, part) => {
    return part * Math.floor(numLayers / numParts) + Math.min(part, numLayers % numParts)
  })
}

/**
 * Parts, none empty, whose largest sum of weights is as small as possible, and among those cuts the one whose sums have
 * the least squares (that is nearest to equal). Takes O(layers² + layers·parts·log layers).
 */
export function splitBalanced(weights: readonly number[], numParts: number): number[] {
  checkCount('layers', weights.length, numParts)
  const sums = [0]
  for (const [i, weight] of weights.entries()) {
    if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY)) {
      throw new ZeroshardError('CONFIG', `[pipeline] layer ${i} has the weight ${weight}; it must be 0 or more`)
    }
    sums.push((sums[i] as number) + weight)
  }
  return evenest(sums, numParts, smallestMaximum(sums, numParts))
}

/** The smallest possible largest part. */
function smallestMaximum(sums: readonly number[], numParts: number): number {
  const numLayers = sums.length - 1
  const sum = (from: number, to: number): number => (sums[to] as number) - (sums[from] as number)
  // best[i]: for the first i layers in `part` parts
  let best = sums.map((_, i) => sum(0, i))
  for (let part = 2; part <= numParts; part++) {
    const next = new Array<number>(numLayers + 1).fill(Number.POSITIVE_INFINITY)
    for (let i = part; i <= numLayers; i++) {
      // best grows and the last part shrinks with its start: the optimum is where they cross.
      let low = part - 1
      let high = i - 1
      while (low < high) {
        const middle = (low + high) >> 1
        if ((best[middle] as number) >= sum(middle, i)) high = middle
        else low = middle + 1
      }
      const at = (start: number): number => Math.max(best[start] as number, sum(start, i))
      next[i] = low > part - 1 ? Math.min(at(low), at(low - 1)) : at(low)
    }
    best = next
  }
  return best[numLayers] as number
}

/** Of the cuts with no part above `maximum`, the one with the least sum of squares. */
function evenest(sums: readonly number[], numParts: number, maximum: number): number[] {
  const numLayers = sums.length - 1
  let best = sums.map((_, i) => (i === 0 ? 0 : Number.POSITIVE_INFINITY))
  const starts: Int32Array[] = []
  for (let part = 1; part <= numParts; part++) {
    const next = new Array<number>(numLayers + 1).fill(Number.POSITIVE_INFINITY)
    const start = new Int32Array(numLayers + 1).fill(-1)
    for (let i = part; i <= numLayers - (numParts - part); i++) {
      for (let j = i - 1; j >= part - 1; j--) {
        const last = (sums[i] as number) - (sums[j] as number)
        if (last > maximum) break
        const squares = (best[j] as number) + last * last
        if (squares >= (next[i] as number)) continue
        next[i] = squares
        start[i] = j
      }
    }
    starts.push(start)
    best = next
  }
  const bounds = [numLayers]
  for (let part = numParts; part > 0; part--) bounds.unshift(starts[part - 1]?.[bounds[0] as number] as number)
  return bounds
}

/** The layers [start, end) of each chunk of a stage, from bounds with one part for each virtual stage. */
export function chunkRanges(bounds: readonly number[], placement: Placement, stage: number): [number, number][] {
  const parts = placement.stages * placement.numChunks
  if (bounds.length !== parts + 1) {
    const counts = `${bounds.length - 1} parts for ${parts} virtual stages`
    throw new ZeroshardError('ARGUMENT', `[pipeline] ${counts}; split into stages × chunks parts`)
  }
  return Array.from({ length: placement.numChunks }, (_, chunk) => {
    const part = virtualStageOf(placement, chunk, stage)
    return [bounds[part] as number, bounds[part + 1] as number]
  })
}

function matcher(pattern: string): (type: string) => boolean {
  try {
    const regex = new RegExp(pattern, 'i')
    return (type) => regex.test(type)
  } catch (error) {
    throw new ZeroshardError('CONFIG', `[pipeline] 'type:${pattern}' is no regular expression`, { cause: error })
  }
}

function checkCount(what: string, count: number, numParts: number): void {
  if (!Number.isSafeInteger(numParts) || numParts < 1) {
    throw new ZeroshardError('CONFIG', `[pipeline] parts must be a whole number above 0, not ${numParts}`)
  }
  if (count >= numParts) return
  const cure = 'use fewer stages or chunks, or more layers'
  throw new ZeroshardError('CONFIG', `[pipeline] ${count} ${what} cannot fill ${numParts} parts; ${cure}`)
}
