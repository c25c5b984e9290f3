// The engine: DeepSpeed's contract around a plain model. forward, backward, step for each micro-batch; at the
// boundary of accumulation gradients are reduced, clipped and applied. What is hard lives elsewhere: zero/, checkpoint/.

import { backwardFrom, checkLoss } from '../autograd/functions.js'
import { noGrad } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { trace } from '../monitor/trace.js'
import { scale as scaleTensor } from '../ops/arithmetic.js'
import { isCapturing } from '../tensor/graph.js'
import { memory } from '../tensor/memory.js'
import { tidy, unscoped } from '../tensor/scope.js'
import { runOp, type Tensor } from '../tensor/tensor.js'
import { BaseEngine, type EngineParts, type StepResult, type Trainable } from './base.js'
import { GraphStep } from './graph-step.js'
import { beginBackward, bounded, endBackward, enter, exit, failBackward, isAlone, type Participant } from './joint.js'

/**
 * A model in training: forward, backward, step, checkpoints. Made by `initialize()`; owns the parameters until close().
 *
 * @example
 * for (let i = 0; i < 2; i++) {
 *   const loss = ops.meanSquaredError(engine.forward(x), y)
 *   engine.backward(loss)
 *   const result = await engine.step() // undefined until the last micro-batch of a step
 *   if (result) console.log(result.step, result.loss)
 * }
 * engine.globalSteps // 2
 */
export class Engine<Args extends Tensor[] = Tensor[]> extends BaseEngine<Args> {
  #micro = 0
  #backwardDone = false
  /** A backward that the user runs (`scale`) is under way. */
  #backwardOpen = false
  /** What the accumulation before was given up for. */
  #failure: unknown
  #syncing = true
  #boundary: boolean | undefined
  /** The backward before step() was the last before an update: its gradients are reduced. */
  #reduced = false
  /** This engine in a backward of several. */
  readonly #participant: Participant = {
    gradientScale: (scaleForAccumulation) => this.#gradientScale(scaleForAccumulation),
    join: (loss) => {
      this.#openBackward()
      this.addLoss(loss)
    },
    leave: () => {
      if (this.#backwardOpen) this.#closeBackward()
    },
    giveUp: (error) => this.#giveUp(error),
  }

  /** Steps as graphs (`cuda_graphs`): how many were, and why the last one was not. */
  readonly graphs: GraphStep<Args> | undefined
  #inTrainBatch = false

  constructor(model: Trainable<Args>, parts: EngineParts) {
    super(model, parts)
    enter(this.#participant)
    if (parts.graphs) this.graphs = this.#makeGraphs()
  }

  #makeGraphs(): GraphStep<Args> {
    return new GraphStep({
      obstacle: () => this.#graphObstacle(),
      queueStep: (batches) => this.#queueStep(batches),
      abandonStep: () => this.abandonStep(),
      prepare: () => {
        this.setRandom(0)
        this.parts.fp8?.dropWeights() // the launch changes them
      },
      finish: (norm, numMicro) => this.tellStep(numMicro, () => this.readFigures(norm, numMicro)),
      note: (text) => this.parts.onNote?.(text),
    })
  }

  #graphObstacle(): string | undefined {
    const { zero, mesh, fp8 } = this.parts
    const device = binding().native.device()
    if (device !== 'cuda') return `the device is the ${device}, which has no graphs`
    if (!this.#inTrainBatch) return 'forward(), backward() and step() are called one by one; use trainBatch()'
    if (mesh.world.size > 1) return `collectives between ranks are not captured yet, and there are ${mesh.world.size}`
    if (zero.options.offload?.optimizer || zero.options.offload?.parameters)
      return 'offloaded states are updated by the host'
    if (trace.on)
      return 'operations are timed one by one (a trace, wall_clock_breakdown, flops_profiler or comms_logger)'
    if (fp8?.scales.delayed && !fp8.scales.known) return 'the scales of fp8 have no history yet'
    if (!isAlone()) return 'another engine of this process may take part in a backward'
    if (this.midStep || !this.#syncing || this.#boundary !== undefined) return 'accumulation is steered by hand'
    if (this.forwards.length) return 'forward() was called by hand in this step, so that the next one draws other masks'
    return undefined
  }

  /** A whole step without its figures. */
  #queueStep(batches: readonly Args[]): Tensor {
    this.parts.fp8?.dropWeights()
    for (const [micro, inputs] of batches.entries()) {
      this.#micro = micro
      this.backward(unscoped(() => this.forward(...inputs)))
      this.#backwardDone = false
    }
    this.#micro = 0
    return this.queueUpdate()
  }

  protected override dropGraph(): void {
    this.graphs?.drop()
  }

  protected get midStep(): boolean {
    return this.#micro !== 0 || this.#backwardDone
  }

