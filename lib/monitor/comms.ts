// DeepSpeed's comms_logger: how often each collective ran, how long, and how fast, by kind, size and number of ranks.
// Made of trace records, so that the time is that of the communication stream: from when the collective may
// start (waits for slower ranks included) to its end.

import { collectiveKinds } from '../binding/native.js'
import { bytesText, table } from './table.js'
import type { TraceRecords } from './trace.js'

export interface CommsConfig {
  /** Each collective is told as its records come. */
  verbose?: boolean
  /** False: only `prof_ops`. */
  prof_all?: boolean
  /** Collectives by name, in our words or torch's: allReduce, all_reduce, all_gather_into_tensor. */
  prof_ops?: readonly string[]
  /** Names tell in which phase it was queued. */
  debug?: boolean
}

/** Collectives of one kind and size. */
export interface CommsRow {
  name: string
  ranks: number
  /** Of the whole array. */
  bytes: number
  count: number
  /** Milliseconds of all, and of one. */
  total: number
  latency: number
  /** GB/s: bytes by time; and what each link carries at least (nccl-tests' definition). */
  algbw: number
  busbw: number
}

type Kind = (typeof collectiveKinds)[number]

/** busbw / algbw for n ranks. */
export function busFactor(kind: Kind, n: number): number {
  if (kind === 'allReduce') return (2 * (n - 1)) / n
  return kind === 'allGather' || kind === 'reduceScatter' || kind === 'allToAll' ? (n - 1) / n : 1
}

const plain = (name: string): string => name.toLowerCase().replaceAll('_', '')

/** Kinds that none of the names means; for telling a misspelt prof_ops. */
export const unknownCollectives = (names: readonly string[]): string[] =>
  names.filter((name) => !collectiveKinds.some((kind) => plain(name).startsWith(plain(kind))))

/** Counts collectives by kind and size, and how fast they were. */
export class CommsLogger {
  readonly #rows = new Map<string, Omit<CommsRow, 'latency' | 'algbw' | 'busbw'> & { kind: Kind }>()
  readonly #config: CommsConfig

  constructor(
    config: CommsConfig = {},
    readonly print: (text: string) => void = () => {},
  ) {
    this.#config = config
  }

  #wanted(kind: Kind): boolean {
    const { prof_all = true, prof_ops = [] } = this.#config
    return prof_all || prof_ops.some((name) => plain(name).startsWith(plain(kind)))
  }

  /** `phaseOf`: in what phase the task at an index was queued. */
  add(records: TraceRecords, phaseOf: (index: number) => string | undefined = () => undefined): void {
    for (let i = 0; i < records.start.length; i++) {
      const kind = collectiveKinds[records.kind[i] as number]
      if (!kind || !this.#wanted(kind)) continue
      const name = this.#config.debug ? `${kind} [${phaseOf(i) ?? 'elsewhere'}]` : kind
      const [bytes, ranks] = [records.bytes[i] as number, records.groupSize[i] as number]
      const key = `${name} ${bytes} ${ranks}`
      const row = this.#rows.get(key) ?? { name, kind, ranks, bytes, count: 0, total: 0 }
      const milliseconds = ((records.end[i] as number) - (records.start[i] as number)) / 1e6
      row.count++
      row.total += milliseconds
      this.#rows.set(key, row)
      if (this.#config.verbose) {
        const one = speeds({ ...row, count: 1, total: milliseconds })
        this.print(
          `comm op: ${name} | time (ms): ${milliseconds.toFixed(3)} | msg size: ${bytesText(bytes)} | ` +
            `algbw (GB/s): ${one.algbw.toFixed(2)} | busbw (GB/s): ${one.busbw.toFixed(2)}`,
        )
      }
    }
  }

  /** By name, then by size. */
  summary(): CommsRow[] {
    return [...this.#rows.values()]
      .map(speeds)
      .sort((a, b) => a.name.localeCompare(b.name) || a.bytes - b.bytes || a.ranks - b.ranks)
  }

  logSummary(): string {
    const rows = this.summary()
    if (rows.length === 0) return 'no collectives ran'
    return table(
      ['collective', 'size', 'ranks', 'count', 'total (ms)', 'avg (ms)', 'algbw (GB/s)', 'busbw (GB/s)'],
      rows.map((row) => [
        row.name,
        bytesText(row.bytes),
        String(row.ranks),
        String(row.count),
        row.total.toFixed(2),
        row.latency.toFixed(3),
        row.bytes ? row.algbw.toFixed(2) : '-',
        row.bytes ? row.busbw.toFixed(2) : '-',
      ]),
    )
  }
}

function speeds(row: Omit<CommsRow, 'latency' | 'algbw' | 'busbw'> & { kind: Kind }): CommsRow {
  const { kind, ...rest } = row
  const seconds = Math.max(row.total, 1e-6) / 1e3
  const algbw = (row.bytes * row.count) / seconds / 1e9
  return { ...rest, latency: row.total / row.count, algbw, busbw: algbw * busFactor(kind, row.ranks) }
}
