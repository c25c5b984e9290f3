// Files written from tensors, and files hashed, by a thread beside the event loop. Whatever is written, no more than
// NUM_BUFFERS pieces of it are in memory.

import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { ZeroshardError } from '../binding/errors.js'
import { packageRoot } from '../binding/loader.js'
import { binding } from '../binding/native.js'
import { bytesPerElement, COPY, type Tensor } from '../tensor/tensor.js'

/** Bytes of a buffer. */
const BUFFER = 8 << 20
const NUM_BUFFERS = 4

export type ToThread =
  | { type: 'open'; id: number; path: string }
  | { type: 'write'; id: number; bytes: Uint8Array }
  | { type: 'finish'; id: number }
  | { type: 'abandon'; id: number }
  | { type: 'hash'; id: number; path: string }

export type FromThread =
  | { type: 'free'; id: number; buffer: ArrayBuffer }
  | { type: 'done'; id: number; bytes: number; sha256: string }
  | { type: 'failed'; id: number; at: number; message: string }

export interface Written {
  bytes: number
  sha256: string
}

type Listener = (message: FromThread) => void

/** One per process, from its first use on; it keeps the process alive only while it has work. */
class Thread {
  readonly #worker: Worker
  readonly #jobs = new Map<number, Listener>()

  constructor() {
    // the built file, as with the addon, also where this one runs from its source
    this.#worker = new Worker(join(packageRoot(), 'dist/checkpoint/thread-worker.js'), { execArgv: [] })
    this.#worker.on('message', (message: FromThread) => this.#jobs.get(message.id)?.(message))
    this.#worker.on('error', ({ message }) => this.#ended(`the writing thread failed: ${message}`))
    this.#worker.on('exit', () => this.#ended('the writing thread has ended'))
    this.#worker.unref()
  }

  #ended(message: string): void {
    if (running === this) running = undefined
    for (const [id, listener] of this.#jobs) listener({ type: 'failed', id, at: 0, message })
    this.#jobs.clear()
  }

  begin(id: number, listener: Listener): void {
    if (this.#jobs.size === 0) this.#worker.ref()
    this.#jobs.set(id, listener)
  }

  end(id: number): void {
    this.#jobs.delete(id)
    if (this.#jobs.size === 0) this.#worker.unref()
  }

  post(message: ToThread, buffers: ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, buffers)
  }
}

let running: Thread | undefined
let numJobs = 0

function thread(): Thread {
  running ??= new Thread()
  return running
}

/** Size and checksum of a file. @throws IO */
export function hashFile(path: string): Promise<Written> {
  const worker = thread()
  const id = ++numJobs
  return new Promise((resolve, reject) => {
    worker.begin(id, (message) => {
      worker.end(id)
      if (message.type === 'done') resolve({ bytes: message.bytes, sha256: message.sha256 })
      else if (message.type === 'failed')
        reject(new ZeroshardError('IO', `${path}: could not be read: ${message.message}`))
    })
    worker.post({ type: 'hash', id, path })
  })
}

/** A file that is written from front to back. Every call waits for the one before; finish() or abandon() ends it. */
export class FileStream {
  readonly #id = ++numJobs
  readonly #thread = thread()
  readonly #free: ArrayBuffer[] = []
  #numBuffers = 0
  #buffer: Uint8Array | undefined
  /** Of #buffer. */
  #filled = 0
  #reads: Promise<void>[] = []
  #error: ZeroshardError | undefined
  #written: Written | undefined
  #wake = (): void => {}

  constructor(readonly path: string) {
    this.#thread.begin(this.#id, (message) => this.#onMessage(message))
    this.#thread.post({ type: 'open', id: this.#id, path })
  }

  #onMessage(message: FromThread): void {
    if (message.type === 'free') this.#free.push(message.buffer)
    else if (message.type === 'done') this.#written = { bytes: message.bytes, sha256: message.sha256 }
    else {
      this.#error ??= new ZeroshardError(
        'IO',
        `${this.path}: could not be written at byte ${message.at}: ${message.message}`,
      )
    }
    this.#wake()
  }

  /** Waits for `ready`. @throws IO where the thread has failed. */
  async #until<T>(ready: () => T | undefined): Promise<T> {
    for (;;) {
      if (this.#error) throw this.#error
      const value = ready()
      if (value !== undefined) return value
      await new Promise<void>((wake) => {
        this.#wake = wake
      })
    }
  }

  /** The next part of a buffer, of at most `bytes`: whole elements of `size` bytes. */
  async #room(bytes: number, size: number): Promise<Uint8Array> {
    if (this.#buffer && this.#buffer.length - this.#filled < size) await this.#pass()
    this.#buffer ??= new Uint8Array(await this.#until(() => this.#freeBuffer()))
    const from = this.#filled
    const most = Math.floor((this.#buffer.length - from) / size) * size
    this.#filled = from + Math.min(most, bytes)
    return this.#buffer.subarray(from, this.#filled)
  }

  #freeBuffer(): ArrayBuffer | undefined {
    const free = this.#free.pop()
    if (free || this.#numBuffers === NUM_BUFFERS) return free
    this.#numBuffers++
    return new ArrayBuffer(BUFFER)
  }

  /** Passes the buffer on to the thread. */
  async #pass(): Promise<void> {
    await this.#settle()
    const buffer = this.#buffer
    if (!buffer) return
    this.#buffer = undefined
    const bytes = buffer.subarray(0, this.#filled)
    this.#filled = 0
    this.#thread.post({ type: 'write', id: this.#id, bytes }, [buffer.buffer as ArrayBuffer])
  }

  /** All reads into the buffer are over, also where one fails. */
  async #settle(): Promise<void> {
    const results = await Promise.allSettled(this.#reads.splice(0))
    const failed = results.find((result) => result.status === 'rejected')
    if (failed) throw failed.reason
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const room = await this.#room(bytes.length - at, 1)
      room.set(bytes.subarray(at, at + room.length))
      at += room.length
    }
  }

  /** A tensor's values, read on the copy stream; it may be disposed when this resolves. */
  async writeTensor(tensor: Tensor): Promise<void> {
    const size = bytesPerElement[tensor.dtype]
    for (let at = 0; at < tensor.count; ) {
      const room = await this.#room((tensor.count - at) * size, size)
      const view = tensor.view([room.length / size], at)
      this.#reads.push(binding().native.read(view.handle, room, COPY))
      view.dispose()
      at += room.length / size
    }
    await this.#settle()
  }

  /** Resolves when the file is durable. @throws IO with the byte that could not be written. */
  async finish(): Promise<Written> {
    await this.#pass()
    this.#thread.post({ type: 'finish', id: this.#id })
    const written = await this.#until(() => this.#written)
    this.#thread.end(this.#id)
    return written
  }

  /** After a failure. */
  async abandon(): Promise<void> {
    await this.#settle().catch(() => {})
    this.#thread.post({ type: 'abandon', id: this.#id })
    this.#thread.end(this.#id)
  }
}
