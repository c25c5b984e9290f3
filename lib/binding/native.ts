// The addon as one interface. Hot calls take no arguments: they read the registered packet (a
// Float64Array) and answer with a number; nothing blocks the event loop but the calls named …Sync.
// A tensor is a handle (a positive integer: slot and generation); 0 is "absent".
// A negative answer is an error: lastError() tells it. Errors of work that runs later on a stream
// surface at the next read, synchronize or synchronizeSync of that stream, naming the operation.

import { type ErrorCode, ZeroshardError } from './errors.js'
import { loadAddon } from './loader.js'

/** Element types, in the order of backend.h. */
export const dtypes = ['f32', 'bf16', 'f16', 'i32', 'u8', 'i64', 'f8e4m3', 'f8e5m2'] as const
/** What memory is for; `memoryStats` counts each apart. */
export const categories = ['parameters', 'gradients', 'optimizer', 'activations', 'buffers', 'host'] as const
/** The streams of a device: each runs in order, hazards between them are the runtime's business. */
export const streams = ['compute', 'communication', 'copy', 'disk', 'messages'] as const
/** Element-wise sums of collectives are in f32, in rank order (i64: exact). */
export const collectiveKinds = [
  'barrier',
  'allReduce',
  'reduceScatter',
  'allGather',
  'broadcast',
  'allToAll',
  'send',
  'recv',
] as const

export interface NativeMemory {
  live: number[] // bytes by category, counted when queued: exact, whatever the streams have reached
  peak: number[]
  reserved: number // bytes taken from the system, cached blocks included
  tensors: number // live handles
}

export interface NativeOp {
  name: string
  outputs: number
  inputs: number
  scalars: number
}

/** What streams did since the last take, oldest first, one column a field; times in ns of CLOCK_MONOTONIC. */
export interface NativeTrace {
  names: string[] // of operations; `name` holds indices into it
  name: Int32Array
  stream: Int32Array
  queued: Float64Array
  launched: Float64Array // by the stream's thread, after its waits for other streams; on the CPU that is the start
  start: Float64Array // on a device: its own work, by its clock put on this one
  end: Float64Array
  flops: Float64Array // of matrix products, 2 a multiply-add
  kind: Int32Array // index into collectiveKinds; -1: none. The rest is about collectives
  group: Int32Array
  groupSize: Int32Array
  dtype: Int32Array // -1: none
  count: Float64Array // elements: of the whole array, or per rank where the kind is called so
  bytes: Float64Array // of the whole array
  dropped: number // records that had no room
  wallOffset: number // microseconds from CLOCK_MONOTONIC to the wall clock
}

export interface CommOptions {
  rank: number
  worldSize: number
  jobId: string // random, the same on all ranks
  timeoutSeconds: number
}

export interface SwapOptions {
  /** Bytes that are read or written in one go: 4096 or more. */
  blockSize: number
  /** Blocks in flight, per thread. */
  queueDepth: number
  threads: number
  /** Blocks are handed to the system one by one. */
  singleSubmit: boolean
  /** New blocks follow as others are done; false: batch after batch. */
  overlapEvents: boolean
}

export interface NativeSwap {
  id: number
  descriptor: number
  engine: 'io_uring' | 'threads'
  direct: boolean // false: through the page cache
  note: string // why something slower is used; empty: nothing is
}

export type Device = 'cpu' | 'cuda'

/** What there is beside the CPU, and what is missing. */
export interface NativeDevices {
  /** Whether CUDA's backend is there; `reason` otherwise, or why no device can be opened. */
  loaded: boolean
  path: string
  reason: string
  devices: {
    index: number
    name: string
    uuid: string // 32 hexadecimal digits
    totalBytes: number
    capability: number
    multiprocessors: number
    driver: number // the CUDA version that the driver can do: 13 or 12.8
    runtime: number
  }[]
  /** Without a path: not found, and `note` says which package brings it; else perhaps what it is used for, and why. */
  libraries: { name: string; version: string; path: string; note: string }[]
  /** Operations that the backend lacks. */
  missingKernels: string[]
}