  /** True where the next backward is the last before an update. */
  get isGradientAccumulationBoundary(): boolean {
    return this.#boundary ?? this.#micro + 1 >= this.numAccumulation
  }

  /**
   * Says by hand whether the next backward is the last before an update; undefined: count again. Before that backward.
   *
   * @throws AUTOGRAD between a backward and its step(): what it has reduced, or not, cannot be changed any more
   *
   * @example
   * engine.setGradientAccumulationBoundary(false)
   * engine.backward(ops.meanSquaredError(engine.forward(x), y))
   * await engine.step() // undefined
   * engine.setGradientAccumulationBoundary(true)
   * engine.backward(ops.meanSquaredError(engine.forward(x), y))
   * const result = await engine.step()
   * result?.step // 1
   * engine.setGradientAccumulationBoundary(undefined)
   */
  setGradientAccumulationBoundary(boundary: boolean | undefined): void {
    if (this.#backwardDone) {
      const was = this.#reduced ? 'was the last before an update' : 'was not the last before an update'
      throw new ZeroshardError(
        'AUTOGRAD',
        `[setGradientAccumulationBoundary] ${boundary} between backward() and step(): that backward ${was}; call it before backward()`,
      )
    }
    this.#boundary = boundary
  }

  /**
   * Runs `fn`, in which several backward() may follow each other and reduce nothing: each is a micro-batch of the step.
   * Stages 0 and 1 only. `fn` is synchronous.
   *
   * @example
   * engine.noSync(() => engine.backward(ops.meanSquaredError(engine.forward(x), y)))
   * engine.backward(ops.meanSquaredError(engine.forward(x), y)) // the second of two, and reduces
   * const result = await engine.step()
   * result?.step // 1
   */
  noSync<T>(fn: () => T): T {
    if (this.parts.stage > 1) {
      throw new ZeroshardError(
        'UNSUPPORTED',
        `[noSync] stage ${this.parts.stage} keeps only shards of gradients, which must be reduced in each backward; use stage 0 or 1`,
      )
    }
    this.#syncing = false
    try {
      const result = fn()
      if (result instanceof Promise) {
        throw new ZeroshardError(
          'ARGUMENT',
          '[noSync] the function is asynchronous; what comes after its first await would be reduced: await outside of noSync()',
        )
      }
      return result
    } finally {
      this.#syncing = true
    }
  }

