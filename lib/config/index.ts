// From DeepSpeed's JSON plus our sections to one checked value in which nothing is left open.

import { readFileSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { type BatchSizes, resolveBatch } from './batch.js'
import { checkTogether, resolveChunks } from './checks.js'
import { elasticBatch } from './elastic.js'
import { type Mesh, replicasOf, resolveMesh } from './mesh.js'
import { applyNotYet } from './not-yet.js'
import * as optimization from './optimization.js'
import { others } from './others.js'
import * as ours from './ours.js'
import * as parallel from './parallel.js'
import { parseConfigText, plainCopy } from './parse.js'
import * as precision from './precision.js'
import { fail, note, type Reading, readSection } from './read.js'
import { elasticity, reports } from './reports.js'
import { scalars } from './scalars.js'
import { type Resolved, rulesOf, type Section, section } from './schema.js'
import type { FloatName } from './values.js'
import * as zero from './zero.js'

export type { Mesh } from './mesh.js'
export { applyOverrides, parseConfigText } from './parse.js'
export { type ConfigSource, readConfigSource } from './source.js'

/** Everything that a configuration may say. */
export const schema = section(
  '',
  {
    model: ours.model,
    data: ours.data,
    train: ours.train,
    mesh: ours.mesh,
    ...scalars,
    optimizer: optimization.optimizer,
    scheduler: optimization.scheduler,
    zero_optimization: zero.zeroOptimization,
    bf16: precision.bf16,
    fp16: precision.fp16,
    fp8: precision.fp8,
    data_types: precision.dataTypes,
    activation_checkpointing: parallel.activationCheckpointing,
    pipeline: parallel.pipeline,
    tensor_parallel: parallel.tensorParallel,
    context_parallel: parallel.contextParallel,
    expert_parallel: parallel.expertParallel,
    checkpoint: parallel.checkpoint,
    aio: zero.aio,
    elasticity,
    ...reports,
    torch_autocast: precision.torchAutocast,
    amp: precision.amp,
    ...others,
  },
  { aliases: { bfloat16: 'bf16' } },
)

/** Sections whose keys depend on the type beside them. */
export const sectionsByType: Readonly<Record<string, Readonly<Record<string, Section>>>> = {
  'optimizer.params': optimization.optimizerParams,
  'scheduler.params': optimization.schedulerParams,
}

/** The path of every key; of those that depend on a type, once for each. */
export function* allPaths(): Generator<string> {
  const places: [string, Section][] = [['', schema]]
  for (const [path, byType] of Object.entries(sectionsByType))
    for (const section of Object.values(byType)) places.push([path, section])
  for (const [where, section] of places) for (const [path] of rulesOf(section, where)) yield path
}

/** What the schema alone makes of a configuration. */
export type Read = Resolved<(typeof schema)['keys']>
type Changed =
  | 'optimizer'
  | 'mesh'
  | 'model'
  | 'data'
  | 'scheduler'
  | 'pipeline'
  | 'context_parallel'
  | 'communication_data_type'
/** What all optimizers have; the others by type (see optimizerParams). */
export type OptimizerParams = { lr: number; weight_decay: number; weight_decay_on: 'all' | 'matrices' } & Record<
  string,
  any
>
/** A configuration with every value filled in and checked; paths are absolute. */
export type Config = Omit<Read, Changed | keyof BatchSizes> &
  BatchSizes & {
    mesh: Mesh
    model: { config: Record<string, unknown> | null; path: string | null; weights: boolean }
    data: Omit<Read['data'], 'sequence_length'> & { sequence_length: number }
    optimizer: { type: string; params: OptimizerParams }
    scheduler: { type: string; params: Record<string, unknown> } | undefined
    pipeline: Omit<Read['pipeline'], 'chunks'> & { chunks: number }
    context_parallel: { type: 'ulysses' | 'ring' | null }
    communication_data_type: FloatName
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
  const reading: Reading = { source, hints: new Map(), paths: allPaths }
  const read = readSection(reading, schema, plainCopy(raw, source), '')
  checkTogether(reading, read)
  const mesh = resolveMesh(reading, read, worldSize)
  const at = (path: string): string => (isAbsolute(path) ? path : resolve(directory, path))
  const model = resolveModel(reading, read, at)
  const { data } = read
  const optimizer = resolveOptimizer(reading, read)
  const config: Config = {
    ...withPaths(read, at),
    mesh,
    model,
    ...batchOf(reading, read, mesh),
    data: {
      ...data,
      train: data.train.map(at),
      validation: data.validation.map(at),
      tokenizer: ['byte', 'gpt2'].includes(data.tokenizer) ? data.tokenizer : at(data.tokenizer),
      sequence_length: data.sequence_length ?? positionsOf(model.config) ?? 1024,
    },
    optimizer,
    scheduler: resolveScheduler(reading, read, optimizer.type),
    pipeline: { ...read.pipeline, chunks: resolveChunks(reading, read) },
    context_parallel: { type: read.context_parallel.type ?? (read.sequence_parallel_size ? 'ulysses' : null) },
    communication_data_type: read.communication_data_type ?? read.data_types.grad_accum_dtype,
    hints: [],
  }
  applyNotYet(reading, config)
  config.hints = [...reading.hints].map(([text, paths]) => `${paths.join(', ')}: ${text}`)
  return config
}

/** The sections whose only open values are paths. */
function withPaths(read: Read, at: (path: string) => string): Read {
  const orNull = (path: string | null): string | null => (path === null ? null : at(path))
  const sink = <S extends { output_path: string | null }>(s: S): S => ({ ...s, output_path: orNull(s.output_path) })
  const place = <S extends { nvme_path: string | null }>(s: S): S => ({ ...s, nvme_path: orNull(s.nvme_path) })
  const { zero_optimization: z, flops_profiler } = read
  return {
    ...read,
    train: { ...read.train, output: at(read.train.output) },
    zero_optimization: {
      ...z,
      offload_optimizer: place(z.offload_optimizer),
      offload_param: place(z.offload_param),
    },
    tensorboard: sink(read.tensorboard),
    csv_monitor: sink(read.csv_monitor),
    jsonl_monitor: sink(read.jsonl_monitor),
    prometheus: sink(read.prometheus),
    flops_profiler: { ...flops_profiler, output_file: orNull(flops_profiler.output_file) },
  }
}

/** The batch triangle, or what elasticity makes of its limits. */
function batchOf(reading: Reading, read: Read, mesh: Mesh): BatchSizes {
  const { elasticity } = read
  if (!elasticity.enabled) return resolveBatch(read, replicasOf(mesh), reading.source)
  const given = (['train_batch_size', 'train_micro_batch_size_per_gpu', 'gradient_accumulation_steps'] as const).find(
    (key) => read[key] !== null,
  )
  if (given && !elasticity.ignore_non_elastic_batch_info)
    fail(
      reading,
      `${given} is ${read[given]}, but elasticity chooses the batch; leave it out, or set ` +
        'elasticity.ignore_non_elastic_batch_info',
    )
  const parts = mesh.pipeline * mesh.tensor * mesh.context
  if (elasticity.model_parallel_size !== 1 && elasticity.model_parallel_size !== parts)
    fail(
      reading,
      `elasticity.model_parallel_size is ${elasticity.model_parallel_size}, but the mesh has ${parts} ranks per model`,
    )
  const { ranks: _, ...sizes } = elasticBatch(reading, elasticity, replicasOf(mesh))
  return sizes
}

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
  const given = path === null ? config : readModel(reading, join(at(path), 'config.json'))
  if (given !== null && (typeof given !== 'object' || Array.isArray(given)))
    fail(
      reading,
      `${path === null ? 'model.config' : 'the config.json of model.path'} must be an object { "model_type": … }`,
    )
  return { config: given as Record<string, unknown> | null, path: path === null ? null : at(path), weights }
}

