// Tokenizers: round trips, streams that never cut a character, exports that tokenize alike.

import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { loadTokenizer, type Tokenizer } from '../../lib/data/index.js'
import { fc } from '../helpers/properties.js'

const sample = "Call me Ishmael. Some years ago—never mind how long precisely… I'll go! 🐋 鯨 1851\n\n x"

async function reloaded(tokenizer: Tokenizer): Promise<Tokenizer> {
  const folder = mkdtempSync(join(tmpdir(), 'zs-tokenizer-'))
  for (const [name, content] of Object.entries(tokenizer.files())) {
    writeFileSync(join(folder, name), content)
  }
  return loadTokenizer(join(folder, 'tokenizer.json'))
}

function streamed(tokenizer: Tokenizer, ids: Iterable<number>): string {
  const decoder = tokenizer.streamDecoder()
  const replacementIsText = tokenizer.decode(ids).includes('\ufffd')
  let text = ''
  for (const id of ids) {
    const part = decoder.push(id)
    if (part.includes('\ufffd') && !replacementIsText) throw new Error(`cut character in ${part}`)
    text += part
  }
  return text + decoder.end()
}

t.test('throws for a tokenizer that is neither known nor a file, and names the nearest', async (t) => {
  await t.rejects(loadTokenizer('gtp2'), { code: 'DATA', message: /did you mean "gpt2"/ })
  await t.rejects(loadTokenizer('/nowhere/tokenizer.json'), { message: /nowhere/ })
})

t.test('throws for a tokenizer.json that is not JSON', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'zs-tokenizer-')), 'tokenizer.json')
  writeFileSync(path, '{')
  await t.rejects(loadTokenizer(path), { code: 'DATA', message: /is not JSON/ })
})

t.test('throws when decoding an id outside the vocabulary', async (t) => {
  for (const spec of ['byte', 'gpt2']) {
    const tokenizer = await loadTokenizer(spec)
    t.throws(() => tokenizer.decode([tokenizer.vocabSize]), { code: 'TOKEN' })
    t.throws(() => tokenizer.decode([-1]), { code: 'TOKEN' })
  }
})

t.test('the byte tokenizer gives UTF-8 bytes', async (t) => {
  const byte = await loadTokenizer('byte')
  t.equal(byte.vocabSize, 256)
  t.same([...byte.encode('aé')], [97, 0xc3, 0xa9])
})

t.test('the gpt2 tokenizer gives the ids of the original', async (t) => {
  const gpt2 = await loadTokenizer('gpt2')
  t.equal(gpt2.vocabSize, 50257)
  t.same([...gpt2.encode('Hello world')], [15496, 995])
  t.equal(gpt2.decode([50256]), '<|endoftext|>')
  t.notOk([...gpt2.encode('<|endoftext|>')].includes(50256), 'text is never a special token')
})

t.test('any text survives encode and decode, at once and streamed', async (t) => {
  for (const spec of ['byte', 'gpt2']) {
    const tokenizer = await loadTokenizer(spec)
    const replacement = 'a\ufffd\ufeffb'
    t.equal(streamed(tokenizer, tokenizer.encode(replacement)), replacement)
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), (text) => {
        const ids = tokenizer.encode(text)
        return tokenizer.decode(ids) === text && streamed(tokenizer, ids) === text
      }),
      { numRuns: 200 },
    )
    t.pass(spec)
  }
})

t.test('a stream that ends inside a character gives one replacement and starts afresh', async (t) => {
  const byte = await loadTokenizer('byte')
  const decoder = byte.streamDecoder()
  t.equal(decoder.push(0xf0), '')
  t.equal(decoder.end(), '\ufffd')
  t.equal(decoder.push(97), 'a')
})

t.test('an exported tokenizer.json tokenizes as the tokenizer that it came from', async (t) => {
  for (const spec of ['byte', 'gpt2']) {
    const tokenizer = await loadTokenizer(spec)
    const copy = await reloaded(tokenizer)
    t.equal(copy.vocabSize, tokenizer.vocabSize)
    t.same([...copy.encode(sample)], [...tokenizer.encode(sample)], spec)
    t.equal(copy.decode(tokenizer.encode(sample)), sample)
    t.equal(streamed(copy, tokenizer.encode(sample)), sample)
  }
})
