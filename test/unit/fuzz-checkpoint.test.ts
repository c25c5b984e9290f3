// Checkpoints that someone made to do harm: lengths, overlaps, gaps, paths out of the folder, links, pipes.

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ZeroshardError } from '../../lib/binding/errors.js'
import { findNewest } from '../../lib/checkpoint/folder.js'
import { type Manifest, manifestText, parseManifest, readManifest, verifyFiles } from '../../lib/checkpoint/manifest.js'
import { parseHeader, SafetensorsFile, writeSafetensors } from '../../lib/checkpoint/safetensors.js'
import { safetensorsBytes } from '../helpers/fuzz.js'

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-hostile-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

async function refusal(work: () => unknown): Promise<string> {
  try {
    await work()
  } catch (error) {
    if (error instanceof ZeroshardError && error.code === 'CHECKPOINT') return error.message
    throw error
  }
  return 'accepted'
}

const f32 = (shape: number[], begin: number, end: number) => ({ dtype: 'F32', shape, data_offsets: [begin, end] })

t.test('a header may not claim what the file does not hold', async (t) => {
  const cases: [unknown, RegExp][] = [
    [{ a: f32([3], 0, 12) }, /'a' claims bytes 0 to 12 of 8/],
    [{ a: f32([1], 0, 8) }, /'a' claims bytes 0 to 8 of 8 for F32 \[1\]/],
    [{ a: f32([2], 0, 8), b: f32([1], 4, 8) }, /'b' overlaps another tensor/],
    [{ a: f32([1], 4, 8) }, /bytes 0 to 4 belong to no tensor/],
    [{ a: f32([1], 0, 4) }, /bytes 4 to 8 belong to no tensor/],
    [{}, /bytes 0 to 8 belong to no tensor/],
    [{ a: f32([-2], 0, 8) }, /no valid shape/],
    [{ a: f32([1.5], 0, 8) }, /no valid shape/],
    [{ a: f32([2 ** 53], 0, 8) }, /no valid shape/],
    [{ a: f32([2 ** 52, 2 ** 52, 2 ** 52], 0, 8) }, /claims bytes/],
    [{ a: f32(Array(65).fill(1), 0, 8) }, /no valid shape/],
    [{ a: f32([2], 8, 0) }, /no valid offsets/],
    [{ a: { ...f32([2], 0, 8), data_offsets: [0, 8, 8] } }, /no valid offsets/],
    [{ a: { ...f32([2], 0, 8), dtype: 'F33' } }, /dtype F33/],
    [{ a: { ...f32([2], 0, 8), dtype: { toString: 1 } } }, /dtype object/],
    [{ a: { ...f32([2], 0, 8), dtype: 'toString' } }, /dtype toString/],
    [{ a: null }, /'a' is no tensor/],
    [{ a: f32([2], 0, 8), __metadata__: { a: 1 } }, /__metadata__/],
    [{ a: f32([2], 0, 8), __metadata__: [] }, /__metadata__/],
    [[], /not an object/],
  ]
  for (const [header, pattern] of cases)
    t.match(
      await refusal(() => parseHeader('f', JSON.stringify(header), 8)),
      pattern,
      JSON.stringify(header).slice(0, 80),
    )
  t.match(await refusal(() => parseHeader('f', '{', 8)), /not JSON/)
  t.match(
    await refusal(() =>
      parseHeader('f', `{"a":${JSON.stringify(f32([1], 0, 4))},"a":${JSON.stringify(f32([1], 4, 8))}}`, 8),
    ),
    /belong to no tensor/,
    'a key given twice leaves a gap',
  )
  const deep = `${'['.repeat(50_000)}${']'.repeat(50_000)}`
  t.match(await refusal(() => parseHeader('f', `{"a":{"dtype":${deep}}}`, 8)), /dtype object|not JSON/)
})

t.test('names of object internals are tensors like others', async (t) => {
  const { entries, metadata } = parseHeader(
    'f',
    '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"__proto__":"x"}}',
    1,
  )
  t.strictSame([...entries.keys()], ['__proto__'])
  t.equal(Object.getPrototypeOf(metadata), null)
  t.notOk('shape' in Object.prototype)
})

