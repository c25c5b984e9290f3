// Fuzzing of everything that is read from outside: configurations, safetensors files, manifests. A case is a valid
// input, changed; it may be taken or refused with the right error, and nothing else may happen. Cases follow from a
// seed alone, so a failure repeats.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ZeroshardError } from '../../lib/binding/errors.js'
import { type Manifest, manifestText, parseManifest } from '../../lib/checkpoint/manifest.js'
import { parseHeader, SafetensorsFile } from '../../lib/checkpoint/safetensors.js'
import { parseConfigText, readConfigSource, resolveConfig } from '../../lib/config/index.js'
import { bytesPerElement, countOf } from '../../lib/tensor/tensor.js'
import { mutateJson, mutateText } from './mutate.js'
import { Random } from './random.js'

export interface Target {
  name: string
  /** The only code that an error may have. */
  code: string
  /** Makes an input, reads it, checks what was taken. */
  run(random: Random): void | Promise<void>
}

const options = { source: 'c.json', directory: '/work', worldSize: 4 }
const configs: readonly unknown[] = [
  {
    model: { config: { model_type: 'gpt2', n_layer: 4, n_head: 4, n_embd: 128, n_positions: 64, vocab_size: 256 } },
    data: { train: ['a.txt', 'b.jsonl'], validation: ['c.txt'], tokenizer: 'byte', sequence_length: 64 },
    mesh: { pipeline: 1, tensor: 1, context: 1, expert: 1 },
    train: { steps: 2000, eval_interval: 250, save_interval: 500, keep_checkpoints: 3, seed: 1337, output: 'out' },
    train_micro_batch_size_per_gpu: 12,
    optimizer: { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.99], weight_decay: 0.1 } },
    scheduler: { type: 'WarmupCosineLR', params: { warmup_num_steps: 100, total_num_steps: 2000 } },
    zero_optimization: { stage: 1 },
    bf16: { enabled: true },
    activation_checkpointing: { number_checkpoints: 2 },
  },
  {
    train_batch_size: 32,
    gradient_accumulation_steps: 2,
    zero_optimization: {
      stage: 3,
      offload_optimizer: { device: 'none', pin_memory: true },
      stage3_prefetch_bucket_size: 'auto',
      reduce_bucket_size: 5e8,
    },
    fp16: { enabled: false, loss_scale: 0, initial_scale_power: 16 },
    wandb: { enabled: false },
    tensorboard: { enabled: false, output_path: 'runs' },
  },
  { elasticity: { enabled: true, max_train_batch_size: 2000, micro_batch_sizes: [2, 4, 6], version: 0.2 } },
]

const manifest: Manifest = {
  format: 'zeroshard-checkpoint',
  version: 1,
  state: { step: 3, updates: 3, skippedSteps: 0, samples: 36, seed: 1 },
  parameters: { 'a.weight': { shape: [4, 6], dtype: 'f32' }, 'a.bias': { shape: [6], dtype: 'f32' } },
  layout: { world: 2, mesh: { data: 1, tensor: 2 }, stage: 1 },
  client: {},
  files: ['r0', 'r1'].map((name) => ({ name: `${name}.safetensors`, bytes: 400, sha256: '0'.repeat(64) })),
  slices: ['weight', 'exp_avg'].flatMap((kind) => [
    {
      parameter: 'a.weight',
      kind,
      file: 'r0.safetensors',
      key: `a${kind}`,
      start: 0,
      count: 12,
      cut: { dim: 1, ranges: [[0, 3]] },
    },
    {
      parameter: 'a.weight',
      kind,
      file: 'r1.safetensors',
      key: `a${kind}`,
      start: 0,
      count: 12,
      cut: { dim: 1, ranges: [[3, 6]] },
    },
    { parameter: 'a.bias', kind, file: 'r0.safetensors', key: `b${kind}`, start: 0, count: 4 },
    { parameter: 'a.bias', kind, file: 'r1.safetensors', key: `b${kind}`, start: 4, count: 2 },
  ]),
}

const header = {
  __metadata__: { format: 'pt' },
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
  c: { dtype: 'F64', shape: [], data_offsets: [32, 40] },
  d: { dtype: 'U8', shape: [0, 5], data_offsets: [40, 40] },
}
const headerBytes = 40

function assert(condition: boolean, what: string): void {
  if (!condition) throw new Error(`was taken, but ${what}`)
}

function checkHeader(text: string): void {
  const { entries, foreign } = parseHeader('h', text, headerBytes)
  const used = [...entries.values()].reduce((sum, { begin, end }) => sum + end - begin, 0)
  assert(used <= headerBytes && (foreign.size > 0 || used === headerBytes), 'tensors do not fill the file once')
  for (const { begin, end, shape, dtype } of entries.values())
    assert(
      begin >= 0 && end <= headerBytes && end - begin === countOf(shape) * bytesPerElement[dtype],
      'bytes are wrong',
    )
}

