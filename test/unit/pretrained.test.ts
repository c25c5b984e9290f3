// Initial weights from Hugging Face folders, in all the forms that these come in; each rank reads its own part.

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { binding } from '../../lib/binding/native.js'
import { loadPretrained, PretrainedWeights } from '../../lib/checkpoint/pretrained.js'
import { SafetensorsFile } from '../../lib/checkpoint/safetensors.js'
import { createModel } from '../../lib/nn/models/index.js'
import type { Parameter } from '../../lib/nn/parameter.js'
import { MemoryFlat } from '../../lib/parallel/zero/flat.js'
import { layoutUnits } from '../../lib/parallel/zero/layout.js'
import { type DType, empty } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'

binding().native.configure({ threads: 1, serial: false })

const gpt2 = { model_type: 'gpt2', n_layer: 2, n_head: 2, n_embd: 8, n_positions: 6, vocab_size: 11 }
const llama = {
  model_type: 'llama',
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  hidden_size: 8,
  intermediate_size: 12,
  max_position_embeddings: 6,
  vocab_size: 11,
}

interface Raw {
  type: string
  shape: number[]
  bytes: Uint8Array
}

/** A safetensors file, written without lib/. */
function write(path: string, tensors: Record<string, Raw>): void {
  const header: Record<string, unknown> = {}
  let offset = 0
  for (const [name, { type, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype: type, shape, data_offsets: [offset, (offset += bytes.length)] }
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path, Buffer.concat([length, text, ...Object.values(tensors).map(({ bytes }) => bytes)]))
}

/** A value that every 16-bit float holds exactly, different for each name and index. */
const value = (name: string, index: number): number =>
  (((index * 7 + [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 251, 7)) % 251) - 125) / 64

const bits = { f32: 'F32', bf16: 'BF16', f16: 'F16' } as const
function encode(name: string, shape: readonly number[], dtype: 'f32' | 'bf16' | 'f16'): Raw {
  const values = Float32Array.from({ length: shape.reduce((p, s) => p * s, 1) }, (_, i) => value(name, i))
  const words = new Uint32Array(values.buffer)
  const half = (x: number, word: number): number => {
    if (x === 0) return 0
    const exponent = ((word >>> 23) & 255) - 112
    return ((word >>> 31) << 15) | (exponent << 10) | ((word >>> 13) & 1023)
  }
  const narrow =
    dtype === 'f32'
      ? values
      : Uint16Array.from(words, (word, i) => (dtype === 'bf16' ? word >>> 16 : half(values[i] as number, word)))
  return { type: bits[dtype], shape: [...shape], bytes: new Uint8Array(narrow.buffer) }
}

class Folder {
  readonly path = mkdtempSync(join(tmpdir(), 'zeroshard-test-'))
  constructor(t: Test) {
    t.teardown(() => rmSync(this.path, { recursive: true, force: true }))
  }
  file(name: string, tensors: Record<string, Raw>): void {
    write(join(this.path, name), tensors)
  }
}

/** The tensors that transformers would write. */
function tensorsOf(config: object, dtype: 'f32' | 'bf16' | 'f16' = 'f32'): Record<string, Raw> {
  const model = createModel(config as Record<string, unknown>)
  return Object.fromEntries([...model.namedParameters()].map(([name, { shape }]) => [name, encode(name, shape, dtype)]))
}

const renamed = (tensors: Record<string, Raw>, change: (name: string) => string): Record<string, Raw> =>
  Object.fromEntries(Object.entries(tensors).map(([name, raw]) => [change(name), raw]))

/** Loads on `ranks` ranks in turn; checks that together they have every value, having read each once. */
async function check(t: Test, folder: string, config: object, name: string, ranks = 3): Promise<void> {
  const before = alive()
  let elements = 0
  const { read } = SafetensorsFile.prototype
  SafetensorsFile.prototype.read = function (key, start = 0, count = 0) {
    elements += count
    return read.call(this, key, start, count)
  }
  const model = createModel(config as Record<string, unknown>)
  const layouts = layoutUnits(model, { numShards: ranks })
  const whole = layouts.map((layout) => new Float32Array(layout.size))
  try {
    for (let rank = 0; rank < ranks; rank++) {
      const units = layouts.map((layout) => ({
        layout,
        start: rank * layout.shardSize,
        end: (rank + 1) * layout.shardSize,
        master: new MemoryFlat(empty([layout.shardSize], { zero: true })),
      }))
      let refreshed = 0
      await loadPretrained(folder, model, { units, refresh: () => void refreshed++ })
      t.equal(refreshed, 1)
      for (const [index, { master, start }] of units.entries()) {
        whole[index]?.set((await master.resident.data()) as Float32Array, start)
        master.resident.dispose()
      }
    }
  } finally {
    SafetensorsFile.prototype.read = read
  }
  let [wrong, total] = [0, 0]
  for (const [index, { slots }] of layouts.entries()) {
    for (const { parameter, offset, count } of slots) {
      total += count
      for (let i = 0; i < count; i++) if (whole[index]?.[offset + i] !== value(parameter.name, i)) wrong++
    }
  }
  t.equal(wrong, 0, `${name}: every value`)
  t.equal(elements, total, `${name}: each is read once, by its own rank`)
  t.equal(alive(), before, 'nothing is left')
}

for (const [family, config] of Object.entries({ gpt2, llama, tied: { ...llama, tie_word_embeddings: true } })) {
  t.test(`${family}: one file, shards with an index, shards without`, async (t) => {
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const tensors = tensorsOf(config, dtype)
      const single = new Folder(t)
      single.file('model.safetensors', tensors)
      await check(t, single.path, config, `${dtype} single`, dtype === 'f32' ? 1 : 3)
      const names = Object.keys(tensors)
      const parts = [0, 1, 2].map((part) =>
        Object.fromEntries(names.filter((_, i) => i % 3 === part).map((name) => [name, tensors[name] as Raw])),
      )
      for (const index of [true, false]) {
        const sharded = new Folder(t)
        const file = (part: number): string => `model-0000${part + 1}-of-00003.safetensors`
        parts.forEach((part, i) => {
          sharded.file(file(i), part)
        })
        if (index) {
          sharded.file('other.safetensors', { 'not.ours': encode('x', [1], 'f32') })
          const map = Object.fromEntries(names.map((name, i) => [name, file(i % 3)]))
          writeFileSync(join(sharded.path, 'model.safetensors.index.json'), JSON.stringify({ weight_map: map }))
        }
        await check(t, sharded.path, config, `${dtype} shards, index ${index}`)
      }
    }
  })
}