  /** Index, within the whole run, of the first sample of this rank's next micro-batch. */
  get nextSample(): number {
    return this.samples + this.firstSampleOf(this.#micro)
  }

  /**
   * The model's loss for one micro-batch.
   *
   * @example
   * const loss = ops.meanSquaredError(engine.forward(x), y)
   * await loss.item() > 0 // true
   */
  forward(...args: Args): Tensor {
    if (!this.midStep) memory.resetPeak()
    const before = this.forwards[this.#micro] ?? 0
    this.forwards[this.#micro] = before + 1
    this.setRandom(this.#micro, before)
    this.parts.zero.fetcher?.begin('train')
    return this.observe('forward', () => bounded(this.#participant, args, (...own) => this.model.forward(...own)))
  }

  /**
   * Gradients of a scalar loss, scaled for accumulation (`scaleForAccumulation`). Frees the graph, and the loss. Where
   * other engines' models had a part in it, it is their backward too: step() each of them. Where it throws (out of
   * memory, say), all micro-batches since the last update are given up: the next one is the first of a step.
   *
   * @example
   * engine.backward(ops.meanSquaredError(engine.forward(x), y))
   * await engine.step()
   */
  backward(loss: Tensor, { scaleForAccumulation = true } = {}): void {
    this.#openBackward(loss)
    try {
      beginBackward(this.#participant, loss, scaleForAccumulation)
      this.observe('backward', () => backwardFrom(loss, () => this.#gradientScale(scaleForAccumulation)))
      this.addLoss(loss)
      this.#closeBackward()
    } catch (error) {
      this.#giveUp(error)
      throw error
    } finally {
      loss.dispose()
    }
  }

  #gradientScale(scaleForAccumulation: boolean): number {
    return this.lossScale / this.parts.lossShare / (scaleForAccumulation ? this.numAccumulation : 1)
  }

  /**
   * The loss as a user's own backward must start from (`backwardFrom(engine.scale(loss))`, then step()): times the loss
   * scale, divided by the number of accumulation steps.
   *
   * @example
   * const loss = ops.meanSquaredError(engine.forward(x), y)
   * backwardFrom(engine.scale(loss))
   * await engine.step()
   */
  scale(loss: Tensor): Tensor {
    this.#openBackward(loss)
    try {
      beginBackward(this.#participant, loss, true)
      this.addLoss(loss)
      const scaled = scaleTensor(loss, this.#gradientScale(true))
      if (scaled.producer) scaled.producer.onFailure = (error) => this.#giveUp(error)
      return scaled
    } catch (error) {
      this.#giveUp(error)
      throw error
    }
  }

  /** Without `loss` the backward is led by another engine, which does its own reductions first. */
  #openBackward(loss?: Tensor): void {
    if (this.#syncing) this.#afterStep('backward')
    if (loss) checkLoss(loss)
    this.#failure = undefined
    this.#reduced = this.#syncing && this.isGradientAccumulationBoundary
    this.parts.zero.beginBackward(this.#reduced, { late: !loss })
    this.#backwardOpen = true
    this.#backwardDone = this.#syncing
    if (!this.#syncing) this.#micro++ // no step() follows that would count it
  }

  /** @throws where a step() is due. */
  #afterStep(op: string): void {
    if (!this.#backwardDone) return
    const text = op === 'backward' ? 'called twice without step() in between' : 'after a backward(); call step() first'
    throw new ZeroshardError('AUTOGRAD', `[${op}] ${text}`)
  }

  #closeBackward(): void {
    const { zero } = this.parts
    zero.endBackward()
    zero.fetcher?.end()
    this.#backwardOpen = false
    endBackward(this.#participant)
  }

  /**
   * After each backward; at the boundary it updates the model and resolves with the step's figures, else undefined.
   *
   * @example
   * engine.backward(ops.meanSquaredError(engine.forward(x), y))
   * const result = await engine.step()
   * result?.skipped // false
   */
  async step(): Promise<StepResult | undefined> {
    try {
      if (this.#backwardOpen) this.#closeBackward()
      if (this.#backwardDone) return await this.#step()
    } catch (error) {
      this.#giveUp(error)
      throw error
    }
    const { message } = (this.#failure ?? {}) as Partial<Error>
    throw new ZeroshardError(
      'AUTOGRAD',
      message === undefined
        ? '[step] needs a backward() first'
        : `[step] needs a backward(): the micro-batches before were given up after an error (${message}); begin the step again`,
    )
  }

  async #step(): Promise<StepResult | undefined> {
    if (!this.#inTrainBatch) this.graphs?.begin() // tells why it is no graph
    this.#backwardDone = false
    if (!this.#reduced) {
      this.#micro++
      await this.ahead.queued()
      return undefined
    }
    const numMicro = this.#micro + 1
    this.#micro = 0
    if (this.ahead.failed) await this.ahead.settled() // else the update would be without that micro-batch
    try {
      return await this.finishStep(numMicro)
    } finally {
      await this.ahead.settled()
    }
  }

  /** After an error: nothing is left of the micro-batches since the last update, and the next one is the first. */
  #giveUp(error: unknown): void {
    if (isCapturing()) return // nothing was done; abandonStep() follows when the capture has ended
    failBackward(this.#participant, error)
    this.#failure = error
    this.abandonStep()
  }

  /** What was accumulated is forgotten, so that the next step is as if it had never been. */
  protected abandonStep(): void {
    const { zero, fp8, mesh } = this.parts
    this.#micro = this.forwards.length = 0
    this.#backwardDone = this.#backwardOpen = false
    // Only where nobody else is waited for: on several ranks an error of one ends all.
    if (mesh.world.size === 1) this.ahead.abandon()
    zero.abandonStep()
    fp8?.abandonStep()
    runOp('fill', [this.lossSum], [], [0])
  }

  async trainBatch(next: (firstSample: number) => Args): Promise<StepResult> {
    this.#afterStep('trainBatch')
    this.#inTrainBatch = true
    try {
      if (!this.graphs?.begin()) return await this.#trainBatch(() => next(this.nextSample))
      const batches = Array.from({ length: this.numAccumulation }, (_, micro) =>
        unscoped(() => next(this.samples + this.firstSampleOf(micro))),
      )
      return (await this.graphs.step(batches)) ?? (await this.#trainBatch(() => batches.shift() as Args))
    } catch (error) {
      this.#giveUp(error)
      throw error
    } finally {
      this.#inTrainBatch = false
    }
  }

  async #trainBatch(next: () => Args): Promise<StepResult> {
    for (;;) {
      const inputs = unscoped(next)
      try {
        this.backward(unscoped(() => this.forward(...inputs)))
      } finally {
        for (const input of inputs) input.dispose()
      }
      const result = await this.step()
      if (result) return result
    }
  }

  protected async evaluate(batches: Iterable<Args>, onLoss: (loss: Tensor) => void): Promise<number> {
    let count = 0
    for (const inputs of batches) {
      try {
        tidy(() => noGrad(() => onLoss(this.model.forward(...inputs))))
      } finally {
        for (const input of inputs) input.dispose()
      }
      count++
      await this.ahead.queued()
    }
    await this.ahead.settled()
    return count
  }

  override async close(): Promise<void> {
    exit(this.#participant)
    await super.close()
  }
}
