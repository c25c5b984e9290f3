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
import { scale as scaleTensor } from '../ops/arithmetic.js'
import { randomState } from '../ops/random.js'
import type { LossScale } from '../optim/loss-scale.js'
import type { Schedule } from '../optim/schedules.js'
import type { ProcessGroup } from '../parallel/group.js'
import { type Mesh, meshWords } from '../parallel/mesh.js'
import type { Zero } from '../parallel/zero/zero.js'
import { type MemoryByCategory, memory } from '../tensor/memory.js'
import { keep, tidy, unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'

/** A model whose forward gives what backward takes: a scalar loss. */
export type Trainable<Args extends Tensor[]> = Module & { forward(...args: Args): Tensor }

export interface EngineParts {
  zero: Zero
  mesh: Mesh
  /** Undefined: the loss is not scaled (f32, bf16). */
  scaler?: LossScale
  schedule: Schedule
  seed: number
  microBatchSize: number
  accumulationSteps: number
  /** 0: no clipping. */
  maxNorm: number
  stage: number
  /** Told the modules whose gradients were infinite or NaN in a step that was therefore skipped. */
  onNotFinite?: (step: number, modules: string[]) => void
  /** Called by close(), last. */
  onClose?: () => Promise<void>
}

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

export interface SaveOptions {
  client?: Record<string, unknown>
  model?: Record<string, unknown>
  tokenizer?: string
  /** Newest checkpoints to keep; 0: all. */
  retain?: number
}

export class Engine<Args extends Tensor[] = Tensor[]> {
  /** Steps since the very first, skipped ones included. */
  globalSteps = 0
  skippedSteps = 0
  /** Samples consumed since the very first step. */
  samples = 0
  #updates = 0
  #micro = 0
  #backwardDone = false
  #backwardOpen = false
  #syncing = true
  #boundary: boolean | undefined
  #applied = false
  #gradNorm = 0
  readonly #lossSum: Tensor

  #accumulationSteps: number

  constructor(
    readonly model: Trainable<Args>,
    readonly parts: EngineParts,
  ) {
    this.#accumulationSteps = parts.accumulationSteps
    this.#lossSum = unscoped(() => keep(empty([1], { category: 'buffers', zero: true, shared: true })))
  }

  get accumulationSteps(): number {
    return this.#accumulationSteps
  }
  /** All ranks of the job. */
  get group(): ProcessGroup {
    return this.parts.mesh.world
  }
  /** Samples of one step, over all ranks. */
  get batchSize(): number {
    return this.parts.microBatchSize * this.#accumulationSteps * this.parts.mesh.sizes.dp
  }
  /** Learning rate of the next update. */
  get lr(): number {
    return this.parts.schedule(this.#updates)
  }
  /** Global gradient norm of the last step, before clipping. */
  get gradientNorm(): number {
    return this.#gradNorm
  }
  /** The same after clipping: what was applied. */
  get clippedGradientNorm(): number {
    const { maxNorm } = this.parts
    return maxNorm > 0 ? Math.min(this.#gradNorm, maxNorm) : this.#gradNorm
  }
  get lossScale(): number {
    return this.parts.scaler?.scale ?? 1
  }
  get wasStepApplied(): boolean {
    return this.#applied
  }
  /** True where the next backward is the last before an update. */
  get isGradientAccumulationBoundary(): boolean {
    return this.#boundary ?? this.#micro + 1 >= this.#accumulationSteps
  }

  /** Says by hand whether the next backward is the last before an update; undefined: count again. */
  setGradientAccumulationBoundary(boundary: boolean | undefined): void {
    this.#boundary = boundary
  }

  /** Another global batch size with the same micro-batch: changes the number of accumulation steps. */
  setTrainBatchSize(size: number): void {
    const each = this.parts.microBatchSize * this.parts.mesh.sizes.dp
    if (this.#micro !== 0 || this.#backwardDone)
      throw new ZeroshardError(
        'ARGUMENT',
        '[setTrainBatchSize] in the middle of gradient accumulation; call it after step()',
      )
    if (!(Number.isInteger(size) && size > 0 && size % each === 0)) {
      throw new ZeroshardError(
        'ARGUMENT',
        `[setTrainBatchSize] ${size} is not a multiple of micro-batch ${this.parts.microBatchSize} x ${this.parts.mesh.sizes.dp} data-parallel ranks; use ${Math.max(1, Math.round(size / each)) * each}`,
      )
    }
    this.#accumulationSteps = size / each
  }

  /** Runs `fn`, in which several backward() may follow each other and reduce nothing. Stages 0 and 1 only. */
  noSync<T>(fn: () => T): T {
    if (this.parts.stage > 1)
      throw new ZeroshardError(
        'UNSUPPORTED',
        `[noSync] stage ${this.parts.stage} keeps only shards of gradients, which must be reduced in each backward; use stage 0 or 1`,
      )
    this.#syncing = false
    try {
      return fn()
    } finally {
      this.#syncing = true
    }
  }

  /** Index, within the whole run, of the first sample of this rank's next micro-batch. */
  get nextSample(): number {
    return this.samples + this.#firstOfMicro()
  }
  #firstOfMicro(): number {
    const { mesh, microBatchSize } = this.parts
    return (this.#micro * mesh.sizes.dp + mesh.place.dp) * microBatchSize
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
    this.parts.zero.fetcher?.begin('train')
    return this.model.forward(...args)
  }

  /** Gradients of a scalar loss, scaled for accumulation (`scaleForAccumulation`). Frees the graph, and the loss. */
  backward(loss: Tensor, { scaleForAccumulation = true } = {}): void {
    this.#openBackward()
    backwardFrom(loss, this.lossScale / (scaleForAccumulation ? this.#accumulationSteps : 1))
    this.#addLoss(loss)
    this.#closeBackward()
    loss.dispose()
  }

  /**
   * The loss as a user's own backward must start from (`backwardFrom(engine.scale(loss))`, then step()): times the loss
   * scale, divided by the number of accumulation steps.
   */
  scale(loss: Tensor): Tensor {
    this.#openBackward()
    this.#addLoss(loss)
    return scaleTensor(loss, this.lossScale / this.#accumulationSteps)
  }

  #openBackward(): void {
    if (this.#backwardDone && this.#syncing)
      throw new ZeroshardError('AUTOGRAD', '[backward] called twice without step() in between')
    this.parts.zero.beginBackward(this.#syncing && this.isGradientAccumulationBoundary)
    this.#backwardOpen = true
    this.#backwardDone = true
  }

  #closeBackward(): void {
    const { zero } = this.parts
    zero.endBackward()
    zero.fetcher?.end()
    this.#backwardOpen = false
  }

  #addLoss(loss: Tensor): void {
    tidy(() => runOp('binary', [this.#lossSum], [this.#lossSum, loss.view([1])], [0]))
  }

  /** After each backward; at the boundary it updates the model and resolves with the step's figures, else undefined. */
  async step(): Promise<StepResult | undefined> {
    if (!this.#backwardDone) throw new ZeroshardError('AUTOGRAD', '[step] needs a backward() first')
    if (this.#backwardOpen) this.#closeBackward()
    this.#backwardDone = false
    if (!this.isGradientAccumulationBoundary) {
      this.#micro++
      return undefined
    }
    const numMicro = this.#micro + 1
    this.#micro = 0
    return this.#update(numMicro)
  }

  async #update(numMicro: number): Promise<StepResult> {
    const { zero, mesh, maxNorm, scaler } = this.parts
    const { lr, lossScale } = this
    zero.reduceReplicas()
    mesh.group('dp', 'cp').allReduce(this.#lossSum, { average: true })
    const norm = unscoped(() => zero.gradientNorm())
    zero.update({ lr, update: this.#updates + 1, norm, maxNorm, lossScale })
    const stats = memory.stats()
    const [[sum], [stored]] = (await Promise.all([this.#lossSum.data(), norm.data()])) as [Float32Array, Float32Array]
    norm.dispose()
    runOp('fill', [this.#lossSum], [], [0])
    const loss = (sum as number) / numMicro
    this.#gradNorm = (stored as number) / lossScale
    this.#applied = Number.isFinite(stored)
    this.globalSteps++
    this.samples += this.batchSize
    if (!this.#applied) await this.#tellNotFinite()
    scaler?.step(!this.#applied)
    if (!Number.isFinite(loss) && !scaler) {
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
      lossScale,
      skipped: !this.#applied,
      memory: stats.live,
      memoryPeak: stats.peak,
    }
  }

  async #tellNotFinite(): Promise<void> {
    const units = await this.parts.zero.notFinite()
    if (units.length) this.parts.onNotFinite?.(this.globalSteps, units)
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
    this.parts.zero.fetcher?.begin('eval')
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
      this.parts.mesh.group('dp', 'cp').allReduce(total, { average: true })
      return ((await total.data())[0] as number) / Math.max(count, 1)
    } finally {
      this.parts.zero.fetcher?.end()
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
      ...(this.parts.scaler && { scaler: this.parts.scaler.state() }),
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
    const { zero, mesh, stage } = this.parts
    const { client = {}, model, tokenizer } = options
    return saveCheckpoint({
      folder: join(output, 'checkpoints'),
      zero,
      group: mesh.world,
      retain: options.retain ?? 0,
      head: {
        state: this.state,
        layout: { world: mesh.world.size, mesh: meshWords(mesh.sizes), stage },
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
      const { step, updates, skippedSteps, samples, scaler } = manifest.state
      if (scaler) this.parts.scaler?.load(scaler)
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
