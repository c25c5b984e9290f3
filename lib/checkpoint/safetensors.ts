// Safetensors: an 8-byte header length, a JSON header, the tensors' bytes. Written in a stream, read by ranges.
// Headers from outside are checked before anything is believed: lengths, overlaps, dtypes, shapes.

import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'
import { ZeroshardError } from '../binding/errors.js'
import { bytesPerElement, countOf, type DType, type Shape } from '../tensor/tensor.js'

export interface TensorEntry {
  dtype: DType
  shape: Shape
  begin: number
  end: number
}
export interface TensorPlan {
  key: string
  dtype: DType
  shape: Shape
}

const names: Partial<Record<DType, string>> = { f32: 'F32', bf16: 'BF16', f16: 'F16', i32: 'I32', u8: 'U8', i64: 'I64' }
/** Element types of the format that are skipped where nothing asks for them, and their bytes. */
const foreignBytes: Record<string, number> = {
  BOOL: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  U32: 4,
  U64: 8,
  F64: 8,
}
const MAX_HEADER = 100_000_000

/** Writes a file of the planned tensors, in order; `bytesOf` gives each one's bytes when its turn comes. */
export async function writeSafetensors(
  path: string,
  plans: readonly TensorPlan[],
  bytesOf: (plan: TensorPlan, index: number) => Promise<Uint8Array>,
  metadata: Record<string, string> = {},
): Promise<{ bytes: number; sha256: string }> {
  const header: Record<string, unknown> = { __metadata__: { format: 'pt', ...metadata } }
  let offset = 0
  for (const { key, dtype, shape } of plans) {
    const end = offset + countOf(shape) * bytesPerElement[dtype]
    header[key] = { dtype: names[dtype], shape, data_offsets: [offset, end] }
    offset = end
  }
  let text = JSON.stringify(header)
  text += ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8)
  const head = Buffer.alloc(8 + Buffer.byteLength(text))
  head.writeBigUInt64LE(BigInt(head.length - 8))
  head.write(text, 8)
  const file = await open(path, 'wx')
  const hash = createHash('sha256')
  let written = 0
  const put = async (bytes: Uint8Array): Promise<void> => {
    hash.update(bytes)
    for (let at = 0; at < bytes.length; )
      at += (await file.write(bytes, at, bytes.length - at, written + at)).bytesWritten
    written += bytes.length
  }
  try {
    await put(head)
    for (const [index, plan] of plans.entries()) await put(await bytesOf(plan, index))
    await file.sync()
  } catch (cause) {
    throw new ZeroshardError('IO', `${path}: could not be written at byte ${written}: ${(cause as Error).message}`, {
      cause,
    })
  } finally {
    await file.close()
  }
  return { bytes: written, sha256: hash.digest('hex') }
}

/** An open safetensors file: its entries, and reads of parts of them. */
export class SafetensorsFile {
  private constructor(
    readonly path: string,
    readonly entries: ReadonlyMap<string, TensorEntry>,
    /** Tensors of element types that are not read: name to type. */
    readonly foreign: ReadonlyMap<string, string>,
    readonly metadata: Readonly<Record<string, string>>,
    readonly dataStart: number,
    private readonly file: FileHandle,
  ) {}