/** A GPU as NVML sees it. What it does not tell is undefined, and named in `missing` with the reason. */
export interface NativeGpu {
  index: number // by PCI address
  name: string
  uuid: string // GPU-01234567-89ab-…
  totalBytes?: number
  usedBytes?: number
  smClock?: number // MHz, now
  memoryClock?: number
  maxSmClock?: number
  maxMemoryClock?: number
  power?: number // W
  powerLimit?: number
  energy?: number // J since the driver was loaded
  temperature?: number // °C
  slowdownTemperature?: number
  busy?: number // % of the last sample period in which a kernel ran
  memoryBusy?: number
  pcieGeneration?: number
  pcieWidth?: number
  maxPcieGeneration?: number
  maxPcieWidth?: number
  nvlinks: number // active ones
  nvlinkVersion: number
  throttle?: string[] // why the clocks are lower than they could be
  processes?: { pid: number; bytes?: number }[]
  missing: string[]
}

/** What NVML tells of the machine; `reason`: why nothing. */
export interface NativeHardware {
  reason: string
  path: string
  version: string
  driver: string
  cuda: number // the newest that the driver can do
  gpus: NativeGpu[]
}

export interface Native {
  readonly version: string
  readonly simd: string // 'scalar' | 'avx2' | 'avx512' | 'avx512bf16'
  /** At least 512 entries; kept by reference. */
  registerPacket(packet: Float64Array): void
  ops(): NativeOp[] // index = op id
  /**
   * Threads of the kernels' pool, whether all streams are one (`--serial`), and the device (the one there is, where
   * none is said). Before the first op. @throws DEVICE with the reason and the cure where there is none.
   */
  configure(options: { threads: number; serial: boolean; memoryLimit?: number; device?: Device; index?: number }): void
  /** The one that tensors are on. */
  device(): Device
  /** Looks; opens no device. `libraries`: opens those, which are large; else none is listed. */
  devices(libraries?: boolean): NativeDevices
  /** Asks NVML, some milliseconds a GPU; opens no device. */
  hardware(): NativeHardware

  /** packet: [dtype, category, flags (1: zero-filled, 2: in the shared arena), ndim, dims…] → handle. */
  alloc(): number
  /** packet: [handle, offset in elements of the new dtype, dtype, ndim, dims…] → handle on the same storage. */
  view(): number
  /** packet: [handle]. The storage goes back to the pool with its last handle; queued work keeps its order. */
  free(): number
  /** packet: [op, stream, outputs…, inputs… (0 = absent), scalars…] → 0. Checks liveness, queues, returns. */
  run(): number
  /** The same within a graph that is being captured, for scalars that change → number of the call in the graph. */
  runLive(): number
  /** packet: [kind, group, stream, output, input, count per rank / root / peer, tag, average (0 or 1)] → 0. */
  collective(): number
  /** packet: [0 read or 1 write, swap file, n, n times: offset in bytes, handle] → 0. Queued on the stream `disk`. */
  transfer(): number
  lastError(): { code: ErrorCode; message: string }

  /** Copies now (bytes of `source` in the tensor's own dtype); ordered like an op on `stream`. `constant`: a graph that is captured writes the same at each launch. */
  write(handle: number, source: ArrayBufferView, stream: number, constant?: boolean): void
  /** Resolves when `target` holds the tensor's bytes. */
  read(handle: number, target: ArrayBufferView, stream: number): Promise<void>
  readSync(handle: number, target: ArrayBufferView, stream: number): void
  /** Resolves when all that was queued on the stream (-1: on all) is done; rejects with its first error. */
  synchronize(stream: number): Promise<void>
  synchronizeSync(stream: number): void
  memoryStats(): NativeMemory
  /** Counts a tensor's storage in another category, the views of it too. */
  recategorize(handle: number, category: number): void
  resetPeak(): void
  /** Seconds that streams were busy since the start, and number of ops, by stream. */
  streamStats(): { busySeconds: number[]; ops: number[] }
  /**
   * What is queued from here to graphEnd() is captured by the device instead of done. Both wait for the streams.
   * @throws UNSUPPORTED where the device has no graphs
   */
  graphBegin(): void
  /**
   * The graph. `giveUp`: none, and nothing is said (-1).
   * @throws the first reason why something could not be captured; nothing of it is done then
   */
  graphEnd(giveUp?: boolean): number
  /** Queues it on the compute stream, after and before all else; `changes`: [call, its scalars…] for live calls. */
  graphLaunch(graph: number, changes: Float64Array): void
  /** Waits for the device. */
  graphDrop(graph: number): void
  /** Records every task of the streams from now on, the newest `capacity`; 0: no more, and what is left is forgotten. */
  traceStart(capacity: number): void
  traceTake(): NativeTrace
  /** Whether an NVTX tool is attached (NVTX_INJECTION64_PATH); ranges of operations are then the streams' business. */
  rangesOn(): boolean
  rangeStart(name: string): bigint
  rangeEnd(range: bigint): void

