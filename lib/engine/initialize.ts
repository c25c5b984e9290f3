// initialize: from a plain model and a configuration to an engine. A list of steps and nothing else.

import { randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { type ErrorCode, ZeroshardError } from '../binding/errors.js'
import { binding, type Device } from '../binding/native.js'
import { loadPretrained } from '../checkpoint/pretrained.js'
import { type Config, readConfigSource, resolveConfig } from '../config/index.js'
import { exitWithParent, type RankEnvironment, type Rendezvous, readEnvironment, rendezvous } from '../launch/index.js'
import { LanguageModel } from '../nn/models/language-model.js'
import type { Module } from '../nn/module.js'
import type { Parameter } from '../nn/parameter.js'
import { assignGroups, lrScaleOf, type ParamGroup } from '../optim/groups.js'
import { LossScaler } from '../optim/loss-scale.js'
import { makeOptimizer } from '../optim/optimizer.js'
import { makeSchedule } from '../optim/schedules.js'
import { parallelizeContext } from '../parallel/context/parallelize.js'
import { applyFp8 } from '../parallel/fp8/layers.js'
import { connectWorld, type ProcessGroup } from '../parallel/group.js'
import { Mesh } from '../parallel/mesh.js'
import { parallelize } from '../parallel/parallelize.js'
import { scheduleNamed } from '../parallel/pipeline/schedules/named.js'
import type { SplitMethod } from '../parallel/pipeline/split.js'
import { cutModel } from '../parallel/pipeline/stage.js'
import type { Plan } from '../parallel/plan.js'
import { notesOf } from '../parallel/zero/offload.js'
import type { Stage } from '../parallel/zero/unit.js'
import { Zero, type ZeroOptions } from '../parallel/zero/zero.js'
import type { Tensor } from '../tensor/tensor.js'
import type { EngineParts, Trainable } from './base.js'
import { describeState } from './describe.js'
import { Engine } from './engine.js'
import { offloadOf } from './offload.js'
import { bubbleNotes, PipelineEngine } from './pipeline-engine.js'
import { reportSteps } from './reports.js'

/** This process among the ranks: where it stands, how it meets the others, its group. */
export interface World {
  environment: RankEnvironment
  meeting: Rendezvous
  group: ProcessGroup
}

/** The process's place among the ranks is one: engines share it, and the last one to close leaves. */
let joined: { world: Promise<World>; users: number } | undefined

/** Sets up the native runtime and joins the other ranks, as the environment variables say (torchrun's). */
export async function joinWorld(options: WorldOptions = {}): Promise<World> {
  if (joined) checkDevice(options.device)
  joined ??= { world: meetWorld(options), users: 0 }
  joined.users++
  try {
    return await joined.world
  } catch (error) {
    joined = undefined
    throw error
  }
}

/** @throws DEVICE where it is not that of the engines that are open. */
function checkDevice(device: Device | undefined): void {
  const used = binding().native.device()
  if (device === undefined || device === used) return
  throw new ZeroshardError(
    'DEVICE',
    `[initialize] device '${device}' beside an engine on '${used}': a process has one device; leave it out, or use a process of its own`,
  )
}

interface WorldOptions {
  serial?: boolean
  device?: Device | undefined
}

async function meetWorld(options: WorldOptions): Promise<World> {
  const environment = readEnvironment()
  if (environment.launched) exitWithParent()
  configureRuntime(environment, options.serial ?? environment.serial, options.device ?? environment.device)
  const meeting = await rendezvous(environment)
  try {
    const [jobId] = await meeting.exchange('job', randomBytes(12).toString('hex'))
    const group = await connectWorld(meeting, { jobId: jobId as string, timeoutSeconds: environment.timeoutSeconds })
    return { environment, meeting, group }
  } catch (error) {
    meeting.fail(error as Error)
    await meeting.close()
    throw error
  }
}

/**
 * A user who has run operations before has the threads that there were; only a wish that comes too late is an error.
 * Local ranks take the devices in turn.
 */
function configureRuntime(environment: RankEnvironment, serial: boolean, device: Device | undefined): void {
  const { threads, localRank, localWorldSize, memoryLimit } = environment
  const { native } = binding()
  const share = Math.max(1, Math.floor(availableParallelism() / localWorldSize))
  const index = device === 'cuda' ? localRank % Math.max(1, native.devices().devices.length) : undefined
  try {
    native.configure({
      threads: threads ?? share,
      serial,
      ...(memoryLimit !== undefined && { memoryLimit }),
      ...(device && { device }),
      ...(index !== undefined && { index }),
    })
  } catch (error) {
    if (threads !== undefined || serial || device !== undefined) throw error
  }
}

/** Ends what the other ranks wait for, with this rank's error; to be called before it leaves. */
export function failWorld({ group, meeting, environment }: World, error: unknown): void {
  const { code, message } = errorOf(error)
  if (group.size > 1) {
    const told = /^rank \d+: /.test(message) ? message : `rank ${environment.rank}: ${message}`
    binding().native.commAbort(code, told)
  }
  meeting.fail(error as Error)
}

const errorOf = (error: unknown): { code: ErrorCode; message: string } =>
  error instanceof ZeroshardError ? error : { code: 'INTERNAL', message: String((error as Error)?.message ?? error) }

/** Once for each joinWorld(). */
export async function leaveWorld(world: World): Promise<void> {
  if (!joined || --joined.users > 0) return
  joined = undefined
  if (world.group.size > 1) binding().native.commDestroy()
  await world.meeting.close()
}

/** Reads a configuration (an object, a file of JSON with comments, or base64 of one) for a world of this size. */
export function loadConfig(config: string | Record<string, unknown>, worldSize: number): Config {
  const { raw, source, directory } = readConfigSource(config)
  return resolveConfig(raw, { source, directory, worldSize })
}

/** The engine of a model on a world; `plan`: how a user's model is cut over tensor ranks. Collective. */
export function makeEngine<Args extends Tensor[]>(
  model: Trainable<Args>,
  config: Config,
  world: World,
  parameterGroups: readonly ParamGroup[] = [],
  plan?: Plan,
): Engine<Args> {
  const { pipeline: pp, tensor: tp, context: cp, expert: ep, data: dp } = config.mesh
  const mesh = Mesh.create(world.group, { pp, dp, cp, ep, tp })
  const { params } = config.optimizer
  applyRecompute(model, config)
  const { sequence_parallel, tp_overlap_comm, overlap_chunks } = config.tensor_parallel
  const cutting = { sequence: sequence_parallel, chunks: tp_overlap_comm ? overlap_chunks : 1 }
  config.hints.push(...parallelize(model, mesh, plan, cutting).notes)
  const { train, sequence_length } = config.data
  parallelizeContext(model, mesh, config.context_parallel.type, train.length ? sequence_length : undefined)
  // What may be refused comes before what takes memory.
  const schedule = makeSchedule(config.scheduler, params.lr)
  const optimizer = makeOptimizer({ type: config.optimizer.type, params: { ...params } })
  const pipeline = scheduleNamed(config.pipeline.schedule, config.pipeline.chunks)
  const cut = pp > 1 ? cutModel(model, mesh, pipeline, config.pipeline.partition as SplitMethod) : undefined
  if (cut) config.hints.push(...bubbleNotes(pipeline, pp, config.gradient_accumulation_steps))
  if (cut && config.cuda_graphs) config.hints.push('cuda_graphs: the steps of a pipeline are not captured')
  const groups = hyperGroups(model, params, parameterGroups)
  const eight = config.fp8.enabled ? applyFp8(model, config.fp8, mesh.group('dp', 'cp', 'tp'), cut?.has) : undefined
  config.hints.push(...(eight?.notes ?? []))
  let zero: Zero | undefined
  try {
    zero = makeZero(model, config, mesh, { optimizer, ...groups, ...(cut && { include: cut.has }) })
    const parts: EngineParts = {
      zero,
      mesh,
      meeting: world.meeting,
      asyncSave: config.checkpoint.async_save,
      graphs: config.cuda_graphs && !cut,
      ...(config.fp16.enabled && { scaler: new LossScaler(config.fp16) }),
      ...(eight && { fp8: eight.fp8 }),
      stage: config.zero_optimization.stage,
      seed: config.train.seed,
      schedule,
      microBatchSize: config.train_micro_batch_size_per_gpu,
      accumulationSteps: config.gradient_accumulation_steps,
      maxNorm: config.gradient_clipping,
      // Context ranks have parts of the same samples: of those the mean, whatever is done over data-parallel ranks.
      lossShare: config.gradient_allreduce_op === 'sum' ? cp : 1,
      hints: [...config.hints, ...notesOf(zero.files)],
      onClose: () => leaveWorld(world),
    }
    if (config.dump_state && mesh.world.rank === 0) process.stderr.write(`${describeState(config, parts)}\n`)
    return cut ? new PipelineEngine(model, parts, cut, pipeline) : new Engine(model, parts)
  } catch (error) {
    zero?.dispose()
    eight?.fp8.dispose()
    throw error
  }
}

function makeZero(
  model: Module,
  config: Config,
  mesh: Mesh,
  more: Pick<ZeroOptions, 'optimizer' | 'groups' | 'groupOf' | 'include'>,
): Zero {
  const zeroConfig = config.zero_optimization
  const offload = offloadOf(config)
  return new Zero(model, {
    stage: zeroConfig.stage as Stage,
    group: mesh.group('dp', 'cp'),
    world: mesh.world,
    seed: config.train.seed,
    dtype: config.fp16.enabled ? 'f16' : config.bf16.enabled ? 'bf16' : 'f32',
    gradientDtype: dtypeOf[config.data_types.grad_accum_dtype],
    overlap: zeroConfig.overlap_comm ?? true,
    average: config.gradient_allreduce_op === 'mean',
    ...predivision(config, mesh.group('dp', 'cp').size),
    communicationDtype: dtypeOf[config.communication_data_type],
    maxUnit: zeroConfig.reduce_bucket_size,
    persistBelow: zeroConfig.stage3_param_persistence_threshold,
    prefetch: zeroConfig.stage3_prefetch_bucket_size,
    maxLive: zeroConfig.stage3_max_live_parameters,
    leaf: leafModules(zeroConfig.leaf_module),
    ...(offload && { offload }),
    ...more,
  })
}

function leafModules({ classes, names, name_suffixes: suffixes }: Config['zero_optimization']['leaf_module']) {
  const types = classes.map((name) => name.slice(name.lastIndexOf('.') + 1))
  return ({ path, constructor: { name } }: Module): boolean =>
    types.includes(name) || names.includes(path) || suffixes.some((end) => path.endsWith(end))
}

/** DeepSpeed divides by the number of ranks before the sum, or by a factor before and the rest after. */
function predivision(config: Config, numRanks: number): Pick<ZeroOptions, 'predivide'> {
  const { prescale_gradients: prescale, gradient_predivide_factor: factor } = config
  if (prescale) return { predivide: numRanks }
  return factor === 1 ? {} : { predivide: factor }
}

const dtypeOf = { fp32: 'f32', bf16: 'bf16', fp16: 'f16' } as const

/** The user's groups first; of the rest, weight decay on everything, or on matrices alone. */
function hyperGroups(
  model: Module,
  { lr, weight_decay: weightDecay, weight_decay_on: on }: Config['optimizer']['params'],
  parameterGroups: readonly ParamGroup[],
): Pick<ZeroOptions, 'groups' | 'groupOf'> {
  const parameters = model.parameters()
  const assigned = assignGroups(
    parameters.map(({ name, wholeShape, trainable }) => ({ name, shape: wholeShape, trainable })),
    parameterGroups,
  )
  const groups = [
    ...parameterGroups.map((group, index) => ({
      weightDecay: group.weightDecay ?? weightDecay,
      lrScale: lrScaleOf(group, index, lr),
    })),
    { weightDecay, lrScale: 1 },
    { weightDecay: 0, lrScale: 1 },
  ]
  const own = new Map(parameters.map((parameter, index) => [parameter, assigned[index] as number]))
  const rest = parameterGroups.length
  const groupOf = (parameter: Parameter): number => {
    const group = own.get(parameter) ?? -1
    return group >= 0 ? group : on === 'matrices' && parameter.wholeShape.length < 2 ? rest + 1 : rest
  }
  return { groups, groupOf }
}

/** `number_checkpoints` n: of n groups of blocks only the input is kept; "selective": attention is computed again. */
function applyRecompute(model: Module, config: Config): void {
  const { activation_checkpointing: wanted } = config
  const groups = wanted.number_checkpoints ?? 0
  const attention = wanted.granularity === 'selective'
  if (groups > 0 && attention) {
    throw new ZeroshardError(
      'CONFIG',
      `activation_checkpointing: number_checkpoints ${groups} and granularity "selective" exclude each other; keep one`,
    )
  }
  if (model instanceof LanguageModel) model.recompute = { groups, attention }
  else if (groups > 0 || attention) {
    config.hints.push(
      'activation_checkpointing: this model has no blocks that are known here; use checkpoint(fn, …inputs) in its forward',
    )
  }
}

/**
 * DeepSpeed's initialize: joins the ranks, materialises the model, returns the engine. `config`: an
 * object, a path, or urlsafe base64 of JSON.
 *
 * @example
 * class Mlp extends nn.Module {
 *   readonly up = new nn.Linear(256, 1024) // a declaration: no memory until initialize()
 *   readonly down = new nn.Linear(1024, 256)
 *   forward(x: Tensor): Tensor {
 *     return this.down.forward(ops.gelu(this.up.forward(x)))
 *   }
 * }
 * const engine = await initialize({ model: new Mlp(), config: 'ds_config.json' })
 * const x = tensor(new Float32Array(512), [2, 256])
 * engine.backward(ops.meanSquaredError(engine.forward(x), x))
 * await engine.step()
 * await engine.close()
 */
export async function initialize<Args extends Tensor[]>(options: {
  model: Trainable<Args>
  config: string | Record<string, unknown>
  /** Parameters with a rate or weight decay of their own. */
  parameterGroups?: readonly ParamGroup[]
  /** How the model is cut over tensor ranks; default: a ready plan of our models, else a deduced one. */
  plan?: Plan
  /** Where the tensors are; default: what ZEROSHARD_DEVICE says, else the cpu. Before the first tensor. */
  device?: Device
}): Promise<Engine<Args>> {
  const world = await joinWorld({ device: options.device })
  let engine: Engine<Args> | undefined
  try {
    const { model, parameterGroups, plan } = options
    const config = loadConfig(options.config, world.group.size)
    engine = makeEngine(model, config, world, parameterGroups, plan)
    if (config.model.weights) await loadPretrained(config.model.path as string, model, engine.parts.zero)
    reportSteps(engine, config)
    return engine
  } catch (error) {
    failWorld(world, error) // the others may have come through, and wait for this rank
    await (engine ? engine.close() : leaveWorld(world)).catch(() => {}) // the first error counts
    throw error
  }
}
