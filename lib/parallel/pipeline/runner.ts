// Executes a schedule's list of instructions on this rank's stage of a model. It decides nothing: what is done when is
// the list's business, what a stage has is stage.ts's, how messages travel is transport.ts's.

import { backwardFrom } from '../../autograd/functions.js'
import { backward, noGrad, PostponedWork, record } from '../../autograd/tape.js'
import { runLayers } from '../../nn/layered.js'
import { inRange } from '../../tensor/range.js'
import { RunAhead } from '../../tensor/run-ahead.js'
import { keep, tidy, unscoped } from '../../tensor/scope.js'
import { empty, type Tensor } from '../../tensor/tensor.js'
import type { Mesh } from '../mesh.js'
import type { Unit } from '../zero/unit.js'
import type { Zero } from '../zero/zero.js'
import { type Computation, describe, type Instruction, type Transfer } from './instruction.js'
import { messageOf, type Neighbours, neighboursOf, virtualStageOf } from './placement.js'
import type { Chunk, StageOfModel } from './stage.js'
import { type Form, Transport } from './transport.js'

export interface RunRequest {
  instructions: readonly Instruction[]
  /** Inputs of each micro-batch; disposed as they were used. */
  inputs: readonly (readonly Tensor[])[]
  training: boolean
  /** Times the gradient of each loss. */
  lossFactor: number
  /** Before each forward and backward. */
  onMicroBatch(index: number): void
  /** On the last stage, once for each micro-batch. The tensor stays the runner's. */
  onLoss(loss: Tensor): void
}

/** What is kept of a chunk's forward until its backward. */
interface Activation {
  output: Tensor
  form: Form
  /** The gradient of the chunk's input, once backward has found it; held. */
  inputGradient: Tensor | undefined
  inputForm: Form | undefined
  postponed: PostponedWork
}

const key = ({ chunk, microBatch }: { chunk: number; microBatch: number }): string => `${chunk} ${microBatch}`

export class PipelineRunner {
  readonly #transport: Transport
  /** Two micro-batches, forward and backward. */
  readonly #ahead = new RunAhead(4)
  readonly #neighbours: Neighbours[]
  /** Units of each chunk; those of several chunks are reduced at the end. */
  readonly #units: Unit[][]
  readonly #anchor: Tensor
  readonly #received = new Map<string, Tensor>()
  readonly #gradients = new Map<string, Tensor>()
  readonly #activations = new Map<string, Activation>()
  /** Chunks whose gradients are complete. */
  readonly #complete = new Set<number>()

  constructor(
    readonly stage: StageOfModel,
    readonly mesh: Mesh,
    readonly zero: Zero,
  ) {
    this.#transport = new Transport(mesh.group('pp'), stage.placement)
    this.#neighbours = neighboursOf(stage.placement, mesh.place.pp)
    this.#units = stage.chunks.map(({ parameters }) => zero.unitsOf(parameters))
    this.#anchor = unscoped(() => keep(empty([1], { category: 'buffers', zero: true })))
    this.#anchor.requiresGrad = true
  }

  async run(request: RunRequest): Promise<void> {
    const { fetcher } = this.zero
    fetcher?.begin(request.training ? 'train' : 'eval')
    try {
      for (const instruction of request.instructions) {
        await inRange(
          () => describe(instruction),
          () => this.#execute(instruction, request),
        )
        if ('microBatch' in instruction && !('peer' in instruction)) await this.#ahead.queued()
      }
      await this.#ahead.settled()
    } finally {
      this.#drop()
      fetcher?.end()
    }
  }

