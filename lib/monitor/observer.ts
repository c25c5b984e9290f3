// What a training loop tells its observer, and what that makes of it: events for dashboards, DeepSpeed's
// wall_clock_breakdown, memory_breakdown, comms_logger and flops_profiler, a trace file, MFU. The loop calls
// wrap() around forward, backward and step, onStep() after each step, close() at the end. Reports never end a
// training: where a disk fails, that is told once.

import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { breakdown } from './breakdown.js'
import { type CommsConfig, CommsLogger, unknownCollectives } from './comms.js'
import { measurePeak, mfu, modelFlops } from './flops.js'
import { type MonitorConfig, type MonitorEvent, makeMonitor, type Sink, sinkNames } from './monitor.js'
import { ModuleProfiler, type ProfileConfig, type ProfiledModule, profileReport, workOf } from './profile.js'
import { memoryTable } from './table.js'
import { Timers, timersLine } from './timers.js'
import { now, overlapShare, phaseFinder, type Span, type TraceRecords, trace } from './trace.js'
import { TraceFile } from './trace-file.js'

/** Sections and keys of the configuration that concern reports. */
export interface ObserverConfig extends MonitorConfig {
  /** Default 10. */
  steps_per_print?: number | null
  wall_clock_breakdown?: boolean
  memory_breakdown?: boolean
  comms_logger?: CommsConfig & { enabled?: boolean }
  flops_profiler?: ProfileConfig
}

/** Whether there is anything for an observer to do. */
export const asksForReports = (config: ObserverConfig): boolean =>
  Boolean(config.wall_clock_breakdown || config.memory_breakdown) ||
  [...sinkNames.map((name) => config[name]), config.comms_logger, config.flops_profiler].some((it) => it?.enabled)

/** What an observer must know of the run. */
export interface ObserverOptions {
  rank: number
  worldSize: number
  dataParallelSize?: number
  model?: ProfiledModule & { config?: Record<string, unknown> }
  sequenceLength?: number
  microBatchSize?: number
  accumulationSteps?: number
  /** Element type of the model's products, for the measured peak. */
  dtype?: 'f32' | 'bf16' | 'f16'
  /** FLOP/s of one rank; measured where the FLOPs profiler is on and nothing is given. */
  peak?: number
  /** Steps and samples of a resumed run. */
  step?: number
  samples?: number
  /** Relative paths start here. */
  directory?: string
  /** This rank's trace file. */
  tracePath?: string
  print(text: string): void
  warn(text: string): void
}

/** What the engine tells of a step. */
export interface ObservedStep {
  step: number
  loss: number
  lr: number
  lossScale: number
  gradNorm: number
  memory: Record<string, number>
  memoryPeak: Record<string, number>
}

export interface StepExtra {
  /** Since the very first step. */
  samples: number
  /** Of this step, over all ranks. */
  stepSamples: number
  tokens: number
  seconds: number
}

/** Everything that watches a training run, behind one object. */
export class Observer {
  readonly #monitor: Sink
  readonly #timers = new Timers()
  readonly #comms: CommsLogger | undefined
  readonly #phases = new Set<string>()
  readonly #flopsPerToken: number | undefined
  readonly #peak: number | undefined
  readonly #every: number
  #file: TraceFile | undefined
  #profiler: ModuleProfiler | undefined
  #earlier: Span[] = []
  #steps = 0

