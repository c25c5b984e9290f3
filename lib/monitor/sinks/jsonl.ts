// One JSON object per line for the events of a step: {"step":8,"Train/Samples/lr":0.001}. What JSON has no number for
// (NaN, infinities) is a text.

import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MonitorEvent, Sink } from '../monitor.js'

export class JsonLines implements Sink {
  readonly #file: number

  /** A resumed run goes on in the same file. */
  constructor(folder: string, job: string) {
    mkdirSync(folder, { recursive: true })
    this.#file = openSync(join(folder, `${job.replaceAll(/[^\w.-]/g, '_')}.jsonl`), 'a')
  }

  write(events: readonly MonitorEvent[]): void {
    const rows = new Map<number, Record<string, number | string>>()
    for (const { name, value, step } of events) {
      const row = rows.get(step) ?? { step }
      row[name] = Number.isFinite(value) ? value : String(value)
      rows.set(step, row)
    }
    writeFileSync(this.#file, [...rows.values()].map((row) => `${JSON.stringify(row)}\n`).join(''))
  }

  close(): void {
    closeSync(this.#file)
  }
}