function readModel(reading: Reading, file: string): unknown {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch {
    return fail(reading, `model.path: there is no ${file}`)
  }
  return plainCopy(parseConfigText(text, file), file)
}

function resolveOptimizer(reading: Reading, { optimizer }: Read): Config['optimizer'] {
  const type = optimizer.type as keyof typeof optimization.optimizerParams
  const why = optimization.refusedOptimizers[type]
  if (why) fail(reading, `optimizer.type "${type}" is not served: ${why}`)
  const section: Section = optimization.optimizerParams[type]
  const params = readSection(reading, section, optimizer.params, 'optimizer.params') as OptimizerParams
  if (type === 'Muon') {
    const lr = params.lr ?? 0.02
    Object.assign(params, { muon_lr: params.muon_lr ?? lr, adam_lr: params.adam_lr ?? params.lr ?? 3e-4, lr })
  }
  return { type, params }
}

function resolveScheduler(reading: Reading, { scheduler, train }: Read, optimizer: string): Config['scheduler'] {
  const { type, params } = scheduler
  if (type === null) return undefined
  const read: Record<string, unknown> = readSection(
    reading,
    optimization.schedulerParams[type] as Section,
    params,
    'scheduler.params',
  )
  if (read.cycle_momentum && !optimization.withBetas.includes(optimizer)) {
    read.cycle_momentum = false
    const why = `${optimizer} has no betas to cycle; its momentum stays as it is`
    note(reading, why, 'scheduler.params.cycle_momentum')
  }
  if (read.total_num_steps === null) read.total_num_steps = Math.max(1, train.steps)
  return { type, params: read }
}
