// The metrics file: one JSON object per line, written as the step ends.

import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export class MetricsFile {
  readonly #file: number

  /** `append`: a resumed run goes on in the same file. */
  constructor(path: string, append: boolean) {
    mkdirSync(dirname(path), { recursive: true })
    this.#file = openSync(path, append ? 'a' : 'w')
  }

  write(row: Record<string, unknown>): void {
    writeSync(this.#file, `${JSON.stringify(row)}\n`)
  }

  close(): void {
    closeSync(this.#file)
  }
}
