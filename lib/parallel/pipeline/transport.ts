// Messages between the stages of a pipeline. A send is buffered and never blocks a computation; a receive is queued on
// a stream of its own, ahead of its use. Shapes are agreed once for each boundary between stages and shape of the model's
// inputs: the first message of such a kind is announced by a small one.

import { unscoped } from '../../tensor/scope.js'
import { type DType, dtypeIndex, empty, MESSAGES, type Shape, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { locate, type Placement } from './placement.js'

const ANNOUNCEMENT = 10 // dtype, number of dims, up to eight dims
const dtypes = Object.keys(dtypeIndex) as DType[]

export interface Form {
  shape: Shape
  dtype: DType
}

export class Transport {
  readonly #sent = new Set<string>()
  readonly #known = new Map<string, Form>()

  readonly #activations: ProcessGroup
  /** Apart: where a pipeline turns back, both go from one stage to the same other, each in its own order. */
  readonly #gradients: ProcessGroup

  /** `group`: this rank's pipeline. Collective. */
  constructor(group: ProcessGroup, placement: Placement) {
    this.#activations = group
    this.#gradients = group.duplicate()
    const linked = new Set<string>()
    for (let stage = 1; stage < placement.stages * placement.numChunks; stage++) {
      const [from, to] = [locate(placement, stage - 1).stage, locate(placement, stage).stage]
      if (from === to || linked.has(`${from} ${to}`)) continue
      linked.add(`${from} ${to}`)
      if (group.rank !== from && group.rank !== to) continue
      this.#activations.link(from, to)
      this.#gradients.link(to, from)
    }
  }

  /** `kind` names the boundary and the inputs' shape: all tensors of a kind have one form. */
  sendForward(x: Tensor, peer: number, tag: number, kind: string): void {
    if (!this.#sent.has(kind)) {
      this.#sent.add(kind)
      const words = new Int32Array(ANNOUNCEMENT)
      words.set([dtypeIndex[x.dtype], x.shape.length, ...x.shape])
      const announcement = unscoped(() => empty([ANNOUNCEMENT], { dtype: 'i32', category: 'buffers' }).write(words))
      this.#activations.send(announcement, peer, tag)
      announcement.dispose()
    }
    this.#activations.send(x, peer, tag)
  }

  sendBackward(x: Tensor, peer: number, tag: number): void {
    this.#gradients.send(x, peer, tag)
  }

  async receiveForward(peer: number, tag: number, kind: string): Promise<Tensor> {
    let form = this.#known.get(kind)
    if (!form) {
      const announcement = unscoped(() => empty([ANNOUNCEMENT], { dtype: 'i32', category: 'buffers' }))
      this.#activations.recv(announcement, peer, tag)
      const [dtype, rank, ...dims] = (await announcement.data(MESSAGES)) as Int32Array
      announcement.dispose()
      form = { dtype: dtypes[dtype as number] as DType, shape: dims.slice(0, rank) }
      this.#known.set(kind, form)
    }
    return this.#activations.recv(blank(form), peer, tag)
  }

  /** The gradient of what was sent, which has its form. */
  receiveBackward(form: Form, peer: number, tag: number): Tensor {
    return this.#gradients.recv(blank(form), peer, tag)
  }
}

const blank = ({ shape, dtype }: Form): Tensor => unscoped(() => empty(shape, { dtype }))