t.test('types that are not read here are known, and only asking for them is an error', async (t) => {
  const path = join(folderOf(t), 'f.safetensors')
  const header = { mask: { dtype: 'BOOL', shape: [4], data_offsets: [0, 4] }, a: f32([1], 4, 8) }
  writeFileSync(path, safetensorsBytes(header, Buffer.alloc(8)))
  const file = await SafetensorsFile.open(path)
  t.strictSame([...file.foreign], [['mask', 'BOOL']])
  t.equal((await file.read('a')).length, 4)
  t.match(await refusal(() => file.read('mask')), /'mask' is BOOL, a type that is not read here/)
  for (const [start, count] of [
    [-1, 1],
    [0, 2],
    [1, 1],
    [0.5, 0],
    [Number.NaN, 1],
    [0, Number.NaN],
    [2 ** 60, 1],
    [0, 2 ** 60],
  ])
    t.match(await refusal(() => file.read('a', start, count)), /has no elements/, `${start}, ${count}`)
  await file.close()
})

t.test('a file that claims a huge header takes no memory; one cut anywhere is refused', async (t) => {
  const path = join(folderOf(t), 'f.safetensors')
  const whole = safetensorsBytes({ a: f32([2], 0, 8) }, Buffer.alloc(8))
  for (const length of [2n ** 64n - 1n, 2n ** 63n, 100_000_001n, 99_999_999n, BigInt(whole.length - 7)]) {
    const before = process.memoryUsage().arrayBuffers
    writeFileSync(path, safetensorsBytes('{}', Buffer.alloc(8), length))
    t.match(await refusal(() => SafetensorsFile.open(path)), /header of \d+ bytes in a file of 18/)
    t.ok(process.memoryUsage().arrayBuffers - before < 2 ** 20)
  }
  for (let keep = 0; keep < whole.length; keep++) {
    writeFileSync(path, whole.subarray(0, keep))
    t.not(await refusal(() => SafetensorsFile.open(path)), 'accepted')
  }
  const bad = safetensorsBytes({ aé: f32([2], 0, 8) }, Buffer.alloc(8))
  bad[bad.indexOf(0xc3) + 1] = 0xff
  writeFileSync(path, bad)
  t.match(await refusal(() => SafetensorsFile.open(path)), /not UTF-8/)
})

t.test('folders, pipes and devices are not waited for', async (t) => {
  const folder = folderOf(t)
  execFileSync('mkfifo', [join(folder, 'pipe'), join(folder, 'manifest.json')])
  for (const path of [folder, join(folder, 'pipe'), '/dev/zero'])
    t.match(await refusal(() => SafetensorsFile.open(path)), /is not a plain file/)
  t.match(await refusal(() => SafetensorsFile.open(join(folder, 'none'))), /cannot be opened/)
  t.match(await refusal(() => readManifest(folder)), /is not a plain file/)
})

const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const data = Buffer.from('the bytes of a file')

function manifest(change: (m: any) => void = () => {}): Manifest {
  const whole = {
    format: 'zeroshard-checkpoint',
    version: 1,
    state: { step: 1, updates: 1, skippedSteps: 0, samples: 2, seed: 3 },
    parameters: { a: { shape: [2, 4], dtype: 'f32' } },
    layout: { world: 1, mesh: { data: 1 }, stage: 1 },
    client: {},
    files: [{ name: 'f', bytes: data.length, sha256: sha(data) }],
    slices: [
      { parameter: 'a', kind: 'weight', file: 'f', key: 'a', start: 0, count: 5 },
      { parameter: 'a', kind: 'weight', file: 'f', key: 'b', start: 5, count: 3 },
    ],
  }
  change(whole)
  return whole as unknown as Manifest
}

