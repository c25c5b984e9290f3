// The thread that hashes, writes and syncs files, so that the training's event loop stays free. Started by thread.ts.
// Messages are handled in order, one at a time.

import { createHash, type Hash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { type MessagePort, parentPort } from 'node:worker_threads'
import type { FromThread, ToThread } from './thread.js'

const port = parentPort as MessagePort
/** Bytes read at a time to be hashed, twice: one is read while the other is hashed. */
const READ = 4 << 20

interface Writing {
  file: FileHandle
  hash: Hash
  written: number
}
/** Absent: failed, or abandoned. */
const files = new Map<number, Writing>()

const tell = (message: FromThread, buffers: ArrayBuffer[] = []): void => port.postMessage(message, buffers)

async function handle(message: ToThread): Promise<void> {
  const { id } = message
  try {
    if (message.type === 'open') {
      files.set(id, { file: await open(message.path, 'wx'), hash: createHash('sha256'), written: 0 })
    } else if (message.type === 'write') await write(id, message.bytes)
    else if (message.type === 'finish') await finish(id)
    else if (message.type === 'hash') tell({ type: 'done', id, ...(await hashOf(message.path)) })
    else await close(id)
  } catch (error) {
    const at = files.get(id)?.written ?? 0
    await close(id)
    tell({ type: 'failed', id, at, message: (error as Error).message })
  }
}

/** The bytes are hashed while the system writes them; then their memory goes back. */
async function write(id: number, bytes: Uint8Array): Promise<void> {
  try {
    const writing = files.get(id)
    if (!writing) return
    const done = writeAll(writing, bytes)
    writing.hash.update(bytes)
    await done
  } finally {
    tell({ type: 'free', id, buffer: bytes.buffer as ArrayBuffer }, [bytes.buffer as ArrayBuffer])
  }
}

async function writeAll(writing: Writing, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await writing.file.write(bytes, at, bytes.length - at, writing.written)
    at += bytesWritten
    writing.written += bytesWritten
  }
}

async function finish(id: number): Promise<void> {
  const writing = files.get(id)
  if (!writing) return
  await writing.file.sync()
  files.delete(id)
  await writing.file.close()
  tell({ type: 'done', id, bytes: writing.written, sha256: writing.hash.digest('hex') })
}

async function close(id: number): Promise<void> {
  const writing = files.get(id)
  files.delete(id)
  await writing?.file.close().catch(() => {})
}

async function hashOf(path: string): Promise<{ bytes: number; sha256: string }> {
  const file = await open(path, 'r')
  try {
    const hash = createHash('sha256')
    const buffers = [new Uint8Array(READ), new Uint8Array(READ)] as [Uint8Array, Uint8Array]
    let bytes = 0
    let next = file.read(buffers[0], 0, READ, 0)
    for (let turn = 1; ; turn = 1 - turn) {
      const { bytesRead, buffer } = await next
      if (bytesRead === 0) return { bytes, sha256: hash.digest('hex') }
      bytes += bytesRead
      next = file.read(buffers[turn] as Uint8Array, 0, READ, bytes)
      hash.update(buffer.subarray(0, bytesRead))
    }
  } finally {
    await file.close()
  }
}

let last = Promise.resolve()
port.on('message', (message: ToThread) => {
  last = last.then(() => handle(message))
})
