// The optimizer's step with its states on disk: bytes per second, against what dd moves with direct I/O, read and
// written one after the other, in the same minute. ZEROSHARD_BENCH_DISK names the folder (default: the temporary one).

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Module } from '../../lib/nn/module.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { type Benchmark, inChild, median, type Row } from '../harness.js'

interface Options {
  folder: string
  device: 'cpu' | 'nvme'
  precision: 'f32' | 'bf16'
  bufferCount: number
  repeats: number
}

interface Result {
  /** Read, and written again, by an update. */
  bytes: number
  update: number[]
  read: number[]
  write: number[]
}

const NUM_LAYERS = 8
const WIDTH = 2048

/** Times of dd on a file of this size, in seconds. */
function disk(file: string, megabytes: number): { read: number; write: number } {
  const dd = (...args: string[]): number => {
    const start = performance.now()
    execFileSync('dd', [...args, 'bs=8M', `count=${Math.ceil(megabytes / 8)}`], { stdio: 'ignore' })
    return (performance.now() - start) / 1000
  }
  const write = dd('if=/dev/zero', `of=${file}`, 'oflag=direct', 'conv=notrunc')
  return { write, read: dd(`if=${file}`, 'of=/dev/null', 'iflag=direct') }
}

/** In a process of its own. */
export async function work({ folder, device, precision, bufferCount, repeats }: Options): Promise<Result> {
  const { binding, empty, initialize, nn } = await import('../library.js')
  class Stack extends (nn.Module as typeof Module) {
    readonly layers = Array.from({ length: NUM_LAYERS }, () => new nn.Linear(WIDTH, WIDTH))
    forward(x: Tensor): Tensor {
      return this.layers.reduce((h, layer) => layer.forward(h), x)
    }
  }
  const engine = await initialize({
    model: new Stack(),
    config: {
      train_micro_batch_size_per_gpu: 1,
      bf16: { enabled: precision === 'bf16' },
      optimizer: { type: 'AdamW', params: { lr: 1e-4 } },
      zero_optimization: {
        stage: 1,
        offload_optimizer: { device, ...(device === 'nvme' && { nvme_path: folder }), buffer_count: bufferCount },
      },
    },
  })
  const zero = engine.parts.zero
  const norm = empty([], { zero: true })
  const elements = zero.units.reduce((sum, { start, end }) => sum + end - start, 0)
  const bytes = elements * 4 * (precision === 'bf16' ? 3 : 2)
  const file = join(folder, 'dd')
  const result: Result = { bytes, update: [], read: [], write: [] }
  for (let i = -1; i < repeats; i++) {
    await binding().native.synchronize(-1)
    const start = performance.now()
    zero.update({ lr: 1e-4, update: i + 2, norm, maxNorm: 0, lossScale: 1 })
    await binding().native.synchronize(-1)
    const update = (performance.now() - start) / 1000
    const times = disk(file, bytes / 2 ** 20)
    if (i < 0) continue // blocks of the files are new
    result.update.push(update)
    result.read.push(times.read)
    result.write.push(times.write)
  }
  norm.dispose()
  await engine.close()
  return result
}

export default {
  title: 'Optimizer states on disk',
  async run() {
    const folder = mkdtempSync(join(process.env.ZEROSHARD_BENCH_DISK ?? tmpdir(), 'zeroshard-bench-disk-'))
    const measure = (options: Omit<Options, 'folder' | 'repeats'>): Promise<Result> =>
      inChild<Options, Result>(import.meta.url, { ...options, folder, repeats: 5 })
    const rows: Row[] = []
    try {
      for (const precision of ['f32', 'bf16'] as const) {
        const inMemory = median((await measure({ device: 'cpu', precision, bufferCount: 1 })).update)
        for (const bufferCount of [1, 4]) {
          const { bytes, update, read, write } = await measure({ device: 'nvme', precision, bufferCount })
          const [seconds, own] = [median(update), median(read) + median(write)]
          const rate = (time: number): string => `${((2 * bytes) / time / 1e6).toFixed(0)} MB/s`
          rows.push({
            name: `AdamW ${precision}, ${((NUM_LAYERS * WIDTH * WIDTH) / 1e6).toFixed(0)} M parameters, buffer_count ${bufferCount}`,
            value: (2 * bytes) / seconds / 1e6,
            unit: 'MB/s',
            ...(bufferCount > 1 && { target: `>= ${Math.round((0.8 * 2 * bytes) / own / 1e6)}` as const }),
            note: `dd ${rate(own)}; ${(1000 * seconds).toFixed(0)} ms, in memory ${(1000 * inMemory).toFixed(0)} ms`,
          })
        }
      }
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
    return rows
  },
} satisfies Benchmark
