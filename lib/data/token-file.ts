// A token file: a 256-byte header and then the ids as little-endian u16 or u32. It is written
// beside its name and renamed when whole, so it exists complete or not at all. Reads are positional
// and of the window alone: the system's page cache does what a memory map would, and damage is an
// error.

import { createHash, type Hash, randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import { dirname } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { damaged, formatHeader, headerBytes, largestId, parseHeader, type TokenFileHeader } from './token-header.js'
import type { TokenIds } from './tokenizers.js'

/** Tokens that can be read by position; a file or a part of one. */
export interface TokenView {
  /** For messages: the path, or the sources. */
  readonly name: string
  readonly numTokens: number
  /** No id in it is larger. */
  readonly maxToken: number
  /** Copies tokens `start` to `start + length` into `out[0..length)`. */
  read(start: number, length: number, out: Int32Array): void
}

/**
 * An open token file. The caller owns it and closes it.
 *
 * @example
 * const writer = new TokenFileWriter('ids.tokens', { tokenizer: 'mine', vocabSize: 1000 })
 * writer.append([5, 6, 7])
 * writer.finish()
 * const file = TokenFile.open('ids.tokens')
 * const ids = new Int32Array(2)
 * file.read(1, 2, ids)
 * Array.from(ids) // [6, 7]
 * file.close()
 */
export class TokenFile implements TokenView {
  readonly numTokens: number
  readonly maxToken: number
  #fd: number | undefined
  #scratch = Buffer.alloc(0)

  private constructor(
    fd: number,
    readonly name: string,
    readonly header: TokenFileHeader,
  ) {
    this.#fd = fd
    this.numTokens = header.numTokens
    this.maxToken = header.maxToken
  }

  /** Opens `path` and checks its header and length; the ids' checksum is `verify`'s. */
  static open(path: string): TokenFile {
    let fd: number
    try {
      fd = fs.openSync(path, 'r')
    } catch (cause) {
      throw damaged(path, `cannot be opened (${(cause as Error).message})`, cause)
    }
    try {
      const head = Buffer.alloc(headerBytes)
      const got = fs.readSync(fd, head, 0, headerBytes, 0)
      return new TokenFile(fd, path, parseHeader(head.subarray(0, got), fs.fstatSync(fd).size, path))
    } catch (error) {
      fs.closeSync(fd)
      throw error
    }
  }

  read(start: number, length: number, out: Int32Array): void {
    checkWindow(this, start, length, out)
    const width = this.header.bytesPerToken
    if (this.#scratch.length < length * width) this.#scratch = Buffer.alloc(length * width)
    const bytes = this.#scratch.subarray(0, length * width)
    this.#readFully(bytes, headerBytes + start * width)
    let largest = 0
    for (let i = 0; i < length; i++) {
      const id = width === 2 ? bytes.readUInt16LE(i * 2) : bytes.readUInt32LE(i * 4)
      if (id > largest) largest = id
      out[i] = id
    }
    if (largest > this.maxToken) {
      throw damaged(this.name, `holds id ${largest}, its header says none is above ${this.maxToken}`)
    }
  }

  /** A view of tokens `start` to `end`; it lives as long as this file is open. */
  slice(start: number, end: number, name = this.name): TokenView {
    const numTokens = end - start
    const read = (at: number, length: number, out: Int32Array): void => {
      checkWindow(view, at, length, out)
      this.read(start + at, length, out)
    }
    const view: TokenView = { name, numTokens, maxToken: this.maxToken, read }
    return view
  }

  /** Reads everything and throws DATA unless the ids are as they were written. */
  verify(): void {
    const hash = createHash('sha256')
    const chunk = Buffer.alloc(1 << 20)
    const end = headerBytes + this.numTokens * this.header.bytesPerToken
    for (let at = headerBytes; at < end; at += chunk.length) {
      const part = chunk.subarray(0, Math.min(chunk.length, end - at))
      this.#readFully(part, at)
      hash.update(part)
    }
    if (hash.digest('hex') !== this.header.checksum) {
      throw damaged(this.name, 'was altered: its checksum does not fit its tokens')
    }
  }

  /** Closes the file; a second call does nothing. */
  close(): void {
    if (this.#fd !== undefined) fs.closeSync(this.#fd)
    this.#fd = undefined
  }

  #readFully(bytes: Buffer, position: number): void {
    if (this.#fd === undefined) throw new ZeroshardError('DISPOSED', `[data] ${this.name} is closed`)
    let done = 0
    while (done < bytes.length) {
      const got = fs.readSync(this.#fd, bytes, done, bytes.length - done, position + done)
      if (got === 0) throw damaged(this.name, `became shorter while in use, at byte ${position + done}`)
      done += got
    }
  }
}

/**
 * Writes a token file; nothing stands under its name before `finish`.
 *
 * @example
 * const writer = new TokenFileWriter('other.tokens', { tokenizer: 'mine', vocabSize: 1000 })
 * writer.append([5, 6, 7])
 * writer.finish()
 * writer.numTokens // 3
 */
export class TokenFileWriter {
  numTokens = 0
  maxToken = 0
  readonly #hash: Hash = createHash('sha256')
  readonly #temporary: string
  readonly #fd: number
  readonly #bytesPerToken: 2 | 4
  #state: 'open' | 'closed' | 'over' = 'open'

  /** @param options vocabSize decides between u16 and u32; fingerprint is 64 hexadecimal digits. */
  constructor(
    readonly path: string,
    readonly options: { tokenizer: string; vocabSize: number; fingerprint?: string },
  ) {
    this.#bytesPerToken = options.vocabSize <= 65536 ? 2 : 4
    // Threads share a process id and hosts may share a folder, so the id alone is not enough.
    this.#temporary = `${path}.${process.pid}-${randomBytes(4).toString('hex')}.tmp`
    this.#fd = writing(path, () => fs.openSync(this.#temporary, 'wx'))
    this.#write(Buffer.alloc(headerBytes), 0)
  }

  /** Adds ids at the end. */
  append(ids: TokenIds | readonly number[]): void {
    const width = this.#bytesPerToken
    const limit = width === 2 ? 65535 : largestId
    const bytes = Buffer.alloc(ids.length * width)
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i] as number
      if (!(Number.isInteger(id) && id >= 0 && id <= limit)) {
        this.abandon()
        throw new ZeroshardError('TOKEN', `[data] token id ${id} is not between 0 and ${limit}`)
      }
      if (id > this.maxToken) this.maxToken = id
      if (width === 2) bytes.writeUInt16LE(id, i * 2)
      else bytes.writeUInt32LE(id, i * 4)
    }
    this.#write(bytes, headerBytes + this.numTokens * width)
    this.#hash.update(bytes)
    this.numTokens += ids.length
  }

  /** Completes the file: header, fsync, rename, fsync of the folder. */
  finish(): void {
    const header = formatHeader({
      bytesPerToken: this.#bytesPerToken,
      numTokens: this.numTokens,
      maxToken: this.maxToken,
      tokenizer: this.options.tokenizer,
      fingerprint: this.options.fingerprint ?? '0'.repeat(64),
      checksum: this.#hash.digest('hex'),
    })
    this.#write(header, 0)
    writing(this.path, () => {
      fs.fsyncSync(this.#fd)
      this.#state = 'closed'
      fs.closeSync(this.#fd)
      fs.renameSync(this.#temporary, this.path)
      this.#state = 'over'
      syncFolder(dirname(this.path))
    })
  }

  /** Drops what was written; after `finish` it does nothing. */
  abandon(): void {
    if (this.#state === 'over') return
    if (this.#state === 'open') fs.closeSync(this.#fd)
    this.#state = 'over'
    fs.rmSync(this.#temporary, { force: true })
  }

  #write(bytes: Buffer, position: number): void {
    try {
      writing(this.path, () => {
        for (let done = 0; done < bytes.length; ) {
          done += fs.writeSync(this.#fd, bytes, done, bytes.length - done, position + done)
        }
      })
    } catch (error) {
      this.abandon()
      throw error
    }
  }
}

function checkWindow(view: TokenView, start: number, length: number, out: Int32Array): void {
  const whole = Number.isInteger(start) && Number.isInteger(length) && start >= 0 && length >= 0
  if (whole && start + length <= view.numTokens && length <= out.length) return
  throw new ZeroshardError(
    'ARGUMENT',
    `[data] tokens ${start} to ${start + length} of ${view.name}, which has ${view.numTokens}, ` +
      `into an array of ${out.length}`,
  )
}

function syncFolder(path: string): void {
  if (process.platform === 'win32') return
  const fd = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

function writing<T>(path: string, action: () => T): T {
  try {
    return action()
  } catch (cause) {
    throw new ZeroshardError('IO', `[data] cannot write ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
}
