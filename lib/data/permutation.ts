// A permutation of 0 … size-1 that needs no memory: a Feistel network over the next even power of
// two, walked until the value falls inside (Black and Rogaway, "Ciphers with Arbitrary Finite
// Domains", 2002). A pure function, equal on every machine.

const rounds = 6

/** A 32-bit hash of numbers up to 2^53, after MurmurHash3's finaliser. */
export function hashNumbers(...values: number[]): number {
  let h = 0x9e3779b9
  for (const value of values) {
    h = mix(h ^ (value >>> 0))
    h = mix(h ^ Math.floor(value / 2 ** 32))
  }
  return h >>> 0
}

function mix(input: number): number {
  let h = (input + 0x7f4a7c15) | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

/** Where `index` of `0 … size-1` goes under the permutation that `key` selects. */
export function permute(index: number, size: number, key: number): number {
  if (size <= 1) return 0
  let half = 1
  while (4 ** half < size) half++
  const base = 2 ** half
  let value = index
  do {
    let left = Math.floor(value / base)
    let right = value % base
    for (let round = 0; round < rounds; round++) {
      const scrambled = (hashNumbers(key, round, right) ^ left) & (base - 1)
      left = right
      right = scrambled
    }
    value = left * base + right
  } while (value >= size)
  return value
}
