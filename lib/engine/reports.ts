// What a configuration's reporting sections ask for, around an engine: events, breakdowns, logs of collectives. The
// command line and initialize() make the same observer; the latter also calls it, and prints to stderr.

import { binding } from '../binding/native.js'
import type { Config } from '../config/index.js'
import { asksForReports, Observer, type ObserverOptions } from '../monitor/observer.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Engine } from './engine.js'

type Output = Pick<ObserverOptions, 'print' | 'warn' | 'tracePath'>

/** An observer of this engine, told of its phases; its onStep() and close() are the caller's. */
export function observerOf<Args extends Tensor[]>(engine: Engine<Args>, config: Config, output: Output): Observer {
  const { group, parts, model } = engine
  const observer = new Observer(config, {
    rank: group.rank,
    worldSize: group.size,
    model,
    sequenceLength: config.data.sequence_length,
    microBatchSize: parts.microBatchSize,
    accumulationSteps: parts.accumulationSteps,
    dataParallelSize: parts.mesh.sizes.dp,
    dtype: parts.zero.options.dtype as 'f32' | 'bf16' | 'f16',
    step: engine.globalSteps,
    samples: engine.samples,
    ...output,
  })
  engine.observe = observer.wrap
  parts.onNote ??= (text) => output.print(`note: ${text}`)
  parts.onNotFinite = (step, parameter) =>
    output.print(`step ${step}: the gradient of ${parameter} is not finite; the update is left out`)
  return observer
}

/** Says on CUDA, once, what attention goes through: after a step, by which time cuDNN was asked for its plans. */
export function attentionNote(print: (text: string) => void): () => void {
  const { native } = binding()
  let due = native.device() === 'cuda'
  return () => {
    if (!due) return
    due = false
    const { note } = native.devices(true).libraries.find(({ name }) => name === 'cudnn') ?? {}
    if (note) print(`note: ${note}`)
  }
}

/** For a loop of the user's own: notes, reports after each step, a line every `steps_per_print`, the last at close(). */
export function reportSteps<Args extends Tensor[]>(engine: Engine<Args>, config: Config): void {
  const { parts, group, model } = engine
  const print = (text: string): void => {
    if (group.rank === 0) process.stderr.write(`${text}\n`)
  }
  for (const hint of parts.hints) print(`note: ${hint}`)
  parts.onNote = (text) => print(`note: ${text}`)
  // Where nothing is asked for, the traces are left to an observer of the user's own.
  const warn = (text: string): unknown => process.stderr.write(`${text}\n`)
  const observer = asksForReports(config) ? observerOf(engine, config, { print, warn }) : undefined
  const tokensOf = (samples: number): number => ('config' in model ? samples * config.data.sequence_length : 0)
  const sayAttention = group.rank === 0 ? attentionNote(print) : undefined
  let last = performance.now()
  parts.onStep = (result, stepSamples) => {
    sayAttention?.()
    const now = performance.now()
    const [seconds, tokens] = [(now - last) / 1000, tokensOf(stepSamples)]
    last = now
    observer?.onStep(result, { samples: engine.samples, stepSamples, tokens, seconds })
    const every = config.steps_per_print
    if (!every || result.step % every !== 0) return
    const { step, loss, lr, gradNorm } = result
    print(`step ${step}: loss ${loss.toFixed(4)}, lr ${lr.toExponential(2)}, gradient norm ${gradNorm.toPrecision(3)}`)
  }
  const { onClose } = parts
  parts.onClose = async () => {
    await observer?.close()
    await onClose?.()
  }
}
