// A step that a device does as one graph: captured when a step of the same shapes has been done operation by operation,
// then launched for each further batch. Inputs go to the same memory every time; what changes from step to step
// (rates, bias corrections, the loss scale, dropout's streams) are live scalars. Where a step cannot be captured it is
// done as ever, and the reason is told once.

import { binding } from '../binding/native.js'
import { Graph } from '../tensor/graph.js'
import { memory } from '../tensor/memory.js'
import { unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import type { StepResult } from './parts.js'

/** Steps before the capture: they make work spaces, and load what a device loads at first use. */
const WARM_UP = 1

/** The engine, as its captured step sees it. */
export interface GraphOwner<Args extends Tensor[]> {
  /** Why the coming step cannot be captured; undefined: it can. */
  obstacle(): string | undefined
  /** Queues all micro-batches and the update; → the gradients' norm. */
  queueStep(batches: readonly Args[]): Tensor
  /** Undoes what queueStep noted, where nothing of it was done. */
  abandonStep(): void
  /** Before each launch: what live scalars are about. */
  prepare(): void
  /** Reads the figures of what was launched. */
  finish(norm: Tensor, numMicro: number): Promise<StepResult>
  note(text: string): void
}

interface Captured<Args extends Tensor[]> {
  graph: Graph
  inputs: readonly Args[]
  norm: Tensor
  signature: string
}

export class GraphStep<Args extends Tensor[]> {
  /** Steps that were launched as a graph. */
  launched = 0
  /** Why the last step was not; undefined: it was, or has yet to be captured. */
  reason: string | undefined
  readonly #told = new Set<string>()
  #warm = 0
  #captured: Captured<Args> | undefined
  /** Why a capture failed: it is not tried again before drop(). */
  #failure: string | undefined

  constructor(readonly owner: GraphOwner<Args>) {}

  /** Asked before each step: whether it may be a graph; tells why not, and counts the warm-up. */
  begin(): boolean {
    const obstacle = this.#failure ?? this.owner.obstacle()
    if (obstacle !== undefined) return this.#eager(obstacle)
    return this.#warm++ >= WARM_UP
  }

  /** Operation by operation, with the reason told where it is new. */
  #eager(reason: string): false {
    this.reason = reason
    if (!this.#told.has(reason)) this.owner.note(`cuda_graphs: steps are not launched as a graph: ${reason}`)
    this.#told.add(reason)
    return false
  }

  /** The step of these batches, whose tensors it disposes; undefined: it must be done as ever, they are untouched. */
  async step(batches: readonly Args[]): Promise<StepResult | undefined> {
    const signature = JSON.stringify(batches.map((inputs) => inputs.map(({ shape, dtype }) => [shape, dtype])))
    if (this.#captured && this.#captured.inputs.length !== batches.length) this.drop()
    const known = this.#captured
    if (known && known.signature !== signature) {
      this.#eager(`the batch's shapes are not those of the captured one (${signature} after ${known.signature})`)
      return undefined
    }
    const captured = known ?? (await this.#capture(batches, signature))
    if (!captured) return undefined
    batches.forEach((inputs, micro) => {
      const fixed = captured.inputs[micro] as Args
      inputs.forEach((input, at) => {
        runOp('cast', [fixed[at]], [input])
        input.dispose()
      })
    })
    this.owner.prepare()
    memory.resetPeak()
    captured.graph.launch()
    this.launched++
    this.reason = undefined
    return this.owner.finish(captured.norm, batches.length)
  }

  /** Nothing of a capture is done, so that the batches can still be trained on where it fails. */
  async #capture(batches: readonly Args[], signature: string): Promise<Captured<Args> | undefined> {
    await binding().native.synchronize(-1) // what went wrong before is not the capture's
    const like = ({ shape, dtype }: Tensor): Tensor => empty(shape, { dtype, category: 'buffers' })
    const inputs = unscoped(() => batches.map((args) => args.map(like) as Args))
    let norm: Tensor | undefined
    try {
      memory.resetPeak()
      const graph = Graph.capture(() => {
        norm = this.owner.queueStep(inputs)
      })
      this.#captured = { graph, inputs, norm: norm as unknown as Tensor, signature }
    } catch (error) {
      this.owner.abandonStep()
      norm?.dispose()
      for (const tensor of inputs.flat()) tensor.dispose()
      this.#failure = (error as Error).message
      this.#eager(this.#failure)
    }
    return this.#captured
  }

  /** Gives the graph's memory back; the next step captures anew. */
  drop(): void {
    this.#failure = undefined
    if (!this.#captured) return
    const { graph, inputs, norm } = this.#captured
    this.#captured = undefined
    graph.dispose()
    for (const tensor of [norm, ...inputs.flat()]) tensor.dispose()
  }
}
