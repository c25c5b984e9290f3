// Which part of a dim each rank has. Pure.

import { ZeroshardError } from '../../binding/errors.js'

export type Range = readonly [start: number, end: number]

/** Rank `rank`'s part of `size`, even to one element. */
export const unevenPart = (size: number, ranks: number, rank: number): Range => [
  Math.floor((rank * size) / ranks),
  Math.floor(((rank + 1) * size) / ranks),
]

/** How `units` indivisible things (heads) are dealt: to each rank some, or each to several ranks. */
export interface Deal {
  /** This rank has units [first, first + count). */
  first: number
  count: number
  /** Ranks, next to each other, that have the same ones. */
  copies: number
}

/** @throws CONFIG where the units do not divide over the ranks (nor, with `copies`, the ranks over the units). */
export function deal(what: string, units: number, ranks: number, rank: number, mayCopy = false): Deal {
  if (units % ranks === 0) {
    const count = units / ranks
    return { first: rank * count, count, copies: 1 }
  }
  if (mayCopy && ranks % units === 0) {
    const copies = ranks / units
    return { first: unevenPart(units, ranks, rank)[0], count: 1, copies }
  }
  throw new ZeroshardError(
    'CONFIG',
    `${what} is ${units}, not divisible by ${ranks} tensor ranks; ${cure(units, ranks)}`,
  )
}

const cure = (units: number, ranks: number): string => {
  const fits = Array.from({ length: ranks }, (_, index) => index + 1).filter((size) => units % size === 0)
  return `use mesh.tensor ${fits.join(', ')}, or ${Math.ceil(units / ranks) * ranks} of them`
}

/** `size` elements that are `parts` equal matrices side by side, of each the dealt units. @throws CONFIG. */
export function partRanges(what: string, size: number, parts: number, units: number, dealt: Deal): Range[] {
  const perUnit = size / (parts * units)
  if (!Number.isInteger(perUnit)) {
    throw new ZeroshardError(
      'CONFIG',
      `${what} is ${size}, not ${parts > 1 ? `${parts} x ` : ''}${units} equal parts; change one`,
    )
  }
  return Array.from({ length: parts }, (_, part) => {
    const start = (part * units + dealt.first) * perUnit
    return [start, start + dealt.count * perUnit]
  })
}

/** Rows of a vocabulary that a rank has; the vocabulary needs no padding. @throws CONFIG where a rank would have none. */
export function vocabularyRange(
  { name, wholeShape }: { name: string; wholeShape: readonly number[] },
  { size, rank }: { size: number; rank: number },
): Range {
  const rows = wholeShape[0] as number
  if (rows < size)
    throw new ZeroshardError(
      'CONFIG',
      `parameter '${name}' has ${rows} rows for ${size} tensor ranks; lower mesh.tensor to ${rows} or less`,
    )
  return unevenPart(rows, size, rank)
}
