// What every benchmark needs: repeats and medians, measuring in processes of their own (ranks too), the machine's
// description, and results as a table, as JSON and as Markdown.

import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { arch, availableParallelism, cpus, loadavg, tmpdir, totalmem } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { NativeGpu } from '../lib/binding/native.js'
import { gpuLine } from '../lib/monitor/hardware.js'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

export interface Row {
  name: string
  value: number
  unit: string
  /** Of the ceiling, 0 to 1; of the peak (model FLOPs utilisation). */
  share?: number
  mfu?: number
  /** `>=` or `<=` a number of the same unit. */
  target?: `${'>=' | '<='} ${number}`
  note?: string
}

/** A file's default export in one of bench's folders. */
export interface Benchmark {
  title: string
  run(): Promise<Row[]>
}

/** A file's `work`: runs in a process of its own (`inChild`); rank 0's result comes back. */
export type Work<Options, Result> = (options: Options) => Promise<Result>

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

/** Seconds of each call after `warmup` ones. */
export function timeSync(fn: () => void, repeats = 9, warmup = 2): number[] {
  for (let i = 0; i < warmup; i++) fn()
  return Array.from({ length: repeats }, () => {
    const start = performance.now()
    fn()
    return (performance.now() - start) / 1000
  })
}

/** Runs the `work` of a benchmark's file, on `ranks` processes that share the machine's threads. */
export async function inChild<Options, Result>(
  file: string,
  options: Options,
  { ranks = 1, threads }: { ranks?: number; threads?: number } = {},
): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-bench-'))
  const output = join(folder, 'result.json')
  const args = ['--expose-gc', '--import', 'tsx', join(root, 'bench/child.ts'), fileURLToPath(file), output]
  const env = { ...process.env, ...(threads ? { ZEROSHARD_NUM_THREADS: String(threads) } : {}) }
  try {
    const { launchLocal } = await import('../lib/launch/local.js')
    const command = { nproc: ranks, command: process.execPath, args: [...args, JSON.stringify(options)], env }
    const { status, message } = await launchLocal(command)
    if (status !== 0) throw new Error(`${file} ended with status ${status}: ${message ?? 'see its output'}`)
    return JSON.parse(readFileSync(output, 'utf8')) as Result
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** What a command prints to stdout. */
export function capture(command: string, args: string[], env: NodeJS.ProcessEnv = process.env): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    child.on('error', reject)
    child.on('close', (status) =>
      status === 0 ? resolve(text) : reject(new Error(`${command} ended with status ${status}`)),
    )
  })
}

/** Python with PyTorch (ZEROSHARD_BENCH_PYTHON, else python3), or undefined where there is none. */
export async function pythonWithTorch(): Promise<string | undefined> {
  const python = process.env.ZEROSHARD_BENCH_PYTHON || 'python3'
  try {
    execFileSync(python, ['-c', 'import torch'], { stdio: 'ignore' })
    return python
  } catch {
    return undefined
  }
}

export interface Machine {
  processor: string
  cores: number
  gigabytes: number
  node: string
  simd: string
  commit: string
  date: string
  /** As NVML tells of them before the start; none where the CPU is measured. */
  gpus: NativeGpu[]
  driver: string
  /** Load of the minute before: above a tenth of the cores the figures are provisional. */
  load: number
}

export function describeMachine(simd: string, { gpus, driver }: Pick<Machine, 'gpus' | 'driver'>): Machine {
  const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim()
  return {
    processor: cpus()[0]?.model.trim() ?? arch(),
    cores: availableParallelism(),
    gigabytes: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    simd,
    commit: git('rev-parse', '--short=10', 'HEAD') + (git('status', '--porcelain', '-uno') ? ' and changes' : ''),
    date: new Date().toISOString().slice(0, 10),
    gpus,
    driver,
    load: Math.round((loadavg()[0] as number) * 100) / 100,
  }
}

const format = (value: number): string =>
  Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toPrecision(3)

/** Whether a row meets its target; undefined where it has none. */
export function meets({ value, target }: Row): boolean | undefined {
  if (!target) return undefined
  const limit = Number(target.slice(3))
  return target.startsWith('>=') ? value >= limit : value <= limit
}

const percent = (share: number | undefined): string => (share === undefined ? '' : `${(100 * share).toFixed(1)} %`)
const columns: [string, (row: Row) => string][] = [
  ['case', ({ name }) => name],
  ['result', ({ value, unit }) => (Number.isNaN(value) ? 'none' : `${format(value)} ${unit}`)],
  ['of ceiling', ({ share }) => percent(share)],
  ['MFU', ({ mfu }) => percent(mfu)],
  ['target', ({ target }) => target ?? ''],
  ['met', (row) => ({ true: 'yes', false: 'no', undefined: '' })[String(meets(row))] as string],
  ['note', ({ note }) => note ?? ''],
]

/** Lines of a table whose columns are aligned; shares and MFU only where a row has them. */
export function table(rows: readonly Row[]): string[] {
  const some = columns.filter(([head, cell]) => !['of ceiling', 'MFU'].includes(head) || rows.some((row) => cell(row)))
  const all = [some.map(([head]) => head), ...rows.map((row) => some.map(([, cell]) => cell(row)))]
  const widths = some.map((_, column) => Math.max(...all.map((line) => (line[column] as string).length)))
  const line = (parts: string[]): string =>
    `| ${parts.map((part, column) => part.padEnd(widths[column] as number)).join(' | ')} |`
  const [first, ...rest] = all.map(line)
  return [first as string, line(widths.map((width) => '-'.repeat(width))), ...rest]
}

/** Writes <what>-<hardware>-<yyyymm>.md and .json into bench/results, or `folder`; returns the first one's path. */
export function writeResults(
  what: string,
  command: string,
  machine: Machine,
  parts: readonly { title: string; rows: Row[] }[],
  folder = join(root, 'bench/results'),
): string {
  mkdirSync(folder, { recursive: true })
  const { gpus } = machine
  const gpu = gpus[0] && `${gpus.length} ${gpus[0].name}`
  const hardware = (gpu ?? `${machine.processor}-${machine.cores}`).toLowerCase().replace(/[^a-z0-9]+/g, '-')
  const path = join(folder, `${what}-${hardware}-${machine.date.slice(0, 7).replace('-', '')}`)
  const provisional = machine.load > machine.cores / 10
  const lines = [
    `# ${what}`,
    '',
    `\`${command}\`, ${machine.date}, commit ${machine.commit}.`,
    `${machine.processor}, ${machine.cores} cores (${machine.simd}), ${machine.gigabytes} GiB, Node ${machine.node}.`,
    ...gpus.map((each) => `GPU ${each.index}: ${gpuLine(each)}.`),
    ...(machine.driver ? [`Driver ${machine.driver}.`] : []),
    ...(provisional ? [`Provisional: the machine was busy (load ${machine.load} before the start).`] : []),
    ...parts.flatMap(({ title, rows }) => ['', `## ${title}`, '', ...table(rows)]),
  ]
  writeFileSync(`${path}.md`, `${lines.join('\n')}\n`)
  writeFileSync(`${path}.json`, `${JSON.stringify({ what, command, machine, parts }, undefined, 2)}\n`)
  return `${path}.md`
}