t.test('names without the prefix, tied copies, buffers', async (t) => {
  const tensors = tensorsOf(gpt2)
  const zeros = (type: string, bytes: number, shape: number[]): Raw => ({ type, shape, bytes: new Uint8Array(bytes) })
  const masks = (prefix: string): Record<string, Raw> => ({
    [`${prefix}h.0.attn.bias`]: zeros('F32', 144, [1, 1, 6, 6]),
    [`${prefix}h.1.attn.bias`]: zeros('BOOL', 36, [1, 1, 6, 6]),
    [`${prefix}h.0.attn.masked_bias`]: zeros('F64', 8, []),
    [`${prefix}h.1.attn.masked_bias`]: zeros('F32', 4, []),
  })
  const copy = { 'lm_head.weight': tensors['transformer.wte.weight'] as Raw }
  const bare = renamed(tensors, (name) => name.replace('transformer.', ''))
  const onlyHead = Object.fromEntries(
    Object.entries({ ...tensors, ...copy }).filter(([name]) => name !== 'transformer.wte.weight'),
  )
  const cases: [string, Record<string, Raw>][] = [
    ['no prefix', bare],
    ['no prefix, masks, as the first GPT-2 files are', { ...bare, ...masks('') }],
    ['masks', { ...tensors, ...masks('transformer.') }],
    ['a tied copy', { ...tensors, ...copy }],
    ['a tied copy, no prefix', { ...bare, ...copy }],
    ['the tied copy alone', onlyHead],
  ]
  for (const [name, content] of cases) {
    const folder = new Folder(t)
    folder.file('model.safetensors', content)
    await check(t, folder.path, gpt2, name)
  }
  const folder = new Folder(t)
  folder.file('model.safetensors', {
    ...tensorsOf(llama),
    'model.layers.0.self_attn.rotary_emb.inv_freq': zeros('F32', 4, [1]),
  })
  await check(t, folder.path, llama, 'frequencies')
})

