// One recorded operation: where its gradients go, and the tensors that its rule needs. They are held until backward
// has used them, or until nothing is left that a backward could begin from.

import type { DType, Producer, Tensor } from '../tensor/tensor.js'

/** What a gradient rule may use. */
export interface BackwardContext {
  /** True where input `index` wants a gradient. */
  needs(index: number): boolean
  /**
   * The gradient buffer of input `index` where that is a leaf and the buffer is f32 (or of `dtype`, where the rule can
   * add to that): a rule may add to it directly and return undefined.
   */
  sink(index: number, dtype?: DType): Tensor | undefined
  /**
   * In a backward whose weight gradients come later: keeps `work`, which adds to the sink of `index`, and the tensors
   * that it uses. False in a whole backward: do it now.
   */
  postpone(index: number, uses: readonly Tensor[], work: () => void): boolean
}

/** Gradients of the inputs, given those of the outputs (undefined: not used). Returned tensors belong to the tape. */
export type BackwardRule = (
  gradients: readonly (Tensor | undefined)[],
  context: BackwardContext,
) => readonly (Tensor | undefined)[]

export interface Edge {
  node: TapeNode
  output: number
}

let nextSequence = 1

export class TapeNode implements Producer {
  readonly sequence = nextSequence++
  readonly edges: (Edge | Tensor | undefined)[]
  consumed = false
  onFailure?: (error: unknown) => void
  /** Outputs that are not disposed, and operations that use one. */
  #users: number

  constructor(
    readonly op: string,
    inputs: readonly (Tensor | undefined)[],
    readonly outputs: readonly Pick<Tensor, 'shape' | 'dtype'>[],
    readonly saved: readonly Tensor[],
    readonly rule: BackwardRule,
    /** Leaves that a recomputed part will use, with the number of uses. */
    readonly leafUses: ReadonlyMap<Tensor, number> | undefined,
  ) {
    this.#users = outputs.length
    this.edges = inputs.map((input) => {
      if (!input?.requiresGrad) return undefined
      const node = input.producer as TapeNode | undefined
      if (!node) return input
      node.#users++
      return { node, output: input.outputIndex }
    })
    for (const tensor of saved) tensor.hold()
  }

  release(): void {
    if (this.consumed) return
    this.consumed = true
    for (const tensor of this.saved) tensor.unhold()
  }

  /** One more user, which ends with outputDisposed(): a backward will begin here though no output is alive. */
  retain(): void {
    this.#users++
  }

  outputDisposed(): void {
    const open: TapeNode[] = [this]
    for (let node = open.pop(); node; node = open.pop()) {
      if (--node.#users > 0 || node.consumed) continue
      node.release()
      for (const edge of node.edges) if (edge && 'node' in edge) open.push(edge.node)
    }
  }
}
