// Saving and loading a GPT-2 124M with AdamW's states against the disk's own rate, in turns in one run, and what a save in
// the background costs the training. ZEROSHARD_BENCH_DISK: a folder on the disk that is meant.

import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { type Benchmark, inChild, median, type Row, type Work } from '../harness.js'
import { binding, createModel, initialize, tensor } from '../library.js'

const REPEATS = 3
const BLOCK = 8 << 20
const [batch, tokens] = [4, 64]

/** A save in the background, seconds; `first`: the step beside the copy, `base`: one without a save. */
interface Background {
  copy: number
  base: number
  call: number
  first: number
  others: number
  /** Milliseconds of the event loop's longest wait, over steps without and with a save. */
  quietDelay: number
  delay: number
}

interface Result {
  bytes: number
  write: number[]
  save: number[]
  read: number[]
  load: number[]
  /** Seconds of all the process's threads. */
  saveProcessor: number[]
  loadProcessor: number[]
  background: Background[]
}

async function seconds(fn: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await fn()
  return (performance.now() - start) / 1000
}

async function processorSeconds(fn: () => Promise<unknown>): Promise<[wall: number, processor: number]> {
  const before = process.cpuUsage()
  const wall = await seconds(fn)
  const { user, system } = process.cpuUsage(before)
  return [wall, (user + system) / 1e6]
}

/** The disk's own: as many bytes in blocks, one after another, then fsync. */
async function plainWrite(path: string, bytes: number): Promise<void> {
  const buffer = new Uint8Array(BLOCK)
  for (let at = 0; at < BLOCK; at += 65536) crypto.getRandomValues(buffer.subarray(at, at + 65536))
  const file = await open(path, 'w')
  for (let at = 0; at < bytes; ) at += (await file.write(buffer, 0, Math.min(BLOCK, bytes - at), at)).bytesWritten
  await file.sync()
  await file.close()
}

async function plainRead(path: string): Promise<void> {
  const buffer = new Uint8Array(BLOCK)
  const file = await open(path, 'r')
  for (let at = 0, got = 1; got > 0; at += got) got = (await file.read(buffer, 0, BLOCK, at)).bytesRead
  await file.close()
}

type Trained = Awaited<ReturnType<typeof initialize>>

async function longestDelay(fn: () => Promise<unknown>): Promise<number> {
  const delays = monitorEventLoopDelay({ resolution: 1 })
  delays.enable()
  await fn()
  delays.disable()
  return delays.max / 1e6
}

async function inBackground(engine: Trained, output: string, step: () => Promise<number>): Promise<Background> {
  const begin = (): Promise<unknown> => engine.saveCheckpoint(output, { async: true, retain: 1 })
  const copy = await seconds(async () => {
    await begin()
    await binding().native.synchronize(2) // the copy stream: nothing else runs
  })
  await engine.finishSaving()
  const quiet: number[] = []
  const quietDelay = await longestDelay(async () => {
    while (quiet.length < 5) quiet.push(await step())
  })
  const during: number[] = []
  let call = 0
  const delay = await longestDelay(async () => {
    call = await seconds(begin)
    let durable = false
    const ended = engine.finishSaving().then(() => {
      durable = true
    })
    while (!durable) during.push(await step())
    await ended
  })
  const [first = 0, ...others] = during
  return { copy, base: median(quiet), call, first, others: median(others.length ? others : during), quietDelay, delay }
}

