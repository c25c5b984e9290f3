// A trace as Chrome and Perfetto (ui.perfetto.dev) read it: JSON trace events, one a line, written as they come, so
// that what a killed rank leaves can still be merged. A process is a rank, a thread a stream, and one is JavaScript.

import { closeSync, createReadStream, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { ZeroshardError } from '../binding/errors.js'
import { collectiveKinds, dtypes, streams } from '../binding/native.js'
import type { Span, TraceRecords } from './trace.js'

/** What the first line tells of a file. */
interface Head {
  rank: number
  host: string
  /** Files of one clock have times of one origin. */
  clock: string
  /** From that clock to the wall's. */
  wallOffsetMicroseconds: number
}

const javascript = streams.length
const microseconds = (ns: number): number => Math.round(ns) / 1000

interface TraceEvent {
  name: string
  ph: string
  ts: number
  pid: number
  [key: string]: unknown
}

export interface TraceFileOptions {
  rank: number
  /** Events after which the file takes no more; default a million, some 150 MB. */
  maxEvents?: number
}

/** A trace in the format that Perfetto and chrome://tracing open. */
export class TraceFile {
  readonly #file: number
  readonly #rank: number
  #left: number
  #clock: string | undefined

  constructor(
    readonly path: string,
    options: TraceFileOptions,
  ) {
    this.#rank = options.rank
    this.#left = options.maxEvents ?? 1_000_000
    mkdirSync(dirname(path), { recursive: true })
    this.#file = openSync(path, 'w')
  }

  get full(): boolean {
    return this.#left <= 0
  }

  add({ records, spans }: { records: TraceRecords; spans: readonly Span[] }): void {
    if (this.#clock === undefined) this.#begin(records.wallOffset)
    const lines = spans.map((span) => line(this.#spanEvent(span)))
    for (let i = 0; i < records.start.length; i++) lines.push(line(this.#taskEvent(records, i)))
    if (records.dropped > 0 && lines.length > 0) {
      const at = microseconds(records.start[0] ?? (spans[0] as Span).start)
      lines.push(line({ name: `${records.dropped} tasks had no room`, ph: 'i', s: 'p', ts: at, pid: this.#rank }))
    }
    writeFileSync(this.#file, lines.slice(0, Math.max(0, this.#left)).join(''))
    this.#left -= lines.length
  }

  /** Values over time, drawn as areas; `at` in ns. */
  counter(name: string, at: number, values: Record<string, number>): void {
    if (this.#clock === undefined || this.full) return
    this.#left--
    writeFileSync(this.#file, line({ name, ph: 'C', ts: microseconds(at), pid: this.#rank, args: values }))
  }

  close(): void {
    if (this.#clock === undefined) this.#begin(0)
    writeFileSync(this.#file, '\n]}\n')
    closeSync(this.#file)
  }

  #begin(wallOffset: number): void {
    this.#clock = clockOfHost()
    const head: Head = {
      rank: this.#rank,
      host: hostname(),
      clock: this.#clock,
      wallOffsetMicroseconds: wallOffset,
    }
    const names = [...streams, 'javascript'].flatMap((name, tid) => [
      this.#metadata('thread_name', { name }, tid),
      this.#metadata('thread_sort_index', { sort_index: tid === javascript ? -1 : tid }, tid),
    ])
    const first = JSON.stringify(this.#metadata('process_name', { name: `rank ${this.#rank}` }))
    writeFileSync(this.#file, headLine(head) + first + names.map(line).join(''))
  }

  #metadata(name: string, args: Record<string, unknown>, tid = 0): TraceEvent {
    return { name, ph: 'M', ts: 0, pid: this.#rank, tid, args }
  }

  #spanEvent({ name, start, end }: Span): TraceEvent {
    const [ts, dur] = [microseconds(start), microseconds(end - start)]
    return { name, cat: 'javascript', ph: 'X', ts, dur, pid: this.#rank, tid: javascript }
  }

  #taskEvent(records: TraceRecords, i: number): TraceEvent {
    const [start, end, queued] = [records.start[i] as number, records.end[i] as number, records.queued[i] as number]
    const launched = records.launched[i] as number
    const collective = collectiveKinds[records.kind[i] as number]
    const seconds = Math.max(end - start, 1) / 1e9
    const flops = records.flops[i] as number
    const bytes = records.bytes[i] as number
    return {
      name: records.names[records.name[i] as number] as string,
      cat: collective ? 'collective' : 'op',
      ph: 'X',
      ts: microseconds(start),
      dur: microseconds(end - start),
      pid: this.#rank,
      tid: records.stream[i],
      args: {
        'queued before (us)': microseconds(start - queued),
        ...(launched < start && { 'launched before (us)': microseconds(start - launched) }),
        ...(flops > 0 && { GFLOPS: Math.round(flops / seconds / 1e7) / 100 }),
        ...(collective && {
          group: records.group[i],
          ranks: records.groupSize[i],
          count: records.count[i],
          dtype: dtypes[records.dtype[i] as number] ?? null,
          bytes,
          'GB/s': Math.round(bytes / seconds / 1e7) / 100,
        }),
      },
    }
  }
}

const line = (event: TraceEvent): string => `,\n${JSON.stringify(event)}`
const headLine = (otherData: Head | { files: Head[] }): string =>
  `{"displayTimeUnit":"ms","otherData":${JSON.stringify(otherData)},"traceEvents":[\n`

/** Processes of one boot of one machine share the monotonic clock, in whatever container they are. */
function clockOfHost(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return hostname()
  }
}

/**
 * One file of several ranks' files. Ranks of other hosts are placed by their wall clocks.
 * @throws IO where a file is none of ours.
 */
export async function mergeTraces(paths: readonly string[], output: string): Promise<void> {
  const heads = await Promise.all(paths.map(readHead))
  const [reference] = heads
  if (!reference) throw new ZeroshardError('ARGUMENT', '[mergeTraces] no files were given; give one per rank')
  mkdirSync(dirname(output), { recursive: true })
  const file = openSync(output, 'w')
  try {
    writeFileSync(file, headLine({ files: heads }))
    let separator = ''
    for (const [index, path] of paths.entries()) {
      const head = heads[index] as Head
      const shift = head.clock === reference.clock ? 0 : head.wallOffsetMicroseconds - reference.wallOffsetMicroseconds
      for await (const event of eventsOf(path)) {
        if (event.ph !== 'M') event.ts += shift
        writeFileSync(file, `${separator}${JSON.stringify(event)}`)
        separator = ',\n'
      }
    }
    writeFileSync(file, '\n]}\n')
  } finally {
    closeSync(file)
  }
}

async function* linesOf(path: string): AsyncGenerator<string> {
  const input = createReadStream(path, 'utf8')
  try {
    yield* createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })
  } finally {
    input.destroy()
  }
}

async function readHead(path: string): Promise<Head> {
  try {
    for await (const text of linesOf(path)) {
      const { otherData } = JSON.parse(`${text}]}`) as { otherData: Head }
      if (typeof otherData.rank === 'number' && typeof otherData.clock === 'string') return otherData
      break
    }
  } catch (cause) {
    throw new ZeroshardError('IO', `[mergeTraces] ${path}: ${(cause as Error).message}`, { cause })
  }
  throw new ZeroshardError('IO', `[mergeTraces] ${path} is no trace of one rank; give files that --trace wrote`)
}

/** The last line of a killed rank's file may be torn: it is left out. */
async function* eventsOf(path: string): AsyncGenerator<TraceEvent> {
  let first = true
  for await (const text of linesOf(path)) {
    if (!first && text.startsWith('{')) {
      try {
        yield JSON.parse(text.replace(/,$/, '')) as TraceEvent
      } catch {
        return
      }
    }
    first = false
  }
}
