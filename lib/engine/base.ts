// What every engine has, however it runs its micro-batches: the update, states by name, checkpoints, figures.

import { join } from 'node:path'
import { type ErrorCode, ZeroshardError } from '../binding/errors.js'
import { Agreement } from '../checkpoint/agreement.js'
import { type FoundCheckpoint, findNewest, openCheckpoint } from '../checkpoint/folder.js'
import { checkLoadOptions, type LoadOptions, loadCheckpoint } from '../checkpoint/load.js'
import type { TrainingState } from '../checkpoint/manifest.js'
import { Saver } from '../checkpoint/saver.js'
import { copyOfScales, loadScales } from '../checkpoint/scales.js'
import type { Parameter } from '../nn/parameter.js'
import { beginDraws } from '../ops/random.js'
import type { ProcessGroup } from '../parallel/group.js'
import { meshWords } from '../parallel/mesh.js'
import { Access, type GatheredOptions, gathered } from '../parallel/zero/access.js'
import { usesDisk } from '../parallel/zero/offload.js'
import { type Offloadable, offloadables } from '../parallel/zero/unit.js'
import { memory } from '../tensor/memory.js'
import { inRange } from '../tensor/range.js'
import { RunAhead } from '../tensor/run-ahead.js'
import { keep, tidy, unscoped } from '../tensor/scope.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { agreedBatches, Evaluation } from './evaluation.js'
import {
  accumulationOf,
  type EngineParts,
  type LoadedCheckpoint,
  lossNotFinite,
  type SaveOptions,
  type StepResult,
  type Trainable,
} from './parts.js'

export type { EngineParts, SaveOptions, StepResult, Trainable } from './parts.js'

export abstract class BaseEngine<Args extends Tensor[]> {
  /** Steps since the very first, skipped ones included. */
  globalSteps = 0
  skippedSteps = 0
  /** Samples consumed since the very first step. */
  samples = 0
  /** Runs a phase of the step; a monitor's observer may put itself here. */
  observe: <T>(phase: 'forward' | 'backward' | 'step', work: () => T) => T = inRange
  protected readonly lossSum: Tensor
  protected readonly ahead = new RunAhead()
  /** Forwards of each micro-batch of this step: a second one draws anew. */
  protected readonly forwards: number[] = []
  protected numAccumulation: number
  #updates = 0
  #applied = false
  #gradNorm = 0
  readonly #saver: Saver
  #closed: Promise<void> | undefined

  constructor(
    readonly model: Trainable<Args>,
    readonly parts: EngineParts,
  ) {
    this.#saver = new Saver(parts.mesh.world, parts.meeting)
    this.numAccumulation = parts.accumulationSteps
    this.lossSum = unscoped(() => keep(empty([1], { category: 'buffers', zero: true, shared: true })))
  }

  /** True from the first micro-batch of a step to its update. */
  protected abstract readonly midStep: boolean

  get accumulationSteps(): number {
    return this.numAccumulation
  }
  /** All ranks of the job. */
  get group(): ProcessGroup {
    return this.parts.mesh.world
  }
  /** Samples of one step, over all ranks. */
  get batchSize(): number {
    return this.#samplesOf(this.numAccumulation)
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

  /** Index, within the step's batch, of the first sample of this rank's micro-batch `micro`. */
  protected firstSampleOf(micro: number): number {
    const { mesh, microBatchSize } = this.parts
    return (micro * mesh.sizes.dp + mesh.place.dp) * microBatchSize
  }

  /** What random numbers of a forward of micro-batch `micro` depend on. */
  protected setRandom(micro: number, forward = 0): void {
    beginDraws({ seed: this.parts.seed, step: this.globalSteps, firstSample: this.firstSampleOf(micro), forward })
  }

  protected addLoss(loss: Tensor): void {
    tidy(() => runOp('binary', [this.lossSum], [this.lossSum, loss.view([1])], [0]))
  }

  /** @throws `code` in the middle of gradient accumulation. */
  #betweenSteps(op: string, code: ErrorCode, cure: string): void {
    if (this.midStep) throw new ZeroshardError(code, `[${op}] in the middle of gradient accumulation; ${cure}`)
  }

  /** Another global batch size with the same micro-batch: changes the number of accumulation steps. */
  setTrainBatchSize(size: number): void {
    this.#betweenSteps('setTrainBatchSize', 'ARGUMENT', 'call it after step()')
    this.numAccumulation = accumulationOf(size, this.parts)
  }

