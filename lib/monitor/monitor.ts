// Where events go: TensorBoard, CSV, JSON lines, Prometheus, as the configuration has it. Rank 0 writes, the others do nothing.
// A disk that fails is told once for each sink and does not end the training.

import { resolve } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { CsvFiles } from './sinks/csv.js'
import { JsonLines } from './sinks/jsonl.js'
import { PrometheusFile } from './sinks/prometheus.js'
import { TensorBoardFile } from './sinks/tensorboard.js'

/** One figure of one step. */
export interface MonitorEvent {
  name: string
  value: number
  /** Global samples so far, in DeepSpeed's events. */
  step: number
}

export interface Sink {
  write(events: readonly MonitorEvent[]): void
  close(): void
}

/** DeepSpeed's keys: files lie in output_path/job_name. */
export interface SinkConfig {
  enabled?: boolean
  output_path?: string | null
  job_name?: string | null
}

/** The sections of a configuration that say where figures go. */
export interface MonitorConfig {
  tensorboard?: SinkConfig
  csv_monitor?: SinkConfig
  jsonl_monitor?: SinkConfig
  prometheus?: SinkConfig
}

export interface MonitorOptions {
  rank: number
  /** Relative output paths start here; default the working directory. */
  directory?: string
  /** The first step that a resumed run may write. */
  resumedAt?: number
  /** Told at most once for each sink. */
  onError: (error: ZeroshardError) => void
}

const makers: Record<keyof MonitorConfig, (folder: string, job: string, resumedAt?: number) => Sink> = {
  tensorboard: (folder, job, resumedAt) => new TensorBoardFile(resolve(folder, job), resumedAt),
  csv_monitor: (folder, job) => new CsvFiles(resolve(folder, job)),
  jsonl_monitor: (folder, job) => new JsonLines(folder, job),
  prometheus: (folder, job) => new PrometheusFile(folder, job),
}
export const sinkNames = Object.keys(makers) as (keyof MonitorConfig)[]

/** The sinks that a configuration names, as one. */
export function makeMonitor(config: MonitorConfig, options: MonitorOptions): Sink {
  const open = new Map<string, Sink>()
  /** Does it; a sink that fails is closed and left out from then on. */
  const attempt = (name: string, work: () => void): void => {
    try {
      work()
    } catch (cause) {
      const failed = open.get(name)
      open.delete(name)
      const message = `[monitor] ${name}: ${(cause as Error).message}; it gets no more events`
      options.onError(new ZeroshardError('IO', message, { cause }))
      try {
        failed?.close()
      } catch {}
    }
  }
  for (const name of sinkNames) {
    const { enabled, output_path, job_name } = config[name] ?? {}
    if (!enabled || options.rank !== 0) continue
    const folder = resolve(options.directory ?? '.', output_path ?? '')
    attempt(name, () => open.set(name, makers[name](folder, job_name || 'DeepSpeedJobName', options.resumedAt)))
  }
  return {
    write: (events) => {
      if (events.length > 0) for (const [name, sink] of open) attempt(name, () => sink.write(events))
    },
    close: () => {
      for (const [name, sink] of open) attempt(name, () => sink.close())
      open.clear()
    },
  }
}