function checkManifest(text: string): void {
  const { files, slices, parameters, state } = parseManifest('m', text)
  assert(Object.getPrototypeOf(parameters) === null, 'parameters have a prototype')
  assert(
    files.every(({ name }) => !/[/\\\0]/.test(name) && !name.startsWith('.')),
    'a file lies elsewhere',
  )
  const held = new Map<string, number>()
  for (const { parameter, kind, count } of slices)
    held.set(`${kind} ${parameter}`, (held.get(`${kind} ${parameter}`) ?? 0) + count)
  for (const [name, { shape }] of Object.entries(parameters))
    assert((held.get(`weight ${name}`) ?? 0) === countOf(shape), 'weights are not whole')
  assert(Number.isSafeInteger(state.step), 'the step is no number')
}

/** The bytes of a safetensors file. */
export function safetensorsBytes(head: string | object, data: Uint8Array, length?: bigint): Buffer {
  const text = Buffer.from(typeof head === 'string' ? head : JSON.stringify(head))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(length ?? BigInt(text.length))
  return Buffer.concat([size, text, data])
}

/** A whole file with bytes flipped, cut, added, or another length of its header. */
function mutateFile(random: Random): Buffer {
  const head = random.below(3) === 0 ? (mutateJson(random, header) as object) : header
  let bytes = safetensorsBytes(head, Buffer.alloc(headerBytes, 7))
  const kind = random.below(5)
  if (kind === 0) bytes = bytes.subarray(0, random.below(bytes.length))
  else if (kind === 1) bytes = Buffer.concat([bytes, Buffer.alloc(random.below(100))])
  else if (kind === 2)
    bytes.writeBigUInt64LE(
      BigInt.asUintN(64, BigInt(random.pick([0, 1, 7, 2 ** 20, 1e8, 2 ** 53])) << BigInt(random.below(12))),
    )
  else for (let i = random.below(4); i > 0; i--) bytes[random.below(bytes.length)] = random.below(256)
  return bytes
}

/** Opens files in `folder` and reads all of each; memory may not grow beyond what the file holds. */
export function fileTarget(folder: string): Target {
  const path = join(folder, 'case.safetensors')
  return {
    name: 'safetensors file',
    code: 'CHECKPOINT',
    run: async (random) => {
      const bytes = mutateFile(random)
      writeFileSync(path, bytes)
      const before = process.memoryUsage().arrayBuffers
      let file: SafetensorsFile | undefined
      try {
        file = await SafetensorsFile.open(path)
        for (const [key, { begin, end }] of file.entries)
          assert((await file.read(key)).length === end - begin, 'a tensor has other bytes')
      } finally {
        const grown = process.memoryUsage().arrayBuffers - before
        await file?.close()
        assert(grown <= 4 * bytes.length + 2 ** 17, `${grown} bytes were allocated for a file of ${bytes.length}`)
      }
    },
  }
}

export const targets: readonly Target[] = [
  {
    name: 'configuration object',
    code: 'CONFIG',
    run: (random) => void resolveConfig(mutateJson(random, random.pick(configs)), options),
  },
  {
    name: 'configuration text',
    code: 'CONFIG',
    run: (random) => {
      const text = mutateText(random, JSON.stringify(random.pick(configs), null, random.below(2)))
      const given = random.below(8) === 0 ? readConfigSource(Buffer.from(text).toString('base64url')).raw : undefined
      resolveConfig(given ?? parseConfigText(text, 'c.json'), options)
    },
  },
  {
    name: 'safetensors header',
    code: 'CHECKPOINT',
    run: (random) => {
      const text = JSON.stringify(mutateJson(random, header))
      checkHeader(random.below(4) === 0 ? mutateText(random, text) : text)
    },
  },
  {
    name: 'manifest, sealed again',
    code: 'CHECKPOINT',
    run: (random) => checkManifest(manifestText(mutateJson(random, manifest) as Manifest)),
  },
  {
    name: 'manifest, altered',
    code: 'CHECKPOINT',
    run: (random) => {
      const whole = manifestText(manifest)
      const text = mutateText(random, whole)
      checkManifest(text)
      assert(text.trimEnd() === whole.trimEnd(), 'it was altered')
    },
  },
]

export interface Outcome {
  taken: number
  refused: number
  /** Milliseconds of the slowest case. */
  slowest: number
}

/** @throws where a case ends in anything but being taken or refused; the message repeats it. */
export async function fuzz(target: Target, count: number, seed: number): Promise<Outcome> {
  const outcome: Outcome = { taken: 0, refused: 0, slowest: 0 }
  for (let i = 0; i < count; i++) {
    const started = performance.now()
    try {
      await target.run(new Random(seed + i))
      outcome.taken++
    } catch (error) {
      if (!(error instanceof ZeroshardError) || error.code !== target.code || error.message.length > 2000) {
        const what = error instanceof Error ? `${error.name}: ${error.message.slice(0, 300)}` : String(error)
        throw new Error(`${target.name}, seed ${seed + i}: ${what}`, { cause: error })
      }
      outcome.refused++
    }
    outcome.slowest = Math.max(outcome.slowest, performance.now() - started)
    if (Object.hasOwn(Object.prototype, 'polluted')) throw new Error(`${target.name}, seed ${seed + i}: pollutes`)
  }
  return outcome
}