  /** A file of this size; its name is gone at once, its space taken. Throws IO where the disk has no room for it. */
  openSwap(path: string, bytes: number, options: SwapOptions): NativeSwap
  /** What is queued is still done. */
  closeSwap(id: number): void

  /** Creates this rank's arena and control block; → facts that peers need (exchanged by the rendezvous). */
  commCreate(options: CommOptions): string
  /** Maps the peers' arenas from their facts, by rank. Group 0 is the world. */
  commConnect(facts: string[]): void
  /** A sub-group (all its members call it, with the same ranks in the same order) → group id. */
  commGroup(ranks: number[]): number
  /**
   * Messages from one rank of the group to another go between their devices from now on, where they can (→ true). Both
   * call it, in one order with all other links and groups of theirs.
   */
  commLink(group: number, from: number, to: number): boolean
  /**
   * The tensor's memory, alike on all ranks of the group, becomes known to all of them (→ true), where
   * ZEROSHARD_NCCL_BUFFERS asks for it. All call it; the memory stays, where it is, until commDropWindow or commDestroy.
   */
  commWindow(group: number, handle: number): boolean
  /** It is no window any more, where it was one. All call it, in one order with windows. */
  commDropWindow(group: number, handle: number): void
  /** Makes every pending and later collective of this rank fail with this error. */
  commAbort(code: ErrorCode, message: string): void
  commDestroy(): void
}

interface Binding {
  native: Native
  packet: Float64Array
  /** By name: id, and how many scalars it takes. */
  ops: Map<string, { id: number; scalars: number }>
}
let loaded: Binding | undefined

/** The addon, its packet and the operations, loaded at first use. */
export function binding(): Binding {
  if (!loaded) {
    const native = withOurErrors(loadAddon() as Native)
    const packet = new Float64Array(512)
    native.registerPacket(packet)
    loaded = { native, packet, ops: new Map(native.ops().map(({ name, scalars }, id) => [name, { id, scalars }])) }
  }
  return loaded
}

/** Called for each operation: they answer with a number, and keep their error until it is asked for. */
const hot = new Set(['alloc', 'view', 'free', 'run', 'runLive', 'collective', 'lastError'])

/** The addon throws, and rejects with, plain errors that have a code; its callers get ours. */
function withOurErrors(addon: Native): Native {
  const ours = (cause: unknown): never => {
    const { code, message } = cause as { code?: ErrorCode; message: string }
    if (!code) throw cause
    throw new ZeroshardError(code, message, { cause })
  }
  const wrap =
    (fn: (...args: unknown[]) => unknown) =>
    (...args: unknown[]): unknown => {
      try {
        const result = fn(...args)
        return result instanceof Promise ? result.catch(ours) : result
      } catch (cause) {
        return ours(cause)
      }
    }
  const entries = Object.entries(addon).map(([name, value]) =>
    typeof value === 'function' && !hot.has(name) ? [name, wrap(value)] : [name, value],
  )
  return Object.fromEntries(entries) as Native
}

/** Throws the addon's last error. */
export function throwNative(where: string): never {
  const { code, message } = binding().native.lastError()
  throw new ZeroshardError(code, `[${where}] ${message}`)
}
