// The parts of a sequence that all ranks have, gathered piece by piece: a product begins when the first has come, and
// runs beside the gathering of the next.

import { product } from '../../ops/linear.js'
import { empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { ShardBlocks } from './pieces.js'

type Extra = NonNullable<Parameters<typeof product>[4]>

export class GatheredPieces {
  readonly #blocks: ShardBlocks
  /** (ranks, rows, C) each. */
  readonly #pieces: readonly Tensor[]
  disposed = false
  readonly #shape: [samples: number, length: number, width: number]

  /** Begins to gather `shard` (B, S, C) of all ranks. The pieces are the caller's to dispose. */
  constructor(shard: Tensor, group: ProcessGroup, chunks: number) {
    const [samples, positions, width] = shard.shape as [number, number, number]
    this.#shape = [samples, positions * group.size, width]
    const blocks = new ShardBlocks(samples, positions, group.size, chunks)
    this.#blocks = blocks
    this.#pieces = blocks.pieces.map(({ first, count }) => {
      const rows = count * blocks.rows
      const piece = empty([group.size, rows, width], { dtype: shard.dtype, shared: true })
      const own = shard.view([rows, width], blocks.inShard(first) * width)
      group.allGather(piece, own)
      own.dispose()
      return piece
    })
  }

  /** Calls `visit` for each block, in the order in which they come: where it begins in its piece, and its first row. */
  #each(visit: (piece: Tensor, offset: number, row: number) => void): void {
    const { pieces, ranks, rows } = this.#blocks
    const size = rows * this.#shape[2]
    for (const [index, { first, count }] of pieces.entries())
      for (let rank = 0; rank < ranks; rank++)
        for (let block = 0; block < count; block++)
          visit(this.#pieces[index] as Tensor, (rank * count + block) * size, this.#blocks.inWhole(first + block, rank))
  }

  /** y (B, T, n) = whole · weight, which is (C, n), or (n, C) with transB; bias and activation as in one product. */
  multiply(y: Tensor, weight: Tensor, transB: boolean, { pre, ...extra }: Extra = {}): void {
    const { rows: m } = this.#blocks
    const k = this.#shape[2]
    const n = y.shape[2] as number
    this.#each((piece, offset, row) => {
      const a = piece.view([m, k], offset)
      const [into, sum] = [y, pre].map((tensor) => tensor?.view([m, n], row * n)) as [Tensor, Tensor | undefined]
      product(into, a, weight, { m, n, k, transB }, { ...extra, pre: sum })
      for (const view of [a, into, sum]) view?.dispose()
    })
  }

  /** The whole (B, T, C). */
  whole(): Tensor {
    const y = empty(this.#shape, { dtype: this.#pieces[0]?.dtype ?? 'f32' })
    const width = this.#shape[2]
    const size = this.#blocks.rows * width
    this.#each((piece, offset, row) => runOp('copy_2d', [y], [piece], [1, size, row * width, size, offset, size]))
    return y
  }

  dispose(): void {
    this.disposed = true
    for (const piece of this.#pieces) piece.dispose()
  }
}
