// One unit's memory: the flat buffers that the stage's row of the lifetime table gives it.
//
// | stage | parameters | gradients                  | master and moments |
// | 0     | full       | full, all-reduced          | full               |
// | 1     | full       | full, own shard reduced    | shard              |

import type { AdamWBuffers } from '../../optim/adamw.js'
import { unscoped } from '../../tensor/scope.js'
import { type DType, empty, runOp, type Tensor } from '../../tensor/tensor.js'
import type { UnitLayout } from './layout.js'

export type Stage = 0 | 1

/** For each stage, what is cut into shards. */
export const lifetimes: Record<Stage, { optimizer: 'full' | 'shard' }> = {
  0: { optimizer: 'full' },
  1: { optimizer: 'shard' },
}

/** A range of the optimizer's part of the unit with one weight decay. */
export interface Span {
  buffers: AdamWBuffers
  decayed: boolean
}

export interface UnitOptions {
  stage: Stage
  rank: number
  dtype: DType
  seed: number
  /** Weight decay on everything, or on matrices alone. */
  decayMatricesOnly: boolean
}

export class Unit {
  readonly parameters: Tensor
  readonly gradients: Tensor | undefined
  /** f32 values that the optimizer works on; the parameters themselves where those are f32. */
  readonly master: Tensor
  readonly m: Tensor | undefined
  readonly v: Tensor | undefined
  /** What the optimizer of this rank updates: [start, end) of the unit. */
  readonly start: number
  readonly end: number
  readonly ownParameters: Tensor
  readonly ownGradients: Tensor | undefined
  readonly spans: Span[] = []
  readonly #strays: Tensor[] = []
  readonly #owned: Tensor[] = []

  constructor(
    readonly layout: UnitLayout,
    readonly options: UnitOptions,
  ) {
    const { dtype, stage, rank } = options
    const sharded = lifetimes[stage].optimizer === 'shard'
    this.start = sharded ? rank * layout.shardSize : 0
    this.end = sharded ? this.start + layout.shardSize : layout.size
    const own = this.end - this.start
    const make = (count: number, kind: 'parameters' | 'gradients' | 'optimizer', type: DType = 'f32'): Tensor => {
      const tensor = empty([count], { category: kind, dtype: type, zero: true, shared: kind !== 'optimizer' })
      this.#owned.push(tensor)
      return tensor
    }
    this.parameters = make(layout.size, 'parameters', dtype)
    this.ownParameters = this.#view(this.parameters, this.start, own)
    this.master = dtype === 'f32' || !layout.trainable ? this.ownParameters : make(own, 'optimizer')
    if (layout.trainable) {
      this.gradients = make(layout.size, 'gradients')
      this.ownGradients = this.#view(this.gradients, this.start, own)
      this.m = make(own, 'optimizer')
      this.v = make(own, 'optimizer')
      this.#cutSpans()
      this.#findStrays()
    }
    this.#attach()
  }

  #view(of: Tensor, start: number, count: number): Tensor {
    const view = of.view([count], start)
    this.#owned.push(view)
    return view
  }

  #cutSpans(): void {
    const { start, end, layout, options } = this
    const border = options.decayMatricesOnly ? Math.min(Math.max(layout.matrixEnd, start), end) : end
    for (const [from, to, decayed] of [
      [start, border, true],
      [border, end, false],
    ] as const) {
      if (from >= to) continue
      const part = (of: Tensor): Tensor => this.#view(of, from - start, to - from)
      this.spans.push({
        decayed,
        buffers: {
          param: part(this.master),
          m: part(this.m as Tensor),
          v: part(this.v as Tensor),
          out: options.dtype === 'f32' ? undefined : part(this.ownParameters),
          grad: part(this.ownGradients as Tensor),
        },
      })
    }
  }

  /** The gradients outside this rank's part: the optimizer's pass does not zero those. */
  #findStrays(): void {
    const gradients = this.gradients as Tensor
    if (this.start > 0) this.#strays.push(this.#view(gradients, 0, this.start))
    if (this.end < this.layout.size) this.#strays.push(this.#view(gradients, this.end, this.layout.size - this.end))
  }

  /** Gives every parameter its view, gradient and initial values. */
  #attach(): void {
    for (const { parameter, offset, count } of this.layout.slots) {
      const tensor = this.parameters.view(parameter.shape, offset)
      this.#owned.push(tensor)
      parameter.attach(tensor)
      if (this.gradients) {
        tensor.grad = this.gradients.view(parameter.shape, offset)
        this.#owned.push(tensor.grad)
      }
      const flat = this.parameters.view([count], offset)
      if (this.options.dtype === 'f32') parameter.fill(flat, this.options.seed)
      else {
        const wide = empty([count], { category: 'buffers' })
        parameter.fill(wide, this.options.seed)
        runOp('cast', [flat], [wide])
        this.#keepMaster(wide, offset)
        wide.dispose()
      }
      flat.dispose()
    }
  }

  /** Copies the part of full f32 values (at `offset` of the unit) that this rank's master holds. */
  #keepMaster(wide: Tensor, offset: number): void {
    if (this.master === this.ownParameters) return
    const from = Math.max(this.start, offset)
    const to = Math.min(this.end, offset + wide.count)
    if (from >= to) return
    const target = this.master.view([to - from], from - this.start)
    const source = wide.view([to - from], from - offset)
    runOp('cast', [target], [source])
    target.dispose()
    source.dispose()
  }

  zeroStrays(): void {
    for (const stray of this.#strays) runOp('fill', [stray], [], [0])
  }

  /** All gradients to zero, as after an update that was not applied. */
  zeroGradients(): void {
    if (this.gradients) runOp('fill', [this.gradients], [], [0])
  }

  /** After the master changed from outside (a checkpoint): the model's 16-bit copy of this rank's part. */
  refresh(): void {
    if (this.master !== this.ownParameters) runOp('cast', [this.ownParameters], [this.master])
  }

  dispose(): void {
    for (const { parameter } of this.layout.slots) parameter.detach()
    for (const tensor of this.#owned.reverse()) tensor.dispose()
  }
}

/** Builds a unit outside of all scopes. */
export const makeUnit = (layout: UnitLayout, options: UnitOptions): Unit => unscoped(() => new Unit(layout, options))
