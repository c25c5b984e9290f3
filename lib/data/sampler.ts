// The order of the data: a pure function of (seed, sample index), the same on every layout, so that
// one integer, the samples consumed, is all that a checkpoint keeps. An epoch visits windows that
// tile the text once, in random order, from a random offset.

import { ZeroshardError } from '../binding/errors.js'
import { hashNumbers, permute } from './permutation.js'
import type { TokenView } from './token-file.js'

/** Next-token samples: `targets` is `inputs` one token on. */
export interface Batch {
  /** Row-major (count, sequenceLength). */
  readonly inputs: Int32Array
  /** Row-major (count, sequenceLength). */
  readonly targets: Int32Array
  readonly count: number
  readonly sequenceLength: number
}

/** Where a sample lies: tokens `start` to `start + sequenceLength + 1`. */
export interface SampleWindow {
  readonly start: number
  readonly epoch: number
}

/**
 * How many samples make an epoch; every epoch has the same number.
 *
 * @example
 * samplesPerEpoch(1000, 64) // 14
 */
export function samplesPerEpoch(numTokens: number, sequenceLength: number): number {
  // One window fewer than fit leaves room for the epoch's random offset.
  return Math.max(1, Math.floor(numTokens / sequenceLength) - 1)
}

/**
 * The window of sample `index`, counted from the start of training over all epochs and ranks.
 *
 * @example
 * sampleWindow(1337, 0, { numTokens: 1000, sequenceLength: 64 }).epoch // 0
 */
export function sampleWindow(
  seed: number,
  index: number,
  shape: { numTokens: number; sequenceLength: number },
): SampleWindow {
  const { numTokens, sequenceLength } = shape
  const size = samplesPerEpoch(numTokens, sequenceLength)
  const epoch = Math.floor(index / size)
  const offsets = numTokens - size * sequenceLength
  const offset = Math.floor((hashNumbers(seed, epoch, 1) / 2 ** 32) * offsets)
  const place = permute(index % size, size, hashNumbers(seed, epoch, 2))
  return { start: offset + place * sequenceLength, epoch }
}

/**
 * Training samples in their random order. Holds no state; it does not own the tokens.
 *
 * @example
 * const tokenizer = await loadTokenizer('byte')
 * const data = await openDataset({ files: ['a.txt'], tokenizer, cacheDirectory: 'cache', sequenceLength: 16 })
 * const sampler = new Sampler(data.train, { sequenceLength: 16, seed: 1 })
 * const { inputs, targets } = sampler.batch(0, 4)
 * inputs.length // 64
 * inputs[1] === targets[0] // true
 * data.close()
 */
export class Sampler {
  readonly samplesPerEpoch: number

  /** @throws ZeroshardError DATA where the tokens do not hold one sample. */
  constructor(
    readonly tokens: TokenView,
    readonly options: { sequenceLength: number; seed: number },
  ) {
    checkLength(tokens, options.sequenceLength)
    this.samplesPerEpoch = samplesPerEpoch(tokens.numTokens, options.sequenceLength)
  }

  /**
   * Samples `firstSample` to `firstSample + count`. A rank asks for its part of the global batch;
   * the parts together are the batch, however it is cut.
   */
  batch(firstSample: number, count: number): Batch {
    const { seed, sequenceLength } = this.options
    const shape = { numTokens: this.tokens.numTokens, sequenceLength }
    return gather(this.tokens, firstSample, count, sequenceLength, (index) => {
      return sampleWindow(seed, index, shape).start
    })
  }
}

/**
 * Fixed validation samples, spread evenly over the text and in its order.
 *
 * @example
 * const tokenizer = await loadTokenizer('byte')
 * const data = await openDataset({
 *   files: ['a.txt'], tokenizer, cacheDirectory: 'cache', sequenceLength: 16, validationFraction: 0.5,
 * })
 * const sampler = new ValidationSampler(data.validation as TokenView, { sequenceLength: 16, numSamples: 8 })
 * sampler.batch(0, 8).count // 8
 * data.close()
 */
export class ValidationSampler {
  /**
   * @param options numSamples: how many an evaluation uses; where the text has fewer windows, they
   * repeat from the first.
   */
  constructor(
    readonly tokens: TokenView,
    readonly options: { sequenceLength: number; numSamples: number },
  ) {
    checkLength(tokens, options.sequenceLength)
  }

  /** Samples `firstSample` to `firstSample + count` of `0 … numSamples-1`. */
  batch(firstSample: number, count: number): Batch {
    const { sequenceLength, numSamples } = this.options
    const windows = Math.floor((this.tokens.numTokens - 1) / sequenceLength)
    return gather(this.tokens, firstSample, count, sequenceLength, (index) => {
      const spread = numSamples <= windows ? Math.floor((index * windows) / numSamples) : index
      return (spread % windows) * sequenceLength
    })
  }
}

/**
 * Walks a sampler: hands this rank its part of each micro-batch and counts what all consumed.
 *
 * @example
 * const tokenizer = await loadTokenizer('byte')
 * const data = await openDataset({ files: ['a.txt'], tokenizer, cacheDirectory: 'cache', sequenceLength: 16 })
 * const sampler = new Sampler(data.train, { sequenceLength: 16, seed: 1 })
 * const loader = new DataLoader(sampler, { microBatch: 4, dataRank: 0, dataWorld: 2 })
 * loader.next().count // 4
 * loader.position // 8
 * data.close()
 */
export class DataLoader {
  /** Samples consumed by all data-parallel ranks; what a checkpoint saves, and sets to resume. */
  position = 0

  constructor(
    readonly sampler: Sampler,
    readonly options: { microBatch: number; dataRank: number; dataWorld: number },
  ) {}

  /** This rank's next micro-batch, (microBatch, sequenceLength). */
  next(): Batch {
    const { microBatch, dataRank, dataWorld } = this.options
    const batch = this.sampler.batch(this.position + dataRank * microBatch, microBatch)
    this.position += microBatch * dataWorld
    return batch
  }
}

function gather(
  tokens: TokenView,
  firstSample: number,
  count: number,
  sequenceLength: number,
  startOf: (index: number) => number,
): Batch {
  const whole = Number.isSafeInteger(firstSample) && Number.isInteger(count)
  if (!whole || firstSample < 0 || count < 0) {
    throw new ZeroshardError('ARGUMENT', `[batch] samples from ${firstSample}, ${count} of them`)
  }
  const inputs = new Int32Array(count * sequenceLength)
  const targets = new Int32Array(count * sequenceLength)
  const window = new Int32Array(sequenceLength + 1)
  for (let i = 0; i < count; i++) {
    tokens.read(startOf(firstSample + i), sequenceLength + 1, window)
    inputs.set(window.subarray(0, sequenceLength), i * sequenceLength)
    targets.set(window.subarray(1), i * sequenceLength)
  }
  return { inputs, targets, count, sequenceLength }
}

function checkLength(tokens: TokenView, sequenceLength: number): void {
  if (Number.isInteger(sequenceLength) && sequenceLength > 0 && tokens.numTokens > sequenceLength) {
    return
  }
  throw new ZeroshardError(
    'DATA',
    `[data] ${tokens.name} has ${tokens.numTokens} tokens, one sample needs ${sequenceLength + 1}`,
  )
}
