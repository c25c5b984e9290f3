// The 256 bytes in front of a token file: what is in it and how long it is, with a checksum of
// their own. A header is checked whole before any number from it is used, because files come from
// anywhere.

import { createHash } from 'node:crypto'
import { ZeroshardError } from '../binding/errors.js'

const magic = 'ZSTOKENS'
const version = 1
const checkedBytes = 224 // what the header's own checksum covers
const nameOffset = 100

export const headerBytes = 256
/** Ids become i32 tensors. */
export const largestId = 2 ** 31 - 1

/** What the header says. */
export interface TokenFileHeader {
  /** 2 for u16, 4 for u32. */
  readonly bytesPerToken: 2 | 4
  readonly numTokens: number
  /** The largest id in the file. */
  readonly maxToken: number
  /** Name of the tokenizer that made the ids. */
  readonly tokenizer: string
  /** Hash of the sources that the file was made from, hexadecimal, 64 digits. */
  readonly fingerprint: string
  /** SHA-256 of the ids' bytes, hexadecimal. */
  readonly checksum: string
}

/** The header as bytes. */
export function formatHeader(header: TokenFileHeader): Buffer {
  const out = Buffer.alloc(headerBytes)
  const name = Buffer.from(header.tokenizer, 'utf8')
  if (name.length > checkedBytes - nameOffset) {
    throw new ZeroshardError('ARGUMENT', `[data] tokenizer name longer than ${checkedBytes - nameOffset} bytes`)
  }
  out.write(magic, 0, 'latin1')
  out.writeUInt32LE(version, 8)
  out.writeUInt32LE(header.bytesPerToken, 12)
  out.writeBigUInt64LE(BigInt(header.numTokens), 16)
  out.writeUInt32LE(header.maxToken, 24)
  out.write(header.fingerprint, 32, 32, 'hex')
  out.write(header.checksum, 64, 32, 'hex')
  out.writeUInt32LE(name.length, 96)
  name.copy(out, nameOffset)
  createHash('sha256').update(out.subarray(0, checkedBytes)).digest().copy(out, checkedBytes)
  return out
}

/** The header of a file of `fileBytes` bytes that begins with `head`; throws DATA on any damage. */
export function parseHeader(head: Buffer, fileBytes: number, path: string): TokenFileHeader {
  if (head.length < 8 || head.toString('latin1', 0, 8) !== magic) {
    throw damaged(path, `is not a zeroshard token file: it does not begin with ${magic}`)
  }
  if (head.length < headerBytes) {
    throw damaged(path, `is cut: ${head.length} bytes, the header alone has ${headerBytes}`)
  }
  if (head.readUInt32LE(8) !== version) {
    throw damaged(path, `has version ${head.readUInt32LE(8)}, this zeroshard reads ${version}`)
  }
  const sum = createHash('sha256').update(head.subarray(0, checkedBytes)).digest()
  if (!sum.equals(head.subarray(checkedBytes))) throw damaged(path, 'has a damaged header')
  const bytesPerToken = head.readUInt32LE(12)
  if (bytesPerToken !== 2 && bytesPerToken !== 4) {
    throw damaged(path, `says ${bytesPerToken} bytes per token; 2 and 4 exist`)
  }
  const count = head.readBigUInt64LE(16)
  if (count * BigInt(bytesPerToken) + BigInt(headerBytes) !== BigInt(fileBytes)) {
    throw damaged(path, `has ${fileBytes} bytes, which does not fit the ${count} tokens it announces`)
  }
  const maxToken = head.readUInt32LE(24)
  const nameBytes = head.readUInt32LE(96)
  if (nameBytes > checkedBytes - nameOffset || maxToken > largestId) {
    throw damaged(path, 'has impossible values in its header')
  }
  return {
    bytesPerToken,
    numTokens: Number(count),
    maxToken,
    tokenizer: head.toString('utf8', nameOffset, nameOffset + nameBytes),
    fingerprint: head.toString('hex', 32, 64),
    checksum: head.toString('hex', 64, 96),
  }
}

/** The error for a token file that cannot be used. */
export function damaged(path: string, what: string, cause?: unknown): ZeroshardError {
  return new ZeroshardError('DATA', `[data] ${path} ${what}`, { cause })
}
