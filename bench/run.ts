// `npm run bench -- [--device cpu|cuda] [--dry [--nproc N]] [NAME…]`: runs the benchmarks (all, or those whose file or folder
// is named; `--models TEXT`: steps of the models whose name has it), prints tables and writes bench/results. Where there is a GPU it is what is measured (bench/device: ceilings
// first, then kernels, collectives, steps, memory, each as a share of them); on the CPU the other folders. `--dry`: the cases
// of bench/device, small, on N CPU ranks, for what has no GPU to be tried on; nothing of it is kept but in `--out FOLDER`.
// PyTorch is measured beside ours where `python3` (or ZEROSHARD_BENCH_PYTHON) has it; llm.c by `--llmc FOLDER`, DeepSpeed by
// `--deepspeed PYTHON`. It measures dist/ and the addon as they are: build first.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import type { SuiteOptions } from './device/suite.js'
import {
  describeMachine,
  type Machine,
  meets,
  pythonWithTorch,
  type Row,
  root,
  table,
  writeResults,
} from './harness.js'

interface Benchmark {
  title: string
  run(options: SuiteOptions): Promise<Row[]>
}
interface Found {
  folder: string
  name: string
  path: string
}

const host = ['op', 'comm', 'binding', 'step', 'checkpoint']
/** In their order: shares are of the ceilings, which are measured first. */
const ofDevice = ['ceilings', 'kernels', 'collectives', 'steps', 'memory']

/** The others are scripts with a command line of their own, or helpers: not even imported. */
const available: Found[] = ['device', ...host].flatMap((folder) =>
  readdirSync(join(root, 'bench', folder))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => ({ folder, name: file.slice(0, -3), path: join(root, 'bench', folder, file) }))
    .filter(({ path }) => readFileSync(path, 'utf8').includes('export default'))
    .sort((a, b) => ofDevice.indexOf(a.name) - ofDevice.indexOf(b.name)),
)

const flags = {
  device: { type: 'string' },
  dry: { type: 'boolean', default: false },
  nproc: { type: 'string' },
  every: { type: 'string', default: '1' },
  layouts: { type: 'string', default: 'simple' },
  models: { type: 'string', default: '' },
  llmc: { type: 'string' },
  deepspeed: { type: 'string' },
  out: { type: 'string' },
} as const

class Misuse extends Error {}
const refuse = (message: string): never => {
  throw new Misuse(message)
}

function whole(name: string, text: string, most: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > most)
    refuse(`--${name} is '${text}'; it must be an integer from 1 to ${most}`)
  return value
}

type Devices = { devices: unknown[]; reason: string }

/** What the command line asks for. Throws Misuse. */
function read(args: string[], { devices, reason }: Devices) {
  const { values, positionals: names } = (() => {
    try {
      return parseArgs({ args, options: flags, allowPositionals: true })
    } catch (error) {
      return refuse((error as Error).message)
    }
  })()
  const { device = devices.length > 0 && !values.dry ? 'cuda' : 'cpu', dry, out, llmc, deepspeed } = values
  if (device !== 'cpu' && device !== 'cuda') return refuse(`--device is '${device}'; it must be cpu or cuda`)
  if (dry && device === 'cuda') return refuse('--dry runs on CPU ranks; leave out --device cuda')
  if (values.nproc && !dry && device === 'cpu')
    return refuse('--nproc is for --dry, and for how many GPUs; without both it does nothing')
  if (values.layouts !== 'simple' && values.layouts !== 'all')
    return refuse(`--layouts is '${values.layouts}'; it must be simple (one or two axes) or all`)
  if (device === 'cuda' && devices.length === 0) throw new NoDevice(reason)
  const suite = dry || device === 'cuda' ? ['device'] : host
  const known = available.filter(({ folder }) => suite.includes(folder))
  const unknown = names.filter((name) => !known.some((one) => one.name === name || one.folder === name))
  if (unknown.length) {
    const there = [...suite, ...known.map((one) => one.name)]
    refuse(`no benchmark '${unknown.join("', '")}'; there are ${there.join(', ')}`)
  }
  const most = device === 'cuda' ? devices.length : 64
  const options: SuiteOptions = {
    device,
    dry,
    ranks: whole('nproc', values.nproc ?? String(dry ? 8 : Math.max(1, devices.length)), most),
    every: whole('every', values.every, 1e6),
    allLayouts: values.layouts === 'all',
    models: values.models,
    ...(llmc && { llmc }),
    ...(deepspeed && { deepspeed }),
  }
  return { options, names, suite, out, known }
}

class NoDevice extends Error {}

async function main(): Promise<void> {
  if (!existsSync(join(root, 'dist/index.js'))) throw new Error('dist/ is missing; run npm run build first')
  const { binding, deviceState } = await import('./library.js')
  const { native } = binding()
  const args = process.argv.slice(2)
  const { options, names, suite, out, known } = read(args, native.devices())
  const { checkPeers } = await import('./device/peers.js')
  try {
    checkPeers(options)
  } catch (error) {
    refuse((error as Error).message)
  }
  process.env.ZEROSHARD_DEVICE = options.device
  const gpus =
    options.device === 'cuda' ? native.devices().devices.flatMap(({ index }) => deviceState(index) ?? []) : []
  const { driver, reason } = native.hardware()
  const machine = describeMachine(native.simd, { gpus, driver: reason ? '' : driver })
  const command = `npm run bench${args.length ? ` -- ${args.join(' ')}` : ''}`
  if (suite.includes('device')) {
    const python = options.dry ? undefined : await pythonWithTorch()
    if (python) options.python = python
    const { measureCeilings } = await import('./device/ceilings.js')
    options.ceilings = await measureCeilings(options)
  }
  const total = { missed: 0, failed: 0 }
  for (const folder of suite) await runFolder(folder)

  async function runFolder(folder: string): Promise<void> {
    const parts: { title: string; rows: Row[] }[] = []
    const all = known.filter((one) => one.folder === folder)
    for (const one of all) {
      if (names.length && !names.includes(one.name) && !names.includes(folder)) continue
      const benchmark = ((await import(pathToFileURL(one.path).href)) as { default: Benchmark }).default
      // One that fails does not take the others along; the folder's results stay as they were.
      const rows = await benchmark.run(options).catch((error: Error) => {
        console.error(`\n${one.name} failed: ${error.message}`)
        total.failed++
        return undefined
      })
      if (!rows) continue
      parts.push({ title: benchmark.title, rows })
      total.missed += rows.filter((row) => meets(row) === false).length
      console.log(['', benchmark.title, ...table(rows)].join('\n'))
    }
    keep(folder, parts, parts.length === all.length)
  }

  /** A part of a folder (or one that failed) is printed only: it must not replace the whole folder's results. */
  function keep(folder: string, parts: { title: string; rows: Row[] }[], complete: boolean): void {
    const kept = out ? parts.length > 0 : complete && parts.length > 0 && !options.dry
    if (kept) console.log(`\n→ ${writeResults(folder, command, machine as Machine, parts, out)}`)
  }

  console.log(total.missed ? `\n${total.missed} targets missed` : '\nall targets met')
  if (total.failed) process.exitCode = 1
}

await main().catch((error: unknown) => {
  if (!(error instanceof Misuse) && !(error instanceof NoDevice)) throw error
  console.error(error instanceof NoDevice ? `no device: ${error.message}` : error.message)
  process.exitCode = error instanceof NoDevice ? 77 : 2
})
