// One rank of `zeroshard train`: data, model, engine, the loop with evaluation, saving and interruption.

import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { binding } from '../binding/native.js'
import { Agreement } from '../checkpoint/agreement.js'
import { outputOf } from '../checkpoint/folder.js'
import { loadPretrained } from '../checkpoint/pretrained.js'
import type { Config } from '../config/index.js'
import {
  checkVocabulary,
  type Dataset,
  loadTokenizer,
  openDataset,
  prepareDataset,
  Sampler,
  type Tokenizer,
  ValidationSampler,
} from '../data/index.js'
import type { SaveOptions, StepResult } from '../engine/base.js'
import type { Engine } from '../engine/engine.js'
import { failWorld, makeEngine, type World } from '../engine/initialize.js'
import { attentionNote, observerOf } from '../engine/reports.js'
import { MetricsFile } from '../monitor/metrics.js'
import type { Observer } from '../monitor/observer.js'
import { createModel } from '../nn/models/index.js'
import { meshWords } from '../parallel/mesh.js'
import { countOf, type Tensor, tensor } from '../tensor/tensor.js'
import type { Interruption } from './interruption.js'
import { Progress } from './progress.js'
import { printSample } from './sample.js'

export interface TrainOptions {
  config: Config
  output: string
  metrics?: string
  trace?: string
  resume?: string
  quiet: boolean
  version: string
}

export type Outcome = 'done' | 'interrupted'

interface Run {
  engine: Engine<[Tensor, Tensor]>
  data: Dataset
  tokenizer: Tokenizer
  options: TrainOptions
  progress: Progress
  metrics: MetricsFile | undefined
  observer: Observer
  sayAttention: (() => void) | undefined
  interruption: Interruption
}

/** Trains to the configured number of steps. Collective. */
export async function trainRank(world: World, options: TrainOptions, interruption: Interruption): Promise<Outcome> {
  let run: Run | undefined
  let outcome: Outcome
  try {
    run = await prepare(world, options, interruption)
    outcome = await loop(run)
  } catch (error) {
    failWorld(world, error)
    if (run) await end(run).catch(() => {}) // the first error counts
    throw error
  }
  await end(run)
  return outcome
}

async function end(run: Run): Promise<void> {
  await run.observer.close()
  run.metrics?.close()
  run.data.close()
  await run.engine.close()
}

async function prepare(world: World, options: TrainOptions, interruption: Interruption): Promise<Run> {
  const { config, output } = options
  const { rank } = world.group
  const progress = new Progress(config.train.steps, process.stderr, options.quiet || rank !== 0)
  const model = createModel(config.model.config as Record<string, unknown>)
  const tokenizer = await loadTokenizer(config.data.tokenizer)
  const sources = {
    files: config.data.train,
    tokenizer,
    textKey: config.data.text_key,
    sequenceLength: config.data.sequence_length,
    cacheDirectory: join(output, 'data'),
    ...(config.data.validation?.length ? { validationFiles: config.data.validation } : {}),
    ...(config.data.validation_fraction ? { validationFraction: config.data.validation_fraction } : {}),
  }
  // Over the rendezvous: a collective would not wait as long as a large text may take.
  await new Agreement(world.meeting, 'data').byFirst('prepared', async () => {
    mkdirSync(output, { recursive: true })
    await prepareDataset(sources)
  })
  interruption.defer(() => progress.say('interrupted: finishing the step and saving (a second signal ends at once)'))
  await world.group.barrier()
  interruption.allDefer = true
  const data = await openDataset(sources)
  checkVocabulary(data.maxToken, model.vocabSize, tokenizer.name)
  const engine = makeEngine(model, config, world)
  for (const hint of engine.parts.hints) progress.say(`note: ${hint}`)
  const resumed = await resume(engine, options, progress)
  const { path, weights } = config.model
  if (!resumed && weights) {
    await loadPretrained(path as string, model, engine.parts.zero)
    progress.say(`initial weights from ${path}`)
  }
  const metricsPath = pathOfRank(options.metrics, rank)
  const metrics = metricsPath ? new MetricsFile(metricsPath, engine.globalSteps > 0) : undefined
  const parameters = model.parameters().reduce((sum, { wholeShape }) => sum + countOf(wholeShape), 0)
  metrics?.write({
    run: {
      version: options.version,
      world: world.group.size,
      mesh: meshWords(engine.parts.mesh.sizes),
      device: binding().native.device(),
      parameters,
      config,
    },
  })
  progress.say(
    `${parameters.toLocaleString('en')} parameters, ${world.group.size} rank${world.group.size > 1 ? 's' : ''}, ` +
      `ZeRO stage ${config.zero_optimization.stage}, ${data.train.numTokens.toLocaleString('en')} training tokens`,
  )
  const tracePath = pathOfRank(options.trace, rank)
  const observer = observerOf(engine, config, {
    ...(tracePath && { tracePath }),
    print: (text) => progress.say(text),
    warn: (text) => process.stderr.write(`${text}\n`),
  })
  const sayAttention = rank === 0 ? attentionNote((text) => progress.say(text)) : undefined
  return { engine, data, tokenizer, options, progress, metrics, observer, sayAttention, interruption }
}

/** `{rank}` in a name: one file per rank; else rank 0's alone. */
function pathOfRank(path: string | undefined, rank: number): string | undefined {
  return path?.includes('{rank}') ? path.replaceAll('{rank}', String(rank)) : rank === 0 ? path : undefined
}

const seedNote = (seed: number, asked: number): string =>
  seed === asked ? '' : `, with its seed ${seed} instead of ${asked}: a run keeps the order of its data`

