// The one error class. Every error has a stable code that programs may match and a message that
// names the operation, the values at hand and the cure. This file loads no native code.

/** Stable codes; a program may switch on them. */
export type ErrorCode =
  | 'CONFIG' // a configuration value or key is wrong (exit status 2)
  | 'ARGUMENT' // a command line or function argument is wrong
  | 'SHAPE' // shapes do not fit each other or the operation
  | 'DTYPE' // an element type that the operation does not take
  | 'DEVICE' // no such device, or tensors on different ones
  | 'DISPOSED' // a tensor was used after it was disposed
  | 'AUTOGRAD' // backward twice, no graph, a non-scalar loss
  | 'NOT_FINITE' // NaN or infinity where none may be
  | 'OUT_OF_MEMORY'
  | 'DATA' // training data missing, empty, too short or damaged
  | 'TOKEN' // a token outside the vocabulary
  | 'CHECKPOINT' // missing, torn, altered or foreign checkpoint
  | 'IO' // a file could not be read or written
  | 'RENDEZVOUS' // ranks could not find each other
  | 'COLLECTIVE_MISMATCH' // ranks called different collectives
  | 'COLLECTIVE_TIMEOUT'
  | 'RANK_LOST' // a peer died
  | 'NATIVE' // the addon is missing or of another version
  | 'UNSUPPORTED'
  | 'INTERNAL'

/**
 * Thrown by every part of zeroshard; `code` is stable, `message` is for people.
 *
 * @example
 * try {
 *   ops.add(tensor([1, 2]), tensor([1, 2, 3]))
 * } catch (error) {
 *   if (error instanceof ZeroshardError) error.code // 'SHAPE'
 * }
 */
export class ZeroshardError extends Error {
  override readonly name = 'ZeroshardError'
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** The word of `known` nearest to `word` (Levenshtein, at most `most` edits), or undefined where none is close. */
export function nearest(
  word: string,
  known: Iterable<string>,
  most = Math.max(2, Math.floor(word.length / 2)),
): string | undefined {
  let best: string | undefined
  let bestDistance = most + 1
  for (const candidate of known) {
    const distance = levenshtein(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

function levenshtein(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min((previous[j] as number) + 1, (current[j - 1] as number) + 1, substitution))
    }
    previous = current
  }
  return previous[b.length] as number
}