  constructor(
    readonly config: ObserverConfig,
    readonly options: ObserverOptions,
  ) {
    const { rank, directory, samples, warn, model, sequenceLength, tracePath, step = 0 } = options
    this.#monitor = makeMonitor(config, {
      rank,
      ...(directory !== undefined && { directory }),
      ...(samples && { resumedAt: samples + 1 }),
      onError: (error) => warn(error.message),
    })
    this.#every = config.steps_per_print || 10
    if (config.comms_logger?.enabled) this.#comms = this.#makeComms(config.comms_logger)
    if (model?.config && sequenceLength) this.#flopsPerToken = modelFlops(model.config, sequenceLength)?.training
    const profiling = config.flops_profiler?.enabled && rank === 0
    this.#peak = options.peak ?? (profiling ? measurePeak({ dtype: options.dtype ?? 'f32' }) : undefined)
    if (tracePath) this.#attempt(tracePath, () => (this.#file = new TraceFile(tracePath, { rank })))
    if (this.#always) trace.start()
    this.#prepareProfile(step + 1)
  }

  #makeComms(config: CommsConfig): CommsLogger {
    const unknown = unknownCollectives(config.prof_ops ?? [])
    if (unknown.length) this.options.warn(`comms_logger.prof_ops: there is no collective ${unknown.join(', ')}`)
    return new CommsLogger(config, this.options.print)
  }

  /** Whether tasks are recorded at every step, not only at the profiled one. */
  get #always(): boolean {
    return Boolean(this.#file || this.#comms || this.config.wall_clock_breakdown)
  }

  /** Runs a phase of the step (forward, backward, step), which must not be within another one. */
  readonly wrap = <T>(phase: string, work: () => T): T => {
    if (trace.on) this.#phases.add(phase)
    return trace.span(phase, work)
  }

  /** After each step; gives what a row of metrics may have besides. */
  onStep(result: ObservedStep, extra: StepExtra): Record<string, unknown> {
    const more: Record<string, unknown> = {}
    if (trace.on) Object.assign(more, this.#study(trace.take(), result, extra))
    const use = this.#mfu(extra)
    if (use !== undefined) more.mfu = use
    this.#steps++
    this.#monitor.write(this.#events(result, extra, use))
    if (result.step % this.#every === 0) this.#print(result, extra)
    this.#prepareProfile(result.step + 1)
    return more
  }

  onEvaluation(loss: number, samples: number): void {
    this.#monitor.write([{ name: 'Validation/Samples/validation_loss', value: loss, step: samples }])
  }

  /** What the collectives took so far, where comms_logger is on. */
  logSummary(): string {
    return this.#comms?.logSummary() ?? ''
  }

  /** Writes what is left (waits a second at most for tasks under way); prints the collectives. Never throws. */
  async close(): Promise<void> {
    if (trace.on) {
      const idle = binding().native.synchronize(-1)
      await Promise.race([idle.catch(() => {}), sleep(1000, undefined, { ref: false })])
      const taken = trace.take()
      this.#comms?.add(taken.records, phaseFinder(taken.records, [...this.#earlier, ...this.#phaseSpans(taken.spans)]))
      this.#toFile((file) => file.add(taken))
      trace.stop()
    }
    this.#profiler?.detach()
    this.#toFile((file) => file.close())
    this.#file = undefined
    if (this.#comms) this.options.print(this.logSummary())
    this.#monitor.close()
  }

  #phaseSpans(spans: readonly Span[]): Span[] {
    return spans.filter((span) => this.#phases.has(span.name))
  }

  #study(
    taken: { records: TraceRecords; spans: Span[] },
    result: ObservedStep,
    extra: StepExtra,
  ): Record<string, unknown> {
    const { records, spans } = taken
    const phases = this.#phaseSpans(spans)
    // Communication of the last step may end in this one.
    const known = [...this.#earlier, ...phases]
    this.#earlier = phases
    this.#toFile((file) => {
      file.add(taken)
      const { total: _, ...memory } = result.memory
      file.counter('memory', now(), memory)
      if (!file.full) return
      file.close()
      this.#file = undefined
      this.options.warn(`the trace ends with step ${result.step}: ${file.path} has as many events as it takes`)
    })
    this.#comms?.add(records, phaseFinder(records, known))
    if (this.#profiler) this.#profile(this.#profiler, records, known, result, extra)
    if (!this.config.wall_clock_breakdown) return {}
    const milliseconds = breakdown(records, known, phases)
    milliseconds.total = extra.seconds * 1e3
    for (const [name, time] of Object.entries(milliseconds)) this.#timers.add(name, time)
    return { milliseconds, hiddenCommunication: overlapShare(records).share }
  }

  #mfu({ tokens, seconds }: StepExtra): number | undefined {
    if (this.#peak === undefined || this.#flopsPerToken === undefined) return undefined
    const { worldSize: ranks } = this.options
    return mfu({ flopsPerToken: this.#flopsPerToken, tokensPerSecond: tokens / seconds, peak: this.#peak, ranks })
  }

  #events(result: ObservedStep, extra: StepExtra, use: number | undefined): MonitorEvent[] {
    const values: Record<string, number> = {
      train_loss: result.loss,
      lr: result.lr,
      loss_scale: result.lossScale,
      grad_norm: result.gradNorm,
      ...(extra.tokens > 0 && { tokens_per_second: extra.tokens / extra.seconds }),
      ...(use !== undefined && { mfu: use }),
    }
    if (this.config.wall_clock_breakdown && result.step % this.#every === 0) {
      for (const [name, { total }] of Object.entries(this.#timers.summary()))
        values[`elapsed_time_ms_${name}`] = total / this.#steps
    }
    return Object.entries(values).map(([name, value]) => ({
      name: `Train/Samples/${name}`,
      value,
      step: extra.samples,
    }))
  }

  #print(result: ObservedStep, extra: StepExtra): void {
    const { config, options } = this
    const head = `step ${result.step}`
    if (config.wall_clock_breakdown) {
      options.print(`${head}: ${timersLine(this.#timers.summary({ reset: true }), this.#steps)}`)
      options.print(`${head}: ${(extra.stepSamples / extra.seconds).toFixed(2)} samples/s`)
    }
    if (config.memory_breakdown) options.print(`${head}:\n${memoryTable(result.memory, result.memoryPeak)}`)
    this.#steps = 0
  }

  /** Attaches the profiler where the coming step is the one to profile. */
  #prepareProfile(step: number): void {
    const { flops_profiler: profile } = this.config
    const { model, rank } = this.options
    if (!profile?.enabled || rank !== 0 || !model || (profile.profile_step ?? 1) !== step) return
    if (!trace.on) trace.start()
    this.#profiler = new ModuleProfiler(model)
    this.#profiler.attach()
  }

  #profile(
    profiler: ModuleProfiler,
    records: TraceRecords,
    spans: readonly Span[],
    result: ObservedStep,
    extra: StepExtra,
  ): void {
    const { options, config } = this
    profiler.detach()
    this.#profiler = undefined
    if (!this.#always) trace.stop()
    const find = phaseFinder(records, spans)
    const use = this.#mfu(extra)
    const text = profileReport(
      profiler.profile(records),
      {
        step: result.step,
        ranks: options.worldSize,
        dataParallel: options.dataParallelSize ?? options.worldSize,
        microBatchSize: options.microBatchSize ?? extra.stepSamples / options.worldSize,
        accumulationSteps: options.accumulationSteps ?? 1,
        backward: workOf(records, 'backward', find),
        update: workOf(records, 'step', find).time,
        seconds: extra.seconds,
        samples: extra.stepSamples,
        tokens: extra.tokens,
        ...(use !== undefined && { mfu: use }),
        ...(this.#peak !== undefined && { peak: this.#peak }),
      },
      config.flops_profiler ?? {},
    )
    const output = config.flops_profiler?.output_file
    if (!output) options.print(text)
    else {
      const path = resolve(options.directory ?? '.', output)
      this.#attempt(path, () => {
        mkdirSync(dirname(path), { recursive: true })
        writeFileSync(path, text)
      })
    }
  }

  /** A trace file that fails, or is full, gets no more. */
  #toFile(work: (file: TraceFile) => void): void {
    const file = this.#file
    if (!file || !this.#attempt(file.path, () => work(file))) this.#file = undefined
  }

  #attempt(path: string, work: () => void): boolean {
    try {
      work()
      return true
    } catch (cause) {
      this.options.warn(new ZeroshardError('IO', `[monitor] ${path}: ${(cause as Error).message}`, { cause }).message)
      return false
    }
  }
}
