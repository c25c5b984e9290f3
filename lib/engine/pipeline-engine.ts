// The engine of a model that is cut into pipeline stages: a step is a schedule over all micro-batches, so there are
// trainBatch and evalBatch, and no forward, backward and step of one micro-batch.

import { ZeroshardError } from '../binding/errors.js'
import { PipelineRunner } from '../parallel/pipeline/runner.js'
import { buildPipeline, type Schedule } from '../parallel/pipeline/schedule.js'
import { evaluation } from '../parallel/pipeline/schedules/evaluation.js'
import { simulate } from '../parallel/pipeline/simulator.js'
import type { StageOfModel } from '../parallel/pipeline/stage.js'
import { memory } from '../tensor/memory.js'
import { unscoped } from '../tensor/scope.js'
import type { Tensor } from '../tensor/tensor.js'
import type { EngineParts, StepResult, Trainable } from './base.js'
import { Engine } from './engine.js'

/** For the user, where there are fewer micro-batches than stages: it works, but most of the time passes in waiting. */
export function bubbleNotes(schedule: Schedule, stages: number, microBatches: number): string[] {
  if (microBatches >= stages) return []
  const { bubble } = simulate(buildPipeline(schedule, stages, microBatches), { forward: 1 })
  return [
    `pipeline: ${microBatches} micro-batches on ${stages} stages leave ${Math.round(100 * bubble)} % of the time idle (${schedule.name}); at least ${stages} are better: smaller ones, or a larger train_batch_size`,
  ]
}

export class PipelineEngine<Args extends Tensor[] = Tensor[]> extends Engine<Args> {
  readonly #runner: PipelineRunner
  #running = false

  constructor(
    model: Trainable<Args>,
    parts: EngineParts,
    readonly stage: StageOfModel,
    readonly schedule: Schedule,
  ) {
    super(model, parts)
    this.#runner = new PipelineRunner(stage, parts.mesh, parts.zero)
  }

  protected override get midStep(): boolean {
    return this.#running
  }

  #refuse(op: string): never {
    throw new ZeroshardError(
      'UNSUPPORTED',
      `[${op}] a pipeline runs all micro-batches of a step together; use trainBatch(next) or evalBatch(batches)`,
    )
  }
  override forward(): Tensor {
    return this.#refuse('forward')
  }
  override backward(): void {
    this.#refuse('backward')
  }
  override scale(): Tensor {
    return this.#refuse('scale')
  }
  override async step(): Promise<StepResult> {
    return this.#refuse('step')
  }
  override noSync<T>(): T {
    return this.#refuse('noSync')
  }

  override async trainBatch(next: (firstSample: number) => Args): Promise<StepResult> {
    try {
      await this.#runAll(next, this.numAccumulation)
      return await this.finishStep(this.numAccumulation)
    } catch (error) {
      this.abandonStep()
      throw error
    }
  }

  async #runAll(next: (firstSample: number) => Args, numMicro: number): Promise<void> {
    const { mesh } = this.parts
    memory.resetPeak()
    const inputs: Args[] = []
    this.#running = true
    try {
      for (let micro = 0; micro < numMicro; micro++)
        inputs.push(unscoped(() => next(this.samples + this.firstSampleOf(micro))))
      await this.#runner.run({
        instructions: this.schedule.instructions(mesh.sizes.pp, numMicro, mesh.place.pp),
        inputs,
        training: true,
        lossFactor: this.lossScale / this.parts.lossShare / numMicro,
        onMicroBatch: (micro) => this.setRandom(micro),
        onLoss: (loss) => this.addLoss(loss),
      })
    } finally {
      this.#running = false
      for (const tensor of inputs.flat()) tensor.dispose()
    }
  }

  protected override async evaluate(batches: Iterable<Args>, onLoss: (loss: Tensor) => void): Promise<number> {
    const { mesh } = this.parts
    const inputs = [...batches]
    if (inputs.length === 0) return 0
    await this.#runner.run({
      instructions: evaluation(this.schedule).instructions(mesh.sizes.pp, inputs.length, mesh.place.pp),
      inputs,
      training: false,
      lossFactor: 1,
      onMicroBatch: () => {},
      onLoss,
    })
    return inputs.length
  }

  override async close(): Promise<void> {
    this.#runner.dispose()
    await super.close()
  }
}
