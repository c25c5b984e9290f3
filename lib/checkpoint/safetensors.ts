// Safetensors: an 8-byte header length, a JSON header, the tensors' bytes. Written in a stream, read by ranges.
// Headers from outside are checked before anything is believed: lengths, overlaps, gaps, dtypes, shapes.

import { createHash } from 'node:crypto'
import { type FileHandle, open, stat } from 'node:fs/promises'
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

const names: Record<DType, string> = {
  ...{ f32: 'F32', bf16: 'BF16', f16: 'F16', i32: 'I32', u8: 'U8', i64: 'I64' },
  ...{ f8e4m3: 'F8_E4M3', f8e5m2: 'F8_E5M2' },
}
const MAX_HEADER = 100_000_000

/** What a file of the planned tensors begins with: their bytes follow, in order. */
export function safetensorsHead(plans: readonly TensorPlan[], metadata: Record<string, string> = {}): Uint8Array {
  const header = new Map<string, unknown>([['__metadata__', { format: 'pt', ...metadata }]])
  let offset = 0
  for (const { key, dtype, shape } of plans) {
    if (header.has(key)) throw new ZeroshardError('CHECKPOINT', `two tensors have the name ${shown(key)}`)
    const end = offset + countOf(shape) * bytesPerElement[dtype]
    header.set(key, { dtype: names[dtype], shape, data_offsets: [offset, end] })
    offset = end
  }
  let text = JSON.stringify(Object.fromEntries(header))
  text += ' '.repeat((8 - (Buffer.byteLength(text) % 8)) % 8)
  const head = Buffer.alloc(8 + Buffer.byteLength(text))
  head.writeBigUInt64LE(BigInt(head.length - 8))
  head.write(text, 8)
  return head
}

