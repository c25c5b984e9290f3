// The newest value of every metric as a text file for Prometheus' node exporter (its textfile collector):
// zeroshard_train_samples_lr{job="…"} 0.001. Replaced whole at each write, so that no reader sees half of it.

import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MonitorEvent, Sink } from '../monitor.js'

export class PrometheusFile implements Sink {
  readonly path: string
  readonly #values = new Map<string, number>()

  constructor(
    folder: string,
    readonly job: string,
  ) {
    mkdirSync(folder, { recursive: true })
    this.path = join(folder, `${job.replaceAll(/[^\w.-]/g, '_')}.prom`)
  }

  write(events: readonly MonitorEvent[]): void {
    for (const { name, value, step } of events) {
      this.#values.set(`zeroshard_${name.toLowerCase().replaceAll(/\W+/g, '_')}`, value)
      this.#values.set('zeroshard_samples', step)
    }
    const label = this.job.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
    const lines = [...this.#values].map(
      ([name, value]) => `# TYPE ${name} gauge\n${name}{job="${label}"} ${number(value)}\n`,
    )
    writeFileSync(`${this.path}.tmp`, lines.join(''))
    renameSync(`${this.path}.tmp`, this.path)
  }

  close(): void {}
}

const number = (value: number): string =>
  Number.isFinite(value) ? String(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
