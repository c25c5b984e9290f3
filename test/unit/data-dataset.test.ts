// From files to open tokens: every misuse names its file; the cache is made once and never torn.

import { mkdtempSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import {
  checkVocabulary,
  type DatasetOptions,
  loadTokenizer,
  openDataset,
  prepareDataset,
  type TokenView,
} from '../../lib/data/index.js'

const byte = await loadTokenizer('byte')
const folder = (): string => mkdtempSync(join(tmpdir(), 'zs-data-'))

function write(content: string | Uint8Array, name = 'a.txt', where = folder()): string {
  const path = join(where, name)
  writeFileSync(path, content)
  return path
}

function options(files: string[], more: Partial<DatasetOptions> = {}): DatasetOptions {
  return { files, tokenizer: byte, cacheDirectory: folder(), sequenceLength: 4, ...more }
}

function ids(view: TokenView | undefined): number[] {
  if (view === undefined) throw new Error('no such part')
  const out = new Int32Array(view.numTokens)
  view.read(0, view.numTokens, out)
  return [...out]
}

async function text(files: string[], more: Partial<DatasetOptions> = {}): Promise<string> {
  const data = await openDataset(options(files, more))
  const found = (more.tokenizer ?? byte).decode(ids(data.train))
  data.close()
  return found
}

t.test('throws for files that are missing, empty, folders, or of an unread format', async (t) => {
  const missing = join(folder(), 'gone.txt')
  await t.rejects(prepareDataset(options([missing])), {
    code: 'DATA',
    message: /gone.txt does not exist/,
  })
  await t.rejects(prepareDataset(options([write('', 'void.txt')])), {
    message: /void.txt is empty/,
  })
  await t.rejects(prepareDataset(options([folder()])), { code: 'DATA', message: /is not a file/ })
  await t.rejects(prepareDataset(options([write('x', 'a.parquet')])), { message: /a.parquet/ })
  await t.rejects(prepareDataset(options([write('\n\n', 'a.jsonl')])), {
    message: /a.jsonl holds no text/,
  })
})

t.test('throws for text shorter than a sample with the tokens found and needed', async (t) => {
  const short = write('abcd', 'short.txt')
  await t.rejects(openDataset(options([short])), {
    code: 'DATA',
    message: /short.txt has 4 tokens, one sample needs 5/,
  })
  await t.rejects(openDataset(options([write('abcdefghij')], { validationFraction: 0.4 })), {
    message: /validation_fraction\) has 4 tokens, one sample needs 5/,
  })
})

t.test('throws for options that contradict themselves', async (t) => {
  const a = write('abcdefgh')
  const config = { code: 'CONFIG' }
  await t.rejects(openDataset(options([])), config)
  await t.rejects(openDataset(options([a], { validationFraction: 1 })), config)
  await t.rejects(openDataset(options([a], { sequenceLength: 0 })), config)
  await t.rejects(openDataset(options([a], { validationFraction: 0.5, validationFiles: [a] })), config)
})

t.test('throws for JSONL lines without text, with the line and the nearest key', async (t) => {
  const path = write('{"text":"abcdef"}\n{"txt":"b"}\n', 'b.jsonl')
  await t.rejects(prepareDataset(options([path])), {
    code: 'DATA',
    message: /b.jsonl line 2.*"txt"/,
  })
  await t.rejects(prepareDataset(options([write('{"text":', 'c.jsonl')])), {
    message: /c.jsonl line 1/,
  })
})

t.test('throws for text that is not UTF-8 where characters matter; bytes take anything', async (t) => {
  const path = write(Uint8Array.of(97, 98, 0xe9, 99, 100, 101, 102))
  const gpt2 = await loadTokenizer('gpt2')
  await t.rejects(prepareDataset(options([path], { tokenizer: gpt2 })), {
    message: /is not UTF-8/,
  })
  const data = await openDataset(options([path]))
  t.equal(ids(data.train)[2], 0xe9)
  data.close()
})

t.test('throws for a damaged gzip and for a token file that is none', async (t) => {
  const whole = gzipSync('abcdefghijkl'.repeat(100))
  await t.rejects(prepareDataset(options([write(whole.subarray(0, 20), 'a.txt.gz')])), {
    code: 'DATA',
    message: /a.txt.gz/,
  })
  await t.rejects(prepareDataset(options([write('not tokens', 'a.bin')])), {
    message: /a.bin is not/,
  })
})

