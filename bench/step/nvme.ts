// States on disk: the optimizer's step, and shards of parameters read for a pass; bytes per second, against what dd
// moves with direct I/O in the same minute. ZEROSHARD_BENCH_DISK names the folder (default: the temporary one).

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Module } from '../../lib/nn/module.js'
import type { Zero } from '../../lib/parallel/zero/zero.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { type Benchmark, inChild, median, type Row } from '../harness.js'

interface Options {
  folder: string
  what: 'optimizer' | 'parameters'
  device: 'cpu' | 'nvme'
  precision: 'f32' | 'bf16'
  bufferCount: number
}

interface Result {
  /** Of the states; an update reads and writes them, a pass reads. */
  bytes: number
  /** Seconds of each repeat. */
  own: number[]
  read: number[]
  write: number[]
}

const NUM_LAYERS = 8
const WIDTH = 2048
const REPEATS = 5

/** Seconds of dd on a file of this size. */
function disk(file: string, bytes: number): { read: number; write: number } {
  const dd = (...args: string[]): number => {
    const start = performance.now()
    execFileSync('dd', [...args, 'bs=8M', `count=${Math.ceil(bytes / 2 ** 23)}`], { stdio: 'ignore' })
    return (performance.now() - start) / 1000
  }
  const write = dd('if=/dev/zero', `of=${file}`, 'oflag=direct', 'conv=notrunc')
  return { write, read: dd(`if=${file}`, 'of=/dev/null', 'iflag=direct') }
}

/** In a process of its own. */
export async function work({ folder, what, device, precision, bufferCount }: Options): Promise<Result> {
  const { binding, empty, initialize, nn } = await import('../library.js')
  class Stack extends (nn.Module as typeof Module) {
    readonly layers = Array.from({ length: NUM_LAYERS }, () => new nn.Linear(WIDTH, WIDTH))
    forward(x: Tensor): Tensor {
      return this.layers.reduce((h, layer) => layer.forward(h), x)
    }
  }
  const place = { device, ...(device === 'nvme' && { nvme_path: folder }) }
  const engine = await initialize({
    model: new Stack(),
    config: {
      train_micro_batch_size_per_gpu: 1,
      bf16: { enabled: precision === 'bf16' },
      optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
      zero_optimization:
        what === 'optimizer'
          ? { stage: 1, offload_optimizer: { ...place, buffer_count: bufferCount } }
          : { stage: 3, offload_param: { ...place, max_in_cpu: 0 } },
    },
  })
  const { zero } = engine.parts
  const norm = empty([], { zero: true })
  const elements = zero.units.reduce((sum, { start, end }) => sum + end - start, 0)
  const perElement = what === 'parameters' ? (precision === 'bf16' ? 2 : 4) : precision === 'bf16' ? 12 : 8
  const result: Result = { bytes: elements * perElement, own: [], read: [], write: [] }
  for (let i = -1; i < REPEATS; i++) {
    await binding().native.synchronize(-1)
    const start = performance.now()
    if (what === 'optimizer') zero.update({ lr: 1e-4, update: i + 2, norm, maxNorm: 0, lossScale: 1 })
    else fetchAll(zero)
    await binding().native.synchronize(-1)
    const own = (performance.now() - start) / 1000
    const times = disk(join(folder, 'dd'), result.bytes)
    if (i < 0) continue // blocks of the files are new
    result.own.push(own)
    result.read.push(times.read)
    result.write.push(times.write)
  }
  norm.dispose()
  await engine.close()
  return result
}

function fetchAll({ units, fetcher }: Zero): void {
  fetcher?.begin('bench')
  for (const unit of units) {
    if (!unit.parameters) fetcher?.use(unit)
    fetcher?.releaseUnits([unit])
  }
  fetcher?.end()
}

const rowOf = (name: string, { bytes, own, read, write }: Result, isUpdate: boolean, more: string): Row => {
  const moved = (isUpdate ? 2 : 1) * bytes
  const dd = median(read) + (isUpdate ? median(write) : 0)
  return {
    name,
    value: moved / median(own) / 1e6,
    unit: 'MB/s',
    target: `>= ${Math.round((0.8 * moved) / dd / 1e6)}`,
    note: `dd ${Math.round(moved / dd / 1e6)} MB/s; ${(1000 * median(own)).toFixed(0)} ms${more}`,
  }
}

export default {
  title: 'States on disk',
  async run() {
    const folder = mkdtempSync(join(process.env.ZEROSHARD_BENCH_DISK ?? tmpdir(), 'zeroshard-bench-disk-'))
    const measure = (options: Omit<Options, 'folder'>): Promise<Result> =>
      inChild<Options, Result>(import.meta.url, { ...options, folder })
    const millions = ((NUM_LAYERS * WIDTH * WIDTH) / 1e6).toFixed(0)
    const rows: Row[] = []
    try {
      for (const precision of ['f32', 'bf16'] as const) {
        const memory = await measure({ what: 'optimizer', device: 'cpu', precision, bufferCount: 1 })
        for (const bufferCount of [1, 4]) {
          const swapped = await measure({ what: 'optimizer', device: 'nvme', precision, bufferCount })
          const name = `AdamW ${precision}, ${millions} M parameters, buffer_count ${bufferCount}`
          rows.push(rowOf(name, swapped, true, `, in memory ${(1000 * median(memory.own)).toFixed(0)} ms`))
        }
        const shards = await measure({ what: 'parameters', device: 'nvme', precision, bufferCount: 1 })
        rows.push(rowOf(`parameters ${precision}, ${millions} M, read for a pass`, shards, false, ''))
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    return rows
  },
} satisfies Benchmark