t.test('what does not fit is named', async (t) => {
  const tensors = tensorsOf(gpt2)
  const without = (name: string): Record<string, Raw> =>
    Object.fromEntries(Object.entries(tensors).filter(([key]) => key !== name))
  const open = async (fill: (folder: Folder) => void, config: object = gpt2): Promise<void> => {
    const folder = new Folder(t)
    fill(folder)
    await (await PretrainedWeights.open(folder.path, createModel(config as Record<string, unknown>))).close()
  }
  const single = (content: Record<string, Raw>) => (folder: Folder) => folder.file('model.safetensors', content)
  const c_fc = 'transformer.h.1.mlp.c_fc.weight'
  const index = (map: unknown) => (folder: Folder) => {
    folder.file('a.safetensors', tensors)
    writeFileSync(
      join(folder.path, 'model.safetensors.index.json'),
      typeof map === 'string' ? map : JSON.stringify(map),
    )
  }
  const cases: [string, (folder: Folder) => void, RegExp][] = [
    ['missing', single(without(c_fc)), /missing: transformer\.h\.1\.mlp\.c_fc\.weight; unexpected: nothing/],
    ['unexpected', single({ ...tensors, extra: encode('extra', [2], 'f32') }), /missing: nothing; unexpected: extra/],
    ['shape', single({ ...tensors, [c_fc]: encode(c_fc, [32, 8], 'f32') }), /c_fc\.weight' is \[32, 8\].*\[8, 32\]/],
    [
      'type',
      single({ ...tensors, [c_fc]: { type: 'F64', shape: [8, 32], bytes: new Uint8Array(2048) } }),
      /c_fc.*is F64, a type/,
    ],
    [
      'integers',
      single({ ...tensors, [c_fc]: { type: 'I32', shape: [8, 32], bytes: new Uint8Array(1024) } }),
      /is i32/,
    ],
    ['no weights', () => {}, /no \*\.safetensors/],
    ['old weights', (folder) => writeFileSync(join(folder.path, 'pytorch_model.bin'), ''), /save the model again/],
    ['index elsewhere', index({ weight_map: { a: '../a.safetensors' } }), /outside its folder: "\.\.\/a/],
    ['index of nothing', index({}), /no weight_map/],
    ['torn index', index('{"weight_map"'), /cannot be read/],
    ['lost shard', index({ weight_map: { a: 'b.safetensors' } }), /b\.safetensors.*ENOENT/],
    [
      'twice',
      (folder) => {
        folder.file('a.safetensors', tensors)
        folder.file('b.safetensors', { [c_fc]: tensors[c_fc] as Raw })
      },
      /c_fc\.weight' is in a\.safetensors and in b\.safetensors/,
    ],
    [
      'truncated',
      (folder) => {
        folder.file('model.safetensors', tensors)
        truncateSync(join(folder.path, 'model.safetensors'), 5000)
      },
      /model\.safetensors.*claims bytes/,
    ],
  ]
  for (const [name, fill, message] of cases) await t.rejects(open(fill), { code: 'CHECKPOINT', message }, name)
  await t.rejects(
    open(single(tensors), llama),
    { message: /missing: model\.embed_tokens.*and 18 more/ },
    'another model',
  )
  await t.rejects(open(single(tensors), { ...gpt2, vocab_size: 12 }), { message: /wte\.weight' is \[11, 8\]/ })
  await t.rejects(PretrainedWeights.open('/nowhere', createModel(gpt2)), { code: 'CHECKPOINT', message: /\/nowhere/ })
})

t.test('a part of a parameter, along any dim, in pieces that begin anywhere', async (t) => {
  const before = alive()
  const folder = new Folder(t)
  folder.file('model.safetensors', tensorsOf(gpt2, 'bf16'))
  const cuts: [string, number, [number, number][]][] = [
    [
      'transformer.h.0.attn.c_attn.weight',
      1,
      [
        [2, 5],
        [10, 13],
        [18, 21],
      ],
    ],
    ['transformer.h.0.mlp.c_proj.weight', 0, [[3, 20]]],
    ['transformer.wte.weight', 0, [[6, 6]]],
    [
      'transformer.h.1.attn.c_attn.bias',
      0,
      [
        [8, 12],
        [0, 4],
      ],
    ],
  ]
  for (const [name, dim, ranges] of cuts) {
    const model = createModel(gpt2)
    const parameter = model.namedParameters().get(name) as Parameter
    parameter.cut(dim, ranges)
    const weights = await PretrainedWeights.open(folder.path, model)
    const inner = parameter.wholeShape.slice(dim + 1).reduce((product, size) => product * size, 1)
    const row = (parameter.wholeShape[dim] as number) * inner
    const inside = (index: number, [from, to]: [number, number]): boolean =>
      Math.floor((index % row) / inner) >= from && Math.floor((index % row) / inner) < to
    const whole = Array.from({ length: parameter.wholeShape.reduce((p, s) => p * s, 1) }, (_, index) => index)
    const expected = Array.from({ length: whole.length / row }, (_, outer) =>
      ranges.flatMap((range) => whole.slice(outer * row, (outer + 1) * row).filter((index) => inside(index, range))),
    )
      .flat()
      .map((index) => value(name, index))
    t.equal(expected.length, parameter.count)
    const target = empty([parameter.count + 1], { zero: true })
    for (const [start, end] of [
      [0, parameter.count],
      [Math.floor(parameter.count / 3), Math.floor(parameter.count / 2)],
    ] as const) {
      await weights.copy(parameter, start, end - start, new MemoryFlat(target), start)
      const values = (await target.data()) as Float32Array
      t.strictSame([...values.subarray(start, end)], expected.slice(start, end), `${name}: ${start} to ${end}`)
    }
    target.dispose()
    await weights.close()
  }
  t.equal(alive(), before, 'nothing is left')
})

t.test('half floats of every kind are read as they are', async (t) => {
  const folder = new Folder(t)
  const shape = [11, 8]
  const words = Uint16Array.from(
    { length: 88 },
    (_, i) => [0, 1, 0x3ff, 0x400, 0x7bff, 0x8001, 0xfc00, 0x3c00][i % 8] as number,
  )
  const tensors = tensorsOf(gpt2, 'f16' satisfies DType)
  folder.file('model.safetensors', {
    ...tensors,
    'transformer.wte.weight': { type: 'F16', shape, bytes: new Uint8Array(words.buffer) },
  })
  const model = createModel(gpt2)
  const weights = await PretrainedWeights.open(folder.path, model)
  const target = empty([90])
  const wte = model.namedParameters().get('transformer.wte.weight') as Parameter
  await weights.copy(wte, 0, 88, new MemoryFlat(target), 1)
  const expected = [0, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 65504, -(2 ** -24), -Infinity, 1]
  t.strictSame([...(await target.data())].slice(1, 9), expected)
  target.dispose()
  await weights.close()
})
