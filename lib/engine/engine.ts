// The engine: DeepSpeed's contract around a plain model. forward, backward, step for each micro-batch; at the
// boundary of accumulation gradients are reduced, clipped and applied. What is hard lives elsewhere: zero/, checkpoint/.

import { join } from 'node:path'
import { backwardFrom } from '../autograd/functions.js'
import { noGrad } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { type FoundCheckpoint, findNewest, openCheckpoint } from '../checkpoint/folder.js'
import { type LoadOptions, loadCheckpoint } from '../checkpoint/load.js'
import type { TrainingState } from '../checkpoint/manifest.js'
import { saveCheckpoint } from '../checkpoint/save.js'
import type { Module } from '../nn/module.js'
import { randomState } from '../ops/random.js'
import type { Schedule } from '../optim/schedules.js'
import type { ProcessGroup } from '../parallel/group.js'
import type { Zero } from '../parallel/zero/zero.js'
import { type MemoryByCategory, memory } from '../tensor/memory.js'
import { keep, tidy, unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'

/** A model whose forward gives what backward takes: a scalar loss. */
export type Trainable<Args extends Tensor[]> = Module & { forward(...args: Args): Tensor }

export interface EngineParts {
  zero: Zero
  group: ProcessGroup
  schedule: Schedule
  seed: number
  microBatchSize: number
  accumulationSteps: number
  /** 0: no clipping. */
  maxNorm: number
  stage: number
  /** Called by close(), last. */
  onClose?: () => Promise<void>
}

/** What a step that updated the model resolves with. */
export interface StepResult {
  step: number
  /** Mean over the global batch. */
  loss: number
  lr: number
  /** Global, before clipping. */
  gradNorm: number
  lossScale: number
  /** True where the gradients were not finite and the update was left out. */
  skipped: boolean
  memory: MemoryByCategory
  memoryPeak: MemoryByCategory
}

/** What goes into a checkpoint beside the parameters, and how many checkpoints stay. */
export interface SaveOptions {
  client?: Record<string, unknown>
  model?: Record<string, unknown>
  tokenizer?: string
  /** Newest checkpoints to keep; 0: all. */
  retain?: number
}

/** A model in training: forward, backward, step, checkpoints. Owns the parameters until close(). */
export class Engine<Args extends Tensor[] = Tensor[]> {
  /** Steps since the very first, skipped ones included. */
  globalSteps = 0
  skippedSteps = 0
  /** Samples consumed since the very first step. */
  samples = 0
  #updates = 0
  #micro = 0
  #backwardDone = false
  #applied = false
  #gradNorm = 0
  readonly #lossSum: Tensor

  constructor(
    readonly model: Trainable<Args>,
    readonly parts: EngineParts,
  ) {
    this.#lossSum = unscoped(() => keep(empty([1], { category: 'buffers', zero: true, shared: true })))
  }

  get accumulationSteps(): number {
    return this.parts.accumulationSteps
  }
  get group(): ProcessGroup {
    return this.parts.group
  }
  /** Samples of one step, over all ranks. */
  get batchSize(): number {
    return this.parts.microBatchSize * this.parts.accumulationSteps * this.group.size
  }
  /** Learning rate of the next update. */
  get lr(): number {
    return this.parts.schedule(this.#updates)
  }
  /** Global gradient norm of the last step, before clipping. */
  get gradientNorm(): number {
    return this.#gradNorm
  }
  get wasStepApplied(): boolean {
    return this.#applied
  }
  /** True where the next backward is the last before an update. */
  get isGradientAccumulationBoundary(): boolean {
    return this.#micro + 1 === this.accumulationSteps
  }

  /** Index, within the whole run, of the first sample of this rank's next micro-batch. */
  get nextSample(): number {
    return this.samples + this.#firstOfMicro()
  }
  #firstOfMicro(): number {
    return (this.#micro * this.group.size + this.group.rank) * this.parts.microBatchSize
  }

  /** The model's loss for one micro-batch. */
  forward(...args: Args): Tensor {
    if (this.#micro === 0 && !this.#backwardDone) memory.resetPeak()
    Object.assign(randomState, {
      seed: this.parts.seed,
      step: this.globalSteps,
      firstSample: this.#firstOfMicro(),
      draws: 0,
    })
    return this.model.forward(...args)
  }

  /** Gradients of a scalar loss, scaled for accumulation. Frees the graph, and the loss. */
  backward(loss: Tensor): void {
    if (this.#backwardDone) throw new ZeroshardError('AUTOGRAD', '[backward] called twice without step() in between')
    const { zero } = this.parts
    zero.beginBackward(this.isGradientAccumulationBoundary)
    backwardFrom(loss, 1 / this.accumulationSteps)
    tidy(() => runOp('binary', [this.#lossSum], [this.#lossSum, loss.view([1])], [0]))
    loss.dispose()
    this.#backwardDone = true
  }

  /** After each backward; at the boundary it updates the model and resolves with the step's figures, else undefined. */
  async step(): Promise<StepResult | undefined> {
    if (!this.#backwardDone) throw new ZeroshardError('AUTOGRAD', '[step] needs a backward() first')
    this.#backwardDone = false
    if (!this.isGradientAccumulationBoundary) {
      this.#micro++
      return undefined
    }
    this.#micro = 0
    return this.#update()
  }

  async #update(): Promise<StepResult> {
    const { zero, group, maxNorm } = this.parts
    const { lr } = this
    zero.finishReduction()
    group.allReduce(this.#lossSum, true)
    const norm = unscoped(() => zero.gradientNorm())
    zero.update({ lr, update: this.#updates + 1, norm, maxNorm })
    const stats = memory.stats()
    const [[sum], [gradNorm]] = (await Promise.all([this.#lossSum.data(), norm.data()])) as [Float32Array, Float32Array]
    norm.dispose()
    runOp('fill', [this.#lossSum], [], [0])
    const loss = (sum as number) / this.accumulationSteps
    this.#gradNorm = gradNorm as number
    this.#applied = Number.isFinite(gradNorm)
    this.globalSteps++
    this.samples += this.batchSize
    if (!Number.isFinite(loss)) {
      throw new ZeroshardError(
        'NOT_FINITE',
        `the loss of step ${this.globalSteps} is ${loss}; lower the learning rate, or look at the data of samples ${this.samples - this.batchSize} to ${this.samples - 1}`,
      )
    }
    if (this.#applied) this.#updates++
    else this.skippedSteps++
    return {
      step: this.globalSteps,
      loss,
      lr,
      gradNorm: this.#gradNorm,
      lossScale: 1,
      skipped: !this.#applied,
      memory: stats.live,
      memoryPeak: stats.peak,
    }
  }

  /** One whole step: `next` gives the inputs of each micro-batch; their tensors are disposed here. */
  async trainBatch(next: (firstSample: number) => Args): Promise<StepResult> {
    for (;;) {
      const inputs = unscoped(() => next(this.nextSample))
      this.backward(unscoped(() => this.forward(...inputs)))
      for (const input of inputs) input.dispose()
      const result = await this.step()
      if (result) return result
    }
  }

  /** The mean loss over micro-batches and ranks, without gradients and dropout. */
  async evalBatch(batches: Iterable<Args>): Promise<number> {
    const total = unscoped(() => empty([1], { category: 'buffers', zero: true, shared: true }))
    let count = 0
    this.model.eval()
    try {
      for (const inputs of batches) {
        tidy(() =>
          noGrad(() => {
            const loss = this.model.forward(...inputs)
            runOp('binary', [total], [total, loss.view([1])], [0])
          }),
        )
        for (const input of inputs) input.dispose()
        count++
        await new Promise(setImmediate)
      }
      this.group.allReduce(total, true)
      return ((await total.data())[0] as number) / Math.max(count, 1)
    } finally {
      this.model.train()
      total.dispose()
    }
  }

  get state(): TrainingState {
    return {
      step: this.globalSteps,
      updates: this.#updates,
      skippedSteps: this.skippedSteps,
      samples: this.samples,
      seed: this.parts.seed,
    }
  }

  /** Collective. Writes `output`/checkpoints/step-N; resolves with its path when it is durable. */
  async saveCheckpoint(output: string, options: SaveOptions = {}): Promise<string> {
    if (this.#micro !== 0 || this.#backwardDone) {
      throw new ZeroshardError(
        'CHECKPOINT',
        '[saveCheckpoint] in the middle of gradient accumulation; save after a step() that updated',
      )
    }
    const { zero, group, stage } = this.parts
    const { client = {}, model, tokenizer } = options
    return saveCheckpoint({
      folder: join(output, 'checkpoints'),
      zero,
      group,
      retain: options.retain ?? 0,
      head: {
        state: this.state,
        layout: { world: group.size, mesh: { data: group.size }, stage },
        client,
        ...(model && { model }),
        ...(tokenizer && { tokenizer }),
      },
    })
  }

  /** Collective. Loads a checkpoint (its folder, or a run's output folder) of any layout. */
  async loadCheckpoint(
    path: string,
    options: LoadOptions = {},
  ): Promise<{ path: string; client: Record<string, unknown> }> {
    return this.restore(await openCheckpoint(path), options)
  }

  /** Collective. The newest whole checkpoint of an output folder, or undefined. */
  async resume(output: string, onDamaged: (message: string) => void): Promise<string | undefined> {
    const found = await findNewest(join(output, 'checkpoints'), onDamaged)
    return found && (await this.restore(found)).path
  }

  async restore(
    { folder, manifest }: FoundCheckpoint,
    options: LoadOptions = {},
  ): Promise<{ path: string; client: Record<string, unknown> }> {
    await loadCheckpoint(folder, manifest, this.parts.zero, options)
    if (options.optimizer ?? true) {
      const { step, updates, skippedSteps, samples } = manifest.state
      this.globalSteps = step
      this.#updates = updates
      this.skippedSteps = skippedSteps
      this.samples = samples
    }
    return { path: folder, client: manifest.client }
  }

  memory(): ReturnType<typeof memory.stats> {
    return memory.stats()
  }

  /** Frees everything and leaves the process group. */
  async close(): Promise<void> {
    this.#lossSum.dispose()
    this.parts.zero.dispose()
    await this.parts.onClose?.()
  }
}
