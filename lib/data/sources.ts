// What training text is read from: .txt (any other text name too), .jsonl, either one gzipped, and
// ready token files. Everything streams: a file larger than memory is read in pieces of about a
// quarter megabyte.

import { createReadStream, type Stats } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { nearest, ZeroshardError } from '../binding/errors.js'

/** A piece of text; `endsDocument` where a document's last piece has been given. */
export interface Piece {
  readonly text: string | Uint8Array
  readonly endsDocument: boolean
}

/** How a source is read. */
export type SourceKind = 'text' | 'jsonl' | 'tokens'

const pieceLength = 1 << 18

/** The kind by the name: .jsonl and .ndjson, .tokens and .bin, else text. */
export function sourceKind(path: string): SourceKind {
  const name = path.toLowerCase().replace(/\.gz$/, '')
  if (name.endsWith('.jsonl') || name.endsWith('.ndjson')) return 'jsonl'
  if (name.endsWith('.tokens') || name.endsWith('.bin')) return 'tokens'
  if (name.endsWith('.parquet') || name.endsWith('.arrow')) {
    throw new ZeroshardError('DATA', `[data] ${path}: this format is not read; convert it to .jsonl`)
  }
  return 'text'
}

/** The file's size and time; throws DATA, naming it, where it is missing, no file or empty. */
export async function checkSource(path: string): Promise<Stats> {
  let found: Stats
  try {
    found = await stat(path)
    await (await open(path, 'r')).close()
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    const what = code === 'ENOENT' ? 'does not exist' : `cannot be read: ${message}`
    throw new ZeroshardError('DATA', `[data] ${path} ${what}`, { cause })
  }
  if (!found.isFile()) throw new ZeroshardError('DATA', `[data] ${path} is not a file`)
  if (found.size === 0) throw new ZeroshardError('DATA', `[data] ${path} is empty`)
  return found
}

/**
 * Reads the documents of a text or JSONL file.
 *
 * @param options textKey: where a JSONL record keeps its text; raw: give .txt as bytes, undecoded.
 * @throws ZeroshardError DATA with file and line where the content is not what the name says.
 */
export async function* readPieces(path: string, options: { textKey: string; raw: boolean }): AsyncGenerator<Piece> {
  if (sourceKind(path) === 'jsonl') yield* jsonlPieces(path, options.textKey)
  else if (options.raw) yield* rawPieces(path)
  else yield* textPieces(path)
}

async function* rawPieces(path: string): AsyncGenerator<Piece> {
  for await (const bytes of chunks(path)) yield { text: bytes, endsDocument: false }
  yield { text: '', endsDocument: true }
}

async function* textPieces(path: string): AsyncGenerator<Piece> {
  let carry = ''
  for await (const text of characters(path)) {
    carry += text
    if (carry.length < pieceLength) continue
    const cut = cutPosition(carry)
    yield { text: carry.slice(0, cut), endsDocument: false }
    carry = carry.slice(cut)
  }
  yield { text: carry, endsDocument: true }
}

/**
 * Where a long text may be cut so that its parts have the tokens of the whole. Before a line's end
 * that follows a letter or digit GPT-2's and its successors' word patterns always split; text
 * without such a place is cut at a space, and text without any in the middle of a word.
 */
function cutPosition(text: string): number {
  for (let i = text.length - 1; i > 0; i--) {
    if (text[i] === '\n' && /[\p{L}\p{N}]/u.test(text[i - 1] as string)) return i
  }
  const space = text.lastIndexOf(' ')
  if (space > 0) return space
  // A surrogate pair stays together.
  const last = text.charCodeAt(text.length - 1)
  return last >= 0xd800 && last <= 0xdbff ? text.length - 1 : text.length
}

async function* jsonlPieces(path: string, textKey: string): AsyncGenerator<Piece> {
  let line = 0
  for await (const text of lines(path)) {
    line++
    if (text.trim() === '') continue
    const document = recordText(text, textKey, `${path} line ${line}`)
    if (document !== '') yield { text: document, endsDocument: true }
  }
}

function recordText(line: string, textKey: string, where: string): string {
  let record: unknown
  try {
    record = JSON.parse(line)
  } catch (cause) {
    throw new ZeroshardError('DATA', `[data] ${where} is not JSON: ${(cause as Error).message}`, {
      cause,
    })
  }
  const isObject = typeof record === 'object' && record !== null && !Array.isArray(record)
  if (!isObject) throw new ZeroshardError('DATA', `[data] ${where} is not a JSON object`)
  const text = (record as Record<string, unknown>)[textKey]
  if (typeof text === 'string') return text
  const keys = Object.keys(record as object)
  const near = nearest(textKey, keys)
  const hint = near === undefined || near === textKey ? '' : `; did you mean "${near}"?`
  throw new ZeroshardError(
    'DATA',
    `[data] ${where} has no string under text_key "${textKey}"; its keys are ` +
      `${keys.map((key) => `"${key}"`).join(', ')}${hint}`,
  )
}

// Not readline: that also splits at U+2028, which JSON allows inside a string.
async function* lines(path: string): AsyncGenerator<string> {
  let carry = ''
  for await (const text of characters(path)) {
    const parts = (carry + text).split('\n')
    carry = parts.pop() as string
    yield* parts
  }
  if (carry !== '') yield carry
}

async function* characters(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  const decode = (bytes?: Uint8Array): string => {
    try {
      return decoder.decode(bytes, { stream: bytes !== undefined })
    } catch (cause) {
      const message = `[data] ${path} is not UTF-8; convert it, for example with iconv -t UTF-8`
      throw new ZeroshardError('DATA', message, { cause })
    }
  }
  for await (const bytes of chunks(path)) yield decode(bytes)
  yield decode()
}

async function* chunks(path: string): AsyncGenerator<Uint8Array> {
  const file = createReadStream(path, { highWaterMark: pieceLength })
  let stream: Readable = file
  if (path.toLowerCase().endsWith('.gz')) {
    const gunzip = createGunzip()
    file.on('error', (error) => gunzip.destroy(error))
    stream = file.pipe(gunzip)
  }
  try {
    for await (const bytes of stream) yield bytes as Uint8Array
  } catch (cause) {
    throw new ZeroshardError('DATA', `[data] reading ${path}: ${(cause as Error).message}`, {
      cause,
    })
  } finally {
    file.destroy()
  }
}
