// Tokenizers behind one small interface: UTF-8 bytes (built in), GPT-2's through the optional
// package gpt-tokenizer, and any Hugging Face tokenizer.json through @huggingface/tokenizers.
// Encoding a piece of text adds no special token; documents are joined with `separator`.

import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { nearest, ZeroshardError } from '../binding/errors.js'
import { byteTokenizerJson, gpt2TokenizerJson } from './byte-level.js'
import { byteStreamDecoder, type StreamDecoder, textStreamDecoder } from './stream-decoder.js'

/** Ids of tokens in text order. */
export type TokenIds = Uint8Array | Uint16Array | Uint32Array | Int32Array | number[]

/** Text to token ids and back. */
export interface Tokenizer {
  /** What the ids mean; stored in token files, which only fit the tokenizer of the same name. */
  readonly name: string
  /** Every id is below this. */
  readonly vocabSize: number
  /** The ids between two documents; empty where the vocabulary has no end of text. */
  readonly separator: readonly number[]
  /** The ids of `text`, without special tokens. */
  encode(text: string): TokenIds
  /** The ids of raw UTF-8; only where bytes need not be read as characters first. */
  encodeBytes?(utf8: Uint8Array): TokenIds
  /** The text of `ids`; bytes that are no UTF-8 become U+FFFD. Throws TOKEN on an unknown id. */
  decode(ids: Iterable<number>): string
  /** Decodes one id at a time; a character is given out when its last byte is there. */
  streamDecoder(): StreamDecoder
  /** The files that a Hugging Face folder needs to tokenize the same way: name to content. */
  files(): Record<string, string>
}

/**
 * Loads the tokenizer that a configuration names.
 *
 * @param spec `'byte'`, `'gpt2'`, or the path of a tokenizer.json (or of the folder it lies in).
 * @throws ZeroshardError DATA where the file or the optional package behind it is missing.
 * @example
 * const tokenizer = await loadTokenizer('byte')
 * tokenizer.decode(tokenizer.encode('Call me Ishmael')) // 'Call me Ishmael'
 */
export async function loadTokenizer(spec: string): Promise<Tokenizer> {
  if (spec === 'byte') return byteTokenizer()
  if (spec === 'gpt2') return gpt2Tokenizer()
  return huggingFaceTokenizer(spec)
}

function byteTokenizer(): Tokenizer {
  const vocabSize = 256
  const bytes = (id: number): Uint8Array => {
    if (!(Number.isInteger(id) && id >= 0 && id < vocabSize)) throw unknownToken('byte', id, 256)
    return Uint8Array.of(id)
  }
  return {
    name: 'byte',
    vocabSize,
    separator: [10],
    encode: (text) => new Uint8Array(Buffer.from(text, 'utf8')),
    encodeBytes: (utf8) => utf8,
    decode: (ids) => decodeBytes(ids, bytes),
    streamDecoder: () => byteStreamDecoder(bytes),
    files: () => ({ 'tokenizer.json': byteTokenizerJson() }),
  }
}

interface GptEncoding {
  encode(text: string, options: { disallowedSpecial: Set<string> }): number[]
}

async function gpt2Tokenizer(): Promise<Tokenizer> {
  const encoding = await optionalPeer<GptEncoding>('gpt-tokenizer', 'encoding/r50k_base')
  const table = await optionalPeer<{ default: (string | number[])[] }>('gpt-tokenizer', 'bpeRanks/r50k_base')
  const ranks = table.default.map((entry) => Buffer.from(entry as string))
  const endOfText = ranks.length
  const vocabSize = ranks.length + 1
  const marker = Buffer.from('<|endoftext|>')
  // The package's own decode keeps half a character for the next caller; the table keeps nothing.
  const bytes = (id: number): Uint8Array => {
    const found = id === endOfText ? marker : ranks[id]
    if (found === undefined) throw unknownToken('gpt2', id, vocabSize)
    return found
  }
  const ordinaryText = { disallowedSpecial: new Set<string>() }
  return {
    name: 'gpt2',
    vocabSize,
    separator: [endOfText],
    encode: (text) => cutLongRuns(text).flatMap((part) => encoding.encode(part, ordinaryText)),
    decode: (ids) => decodeBytes(ids, bytes),
    streamDecoder: () => byteStreamDecoder(bytes),
    files: () => ({ 'tokenizer.json': gpt2TokenizerJson(ranks) }),
  }
}

/** The package's merging is quadratic in a run without spaces; one above 4096 characters is cut. */
function cutLongRuns(text: string): string[] {
  const parts: string[] = []
  let from = 0
  for (const match of text.matchAll(/\S{4096}/gu)) {
    parts.push(text.slice(from, match.index + match[0].length))
    from = match.index + match[0].length
  }
  return [...parts, text.slice(from)]
}

