// initialize: from a plain model and a configuration to an engine. A list of steps and nothing else.

import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { dirname, resolve } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { binding } from '../binding/native.js'
import { loadPretrained } from '../checkpoint/pretrained.js'
import { type Config, parseConfigText, resolveConfig } from '../config/index.js'
import { exitWithParent, type RankEnvironment, type Rendezvous, readEnvironment, rendezvous } from '../launch/index.js'
import { LanguageModel } from '../nn/models/language-model.js'
import type { Module } from '../nn/module.js'
import { makeSchedule } from '../optim/schedules.js'
import { connectWorld, type ProcessGroup } from '../parallel/group.js'
import type { Stage } from '../parallel/zero/unit.js'
import { Zero } from '../parallel/zero/zero.js'
import type { Tensor } from '../tensor/tensor.js'
import { Engine, type Trainable } from './engine.js'

/** This process among the ranks: where it stands, how it meets the others, its group. */
export interface World {
  environment: RankEnvironment
  meeting: Rendezvous
  group: ProcessGroup
}

/** Sets up the native runtime and joins the other ranks, as the environment variables say (torchrun's). */
export async function joinWorld(options: { serial?: boolean } = {}): Promise<World> {
  const environment = readEnvironment()
  if (environment.launched) exitWithParent()
  const threads = environment.threads ?? Math.max(1, Math.floor(availableParallelism() / environment.localWorldSize))
  binding().native.configure({ threads, serial: options.serial ?? environment.serial })
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

export async function leaveWorld(world: World): Promise<void> {
  if (world.group.size > 1) binding().native.commDestroy()
  await world.meeting.close()
}

/** Reads a configuration file (JSON with comments) for a world of this size. */
export async function loadConfig(path: string, worldSize: number): Promise<Config> {
  const raw = parseConfigText(await readFile(path, 'utf8'), path)
  return resolveConfig(raw, { source: path, directory: dirname(resolve(path)), worldSize })
}

/** The engine of a model on a world. */
export function makeEngine<Args extends Tensor[]>(model: Trainable<Args>, config: Config, world: World): Engine<Args> {
  const { group } = world
  const { params } = config.optimizer
  const stage = config.zero_optimization.stage as Stage
  applyRecompute(model, config)
  const zero = new Zero(model, {
    stage,
    group,
    seed: config.train.seed,
    dtype: config.bf16.enabled ? 'bf16' : 'f32',
    decayMatricesOnly: params.weight_decay_on === 'matrices',
    overlap: config.zero_optimization.overlap_comm ?? true,
    optimizer: {
      betas: params.betas as [number, number],
      eps: params.eps,
      weightDecay: params.weight_decay,
      decoupled: config.optimizer.type === 'AdamW' || params.adam_w_mode,
      biasCorrection: params.bias_correction,
    },
  })
  return new Engine(model, {
    zero,
    group,
    stage,
    seed: config.train.seed,
    schedule: makeSchedule(config.scheduler, params.lr),
    microBatchSize: config.train_micro_batch_size_per_gpu,
    accumulationSteps: config.gradient_accumulation_steps,
    maxNorm: config.gradient_clipping,
    onClose: () => leaveWorld(world),
  })
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
 * DeepSpeed's initialize: joins the ranks, materialises the model, returns the engine. `config`: a path or an object.
 *
 * @example
 * const engine = await initialize({ model: new Mlp(), config: 'ds_config.json' })
 */
export async function initialize<Args extends Tensor[]>(options: {
  model: Trainable<Args>
  config: string | Record<string, unknown>
}): Promise<Engine<Args>> {
  const world = await joinWorld()
  try {
    const { model, config } = options
    const resolved =
      typeof config === 'string'
        ? await loadConfig(config, world.group.size)
        : resolveConfig(config, { source: 'config', directory: process.cwd(), worldSize: world.group.size })
    const engine = makeEngine(model, resolved, world)
    if (resolved.model.weights) await loadPretrained(resolved.model.path as string, model, engine.parts.zero)
    return engine
  } catch (error) {
    await leaveWorld(world)
    throw error
  }
}