t.test('a failed preparation leaves no file in the cache', async (t) => {
  const cacheDirectory = folder()
  const bad = write('{"text":"abc"}\nnonsense\n', 'bad.jsonl')
  await t.rejects(prepareDataset(options([bad], { cacheDirectory })))
  t.same(readdirSync(cacheDirectory), [])
})

t.test('throws TOKEN and names vocab_size where the data holds an id beyond the vocabulary', async (t) => {
  const data = await openDataset(options([write('plain ASCII text')]))
  t.equal(data.maxToken, 'x'.charCodeAt(0))
  checkVocabulary(data.maxToken, 128)
  checkVocabulary(data.maxToken, data.maxToken + 1)
  const error = { code: 'TOKEN', message: /vocabulary smaller than the tokens.*vocab_size/ }
  t.throws(() => checkVocabulary(data.maxToken, 16), error)
  t.throws(() => checkVocabulary(data.maxToken, data.maxToken), error)
  data.close()
})

t.test('text, JSONL, gzip and token files give their text, documents joined', async (t) => {
  const a = write('first é')
  const b = write('{"body":"second"}\n\n{"body":"third\u2028x"}', 'b.jsonl')
  const c = write(gzipSync('fourth'), 'c.txt.gz')
  const whole = 'first é\nsecond\nthird\u2028x\nfourth'
  t.equal(await text([a, b, c], { textKey: 'body' }), whole)
  const cacheDirectory = folder()
  await prepareDataset(options([c], { cacheDirectory }))
  const ready = join(cacheDirectory, readdirSync(cacheDirectory)[0] as string)
  t.equal(await text([ready]), 'fourth')
  t.equal(await text([a, ready]), 'first é\nfourth')
  const gpt2 = await loadTokenizer('gpt2')
  t.equal(await text([a, c], { tokenizer: gpt2, sequenceLength: 2 }), 'first é<|endoftext|>fourth')
  await t.rejects(prepareDataset(options([ready], { tokenizer: gpt2 })), {
    message: /tokenizer "byte"/,
  })
})

t.test('text longer than a piece has the tokens of the whole', async (t) => {
  const gpt2 = await loadTokenizer('gpt2')
  const line = 'There she blows—said 3 whales, 鯨 🐋 she’ll breach!  Twice.\n\n  Indented\n'
  const long = line.repeat(12_000)
  const data = await openDataset(options([write(long)], { tokenizer: gpt2 }))
  t.same(ids(data.train), [...gpt2.encode(long)])
  data.close()
  const unbroken = '🐋'.repeat(200_000)
  t.equal(await text([write(unbroken)], { tokenizer: gpt2 }), unbroken)
})

t.test('validation is the end of the training tokens, or files of its own', async (t) => {
  const a = write('abcdefghijklmnopqrst')
  const parts = await openDataset(options([a], { validationFraction: 0.25 }))
  t.equal(byte.decode(ids(parts.train)), 'abcdefghijklmno')
  t.equal(byte.decode(ids(parts.validation)), 'pqrst')
  parts.close()
  const own = await openDataset(options([a], { validationFiles: [write('zzzzzz')] }))
  t.equal(byte.decode(ids(own.validation)), 'zzzzzz')
  t.equal(own.maxToken, 'z'.charCodeAt(0))
  own.close()
})

t.test('preparing twice writes once; a changed or damaged state is written again', async (t) => {
  const a = write('abcdefgh')
  const given = options([a])
  await prepareDataset(given)
  const [name] = readdirSync(given.cacheDirectory)
  const path = join(given.cacheDirectory, name as string)
  const { ino } = statSync(path)
  await prepareDataset(given)
  t.equal(statSync(path).ino, ino)
  writeFileSync(path, 'torn')
  t.equal(await text([a], given), 'abcdefgh')
  writeFileSync(a, 'ABCDEFGH')
  utimesSync(a, 1, 1)
  t.equal(await text([a], given), 'ABCDEFGH')
})

t.test('many preparations at once leave one whole file', async (t) => {
  const given = options([write('abcdefgh'.repeat(100_000))])
  await Promise.all(Array.from({ length: 8 }, () => prepareDataset(given)))
  t.equal(readdirSync(given.cacheDirectory).length, 1)
  t.equal((await text([...given.files], given)).length, 800_000)
})
