// One token from the scores of all: temperature, then the k likeliest, then the nucleus (Holtzman et al. 2020).

import { ZeroshardError } from '../../binding/errors.js'

/** How a token is drawn from its scores. */
export interface SamplingOptions {
  /** 0: always the likeliest token. */
  temperature: number
  /** Only the k likeliest tokens; 0: all. */
  topK: number
  /** Only the likeliest tokens that together have this probability; 1: all. */
  topP: number
}

/** The token that `random` (uniform in [0, 1)) falls on. Equal scores: the lower id counts as the likelier. */
export function pickToken(logits: Float32Array, options: SamplingOptions, random: () => number): number {
  const { temperature, topK, topP } = options
  const best = likeliest(logits)
  if (temperature === 0 || topK === 1) return best
  const top = logits[best] as number
  const weight = (id: number): number => Math.exp(((logits[id] as number) - top) / temperature)
  let ids: ArrayLike<number> = topK > 0 && topK < logits.length ? largest(logits, topK) : logits
  const all = ids === logits
  let total = 0
  for (let i = 0; i < ids.length; i++) total += weight(all ? i : (ids[i] as number))
  if (topP < 1) {
    ids = nucleus(logits, all ? undefined : (ids as number[]), weight, total, topP)
    total = Array.from(ids).reduce((sum, id) => sum + weight(id), 0)
  }
  let rest = random() * total
  let last = best
  for (let i = 0; i < ids.length; i++) {
    const id = all && ids === logits ? i : (ids[i] as number)
    const part = weight(id)
    if (part > 0) last = id
    rest -= part
    if (rest < 0) return id
  }
  return last
}

function likeliest(logits: Float32Array): number {
  let best = 0
  for (let id = 0; id < logits.length; id++) {
    const score = logits[id] as number
    if (Number.isNaN(score) || score === Infinity)
      throw new ZeroshardError('NOT_FINITE', `[generate] the score of token ${id} is ${score}; the weights are damaged`)
    if (score > (logits[best] as number)) best = id
  }
  return best
}

const before = (logits: Float32Array) => (a: number, b: number) =>
  (logits[b] as number) - (logits[a] as number) || a - b

/** The k ids of the highest scores, in order. One pass: most of a vocabulary is below the k-th so far. */
function largest(logits: Float32Array, k: number): number[] {
  const found: number[] = []
  for (let id = 0; id < logits.length; id++) {
    const score = logits[id] as number
    if (found.length === k && score <= (logits[found[k - 1] as number] as number)) continue
    let at = found.length
    while (at > 0 && (logits[found[at - 1] as number] as number) < score) at--
    found.splice(at, 0, id)
    if (found.length > k) found.pop()
  }
  return found
}

/** The likeliest of `ids` (undefined: of all) that together reach `share` of `total`. */
function nucleus(
  logits: Float32Array,
  ids: number[] | undefined,
  weight: (id: number) => number,
  total: number,
  share: number,
): number[] {
  // All tokens below this together miss the rest of the mass: they need no sorting.
  const least = ((1 - share) * total) / logits.length
  const candidates = ids ?? Array.from(logits.keys()).filter((id) => weight(id) >= least)
  candidates.sort(before(logits))
  let mass = 0
  const end = candidates.findIndex((id) => (mass += weight(id)) >= share * total)
  return end < 0 ? candidates : candidates.slice(0, end + 1)
}
