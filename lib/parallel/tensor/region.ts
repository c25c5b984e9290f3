// The border of what is cut over tensor ranks. Outside, activations are replicated, or each rank has its part of the
// sequence (Megatron's sequence parallelism). `enter` brings a layer's input in, the row layers' `leave` sums out.
// Replicated: identity forward, all-reduce backward; all-reduce forward, identity backward.
// Sequence: all-gather forward, reduce-scatter backward; reduce-scatter forward, all-gather backward.

import { record, willRecord } from '../../autograd/tape.js'
import { ZeroshardError } from '../../binding/errors.js'
import { unscoped } from '../../tensor/scope.js'
import { Tensor } from '../../tensor/tensor.js'
import { gathered, identity, reduceScattered } from '../collectives.js'
import type { ProcessGroup } from '../group.js'
import { GatheredPieces } from '../sequence/gathered.js'

/** Options of a region. */
export interface RegionOptions {
  /** Where given, activations outside are cut along the sequence (dim 1) whenever it says so. */
  sequence?: (() => boolean) | undefined
  /** Pieces of a product whose communication runs beside it; 1: none. */
  chunks?: number
}

/** A layer's input inside the region. */
export interface Entered {
  /** (B, T, C) for layers and for their backward; cut along the sequence outside: it has memory only while it is used. */
  whole: Tensor
  /** Cut along the sequence: the same for the product now. */
  pieces: GatheredPieces | undefined
}

/**
 * The border of what is cut over the tensor ranks of a group: how activations come in and go out.
 *
 * @example
 * new Region(ProcessGroup.single()).sequence // false
 */
export class Region {
  readonly chunks: number
  readonly #sequence: (() => boolean) | undefined
  /** The last input: layers that read the same one (q, k, v) bring it in once. */
  #input: Tensor | undefined
  #recorded = false
  #entered: Entered | undefined

  constructor(
    readonly group: ProcessGroup,
    { sequence, chunks = 1 }: RegionOptions = {},
  ) {
    this.#sequence = sequence
    this.chunks = chunks
  }

  /** Whether activations outside are ever cut along the sequence: parameters there have partial gradients. */
  get sequence(): boolean {
    return this.#sequence !== undefined && this.group.size > 1
  }
  /** Whether they are now: in training. Evaluation and generation keep nothing, and take any length. */
  get sharded(): boolean {
    return this.sequence && (this.#sequence as () => boolean)()
  }

  /** Positions of a rank's part of the sequence. @throws SHAPE where it does not divide. */
  partOf(length: number): number {
    const { size } = this.group
    if (length % size !== 0) {
      throw new ZeroshardError(
        'SHAPE',
        `[sequence parallel] a sequence of ${length} is not divisible by ${size} tensor ranks; make data.sequence_length a multiple of ${size}, or set tensor_parallel.sequence_parallel to false`,
      )
    }
    return length / size
  }

  enter(x: Tensor): Entered {
    const recorded = willRecord([x])
    if (this.#entered && this.#input === x && this.#recorded === recorded) return this.#entered
    this.release()
    if (this.sequence && !this.sharded && recorded) {
      throw new ZeroshardError(
        'AUTOGRAD',
        '[sequence parallel] a forward in evaluation mode cannot be differentiated; call train(), or run it in noGrad()',
      )
    }
    this.#input = x
    this.#recorded = recorded
    this.#entered = unscoped(() =>
      this.sharded ? this.#gather(x) : { whole: identity(x, this.group), pieces: undefined },
    )
    return this.#entered
  }

  /** Frees what the last input needed in forward; its layers have run. */
  release(): void {
    const { whole, pieces } = this.#entered ?? {}
    if (pieces) {
      whole?.takeBack()
      pieces.dispose()
    } else if (whole !== this.#input) whole?.dispose()
    this.#entered = undefined
    this.#input = undefined
  }

  /** x (B, S, C) of all ranks: now in pieces; as a whole when backward asks for it, gathered once more. */
  #gather(x: Tensor): Entered {
    const { group, chunks } = this
    const [samples, positions, width] = x.shape as [number, number, number]
    const whole = Tensor.lent([samples, group.size * positions, width], x.dtype)
    const pieces = new GatheredPieces(x, group, chunks)
    whole.lender = () => whole.lend(unscoped(() => (pieces.disposed ? gathered(x, 1, group) : pieces.whole())))
    whole.onIdle = () => whole.takeBack()
    record('enter', [whole], [x], [x], ([dy]) => {
      // Weight gradients that come later gather it then.
      if (whole.held) {
        x.hold()
        whole.onIdle = () => {
          whole.takeBack()
          x.unhold()
        }
      }
      return [dy && reduceScattered(dy, 1, group)]
    })
    return { whole, pieces }
  }
}
