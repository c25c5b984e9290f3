// Saving and loading a GPT-2 124M with AdamW states, against the disk's own rate in the same run, and what a save in the
// background costs the training. Builds first is the caller's business: it measures dist/ as it is.
// node --import tsx bench/checkpoint.ts [folder on the disk, default a temporary one] [layers, default 12]

import { mkdtempSync, rmSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { availableParallelism, cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'

const built = (path: string): Promise<any> => import(new URL(`../dist/${path}`, import.meta.url).href)
const { initialize } = (await built('engine/initialize.js')) as typeof import('../lib/engine/initialize.js')
const { createModel } = (await built('nn/models/index.js')) as typeof import('../lib/nn/models/index.js')
const { tensor, COPY } = (await built('tensor/tensor.js')) as typeof import('../lib/tensor/tensor.js')
const { binding } = (await built('binding/native.js')) as typeof import('../lib/binding/native.js')
const { memory } = (await built('tensor/memory.js')) as typeof import('../lib/tensor/memory.js')

const REPEATS = 3
const BLOCK = 8 << 20
const [batch, tokens] = [4, 64]
const layers = Number(process.argv[3] ?? 12)
const folder = mkdtempSync(join(process.argv[2] ?? tmpdir(), 'zeroshard-bench-'))

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1] as number

async function seconds(fn: () => Promise<unknown>): Promise<number> {
  const start = performance.now()
  await fn()
  return (performance.now() - start) / 1000
}

/** The disk's own: the same bytes in blocks, one after another, then fsync. */
async function rawWrite(path: string, bytes: number): Promise<void> {
  const block = crypto.getRandomValues(new Uint8Array(65536))
  const buffer = new Uint8Array(BLOCK)
  for (let at = 0; at < BLOCK; at += block.length) buffer.set(block, at)
  const file = await open(path, 'w')
  for (let at = 0; at < bytes; ) at += (await file.write(buffer, 0, Math.min(BLOCK, bytes - at), at)).bytesWritten
  await file.sync()
  await file.close()
}

async function rawRead(path: string): Promise<void> {
  const buffer = new Uint8Array(BLOCK)
  const file = await open(path, 'r')
  for (let at = 0, got = 1; got > 0; at += got) got = (await file.read(buffer, 0, BLOCK, at)).bytesRead
  await file.close()
}

const model = createModel({ model_type: 'gpt2', n_layer: layers, resid_pdrop: 0, embd_pdrop: 0 })
const engine = await initialize({
  model,
  config: { train_batch_size: batch, gradient_clipping: 1, optimizer: { type: 'AdamW', params: { lr: 1e-4 } } },
})
const parameters = model.parameters().reduce((sum, { count }) => sum + count, 0)
const bytes = 12 * parameters
const ids = () =>
  tensor(
    Int32Array.from({ length: batch * tokens }, () => Math.random() * model.vocabSize),
    [batch, tokens],
  )
const step = (): Promise<number> => seconds(() => engine.trainBatch(() => [ids(), ids()]))
const output = join(folder, 'out')
const raw = join(folder, 'raw')

async function foreground(): Promise<void> {
  const times = { write: [] as number[], save: [] as number[], read: [] as number[], load: [] as number[] }
  for (let i = 0; i < REPEATS; i++) {
    times.write.push(await seconds(() => rawWrite(raw, bytes)))
    times.save.push(await seconds(() => engine.saveCheckpoint(output, { retain: 1 })))
    times.read.push(await seconds(() => rawRead(raw)))
    times.load.push(await seconds(() => engine.loadCheckpoint(output)))
    await step() // another step, another checkpoint
  }
  const rate = (name: keyof typeof times): string => (bytes / median(times[name]) / 1e9).toFixed(2)
  const share = (a: keyof typeof times, b: keyof typeof times): string =>
    median(times[a].map((time, i) => (times[b][i] as number) / time)).toFixed(2)
  console.log(`| plain write and fsync of as many bytes | ${rate('write')} GB/s | |`)
  console.log(`| save: hashed, written, synced | ${rate('save')} GB/s | ${share('save', 'write')} of the plain rate |`)
  console.log(`| plain read, from memory | ${rate('read')} GB/s | |`)
  console.log(
    `| load: verified, then read into tensors | ${rate('load')} GB/s | ${share('load', 'read')} of the plain rate |`,
  )
}

/** How long the copy takes by itself: nothing else runs. */
async function copyAlone(): Promise<number> {
  const time = await seconds(async () => {
    await engine.saveCheckpoint(output, { async: true, retain: 1 })
    await binding().native.synchronize(COPY)
  })
  await engine.finishSaving()
  return time
}

async function background(): Promise<void> {
  const rows: {
    base: number
    copy: number
    call: number
    first: number
    others: number
    steps: number
    delay: number
  }[] = []
  for (let i = 0; i < REPEATS; i++) {
    const copy = await copyAlone()
    await step()
    const base = median([await step(), await step(), await step(), await step(), await step()])
    const delays = monitorEventLoopDelay({ resolution: 1 })
    delays.enable()
    let saved = false
    const call = await seconds(() => engine.saveCheckpoint(output, { async: true, retain: 1 }))
    const ended = engine.finishSaving().then(() => (saved = true))
    const during: number[] = []
    while (!saved) during.push(await step())
    await ended
    delays.disable()
    const [first = 0, ...others] = during.slice(0, -1) // the last one was only partly beside it
    rows.push({ base, copy, call, first, others: median(others), steps: during.length, delay: delays.max / 1e6 })
  }
  const of = (pick: (row: (typeof rows)[number]) => number): number => median(rows.map(pick))
  const ms = (value: number): string => `${(1000 * value).toFixed(0)} ms`
  const percent = (value: number): string => `${(100 * value).toFixed(1)} %`
  console.log(`| a step without a save | ${ms(of((r) => r.base))} | |`)
  console.log(
    `| the copy by itself | ${ms(of((r) => r.copy))} | ${(of((r) => bytes / r.copy) / 1e9).toFixed(1)} GB/s |`,
  )
  console.log(
    `| saveCheckpoint() returns after | ${ms(of((r) => r.call))} | ${percent(of((r) => r.call / r.base))} of a step |`,
  )
  console.log(`| the step beside the copy | ${ms(of((r) => r.first))} | |`)
  const beyond = of((r) => (r.call + r.first - r.base - r.copy) / r.base)
  console.log(`| training stands still, beyond the copy | | ${percent(beyond)} of a step |`)
  const still = of((r) => (r.call + r.first - r.base) / r.base)
  console.log(`| training stands still, copy included | | ${percent(still)} of a step |`)
  console.log(
    `| steps while files are written | ${ms(of((r) => r.others))} | ${percent(of((r) => r.others / r.base - 1))} longer |`,
  )
  console.log(`| steps until it is durable | ${of((r) => r.steps)} | |`)
  console.log(`| the event loop's longest wait | ${of((r) => r.delay).toFixed(0)} ms | |`)
}

try {
  const [load = 0] = loadavg()
  console.log(
    `${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}, load before ${load.toFixed(1)}`,
  )
  console.log(
    `GPT-2, ${(parameters / 1e6).toFixed(1)} M parameters, ${(bytes / 1e9).toFixed(2)} GB; medians of ${REPEATS}\n`,
  )
  console.log('| | | |\n|---|---|---|')
  await step()
  await foreground()
  await background()
  await engine.close()
  if (memory.stats().tensors) throw new Error(`${memory.stats().tensors} tensors are left`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
