// From source files to tokens on disk. `prepareDataset` tokenizes once into the cache folder under
// a name made from the sources' state; `openDataset` opens what is there. Several processes may do
// either at once: each writes its own temporary file and the rename of equal content is harmless.

import { createHash } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { checkSource, readPieces, sourceKind } from './sources.js'
import { TokenFile, TokenFileWriter, type TokenView } from './token-file.js'
import type { Tokenizer } from './tokenizers.js'

// Part of the fingerprint: raise it when the same sources would give other tokens.
const tokenizationVersion = 1

/** What to train on. Paths are relative to the working directory. */
export interface DatasetOptions {
  /** Training sources: .txt, .jsonl, either with .gz, or token files (.tokens, .bin). */
  files: readonly string[]
  tokenizer: Tokenizer
  /** Where a JSONL record keeps its text; default `text`. */
  textKey?: string
  /** Folder for the token files; made where missing. */
  cacheDirectory: string
  /** A sample is `sequenceLength + 1` tokens; each part of the data must hold one. */
  sequenceLength: number
  validationFiles?: readonly string[]
  /** The end of the training tokens to validate on instead, in [0, 1). */
  validationFraction?: number
}

/** Open tokens for training and validation; the caller closes it. */
export interface Dataset {
  readonly train: TokenView
  readonly validation?: TokenView
  /** The largest token id in either. */
  readonly maxToken: number
  close(): void
}

/**
 * Tokenizes what is not in the cache yet. Idempotent and atomic; one rank per file system calls it
 * and the others wait before `openDataset`.
 *
 * @throws ZeroshardError DATA naming the file that is missing, empty or damaged; IO where the cache
 * cannot be written.
 * @example
 * const tokenizer = await loadTokenizer('byte')
 * await prepareDataset({ files: ['a.txt'], tokenizer, cacheDirectory: 'cache', sequenceLength: 16 })
 */
export async function prepareDataset(options: DatasetOptions): Promise<void> {
  checkOptions(options)
  await tokenFilePath(options.files, options)
  if (options.validationFiles?.length) await tokenFilePath(options.validationFiles, options)
}

/**
 * Opens the tokens, preparing them first where that was not done.
 *
 * @throws ZeroshardError DATA as `prepareDataset`, and where a part is shorter than one sample.
 * @example
 * const tokenizer = await loadTokenizer('byte')
 * const data = await openDataset({
 *   files: ['a.txt'], tokenizer, cacheDirectory: 'cache', sequenceLength: 16, validationFraction: 0.1,
 * })
 * data.maxToken < tokenizer.vocabSize // true
 * data.close()
 */
export async function openDataset(options: DatasetOptions): Promise<Dataset> {
  checkOptions(options)
  const opened: TokenFile[] = []
  const close = (): void => {
    for (const file of opened) file.close()
  }
  try {
    const train = await openSources(options.files, options)
    opened.push(train)
    if (options.validationFiles?.length) {
      const validation = await openSources(options.validationFiles, options)
      opened.push(validation)
      const maxToken = Math.max(train.maxToken, validation.maxToken)
      const names = describe(options.validationFiles)
      return {
        train: longEnough(train.slice(0, train.numTokens, describe(options.files)), options),
        validation: longEnough(validation.slice(0, validation.numTokens, names), options),
        maxToken,
        close,
      }
    }
    return { ...splitTrain(train, options), maxToken: train.maxToken, close }
  } catch (error) {
    close()
    throw error
  }
}

/**
 * Refuses data that the model has no rows for.
 *
 * @param maxToken the largest id in the data (`Dataset.maxToken`).
 * @throws ZeroshardError TOKEN
 * @example
 * checkVocabulary(255, 256, 'byte')
 */
export function checkVocabulary(maxToken: number, vocabSize: number, tokenizer = 'the'): void {
  if (maxToken < vocabSize) return
  throw new ZeroshardError(
    'TOKEN',
    `[data] vocabulary smaller than the tokens: the data holds token ${maxToken} ` +
      `(${tokenizer} tokenizer), the model's vocab_size is ${vocabSize}; ` +
      `set model.config.vocab_size to ${maxToken + 1} or more`,
  )
}

function splitTrain(file: TokenFile, options: DatasetOptions): Pick<Dataset, 'train' | 'validation'> {
  const names = describe(options.files)
  const numValidation = Math.floor(file.numTokens * (options.validationFraction ?? 0))
  const border = file.numTokens - numValidation
  const train = longEnough(file.slice(0, border, names), options)
  if (!options.validationFraction) return { train }
  const tail = file.slice(border, file.numTokens, `${names} (validation_fraction)`)
  return { train, validation: longEnough(tail, options) }
}

async function openSources(files: readonly string[], options: DatasetOptions): Promise<TokenFile> {
  return openFitting(await tokenFilePath(files, options), options.tokenizer)
}

