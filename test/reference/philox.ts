// Philox 4x32-10 from its paper (Salmon et al. 2011), in BigInt, and the draws that native/ops/random.h defines on it.
// Imports nothing from lib/.

const low = (x: bigint): bigint => x & 0xffffffffn

/** Four words for a counter of four words and a key of two. */
export function philox(counter: readonly bigint[], key: readonly bigint[]): bigint[] {
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint]
  let [k0, k1] = key as [bigint, bigint]
  for (let round = 0; round < 10; round++) {
    const [p, q] = [0xd2511f53n * c0, 0xcd9e8d57n * c2]
    ;[c0, c1, c2, c3] = [(q >> 32n) ^ c1 ^ k0, low(q), (p >> 32n) ^ c3 ^ k1, low(p)]
    k0 = low(k0 + 0x9e3779b9n)
    k1 = low(k1 + 0xbb67ae85n)
  }
  return [c0, c1, c2, c3]
}

/** The number in (0, 1) that element `index` draws. */
export function uniform(seed: number, site: number, index: bigint): number {
  const halves = (x: bigint): bigint[] => [low(x), x >> 32n]
  const words = philox([...halves(index >> 2n), ...halves(BigInt(site))], halves(BigInt(seed)))
  return (Number((words[Number(index & 3n)] as bigint) >> 9n) + 0.5) * 2 ** -23
}

/** What dropout multiplies element `index` with: 0, or 1 / (1 - p). */
export const dropoutFactor = (p: number, seed: number, site: number, index: bigint): number =>
  uniform(seed, site, index) >= Math.fround(p) ? 1 / (1 - p) : 0