export const work: Work<{ folder: string }, Result> = async ({ folder }) => {
  const model = createModel({ model_type: 'gpt2', resid_pdrop: 0, embd_pdrop: 0 })
  const engine = await initialize({
    model,
    config: { train_batch_size: batch, gradient_clipping: 1, optimizer: { type: 'AdamW', params: { lr: 1e-4 } } },
  })
  const bytes = 12 * model.parameters().reduce((sum, { count }) => sum + count, 0)
  const values = (): Int32Array => Int32Array.from({ length: batch * tokens }, () => Math.random() * model.vocabSize)
  const inputs = () => [tensor(values(), [batch, tokens]), tensor(values(), [batch, tokens])] as [never, never]
  const step = (): Promise<number> => seconds(() => engine.trainBatch(inputs))
  const [output, plain] = [join(folder, 'out'), join(folder, 'plain')]
  const result: Result = {
    bytes,
    write: [],
    save: [],
    read: [],
    load: [],
    saveProcessor: [],
    loadProcessor: [],
    background: [],
  }
  for (let i = -1; i < REPEATS; i++) {
    await step() // another step, another checkpoint
    const write = await seconds(() => plainWrite(plain, bytes))
    const [save, saveProcessor] = await processorSeconds(() => engine.saveCheckpoint(output, { retain: 1 }))
    const read = await seconds(() => plainRead(plain))
    const [load, loadProcessor] = await processorSeconds(() => engine.loadCheckpoint(output))
    rmSync(plain)
    if (i < 0) continue // the first one makes memory and the thread
    result.write.push(write)
    result.save.push(save)
    result.read.push(read)
    result.load.push(load)
    result.saveProcessor.push(saveProcessor)
    result.loadProcessor.push(loadProcessor)
  }
  for (let i = 0; i < REPEATS; i++) result.background.push(await inBackground(engine, output, step))
  await engine.close()
  return result
}

function rates({ bytes, write, save, read, load, saveProcessor, loadProcessor }: Result): Row[] {
  const processor = (times: number[]): string => `${((median(times) * 1e9) / bytes).toFixed(1)} s of processor per GB`
  const rate = (name: string, times: number[], note = ''): Row => ({
    name,
    value: bytes / median(times) / 1e9,
    unit: 'GB/s',
    ...(note && { note }),
  })
  const share = (name: string, times: number[], plain: number[]): Row => ({
    name,
    value: median(times.map((time, i) => (plain[i] as number) / time)),
    unit: '×',
  })
  return [
    rate('plain write and fsync of as many bytes', write),
    rate('save', save, `hashed, written, synced, committed; ${processor(saveProcessor)}`),
    share('save over the plain write', save, write),
    rate('plain read, from the page cache', read),
    rate('load', load, `verified, then read into tensors; ${processor(loadProcessor)}`),
    share('load over the plain read', load, read),
  ]
}

function still({ bytes, background }: Result): Row[] {
  const of = (pick: (one: Background) => number): number => median(background.map(pick))
  const ms = (name: string, pick: (one: Background) => number, note = ''): Row => ({
    name,
    value: 1000 * of(pick),
    unit: 'ms',
    ...(note && { note }),
  })
  return [
    ms('a step without a save', (one) => one.base),
    ms('the copy by itself', (one) => one.copy, `${(bytes / of((one) => one.copy) / 1e9).toFixed(1)} GB/s`),
    ms('saveCheckpoint in the background returns after', (one) => one.call),
    ms('the step beside the copy', (one) => one.first),
    {
      name: 'training stands still beyond the copy',
      value: 100 * of((one) => (one.call + one.first - one.base - one.copy) / one.base),
      unit: '%',
      target: '<= 10',
      note: 'of a step',
    },
    ms('a step while files are hashed and written', (one) => one.others),
    { name: "the event loop's longest wait, without a save", value: of((one) => one.quietDelay), unit: 'ms' },
    { name: "the event loop's longest wait, with one", value: of((one) => one.delay), unit: 'ms' },
  ]
}

export default {
  title: `GPT-2 124M, f32 with AdamW's states; steps of ${batch} samples of ${tokens} tokens; medians of ${REPEATS}`,
  async run() {
    const folder = mkdtempSync(join(process.env.ZEROSHARD_BENCH_DISK || tmpdir(), 'zeroshard-bench-'))
    try {
      const result = await inChild<{ folder: string }, Result>(import.meta.url, { folder })
      return [...rates(result), ...still(result)]
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  },
} satisfies Benchmark