/** The token file for the sources: the only source where it is one itself, else the cache's. */
async function tokenFilePath(files: readonly string[], options: DatasetOptions): Promise<string> {
  const only = files.length === 1 ? (files[0] as string) : undefined
  if (only !== undefined && sourceKind(only) === 'tokens') {
    await checkSource(only)
    openFitting(only, options.tokenizer).close()
    return only
  }
  const fingerprint = await sourcesFingerprint(files, options)
  const path = join(options.cacheDirectory, `tokens-${fingerprint.slice(0, 16)}.tokens`)
  if (!isCached(path, fingerprint)) await tokenize(files, options, path, fingerprint)
  return path
}

async function sourcesFingerprint(files: readonly string[], options: DatasetOptions): Promise<string> {
  const hash = createHash('sha256')
  const parts = [tokenizationVersion, options.tokenizer.name, options.textKey ?? 'text']
  hash.update(JSON.stringify(parts))
  for (const file of files) {
    const { size, mtimeMs } = await checkSource(file)
    hash.update(JSON.stringify([resolve(file), size, mtimeMs]))
  }
  return hash.digest('hex')
}

function isCached(path: string, fingerprint: string): boolean {
  try {
    const file = TokenFile.open(path)
    file.close()
    return file.header.fingerprint === fingerprint
  } catch (error) {
    // Missing or damaged: written again.
    if (error instanceof ZeroshardError && error.code === 'DATA') return false
    throw error
  }
}

async function tokenize(
  files: readonly string[],
  options: DatasetOptions,
  path: string,
  fingerprint: string,
): Promise<void> {
  const { tokenizer } = options
  makeFolder(options.cacheDirectory)
  const { name, vocabSize } = tokenizer
  const writer = new TokenFileWriter(path, { tokenizer: name, vocabSize, fingerprint })
  try {
    for (const file of files) {
      const before = writer.numTokens
      if (before > 0) writer.append(tokenizer.separator)
      const start = writer.numTokens
      if (sourceKind(file) === 'tokens') appendTokenFile(writer, file, tokenizer)
      else await appendText(writer, file, options)
      if (writer.numTokens === start) throw new ZeroshardError('DATA', `[data] ${file} holds no text`)
    }
    writer.finish()
  } finally {
    writer.abandon()
  }
}

async function appendText(writer: TokenFileWriter, file: string, options: DatasetOptions): Promise<void> {
  const { tokenizer } = options
  const raw = tokenizer.encodeBytes !== undefined
  let documentEnded = false
  for await (const piece of readPieces(file, { textKey: options.textKey ?? 'text', raw })) {
    if (documentEnded) writer.append(tokenizer.separator)
    documentEnded = piece.endsDocument
    if (typeof piece.text === 'string') writer.append(tokenizer.encode(piece.text))
    else if (tokenizer.encodeBytes) writer.append(tokenizer.encodeBytes(piece.text))
  }
}

function appendTokenFile(writer: TokenFileWriter, path: string, tokenizer: Tokenizer): void {
  const file = openFitting(path, tokenizer)
  try {
    const chunk = new Int32Array(1 << 16)
    for (let at = 0; at < file.numTokens; at += chunk.length) {
      const length = Math.min(chunk.length, file.numTokens - at)
      file.read(at, length, chunk)
      writer.append(chunk.subarray(0, length))
    }
  } finally {
    file.close()
  }
}

function openFitting(path: string, tokenizer: Tokenizer): TokenFile {
  const file = TokenFile.open(path)
  if (file.header.tokenizer === tokenizer.name) return file
  const made = file.header.tokenizer
  file.close()
  throw new ZeroshardError(
    'DATA',
    `[data] ${path} was made with tokenizer "${made}", data.tokenizer is "${tokenizer.name}"`,
  )
}

function longEnough(view: TokenView, options: DatasetOptions): TokenView {
  const needed = options.sequenceLength + 1
  if (view.numTokens >= needed) return view
  throw new ZeroshardError(
    'DATA',
    `[data] ${view.name} has ${view.numTokens} tokens, one sample needs ${needed} ` +
      `(sequence_length ${options.sequenceLength} + 1); give more text or a shorter sequence`,
  )
}

function checkOptions(options: DatasetOptions): void {
  const { files, sequenceLength, validationFraction = 0, validationFiles = [] } = options
  if (files.length === 0) throw new ZeroshardError('CONFIG', '[data] data.train names no file')
  if (!(Number.isInteger(sequenceLength) && sequenceLength > 0)) {
    throw new ZeroshardError('CONFIG', `[data] sequence_length is ${sequenceLength}; give 1 or more`)
  }
  if (!(validationFraction >= 0 && validationFraction < 1)) {
    const message = `[data] validation_fraction is ${validationFraction}; give 0 or more, below 1`
    throw new ZeroshardError('CONFIG', message)
  }
  if (validationFraction > 0 && validationFiles.length > 0) {
    const message = '[data] validation and validation_fraction exclude each other; give one'
    throw new ZeroshardError('CONFIG', message)
  }
}

function makeFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true })
  } catch (cause) {
    throw new ZeroshardError('IO', `[data] cannot make ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
}

function describe(files: readonly string[]): string {
  return files.length <= 3 ? files.join(', ') : `${files[0]} and ${files.length - 1} more files`
}