interface HuggingFaceModule {
  Tokenizer: new (json: object, config: object) => HuggingFaceTokenizer
}

interface HuggingFaceTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] }
  decode(ids: number[], options: object): string
  token_to_id(token: string): number | undefined
  id_to_token(id: number): string | undefined
  get_vocab(withAdded: boolean): Map<string, number>
}

async function huggingFaceTokenizer(spec: string): Promise<Tokenizer> {
  const path = await tokenizerPath(spec)
  const text = await readFile(path, 'utf8')
  const json = parseObject(text, path)
  const configPath = join(dirname(path), 'tokenizer_config.json')
  const configText = await readFile(configPath, 'utf8').catch(() => undefined)
  const config = configText === undefined ? {} : parseObject(configText, configPath)
  const { Tokenizer: Implementation } = await optionalPeer<HuggingFaceModule>('@huggingface/tokenizers')
  const inner = constructTokenizer(Implementation, json, config, path)
  let largest = -1
  for (const id of inner.get_vocab(true).values()) if (id > largest) largest = id
  const vocabSize = largest + 1
  const name = `tokenizer.json:${createHash('sha256').update(text).digest('hex').slice(0, 16)}`
  const options = { skip_special_tokens: false, clean_up_tokenization_spaces: false }
  const decode = (ids: Iterable<number>): string => {
    const list = [...ids]
    for (const id of list) {
      if (!(Number.isInteger(id) && id >= 0 && id < vocabSize)) throw unknownToken(path, id, vocabSize)
    }
    // Vocabularies may have holes; an id in one has no text.
    const known = list.filter((id) => inner.id_to_token(id) !== undefined)
    return known.length === 0 ? '' : inner.decode(known, options)
  }
  const files: Record<string, string> = { 'tokenizer.json': text }
  if (configText !== undefined) files['tokenizer_config.json'] = configText
  return {
    name,
    vocabSize,
    separator: endOfText(inner, config),
    encode: (piece) => inner.encode(piece, { add_special_tokens: false }).ids,
    decode,
    streamDecoder: () => textStreamDecoder(decode),
    files: () => ({ ...files }),
  }
}

async function tokenizerPath(spec: string): Promise<string> {
  const found = await stat(spec).catch(() => undefined)
  const path = found?.isDirectory() ? join(spec, 'tokenizer.json') : spec
  const file = found?.isDirectory() ? await stat(path).catch(() => undefined) : found
  if (file?.isFile()) return path
  const near = nearest(spec, ['byte', 'gpt2'])
  const hint = near === undefined ? '' : `; did you mean "${near}"?`
  throw new ZeroshardError(
    'DATA',
    `[tokenizer] "${spec}" is neither "byte" nor "gpt2" nor an existing tokenizer.json${hint}`,
  )
}

function constructTokenizer(
  Implementation: HuggingFaceModule['Tokenizer'],
  json: object,
  config: object,
  path: string,
): HuggingFaceTokenizer {
  try {
    return new Implementation(json, config)
  } catch (cause) {
    throw new ZeroshardError('DATA', `[tokenizer] ${path} is not a usable tokenizer.json: ${cause}`, {
      cause,
    })
  }
}

function endOfText(inner: HuggingFaceTokenizer, config: Record<string, unknown>): number[] {
  const declared = config.eos_token as string | { content?: string } | undefined | null
  const eos = typeof declared === 'string' ? declared : declared?.content
  const candidates = ['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>', '<|eot_id|>', '[SEP]']
  for (const token of eos === undefined ? candidates : [eos, ...candidates]) {
    const id = inner.token_to_id(token)
    if (id !== undefined) return [id]
  }
  return []
}

function parseObject(text: string, path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (cause) {
    throw new ZeroshardError('DATA', `[tokenizer] ${path} is not JSON: ${cause}`, { cause })
  }
  throw new ZeroshardError('DATA', `[tokenizer] ${path} holds no JSON object`)
}

async function optionalPeer<T>(name: string, entry?: string): Promise<T> {
  const specifier = entry === undefined ? name : `${name}/${entry}`
  try {
    return (await import(specifier)) as T
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw cause
    throw new ZeroshardError(
      'DATA',
      `[tokenizer] this tokenizer needs the optional package ${name}; npm install ${name}`,
      { cause },
    )
  }
}

function decodeBytes(ids: Iterable<number>, bytes: (id: number) => Uint8Array): string {
  return Buffer.concat(Array.from(ids, bytes)).toString('utf8')
}

function unknownToken(name: string, id: number, vocabSize: number): ZeroshardError {
  return new ZeroshardError('TOKEN', `[tokenizer] ${name} has no token ${id}; its ids are 0 to ${vocabSize - 1}`)
}