  /** After the gradients of `numMicro` micro-batches are reduced. */
  protected finishStep(numMicro: number): Promise<StepResult> {
    return this.tellStep(numMicro, () => this.observe('step', () => this.#update(numMicro)))
  }

  protected async tellStep(numMicro: number, work: () => Promise<StepResult>): Promise<StepResult> {
    const result = await work()
    this.parts.onStep?.(result, this.#samplesOf(numMicro))
    return result
  }

  #samplesOf(numMicro: number): number {
    return this.parts.microBatchSize * numMicro * this.parts.mesh.sizes.dp
  }

  /** Norm, optimizer, figures. */
  async #update(numMicro: number): Promise<StepResult> {
    const norm = this.queueUpdate()
    try {
      return await this.readFigures(norm, numMicro)
    } finally {
      norm.dispose()
    }
  }

  /** The update of what is reduced, without its figures; → the gradients' norm. A graph of it asks for its numbers anew. */
  protected queueUpdate(): Tensor {
    const { zero, mesh, maxNorm, schedule, fp8 } = this.parts
    zero.reduceReplicas()
    fp8?.update()
    mesh.group('dp', 'cp').allReduce(this.lossSum, { average: true })
    mesh.group('pp').allReduce(this.lossSum) // the last stage alone has one
    const norm = unscoped(() => zero.gradientNorm())
    const engine = this
    const request = {
      get lr() {
        return engine.lr
      },
      get update() {
        return engine.#updates + 1
      },
      get lossScale() {
        return engine.lossScale
      },
      get momentum() {
        return schedule.momentum?.(engine.#updates)
      },
      norm,
      maxNorm,
    }
    try {
      zero.update(request)
    } catch (error) {
      norm.dispose()
      throw error
    }
    return norm
  }

  /** What became of the update: figures, the next loss scale, the error of a loss that is not finite. */
  protected async readFigures(norm: Tensor, numMicro: number): Promise<StepResult> {
    const { zero, scaler, fp8 } = this.parts
    const { lr, lossScale } = this
    const stats = memory.stats()
    const [[sum], [stored]] = (await Promise.all([this.lossSum.data(), norm.data()])) as [Float32Array, Float32Array]
    runOp('fill', [this.lossSum], [], [0])
    const loss = (sum as number) / numMicro
    this.#gradNorm = (stored as number) / lossScale
    this.#applied = Number.isFinite(stored)
    this.globalSteps++
    this.forwards.length = 0
    const samples = this.#samplesOf(numMicro)
    this.samples += samples
    const notFinite = this.#applied ? undefined : await zero.dropGradients()
    if (notFinite) this.parts.onNotFinite?.(this.globalSteps, notFinite)
    if (fp8 && this.#applied) fp8.scales.known = true
    if (this.#applied) this.#updates++
    else this.skippedSteps++
    if (!Number.isFinite(loss) && !scaler?.dynamic) throw lossNotFinite(this, loss, samples, notFinite)
    scaler?.step(!this.#applied, notFinite)
    await this.#saver.check()
    return {
      step: this.globalSteps,
      loss,
      lr,
      gradNorm: this.#gradNorm,
      lossScale,
      skipped: !this.#applied,
      ...(notFinite !== undefined && { notFinite }),
      memory: stats.live,
      memoryPeak: stats.peak,
    }
  }

  /**
   * One whole step: `next` gives the inputs of each micro-batch; their tensors are disposed here.
   *
   * @example
   * const wrapped = await initialize({ model: new WithLoss(), config: 'ds_config.json' })
   * const result = await wrapped.trainBatch(() => [tensor(new Float32Array(8), [2, 4]), tensor([1, 2], [2, 1])])
   * result.step // 1
   * await wrapped.close()
   */
  abstract trainBatch(next: (firstSample: number) => Args): Promise<StepResult>

  /** Hands over the losses of the batches; says how many they were. */
  protected abstract evaluate(batches: Iterable<Args>, onLoss: (loss: Tensor) => void): Promise<number>

  /**
   * Collective. The mean loss over all micro-batches of all ranks, without gradients and dropout. Disposes the inputs.
   * Data-parallel ranks may have different numbers of them, but not at stage 3 or within a tensor, context or pipeline
   * group: there it throws on all ranks, and takes all of an iterable's batches before the first is computed.
   *
   * @example
   * const wrapped = await initialize({ model: new WithLoss(), config: 'ds_config.json' })
   * const batch = (): [Tensor, Tensor] => [tensor(new Float32Array(8), [2, 4]), tensor([1, 2], [2, 1])]
   * await wrapped.evalBatch([batch(), batch()]) > 0 // true
   * await wrapped.close()
   */
  async evalBatch(batches: Iterable<Args>): Promise<number> {
    const { fetcher } = this.parts.zero
    const agreed = await agreedBatches(batches, this.parts)
    const evaluation = new Evaluation(this.parts)
    this.model.eval()
    fetcher?.begin('eval')
    try {
      return await evaluation.mean(await this.evaluate(agreed, (loss) => evaluation.add(loss)))
    } finally {
      fetcher?.end()
      this.model.train()
      evaluation.dispose()
      if (Array.isArray(agreed)) for (const tensor of agreed.flat()) tensor.dispose() // after an error some are left
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

  /**
   * Collective; await it. Writes `output`/checkpoints/step-N; resolves with its path when it is durable, or, in the
   * background, when the training may go on: it is durable after finishSaving(). What a save in the background fails
   * with is thrown by the next step, save or load, or by close(); the checkpoints before it stay as they are.
   *
   * @example
   * const path = await engine.saveCheckpoint('out', { client: { epoch: 3 }, retain: 2 })
   * path.endsWith('checkpoints/step-00000000') // true
   */
  async saveCheckpoint(output: string, options: SaveOptions = {}): Promise<string> {
    this.#betweenSteps('saveCheckpoint', 'CHECKPOINT', 'save after a step() that updated')
    const { zero, mesh, stage, fp8, asyncSave = false } = this.parts
    const { client = {}, model, tokenizer } = options
    const request = {
      folder: join(output, 'checkpoints'),
      zero,
      retain: options.retain ?? 0,
      scales: () => copyOfScales(fp8, { stage: mesh.place.pp, stages: mesh.sizes.pp }),
      head: {
        state: this.state,
        layout: { world: mesh.world.size, mesh: meshWords(mesh.sizes), stage },
        client,
        ...(model && { model }),
        ...(tokenizer && { tokenizer }),
      },
    }
    // A copy of what lies on disk would take the memory that it is not to take.
    return this.#saver.save(request, (options.async ?? asyncSave) && !usesDisk(zero.options.offload))
  }

  /** Collective. Resolves when a save in the background, if there is one, is durable; throws what it failed with. */
  finishSaving(): Promise<void> {
    return this.#saver.finish()
  }

  /**
   * Collective. Loads a checkpoint (its folder, or a run's output folder) of any layout.
   *
   * @example
   * await engine.saveCheckpoint('saved', { client: { epoch: 3 } })
   * const { client } = await engine.loadCheckpoint('saved')
   * client.epoch // 3
   */
  async loadCheckpoint(path: string, options: LoadOptions = {}): Promise<LoadedCheckpoint> {
    checkLoadOptions(options)
    this.#betweenSteps('loadCheckpoint', 'CHECKPOINT', 'load after a step() that updated')
    await this.finishSaving()
    return this.restore(await openCheckpoint(path, this.parts.meeting), options)
  }

  /**
   * Collective. The newest whole checkpoint of an output folder, or undefined.
   *
   * @example
   * const path = await engine.resume('nothing-there', (message) => console.error(message))
   * path === undefined // true
   */
  async resume(output: string, onDamaged: (message: string) => void): Promise<string | undefined> {
    await this.finishSaving()
    const found = await findNewest(join(output, 'checkpoints'), onDamaged, this.parts.meeting)
    return found && (await this.restore(found)).path
  }

  async restore({ folder, manifest }: FoundCheckpoint, options: LoadOptions = {}): Promise<LoadedCheckpoint> {
    const { zero, meeting, fp8 } = this.parts
    this.forwards.length = 0
    const agreement = new Agreement(meeting, 'load')
    await loadCheckpoint(folder, manifest, zero, agreement, options)
    if (fp8 && (options.optimizer ?? true)) await agreement.all('scales', () => loadScales(folder, manifest, fp8))
    if (options.optimizer ?? true) {
      const { step, updates, skippedSteps, samples, seed, scaler } = manifest.state
      this.parts.seed = seed // the run's own: its samples and masks go on
      if (scaler) this.parts.scaler?.load(scaler)
      this.globalSteps = step
      this.#updates = updates
      this.skippedSteps = skippedSteps
      this.samples = samples
    }
    return { path: folder, client: manifest.client }
  }

  /** Parameters, gradients and optimizer states by name, whole or local. */
  get access(): Access {
    return new Access(this.parts.zero, () => 1 / this.lossScale)
  }

  /** Collective. Runs `fn` while these parameters exist whole on every rank; see `gathered`. */
  gathered<T>(parameters: readonly Parameter[], fn: () => T | Promise<T>, options?: GatheredOptions): Promise<T> {
    return gathered(this.parts.zero, parameters, fn, options)
  }

  /** Moves states to host memory, all unless named, until reloadStates(). Collective. Not between backward and step. */
  offloadStates(what: readonly Offloadable[] = offloadables): void {
    this.dropGraph()
    this.parts.zero.move('offloadStates', what, 'host')
  }
  reloadStates(what: readonly Offloadable[] = offloadables): void {
    this.dropGraph()
    this.parts.zero.move('reloadStates', what, 'device')
  }

  /** Before memory of the model's moves: a captured step works on what is where it was. */
  protected dropGraph(): void {}

  memory(): ReturnType<typeof memory.stats> {
    return memory.stats()
  }

  /** Frees everything and leaves the process group, after a save in the background; throws what that failed with. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    try {
      await this.finishSaving()
    } finally {
      this.dropGraph()
      this.lossSum.dispose()
      this.parts.fp8?.dispose()
      this.parts.zero.dispose()
      await this.parts.onClose?.()
    }
  }
}
