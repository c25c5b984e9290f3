// A sequence shard's rows in blocks and pieces. Rank r of n has positions [r·S, (r+1)·S) of T = n·S, of every sample:
// x (B, S, C). A block is rows that lie together both in the shard and in the whole; a piece is what one collective
// moves: some blocks. Pure.

export interface Piece {
  /** Its first block, and how many. */
  first: number
  count: number
}

export class ShardBlocks {
  readonly pieces: Piece[]
  /** Rows of a block. */
  readonly rows: number
  readonly #perSample: number

  /** At least one block in each of `chunks` pieces, where there are as many rows. */
  constructor(
    samples: number,
    readonly positions: number,
    readonly ranks: number,
    chunks: number,
  ) {
    let perSample = 1
    while (perSample < positions && (samples * perSample < chunks || positions % perSample !== 0)) perSample++
    this.#perSample = perSample
    this.rows = positions / perSample
    const num = samples * perSample
    const numPieces = Math.min(chunks, num)
    this.pieces = Array.from({ length: numPieces }, (_, index) => {
      const first = Math.floor((index * num) / numPieces)
      return { first, count: Math.floor(((index + 1) * num) / numPieces) - first }
    })
  }

  /** The first row of a block in its shard. */
  inShard(block: number): number {
    return block * this.rows
  }

  /** The first row of rank `rank`'s block in the whole (B, T). */
  inWhole(block: number, rank: number): number {
    const sample = Math.floor(block / this.#perSample)
    return (sample * this.ranks + rank) * this.positions + (block % this.#perSample) * this.rows
  }
}