t.test('a manifest may not point out of its folder, nor claim slices twice, none, or beyond the end', async (t) => {
  const slice = (more: object) => (m: any) => Object.assign(m.slices[0], more)
  const cases: [string, (m: any) => void, RegExp][] = [
    ...[
      '..',
      '.',
      '../f',
      '/etc/passwd',
      'a/b',
      '.hidden',
      '',
      'a\\b',
      'a\0b',
      'manifest.json',
      'x'.repeat(300),
      7,
    ].map((name): [string, (m: any) => void, RegExp] => [
      `file ${String(name).slice(0, 20)}`,
      (m) => Object.assign(m.files[0], { name }),
      /names a file outside its folder/,
    ]),
    ['file twice', (m) => m.files.push(m.files[0]), /names f twice/],
    ['size', (m) => Object.assign(m.files[0], { bytes: -1 }), /size and checksum/],
    ['checksum', (m) => Object.assign(m.files[0], { sha256: [] }), /size and checksum/],
    ['no file', (m) => m.files.push(null), /outside its folder/],
    ['overlap', slice({ count: 6 }), /gaps or overlaps in the weight of a/],
    ['gap', slice({ count: 4 }), /gaps or overlaps/],
    ['lacking start', slice({ start: 1, count: 4 }), /gaps or overlaps/],
    ['the same again', (m) => m.slices.push({ ...m.slices[0] }), /"a" of f twice/],
    ['the same under another key', (m) => m.slices.push({ ...m.slices[0], key: 'c' }), /gaps or overlaps/],
    ['beyond the parameter', slice({ count: 9 }), /beyond the end of "a"/],
    ['huge', slice({ start: 2 ** 52, count: 2 ** 52 }), /beyond the end/],
    ['beyond the file', (m) => (m.files[0].bytes = 7), /beyond the end of "f"/],
    ['another file', slice({ file: 'g' }), /of a file it does not name/],
    ['another parameter', slice({ parameter: 'b' }), /bad slice/],
    ['prototype', slice({ parameter: '__proto__' }), /bad slice/],
    ['constructor', slice({ parameter: 'constructor' }), /bad slice/],
    ['null', (m) => m.slices.push(null), /bad slice null/],
    ['kind', slice({ kind: '../x' }), /bad slice/],
    ['key', slice({ key: 7 }), /bad slice/],
    ['fraction', slice({ start: 0.5 }), /bad slice/],
    ['cut', slice({ cut: { dim: 2, ranges: [[0, 2]] } }), /bad slice/],
    ['cut backwards', slice({ cut: { dim: 1, ranges: [[2, 1]] } }), /bad slice/],
    [
      'cut twice',
      slice({
        cut: {
          dim: 1,
          ranges: [
            [0, 2],
            [1, 4],
          ],
        },
      }),
      /bad slice/,
    ],
    ['cut in one slice only', slice({ cut: { dim: 1, ranges: [[0, 4]] } }), /cut in two ways/],
    ['no weights', (m) => (m.slices = []), /lacks the weights of "a"/],
    ['moments alone', (m) => (m.slices = m.slices.map((s: any) => ({ ...s, kind: 'm' }))), /lacks the weights/],
    ['shape', (m) => (m.parameters.a.shape = [2 ** 30, 2 ** 30]), /no valid shape/],
    ['negative shape', (m) => (m.parameters.a.shape = [-2, -4]), /no valid shape/],
    ['parameters', (m) => (m.parameters = []), /lacks parameters/],
    [
      'own prototype',
      (m) => Object.defineProperty(m.parameters, '__proto__', { value: m.parameters.a, enumerable: true }),
      /"__proto__"/,
    ],
    ['step', (m) => (m.state.step = 1e300), /training state/],
    ['state', (m) => (m.state = null), /training state/],
    ['scaler', (m) => (m.state.scaler = { scale: 'x' }), /loss scale/],
    ['stage', (m) => (m.layout.stage = 4), /ZeRO stage 4/],
    ['mesh', (m) => (m.layout.mesh = { data: 0 }), /mesh/],
    ['client', (m) => (m.client = 3), /client/],
    ['model', (m) => (m.model = 'gpt2'), /model/],
    ['tokenizer', (m) => (m.tokenizer = {}), /tokenizer/],
    ['format', (m) => (m.format = 'torch'), /not a zeroshard checkpoint/],
    ['version', (m) => (m.version = 2), /version 2, this program reads 1/],
  ]
  t.equal(await refusal(() => parseManifest('m', manifestText(manifest()))), 'accepted')
  for (const [name, change, pattern] of cases)
    t.match(await refusal(() => parseManifest('m', manifestText(manifest(change)))), pattern, name)
})

