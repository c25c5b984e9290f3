// What a person sees while training: one line that is renewed on a terminal (and now and then elsewhere),
// and the loss as a chart at the end.

import asciichart from 'asciichart'

export interface ProgressRow {
  step: number
  loss: number
  tokensPerSecond: number
  seconds: number
  bytes: number
}

export class Progress {
  readonly #losses: { step: number; loss: number }[] = []
  #smoothed: number | undefined
  #perStep: number | undefined
  #lastPrint = 0

  constructor(
    readonly total: number,
    readonly out: NodeJS.WriteStream,
    readonly quiet: boolean,
  ) {}

  row(row: ProgressRow): void {
    this.#losses.push(row)
    this.#smoothed = this.#smoothed === undefined ? row.loss : 0.95 * this.#smoothed + 0.05 * row.loss
    this.#perStep = this.#perStep === undefined ? row.seconds : 0.95 * this.#perStep + 0.05 * row.seconds
    const now = Date.now()
    const every = this.out.isTTY ? 200 : 10_000
    if (this.quiet || (now - this.#lastPrint < every && row.step !== this.total)) return
    this.#lastPrint = now
    const eta = Math.max(0, this.total - row.step) * this.#perStep
    this.#line(
      `step ${row.step}/${this.total}  loss ${this.#smoothed.toFixed(3)}  ${Math.round(row.tokensPerSecond)} tokens/s  ` +
        `ETA ${duration(eta)}  memory ${megabytes(row.bytes)}`,
      true,
    )
  }

  /** A line that stays. */
  say(text: string): void {
    if (!this.quiet) this.#line(text, false)
  }

  #line(text: string, renewable: boolean): void {
    if (!this.out.isTTY) this.out.write(`${text}\n`)
    else this.out.write(`\r\x1b[K${text}${renewable ? '' : '\n'}`)
  }

  /** The loss curve, averaged into at most 70 columns. */
  chart(): void {
    if (this.quiet || this.#losses.length < 4) return
    const columns = Math.min(70, this.#losses.length)
    const values = Array.from({ length: columns }, (_, index) => {
      const part = this.#losses.slice(
        Math.floor((index * this.#losses.length) / columns),
        Math.floor(((index + 1) * this.#losses.length) / columns),
      )
      return part.reduce((sum, { loss }) => sum + loss, 0) / part.length
    })
    if (this.out.isTTY) this.out.write('\n')
    const first = (this.#losses[0] as { step: number }).step
    const last = (this.#losses.at(-1) as { step: number }).step
    this.out.write(`loss, steps ${first} to ${last}\n${asciichart.plot(values, { height: 10 })}\n`)
  }
}

export const duration = (seconds: number): string => {
  const whole = Math.round(seconds)
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  return h ? `${h}h${String(m).padStart(2, '0')}m` : m ? `${m}m${String(s).padStart(2, '0')}s` : `${s}s`
}

export const megabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${(bytes / 1e6).toFixed(1)} MB`