/** Writes a file of the planned tensors, in order; `bytesOf` gives each one's bytes when its turn comes. */
export async function writeSafetensors(
  path: string,
  plans: readonly TensorPlan[],
  bytesOf: (plan: TensorPlan, index: number) => Promise<Uint8Array>,
  metadata: Record<string, string> = {},
): Promise<{ bytes: number; sha256: string }> {
  const head = safetensorsHead(plans, metadata)
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
    /** Tensors of types that are not read here, with the type. */
    readonly foreign: ReadonlyMap<string, string>,
    readonly metadata: Readonly<Record<string, string>>,
    readonly dataStart: number,
    private readonly file: FileHandle,
  ) {}

  /** @throws CHECKPOINT for anything that is no whole safetensors file. */
  static async open(path: string): Promise<SafetensorsFile> {
    const cannot = (cause: Error): never => {
      throw new ZeroshardError('CHECKPOINT', `${path}: cannot be opened: ${cause.message}`, { cause })
    }
    // before opening: a pipe would wait for a writer, for ever
    if (!(await stat(path).catch(cannot)).isFile())
      throw new ZeroshardError('CHECKPOINT', `${path}: is not a plain file`)
    const file = await open(path, 'r').catch(cannot)
    try {
      const { size } = await file.stat()
      const length = await readHeaderLength(path, file, size)
      const text = Buffer.alloc(length)
      await readFully(path, file, text, 8)
      const { entries, foreign, metadata } = parseHeader(path, decode(path, text), size - 8 - length)
      return new SafetensorsFile(path, entries, foreign, metadata, 8 + length, file)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  entry(key: string): TensorEntry {
    const found = this.entries.get(key)
    if (found) return found
    const type = this.foreign.get(key)
    const why = type ? `'${key}' is ${type}, a type that is not read here` : `has no tensor '${key}'`
    throw new ZeroshardError('CHECKPOINT', `${this.path}: ${why}`)
  }

  /** The bytes of elements [start, start + count) of a tensor; into the beginning of `into`, where it is given. */
  async read(key: string, start = 0, count?: number, into?: Uint8Array): Promise<Uint8Array> {
    const { begin, end, dtype } = this.entry(key)
    const size = bytesPerElement[dtype]
    const elements = count ?? (end - begin) / size - start
    if (!isNatural(start) || !isNatural(elements) || begin + (start + elements) * size > end) {
      throw new ZeroshardError('CHECKPOINT', `${this.path}: '${key}' has no elements ${start} to ${start + elements}`)
    }
    const bytes = into?.subarray(0, elements * size) ?? new Uint8Array(elements * size)
    await readFully(this.path, this.file, bytes, this.dataStart + begin + start * size)
    return bytes
  }

  close(): Promise<void> {
    return this.file.close()
  }
}

function decode(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new ZeroshardError('CHECKPOINT', `${path}: bad safetensors header: not UTF-8`, { cause })
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

/** Bytes of the format's types that are not read here: their tensors are checked, but cannot be asked for. */
const foreignTypes: Record<string, number> = {
  ...{ F64: 8, U64: 8, U32: 4, I16: 2, U16: 2, I8: 1, BOOL: 1 },
  F8_E8M0: 1,
}

interface Header {
  entries: Map<string, TensorEntry>
  /** Tensors of types that are not read here. */
  foreign: Map<string, string>
  metadata: Record<string, string>
}

/** Parses and checks a header; `dataBytes` is what the file holds behind it. The tensors must fill it, as the format asks. */
export function parseHeader(path: string, text: string, dataBytes: number): Header {
  const bad = (why: string): never => {
    throw new ZeroshardError('CHECKPOINT', `${path}: bad safetensors header: ${why}`)
  }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return bad('not JSON')
  }
  if (!isRecord(json)) return bad('not an object')
  const { __metadata__: given = {}, ...rest } = json
  if (!isRecord(given) || !Object.values(given).every((value) => typeof value === 'string'))
    return bad('__metadata__ is not an object of texts')
  const metadata: Record<string, string> = Object.assign(Object.create(null), given)
  const entries = new Map<string, TensorEntry>()
  const foreign = new Map<string, string>()
  const spans: [begin: number, end: number, key: string][] = []
  for (const [key, value] of Object.entries(rest)) {
    const { dtype: label, shape, begin, end } = tensorOf(value, key, bad)
    const dtype = dtypeOf(label)
    const size = dtype ? bytesPerElement[dtype] : (foreignTypes[label] as number)
    if (end > dataBytes || end - begin !== countOf(shape) * size)
      return bad(`${shown(key)} claims bytes ${begin} to ${end} of ${dataBytes} for ${label} [${shape.join(', ')}]`)
    spans.push([begin, end, key])
    if (dtype) entries.set(key, { dtype, shape, begin, end })
    else foreign.set(key, label)
  }
  let last = 0
  for (const [begin, end, key] of spans.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    if (begin < last) return bad(`${shown(key)} overlaps another tensor`)
    if (begin > last) return bad(`bytes ${last} to ${begin} belong to no tensor`)
    last = end
  }
  if (last !== dataBytes) return bad(`bytes ${last} to ${dataBytes} belong to no tensor; the file is too long`)
  return { entries, foreign, metadata }
}

const isRecord = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null && !Array.isArray(v)
const isNatural = (n: unknown): n is number => typeof n === 'number' && Number.isSafeInteger(n) && n >= 0
const shown = (key: string): string => `'${key.length > 100 ? `${key.slice(0, 100)}…` : key}'`
const dtypeOf = (label: string): DType | undefined =>
  (Object.keys(names) as DType[]).find((name) => names[name] === label)

/** One tensor of a header, its fields of the right kind. */
function tensorOf(
  value: unknown,
  key: string,
  bad: (why: string) => never,
): { dtype: string; shape: number[]; begin: number; end: number } {
  if (!isRecord(value)) return bad(`${shown(key)} is no tensor`)
  const { dtype, shape, data_offsets: offsets } = value
  if (typeof dtype !== 'string' || !(dtypeOf(dtype) || Object.hasOwn(foreignTypes, dtype)))
    return bad(`${shown(key)} has the dtype ${typeof dtype === 'string' ? dtype.slice(0, 20) : typeof dtype}`)
  if (!Array.isArray(shape) || shape.length > 64 || !shape.every(isNatural))
    return bad(`${shown(key)} has no valid shape`)
  const [begin, end] = Array.isArray(offsets) && offsets.length === 2 ? (offsets as unknown[]) : []
  if (!isNatural(begin) || !isNatural(end) || begin > end) return bad(`${shown(key)} has no valid offsets`)
  return { dtype, shape, begin, end }
}
