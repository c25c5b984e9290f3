// One CSV file per metric, as DeepSpeed's csv_monitor writes them: Train_Samples_lr.csv with columns step, lr.

import { closeSync, fstatSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MonitorEvent, Sink } from '../monitor.js'

export class CsvFiles implements Sink {
  readonly #files = new Map<string, number>()

  /** A resumed run goes on in the same files. */
  constructor(readonly folder: string) {
    mkdirSync(folder, { recursive: true })
  }

  write(events: readonly MonitorEvent[]): void {
    for (const { name, value, step } of events) writeFileSync(this.#file(name), `${step},${value}\n`)
  }

  #file(name: string): number {
    const known = this.#files.get(name)
    if (known !== undefined) return known
    const file = openSync(join(this.folder, `${name.replaceAll(/[/ ]/g, '_')}.csv`), 'a')
    this.#files.set(name, file)
    if (fstatSync(file).size === 0) writeFileSync(file, `step,${quoted(name.split('/').at(-1) as string)}\n`)
    return file
  }

  close(): void {
    for (const file of this.#files.values()) closeSync(file)
  }
}

const quoted = (text: string): string => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
