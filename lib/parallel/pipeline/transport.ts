// Messages between the stages of a pipeline. A send is buffered and never blocks a computation; a receive is queued on
// the copy stream, ahead of its use. Shapes are agreed once for each boundary between stages and shape of the model's
// inputs: the first message of such a kind is announced by a small one.

import { unscoped } from '../../tensor/scope.js'
import { COPY, type DType, dtypeIndex, empty, type Shape, type Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'

const ANNOUNCEMENT = 10 // dtype, number of dims, up to eight dims
const dtypes = Object.keys(dtypeIndex) as DType[]

export interface Form {
  shape: Shape
  dtype: DType
}

export class Transport {
  readonly #sent = new Set<string>()
  readonly #known = new Map<string, Form>()

  /** `group`: this rank's pipeline. */
  constructor(readonly group: ProcessGroup) {}

  /** `kind` names the boundary and the inputs' shape: all tensors of a kind have one form. */
  send(x: Tensor, peer: number, tag: number, kind: string): void {
    if (!this.#sent.has(kind)) {
      this.#sent.add(kind)
      const words = new Int32Array(ANNOUNCEMENT)
      words.set([dtypeIndex[x.dtype], x.shape.length, ...x.shape])
      const announcement = unscoped(() => empty([ANNOUNCEMENT], { dtype: 'i32', category: 'buffers' }).write(words))
      this.group.send(announcement, peer, tag)
      announcement.dispose()
    }
    this.group.send(x, peer, tag)
  }

  async receive(peer: number, tag: number, kind: string): Promise<Tensor> {
    let form = this.#known.get(kind)
    if (!form) {
      const announcement = unscoped(() => empty([ANNOUNCEMENT], { dtype: 'i32', category: 'buffers' }))
      this.group.recv(announcement, peer, tag)
      const [dtype, rank, ...dims] = (await announcement.data(COPY)) as Int32Array
      announcement.dispose()
      form = { dtype: dtypes[dtype as number] as DType, shape: dims.slice(0, rank) }
      this.#known.set(kind, form)
    }
    return this.receiveLike(form, peer, tag)
  }

  /** A tensor whose form this rank knows: the gradient of what it sent. */
  receiveLike({ shape, dtype }: Form, peer: number, tag: number): Tensor {
    const x = unscoped(() => empty(shape, { dtype }))
    this.group.recv(x, peer, tag)
    return x
  }
}