  static async open(path: string): Promise<SafetensorsFile> {
    const file = await open(path, 'r').catch((cause: Error) => {
      throw new ZeroshardError('CHECKPOINT', `${path}: cannot be opened: ${cause.message}`, { cause })
    })
    try {
      const { size } = await file.stat()
      const length = await readHeaderLength(path, file, size)
      const text = Buffer.alloc(length)
      await readFully(path, file, text, 8)
      const { entries, foreign, metadata } = parseHeader(path, text.toString('utf8'), size - 8 - length)
      return new SafetensorsFile(path, entries, foreign, metadata, 8 + length, file)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  entry(key: string): TensorEntry {
    const found = this.entries.get(key)
    if (!found) {
      const type = this.foreign.get(key)
      throw new ZeroshardError(
        'CHECKPOINT',
        `${this.path}: ${type ? `'${key}' is of type ${type}, which is not read` : `has no tensor '${key}'`}`,
      )
    }
    return found
  }

  /** The bytes of elements [start, start + count) of a tensor. */
  async read(key: string, start = 0, count?: number): Promise<Uint8Array> {
    const { begin, end, dtype } = this.entry(key)
    const size = bytesPerElement[dtype]
    const elements = count ?? (end - begin) / size - start
    if (start < 0 || elements < 0 || begin + (start + elements) * size > end) {
      throw new ZeroshardError('CHECKPOINT', `${this.path}: '${key}' has no elements ${start} to ${start + elements}`)
    }
    const bytes = new Uint8Array(elements * size)
    await readFully(this.path, this.file, bytes, this.dataStart + begin + start * size)
    return bytes
  }

  close(): Promise<void> {
    return this.file.close()
  }
}

async function readHeaderLength(path: string, file: FileHandle, size: number): Promise<number> {
  const head = Buffer.alloc(8)
  if (size < 8) throw new ZeroshardError('CHECKPOINT', `${path}: ${size} bytes are no safetensors file`)
  await readFully(path, file, head, 0)
  const length = head.readBigUInt64LE()
  if (length > BigInt(Math.min(MAX_HEADER, size - 8))) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${path}: header of ${length} bytes in a file of ${size}; the file is truncated or no safetensors file`,
    )
  }
  return Number(length)
}

async function readFully(path: string, file: FileHandle, into: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await file.read(into, at, into.length - at, position + at)
    if (bytesRead === 0)
      throw new ZeroshardError(
        'CHECKPOINT',
        `${path}: ends at byte ${position + at}, ${into.length - at} more were expected`,
      )
    at += bytesRead
  }
}

/** Parses and checks a header; `dataBytes` is what the file holds behind it. */
export function parseHeader(
  path: string,
  text: string,
  dataBytes: number,
): { entries: Map<string, TensorEntry>; foreign: Map<string, string>; metadata: Record<string, string> } {
  const bad = (why: string): never => {
    throw new ZeroshardError('CHECKPOINT', `${path}: bad safetensors header: ${why}`)
  }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return bad('not JSON')
  }
  if (!json || typeof json !== 'object' || Array.isArray(json)) return bad('not an object')
  const { __metadata__: metadata = {}, ...rest } = json as Record<string, unknown>
  const entries = new Map<string, TensorEntry>()
  const foreign = new Map<string, string>()
  const ranges: { key: string; begin: number; end: number }[] = []
  for (const [key, value] of Object.entries(rest)) {
    const { dtype: label, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>
    const dtype = (Object.keys(names) as DType[]).find((name) => names[name] === label)
    const natural = (n: unknown): n is number => typeof n === 'number' && Number.isSafeInteger(n) && n >= 0
    const size = dtype ? bytesPerElement[dtype] : foreignBytes[String(label)]
    if (!size) return bad(`'${key}' has the dtype ${String(label)}`)
    if (!Array.isArray(shape) || !shape.every(natural)) return bad(`'${key}' has no valid shape`)
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(natural))
      return bad(`'${key}' has no valid offsets`)
    const [begin, end] = offsets as [number, number]
    if (end > dataBytes || end - begin !== countOf(shape) * size) {
      return bad(`'${key}' claims bytes ${begin} to ${end} of ${dataBytes} for ${label} [${shape.join(', ')}]`)
    }
    if (dtype) entries.set(key, { dtype, shape, begin, end })
    else foreign.set(key, String(label))
    ranges.push({ key, begin, end })
  }
  let last = 0
  for (const { key, begin, end } of ranges.sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin < last) return bad(`'${key}' overlaps another tensor`)
    last = end
  }
  return { entries, foreign, metadata: metadata as Record<string, string> }
}