t.test('parts of a parameter must make up the whole', async (t) => {
  const cut = (...ranges: [number, number][]) => ({ dim: 1, ranges })
  const parts = (...cuts: ReturnType<typeof cut>[]) =>
    manifest((m) => {
      m.slices = cuts.map((c, i) => {
        const count = 2 * c.ranges.reduce((sum, [from, to]) => sum + to - from, 0)
        return { ...m.slices[0], key: String(i), start: 0, count, cut: c }
      })
    })
  const read = (m: Manifest) => refusal(() => parseManifest('m', manifestText(m)))
  t.equal(await read(parts(cut([0, 2]), cut([2, 4]))), 'accepted')
  t.equal(await read(parts(cut([0, 1], [2, 3]), cut([1, 2], [3, 4]))), 'accepted', 'interleaved')
  t.match(await read(parts(cut([0, 2]))), /between parts/)
  t.match(await read(parts(cut([0, 3]), cut([2, 4]))), /between parts/)
  t.match(await read(parts(cut([0, 2]), cut([0, 2]), cut([2, 4]))), /gaps or overlaps/)
})

t.test('a manifest with any byte changed is refused', async (t) => {
  const text = manifestText(manifest())
  for (let i = 0; i < text.length - 1; i++) {
    const changed = text.slice(0, i) + String.fromCharCode(text.charCodeAt(i) ^ 1) + text.slice(i + 1)
    const message = await refusal(() => parseManifest('m', changed))
    if (!/checksum/.test(message)) t.fail(`byte ${i}: ${message}`)
  }
  t.match(await refusal(() => parseManifest('m', '')), /checksum/)
  t.match(await refusal(() => parseManifest('m', JSON.stringify(manifest()))), /does not end with a checksum/)
})

t.test('links out of the folder are not followed, and the checkpoint before is used', async (t) => {
  const run = folderOf(t)
  const place = (step: number, make: (folder: string) => void): void => {
    const folder = join(run, `step-${step}`)
    mkdirSync(folder)
    writeFileSync(join(folder, 'f'), data)
    writeFileSync(join(folder, 'manifest.json'), manifestText(manifest()))
    make(folder)
  }
  writeFileSync(join(run, 'secret'), data)
  const relink = (name: string, to: string) => (folder: string) => {
    rmSync(join(folder, name))
    symlinkSync(to, join(folder, name))
  }
  place(1, () => {})
  place(2, relink('f', join(run, 'secret')))
  place(3, relink('f', '../secret'))
  place(4, relink('manifest.json', '../step-1/manifest.json'))
  place(5, (folder) => writeFileSync(join(folder, 'f'), 'other bytes of 19 c'))
  place(6, (folder) => writeFileSync(join(folder, 'f'), data.subarray(1)))
  place(7, (folder) => writeFileSync(join(folder, 'manifest.json'), '{"format":"zeroshard-checkpoint"'))
  const told: string[] = []
  const found = await findNewest(run, (message) => told.push(message))
  t.equal(found?.folder, join(run, 'step-1'))
  t.equal(told.length, 6)
  const reasons = [/step-7.*checksum/, /step-6.*18 bytes/, /step-5.*checksum/, /step-4.*plain file/]
  for (const [i, reason] of [...reasons, /step-3.*plain file/, /step-2.*plain file/].entries()) t.match(told[i], reason)
  t.equal(await refusal(() => verifyFiles(join(run, 'step-1'), manifest())), 'accepted')
})

t.test('what is written is read, and a file is never written over another', async (t) => {
  const path = join(folderOf(t), 'f.safetensors')
  const plans = [
    { key: '__proto__', dtype: 'f32' as const, shape: [2] },
    { key: 'é"\\\n', dtype: 'bf16' as const, shape: [0] },
    { key: 'c', dtype: 'u8' as const, shape: [] },
  ]
  const write = () => writeSafetensors(path, plans, async (_, i) => new Uint8Array([8, 0, 1][i] as number).fill(i + 1))
  const { bytes } = await write()
  const file = await SafetensorsFile.open(path)
  t.strictSame([...file.entries.keys()].sort(), plans.map(({ key }) => key).sort())
  t.strictSame([...(await file.read('__proto__', 1))], [1, 1, 1, 1])
  t.equal((await file.read('é"\\\n')).length, 0)
  await file.close()
  t.ok(bytes > 9)
  await t.rejects(write(), /EEXIST/)
  const bytesOf = async () => new Uint8Array(1)
  for (const key of ['c', '__metadata__']) {
    const twice = [...plans, { key, dtype: 'u8' as const, shape: [] }]
    t.match(await refusal(() => writeSafetensors(`${path}2`, twice, bytesOf)), /two tensors have the name/)
  }
})
