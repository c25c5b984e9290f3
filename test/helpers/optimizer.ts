// Parts for an optimizer as ZeRO makes them: parameters of given shapes in one flat range, or this rank's share of it.

import { cutRange, holdingsOf } from '../../lib/optim/cut.js'
import type { Optimizer, OptimizerPart, PartGroup } from '../../lib/optim/optimizer.js'
import { ProcessGroup } from '../../lib/parallel/group.js'
import { countOf, type DType, empty, runOp, type Tensor, tensor } from '../../lib/tensor/tensor.js'

export interface Named {
  name: string
  shape: readonly number[]
}

export interface PartOptions {
  out?: DType
  gradient?: DType
  group?: PartGroup
  /** Elements of each rank's part; default: all on one. */
  counts?: readonly number[]
  /** Elements after the last parameter. */
  padding?: number
}

export class Part implements OptimizerPart {
  readonly param: Tensor
  readonly out: Tensor | undefined
  readonly grad: Tensor
  readonly states: Record<string, Tensor>
  readonly pieces: OptimizerPart['pieces']
  readonly group: PartGroup
  readonly cut: OptimizerPart['cut']
  /** First element, within the range. */
  readonly begin: number

  /** `value(i)`: of element i of the range. */
  constructor(
    optimizer: Optimizer,
    parameters: readonly Named[],
    value: (i: number) => number,
    options: PartOptions = {},
  ) {
    const { padding = 0, group = ProcessGroup.single() } = options
    const size = parameters.reduce((sum, { shape }) => sum + countOf(shape), 0) + padding
    const counts = options.counts ?? [size]
    const ends = counts.map((_, rank) => counts.slice(0, rank + 1).reduce((sum, count) => sum + count, 0))
    const end = ends[group.rank] as number
    this.begin = end - (counts[group.rank] as number)
    this.group = group
    let offset = 0
    const placed = parameters.map(({ name, shape }) => ({
      name,
      shape,
      offset: (offset += countOf(shape)) - countOf(shape),
    }))
    this.cut = { ...cutRange(placed, [0, size], size, 1), counts }
    this.pieces = placed.flatMap(({ name, shape, offset: from }) =>
      holdingsOf(this.cut as NonNullable<OptimizerPart['cut']>, from, from + countOf(shape)).flatMap(
        ({ rank, ...holding }) => (rank === group.rank ? [{ name, shape, ...holding }] : []),
      ),
    )
    const count = end - this.begin
    const used = size - padding
    this.param = tensor(
      Float32Array.from({ length: count }, (_, i) => (this.begin + i < used ? value(this.begin + i) : 0)),
    )
    this.out = options.out && empty([count], { dtype: options.out, zero: true })
    this.grad = empty([count], { dtype: options.gradient ?? 'f32', zero: true })
    this.states = Object.fromEntries(optimizer.states.map((name) => [name, empty([count], { zero: true })]))
  }

  /** `value(i)` as before; padding gets none. */
  setGradient(value: (i: number) => number): void {
    const length = this.pieces.reduce((end, { offset, count }) => Math.max(end, offset + count), 0)
    const wide = tensor(
      Float32Array.from({ length: this.grad.count }, (_, i) => (i < length ? value(this.begin + i) : 0)),
    )
    runOp('cast', [this.grad], [wide])
    wide.dispose()
  }

  get tensors(): Tensor[] {
    return [this.param, this.grad, ...Object.values(this.states), ...(this.out ? [this.out] : [])]
  }

  /** All that an update may change but the gradient, as bytes. */
  async bits(): Promise<Record<string, string>> {
    const named = { param: this.param, ...this.states, ...(this.out && { out: this.out }) }
    const entries = Object.entries(named).map(async ([name, of]) => {
      const values = await of.data()
      return [name, Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('base64')] as const
    })
    return Object.fromEntries(await Promise.all(entries))
  }

  dispose(): void {
    for (const each of this.tensors) each.dispose()
  }
}

/** The norm as ZeRO makes it: of one part. */
export function normOf(part: OptimizerPart): Tensor {
  const largest = empty([1], { zero: true })
  const sum = empty([2], { dtype: 'i64', zero: true })
  const norm = empty([])
  runOp('absmax', [largest], [part.grad])
  runOp('sum_squares', [sum], [part.grad, largest])
  runOp('norm_finish', [norm], [sum, largest])
  largest.dispose()
  sum.dispose()
  return norm
}
