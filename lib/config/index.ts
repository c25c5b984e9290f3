// From DeepSpeed's JSON plus our sections to one checked value in which nothing is left open.

import { readFileSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { type BatchSizes, resolveBatch } from './batch.js'
import * as optimization from './optimization.js'
import { others, reportScalars } from './others.js'
import * as ours from './ours.js'
import { parseConfigText } from './parse.js'
import { fail, type Reading, type Resolved, readSection, type Section, section, served } from './schema.js'
import * as sharding from './sharding.js'
import { integer, nullable } from './values.js'

export { applyOverrides, parseConfigText } from './parse.js'

/** Everything that a configuration may say. */
export const schema = section(
  '',
  {
    ...ours,
    ...optimization.scalars,
    optimizer: optimization.optimizer,
    scheduler: optimization.scheduler,
    zero_optimization: sharding.zeroOptimization,
    bf16: optimization.bf16,
    fp16: optimization.fp16,
    activation_checkpointing: optimization.activationCheckpointing,
    data_types: optimization.dataTypes,
    sequence_parallel_size: served(nullable(integer({ min: 1 })), null, 'the same as mesh.context'),
    pipeline: sharding.pipeline,
    tensor_parallel: sharding.tensorParallel,
    expert_parallel: sharding.expertParallel,
    checkpoint: sharding.checkpoint,
    aio: sharding.aio,
    torch_autocast: optimization.torchAutocast,
    amp: optimization.amp,
    compile: optimization.compile,
    ...reportScalars,
    ...others,
  },
  { aliases: { bfloat16: 'bf16' } },
)

type Read = Resolved<(typeof schema)['keys']>
export type Mesh = Read['mesh'] & { data: number }
/** A configuration with every value filled in and checked; paths are absolute. */
export type Config = Omit<Read, 'mesh' | 'model' | 'data' | 'scheduler' | keyof BatchSizes> &
  BatchSizes & {
    mesh: Mesh
    model: { config: Record<string, unknown> | null; path: string | null; weights: boolean }
    data: Omit<Read['data'], 'sequence_length'> & { sequence_length: number }
    scheduler: { type: string; params: Record<string, unknown> } | undefined
    /** What was given and changes nothing, with the reason. */
    hints: string[]
  }

export interface ResolveOptions {
  /** Shown in messages. */
  source: string
  /** Relative paths start here. */
  directory: string
  worldSize: number
}

/** @throws CONFIG with the key, the value and what it must be. */
export function resolveConfig(raw: unknown, { source, directory, worldSize }: ResolveOptions): Config {
  const reading: Reading = { source, hints: new Map() }
  if (given(raw, 'bf16') && given(raw, 'fp16')) fail(reading, 'bf16 and fp16 are both enabled; choose one')
  const read = readSection(reading, schema, raw, '')
  const mesh = resolveMesh(reading, read, worldSize)
  const at = (path: string): string => (isAbsolute(path) ? path : resolve(directory, path))
  const model = resolveModel(reading, read, at)
  const { data, train } = read
  return {
    ...read,
    mesh,
    model,
    ...resolveBatch(read, mesh.data, source),
    data: {
      ...data,
      train: data.train.map(at),
      validation: data.validation.map(at),
      tokenizer: ['byte', 'gpt2'].includes(data.tokenizer) ? data.tokenizer : at(data.tokenizer),
      sequence_length: data.sequence_length ?? positionsOf(model.config) ?? 1024,
    },
    train: { ...train, output: at(train.output) },
    scheduler: resolveScheduler(reading, read),
    hints: [...reading.hints].map(([text, paths]) => `${paths.join(', ')}: ${text}`),
  }
}

const given = (raw: unknown, key: 'bf16' | 'fp16'): boolean =>
  (raw as Record<string, { enabled?: unknown } | undefined> | undefined)?.[key]?.enabled === true

const positionsOf = (config: Record<string, unknown> | null): number | undefined => {
  const positions = config?.n_positions ?? config?.max_position_embeddings
  return typeof positions === 'number' ? positions : undefined
}

/** What `zeroshard train` needs beyond what initialize() does. */
export function requireForTrain(config: Config, source: string): void {
  const { model, data } = config
  if (!model.config)
    fail({ source }, 'model.config is missing: give a Hugging Face configuration (model_type, …) or model.path')
  if (data.train.length === 0) fail({ source }, 'data.train is missing: give the files to train on')
  const positions = positionsOf(model.config)
  if (positions !== undefined && data.sequence_length > positions) {
    fail(
      { source },
      `data.sequence_length ${data.sequence_length} is more than the ${positions} positions of the model; lower it, or raise n_positions (max_position_embeddings)`,
    )
  }
}

function resolveModel(reading: Reading, { model }: Read, at: (path: string) => string): Config['model'] {
  const { config, path, weights } = model
  if (config !== null && path !== null) fail(reading, 'model.config and model.path are both given; keep one')
  if (weights && path === null) fail(reading, 'model.weights needs model.path, the folder with the *.safetensors')
  if (config !== null && (typeof config !== 'object' || Array.isArray(config)))
    fail(reading, 'model.config must be an object { "model_type": … }')
  if (path === null) return { config: config as Record<string, unknown> | null, path, weights }
  const file = join(at(path), 'config.json')
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return fail(reading, `model.path: there is no ${file}`)
  }
  return { config: parseConfigText(text, file) as Record<string, unknown>, path: at(path), weights }
}

function resolveScheduler(reading: Reading, { scheduler, train }: Read): Config['scheduler'] {
  const { type, params } = scheduler
  if (type === null) return undefined
  const read: Record<string, unknown> = readSection(
    reading,
    optimization.schedulerParams[type] as Section,
    params,
    'scheduler.params',
  )
  if (read.total_num_steps === null) read.total_num_steps = train.steps
  return { type, params: read }
}

/** Our mesh and DeepSpeed's keys for the same sizes, agreed; what is left of the world is data parallelism. */
function resolveMesh(reading: Reading, read: Read, worldSize: number): Mesh {
  const others: [keyof Read['mesh'], string, number | null][] = [
    ['pipeline', 'pipeline.stages', read.pipeline.stages],
    ['tensor', 'tensor_parallel.autotp_size', read.tensor_parallel.autotp_size || null],
    [
      'tensor',
      'tensor_parallel.tp.tp_size',
      read.tensor_parallel.tp.tp_size === 1 ? null : read.tensor_parallel.tp.tp_size,
    ],
    ['context', 'sequence_parallel_size', read.sequence_parallel_size],
    [
      'expert',
      'expert_parallel.autoep_size',
      read.expert_parallel.autoep_size === 1 ? null : read.expert_parallel.autoep_size,
    ],
  ]
  const mesh = { ...read.mesh }
  for (const [axis, path, value] of others) {
    if (value === null) continue
    if (mesh[axis] !== 1 && mesh[axis] !== value)
      fail(reading, `mesh.${axis} ${mesh[axis]} and ${path} ${value} disagree; keep one`)
    mesh[axis] = value
  }
  const axes = Object.entries(mesh).filter(([, size]) => size > 1)
  const text = axes.map(([axis, size]) => `${axis} ${size}`).join(' x ')
  const product = mesh.pipeline * mesh.tensor * mesh.context
  if (worldSize % product !== 0)
    fail(
      reading,
      `mesh ${text} needs a multiple of ${product} ranks; there ${worldSize === 1 ? 'is 1' : `are ${worldSize}`} (--nproc)`,
    )
  return { ...mesh, data: worldSize / product }
}