  async #execute(instruction: Instruction, request: RunRequest): Promise<void> {
    switch (instruction.op) {
      case 'forward':
        return this.#forward(instruction, request)
      case 'backward':
      case 'backwardInput':
        return this.#backward(instruction, request, instruction.op === 'backwardInput')
      case 'backwardWeight':
        return this.#backwardWeight(instruction)
      case 'sendForward':
      case 'sendBackward':
        return this.#send(instruction, request)
      case 'recvForward':
      case 'recvBackward':
        return this.#receive(instruction, request)
      case 'reduceGradients':
        return this.#reduceChunk(instruction.chunk)
      case 'step':
        return
      default:
        instruction satisfies never
    }
  }

  #forward(at: Computation, request: RunRequest): void {
    const chunk = this.stage.chunks[at.chunk] as Chunk
    const inputs = request.inputs[at.microBatch] as readonly Tensor[]
    request.onMicroBatch(at.microBatch)
    const x = take(this.#received, key(at))
    const activation: Partial<Activation> = x ? { inputForm: { shape: x.shape, dtype: x.dtype } } : {}
    if (request.training && x) this.#recordInput(x, activation)
    const run = (): Tensor => unscoped(() => tidy(() => runLayers(chunk.layers, x, inputs, chunk.drawing)))
    const output = request.training ? run() : noGrad(run)
    x?.dispose() // backward's part of it is held by the tape
    if (chunk.last) request.onLoss(output)
    if (request.training) {
      output.producer?.retain() // backward begins here, long after the output was sent and freed
      const form = { shape: output.shape, dtype: output.dtype }
      this.#activations.set(
        key(at),
        Object.assign(activation, { output, form, postponed: new PostponedWork() }) as Activation,
      )
    }
    const next = this.#neighbours[at.chunk]?.next
    if (next?.stage === this.mesh.place.pp) this.#handOver(output, this.#received, { ...at, chunk: next.chunk })
    else if (next) this.#received.set(`out ${key(at)}`, output)
    else if (!request.training) output.dispose()
  }

  /** Makes a received tensor the start of a tape, which catches its gradient. */
  #recordInput(x: Tensor, activation: Partial<Activation>): void {
    record('pipelineInput', [x], [this.#anchor], [], ([gradient]) => {
      activation.inputGradient = gradient?.hold()
      return []
    })
  }

  /** To a chunk on the same stage. */
  #handOver(x: Tensor, box: Map<string, Tensor>, to: { chunk: number; microBatch: number }): void {
    box.set(
      key(to),
      unscoped(() => x.view(x.shape)),
    )
    x.dispose()
  }

  #backward(at: Computation, request: RunRequest, inputOnly: boolean): void {
    const { zero } = this
    const chunk = this.stage.chunks[at.chunk] as Chunk
    const activation = this.#activations.get(key(at)) as Activation
    const units = this.#units[at.chunk] as Unit[]
    request.onMicroBatch(at.microBatch)
    if (!inputOnly) zero.beginBackward(false, { units })
    const postponed = inputOnly ? activation.postponed : undefined
    if (chunk.last) {
      backwardFrom(activation.output, request.lossFactor, postponed)
      activation.output.dispose()
    } else {
      const gradient = take(this.#gradients, key(at)) as Tensor
      backward([activation.output], [gradient], { postponed })
      gradient.dispose()
    }
    activation.output.producer?.outputDisposed()
    if (inputOnly) zero.fetcher?.releaseUnits(units)
    else {
      zero.endBackward()
      this.#activations.delete(key(at))
    }
    const previous = this.#neighbours[at.chunk]?.previous
    if (!previous) return
    const gradient = this.#inputGradient(activation)
    if (previous.stage === this.mesh.place.pp) this.#gradients.set(key({ ...at, chunk: previous.chunk }), gradient)
    else this.#gradients.set(`out ${key(at)}`, gradient)
  }

  /** Zero where nothing of the chunk depends on its input by what is trained. */
  #inputGradient({ inputGradient, inputForm }: Activation): Tensor {
    const { shape, dtype } = inputForm as Form
    return unscoped(() => {
      if (!inputGradient) return empty(shape, { dtype, zero: true })
      const gradient = inputGradient.view(shape)
      inputGradient.drop()
      return gradient
    })
  }

  #backwardWeight(at: Computation): void {
    const activation = take(this.#activations, key(at)) as Activation
    activation.postponed.run()
    if (this.zero.reducesEachBackward) this.zero.reduce(this.#units[at.chunk] as Unit[])
  }

  #reduceChunk(chunk: number): void {
    if (this.zero.reducesEachBackward) return
    this.#complete.add(chunk)
    // A unit of two chunks (tied weights that meet again on this stage) is complete with the last of them.
    const isComplete = (unit: Unit): boolean =>
      this.#units.every((units, index) => !units.includes(unit) || this.#complete.has(index))
    this.zero.reduce((this.#units[chunk] as Unit[]).filter(isComplete))
  }

  #send(at: Transfer, request: RunRequest): void {
    const forward = at.op === 'sendForward'
    const x = take(forward ? this.#received : this.#gradients, `out ${key(at)}`) as Tensor
    if (forward) this.#transport.sendForward(x, at.peer, this.#tag(at, request), this.#kind(at, request))
    else this.#transport.sendBackward(x, at.peer, this.#tag(at, request))
    x.dispose()
  }

  async #receive(at: Transfer, request: RunRequest): Promise<void> {
    const tag = this.#tag(at, request)
    if (at.op === 'recvForward') {
      this.#received.set(key(at), await this.#transport.receiveForward(at.peer, tag, this.#kind(at, request)))
    } else {
      const { form } = this.#activations.get(key(at)) as Activation
      this.#gradients.set(key(at), this.#transport.receiveBackward(form, at.peer, tag))
    }
  }

  #tag(at: Transfer, { inputs }: RunRequest): number {
    return messageOf(this.stage.placement, inputs.length, this.mesh.place.pp, at)
  }

  /** The boundary behind the sender's virtual stage, the mode (a cut sequence is whole in evaluation), the inputs' shapes. */
  #kind(at: Transfer, { inputs, training }: RunRequest): string {
    const own = virtualStageOf(this.stage.placement, at.chunk, this.mesh.place.pp)
    const shapes = (inputs[at.microBatch] ?? []).map(({ shape }) => shape.join())
    return `${at.op === 'sendForward' ? own : own - 1} ${training ? 'training' : 'evaluation'} ${shapes.join(' ')}`
  }

  /** After a failure something may be left. */
  #drop(): void {
    for (const box of [this.#received, this.#gradients]) {
      for (const tensor of box.values()) tensor.dispose()
      box.clear()
    }
    for (const { output, postponed } of this.#activations.values()) {
      output.producer?.outputDisposed()
      output.dispose()
      postponed.drop()
    }
    this.#activations.clear()
    this.#complete.clear()
  }

  dispose(): void {
    this.#anchor.dispose()
  }
}

function take<T>(box: Map<string, T>, at: string): T | undefined {
  const found = box.get(at)
  box.delete(at)
  return found
}