/** True where a checkpoint was loaded. */
async function resume(engine: Engine<[Tensor, Tensor]>, options: TrainOptions, progress: Progress): Promise<boolean> {
  if (!options.resume) return false
  const damaged = (message: string): void => {
    if (engine.group.rank === 0) process.stderr.write(`${message}\n`)
  }
  const found =
    options.resume === 'auto'
      ? await engine.resume(options.output, damaged)
      : (await engine.loadCheckpoint(options.resume)).path
  progress.say(
    found
      ? `resumed at step ${engine.globalSteps} from ${found}${seedNote(engine.parts.seed, options.config.train.seed)}`
      : `nothing to resume in ${outputOf(join(options.output, 'checkpoints', 'x'))}; starting new`,
  )
  return found !== undefined
}

async function loop(run: Run): Promise<Outcome> {
  const { engine, options, data, progress, metrics } = run
  const { train, data: dataConfig } = options.config
  const t = dataConfig.sequence_length
  const sampler = new Sampler(data.train, { sequenceLength: t, seed: engine.parts.seed })
  const size = engine.parts.microBatchSize
  const inputs = (batch: { inputs: Int32Array; targets: Int32Array }): [Tensor, Tensor] => [
    tensor(batch.inputs, [size, t], { category: 'buffers' }),
    tensor(batch.targets, [size, t], { category: 'buffers' }),
  ]
  let saved = engine.globalSteps
  let stop = await anyStop(run)
  while (engine.globalSteps < train.steps && !stop) {
    const started = performance.now()
    const result = await engine.trainBatch((first) => inputs(sampler.batch(first, size)))
    report(run, result, (performance.now() - started) / 1000, engine.batchSize * t)
    if (due(result.step, train.eval_interval) || (train.eval_interval > 0 && result.step === train.steps))
      await evaluate(run, result.step)
    if (due(result.step, train.save_interval)) {
      await save(run)
      saved = result.step
    }
    stop = await anyStop(run)
  }
  if (saved !== engine.globalSteps || engine.globalSteps === 0) await save(run, { async: false })
  await engine.finishSaving()
  const path = join(options.output, 'checkpoints')
  if (stop) {
    progress.say(`interrupted after step ${engine.globalSteps}; --resume goes on from there`)
    return 'interrupted'
  }
  progress.chart()
  if (!options.quiet) await sample(run)
  progress.say(`checkpoint: ${path} (step ${engine.globalSteps})`)
  metrics?.write({ done: true, step: engine.globalSteps })
  return 'done'
}

/** Rank 0 prints; where it has only a part of the parameters all ranks take part. */
async function sample({ engine, tokenizer, progress }: Run): Promise<void> {
  const { zero, mesh } = engine.parts
  if (mesh.sizes.pp > 1) {
    progress.say('a sample: zeroshard generate OUTPUT --prompt TEXT (no rank of a pipeline has the whole model)')
    return
  }
  const { fetcher } = zero
  const prints = engine.group.rank === 0
  if (prints || fetcher || mesh.sizes.tp > 1)
    await printSample(engine.model, tokenizer, prints ? process.stdout : undefined)
  fetcher?.end()
}

const due = (step: number, interval: number): boolean => interval > 0 && step % interval === 0

function report(run: Run, result: StepResult, seconds: number, tokens: number): void {
  const tokensPerSecond = tokens / seconds
  const { samples, batchSize: stepSamples } = run.engine
  const observed = run.observer.onStep(result, { samples, stepSamples, tokens, seconds })
  run.sayAttention?.()
  run.metrics?.write({ ...result, tokens, seconds, tokensPerSecond, ...observed })
  run.progress.row({ step: result.step, loss: result.loss, tokensPerSecond, seconds, bytes: result.memoryPeak.total })
}

async function save(run: Run, more: SaveOptions = {}): Promise<void> {
  const { engine, options } = run
  await engine.saveCheckpoint(options.output, {
    ...more,
    retain: options.config.train.keep_checkpoints,
    model: options.config.model.config as Record<string, unknown>,
    tokenizer: options.config.data.tokenizer,
  })
}

async function evaluate(run: Run, step: number): Promise<void> {
  const { engine, data, options } = run
  if (!data.validation) return
  const started = performance.now()
  const t = options.config.data.sequence_length
  const { mesh, microBatchSize: size } = engine.parts
  const [ranks, rank] = [mesh.sizes.dp, mesh.place.dp]
  const count = options.config.train.eval_batches
  const sampler = new ValidationSampler(data.validation, { sequenceLength: t, numSamples: count * size * ranks })
  function* batches(): Generator<[Tensor, Tensor]> {
    for (let i = 0; i < count; i++) {
      const batch = sampler.batch((i * ranks + rank) * size, size)
      yield [tensor(batch.inputs, [size, t]), tensor(batch.targets, [size, t])]
    }
  }
  const validationLoss = await engine.evalBatch(batches())
  run.observer.onEvaluation(validationLoss, engine.samples)
  run.metrics?.write({ step, validationLoss, seconds: (performance.now() - started) / 1000 })
  run.progress.say(`step ${step}: validation loss ${validationLoss.toFixed(4)}`)
}

/** The same on every rank: whether any was asked to stop. */
async function anyStop({ engine: { group }, interruption }: Run): Promise<boolean> {
  if (group.size === 1) return interruption.wanted
  const flag = tensor(Float32Array.of(interruption.wanted ? 1 : 0), [1], { category: 'buffers' })
  group.allReduce(flag)
  const [sum] = (await flag.data()) as Float32Array
  flag.dispose()
  return (sum as number) > 0
}
