// Token files: what was written is read, and nothing damaged or hostile is believed.

import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t from 'tap'
import { TokenFile, TokenFileWriter } from '../../lib/data/index.js'
import { fc } from '../helpers/properties.js'

function write(ids: number[], vocabSize = 256): string {
  const path = join(mkdtempSync(join(tmpdir(), 'zs-tokens-')), 'a.tokens')
  const writer = new TokenFileWriter(path, { tokenizer: 'byte', vocabSize })
  writer.append(ids)
  writer.finish()
  return path
}

/** Changes header bytes and makes the header's checksum fit again, as an attacker would. */
function forge(path: string, change: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path)
  change(bytes)
  createHash('sha256').update(bytes.subarray(0, 224)).digest().copy(bytes, 224)
  writeFileSync(path, bytes)
}

function refusal(path: string): unknown {
  try {
    TokenFile.open(path).close()
  } catch (error) {
    return error
  }
  return undefined
}

t.test('refuses a file cut at any place', (t) => {
  const length = readFileSync(write([1, 2, 3])).length
  for (let keep = 0; keep < length; keep += 5) {
    const path = write([1, 2, 3])
    truncateSync(path, keep)
    t.match(refusal(path), { code: 'DATA', message: path }, `${keep} bytes`)
  }
  t.end()
})

t.test('refuses a header with any byte changed', (t) => {
  const path = write([1, 2, 3])
  const good = readFileSync(path)
  for (let at = 0; at < 256; at += 3) {
    const bad = Buffer.from(good)
    bad[at] = (bad[at] as number) ^ 0x41
    writeFileSync(path, bad)
    t.match(refusal(path), { code: 'DATA' }, `byte ${at}`)
  }
  t.end()
})

t.test('refuses hostile lengths even where the header checksum fits them', (t) => {
  const forgeries: ((bytes: Buffer) => void)[] = [
    (bytes) => bytes.writeBigUInt64LE(2n ** 64n - 1n, 16),
    (bytes) => bytes.writeBigUInt64LE(2n ** 63n + 3n, 16),
    (bytes) => bytes.writeBigUInt64LE(4n, 16),
    (bytes) => bytes.writeUInt32LE(0, 12),
    (bytes) => bytes.writeUInt32LE(4, 12),
    (bytes) => bytes.writeUInt32LE(2, 8),
    (bytes) => bytes.writeUInt32LE(0xffffffff, 24),
    (bytes) => bytes.writeUInt32LE(0xffffffff, 96),
  ]
  for (const change of forgeries) {
    const path = write([1, 2, 3])
    forge(path, change)
    t.match(refusal(path), { code: 'DATA' }, change.toString())
  }
  t.end()
})

t.test('verify finds one changed token and read one above the announced largest', (t) => {
  const path = write([1, 2, 3])
  const bytes = readFileSync(path)
  bytes[257] = 9
  writeFileSync(path, bytes)
  const file = TokenFile.open(path)
  t.throws(() => file.verify(), { code: 'DATA', message: /checksum/ })
  t.throws(() => file.read(0, 3, new Int32Array(3)), { code: 'DATA' })
  file.close()
  t.throws(() => file.read(0, 1, new Int32Array(1)), { code: 'DISPOSED' })
  t.end()
})

t.test('read refuses a window outside the file or the output', (t) => {
  const file = TokenFile.open(write([1, 2, 3]))
  t.throws(() => file.read(2, 2, new Int32Array(2)), { code: 'ARGUMENT' })
  t.throws(() => file.read(-1, 1, new Int32Array(2)), { code: 'ARGUMENT' })
  t.throws(() => file.read(0, 3, new Int32Array(2)), { code: 'ARGUMENT' })
  t.throws(() => file.slice(1, 2).read(1, 1, new Int32Array(1)), { code: 'ARGUMENT' })
  file.close()
  t.end()
})

t.test('the writer refuses ids that the width cannot hold and leaves nothing behind', (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'zs-tokens-')), 'a.tokens')
  const writer = new TokenFileWriter(path, { tokenizer: 'byte', vocabSize: 256 })
  t.throws(() => writer.append([65536]), { code: 'TOKEN' })
  t.same(readdirSync(dirname(path)), [])
  t.end()
})

t.test('nothing stands under the name before finish, and no temporary file after', (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'zs-tokens-')), 'a.tokens')
  const writer = new TokenFileWriter(path, { tokenizer: 'byte', vocabSize: 256 })
  writer.append([1])
  t.notOk(readdirSync(dirname(path)).includes('a.tokens'))
  writer.finish()
  t.same(readdirSync(dirname(path)), ['a.tokens'])
  t.end()
})

t.test('every window of every file is read as it was written', (t) => {
  const widths = [
    { vocabSize: 65536, max: 65535 },
    { vocabSize: 65537, max: 2 ** 31 - 1 },
  ]
  for (const { vocabSize, max } of widths) {
    fc.assert(
      fc.property(fc.array(fc.nat({ max }), { minLength: 1, maxLength: 50 }), fc.nat(), fc.nat(), (ids, a, b) => {
        const file = TokenFile.open(write(ids, vocabSize))
        const start = a % ids.length
        const length = b % (ids.length - start + 1)
        const out = new Int32Array(length)
        file.slice(start, ids.length).read(0, length, out)
        file.verify()
        file.close()
        t.equal(file.maxToken, Math.max(...ids))
        t.same([...out], ids.slice(start, start + length))
      }),
      { numRuns: 40 },
    )
  }
  t.end()
})
