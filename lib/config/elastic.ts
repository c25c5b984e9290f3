// DeepSpeed's elasticity: the batch size that fits the most numbers of ranks, so that a job goes on with the same
// batch when ranks come or go. Its rule: a micro-batch (or the least common multiple of all) times the largest highly
// composite number that stays within the limit; of these, the one that the most numbers of ranks divide.

import type { BatchSizes } from './batch.js'
import { fail, type Reading } from './read.js'

export interface Elasticity {
  max_train_batch_size: number
  micro_batch_sizes: number[]
  min_gpus: number
  max_gpus: number
  prefer_larger_batch: boolean
  version: 0.1 | 0.2
  num_gpus_per_node: number
  model_parallel_size: number
}

export interface ElasticBatch extends BatchSizes {
  /** Numbers of data-parallel ranks that this batch fits. */
  ranks: number[]
}

/** The first highly composite numbers (OEIS A002182). */
const highlyComposite = [
  1, 2, 4, 6, 12, 24, 36, 48, 60, 120, 180, 240, 360, 720, 840, 1260, 1680, 2520, 5040, 7560, 10080, 15120, 20160,
  25200, 27720, 45360, 50400, 55440, 83160, 110880, 166320, 221760, 277200, 332640, 498960, 554400, 665280, 720720,
]

const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))

function divisors(n: number): number[] {
  const small: number[] = []
  for (let i = 1; i * i <= n; i++) if (n % i === 0) small.push(i)
  return [...new Set([...small, ...small.map((i) => n / i)])]
}

/** Numbers of ranks r for which batch = micro x steps x r with one of the micro-batches, ascending. */
function ranksFor(batch: number, micros: readonly number[], min: number, max: number): number[] {
  const all = new Set(micros.filter((micro) => batch % micro === 0).flatMap((micro) => divisors(batch / micro)))
  return [...all].filter((r) => r >= min && r <= max).sort((a, b) => a - b)
}

/** The batch that the most numbers of ranks in [min, max] fit; undefined where none fits. */
export function chooseBatch(
  { micro_batch_sizes: micros, prefer_larger_batch: larger }: Elasticity,
  limit: number,
  min: number,
  max: number,
): { batch: number; ranks: number[] } | undefined {
  const multiple = micros.reduce((a, b) => Math.min((a / gcd(a, b)) * b, Number.MAX_SAFE_INTEGER))
  const bases = [...new Set([...micros, multiple])].filter((base) => base <= limit)
  const scale = (base: number): number => highlyComposite.findLast((n) => n * base <= limit) as number
  const sizes = [...new Set(bases.map((base) => base * scale(base)))].sort((a, b) => (larger ? b - a : a - b))
  let best: { batch: number; ranks: number[] } | undefined
  for (const batch of sizes) {
    const ranks = ranksFor(batch, micros, min, max)
    if (ranks.length > (best?.ranks.length ?? 0)) best = { batch, ranks }
  }
  return best
}

/** @throws CONFIG where no batch fits these ranks. */
export function elasticBatch(reading: Reading, given: Elasticity, dataParallel: number): ElasticBatch {
  const micros = [...new Set(given.micro_batch_sizes)].sort((a, b) => b - a)
  const elasticity = { ...given, micro_batch_sizes: micros }
  const { version, max_train_batch_size: limit, min_gpus: min, max_gpus: max } = given
  checkLimits(reading, elasticity)
  // ranks of a host that hold different replicas come and go together
  const perNode = version === 0.2 ? given.num_gpus_per_node / given.model_parallel_size : 1
  const nodes = version === 0.2 ? given.num_gpus_per_node : 1
  const least = Math.max(1, Math.floor(min / nodes))
  const chosen = chooseBatch(elasticity, Math.floor(limit / perNode), least, Math.floor(max / nodes))
  const ranks = (chosen?.ranks ?? []).map((n) => n * perNode)
  let batch = (chosen?.batch ?? 0) * perNode
  if (!ranks.includes(dataParallel)) {
    if (version === 0.1)
      fail(
        reading,
        `elasticity: ${dataParallel} data-parallel ranks do not fit train_batch_size ${batch}; these do: ` +
          `${ranks.slice(0, 40).join(', ') || 'none'}`,
      )
    batch = largestFor(elasticity, dataParallel)
    if (batch === 0)
      fail(
        reading,
        `elasticity: max_train_batch_size ${limit} is less than a micro-batch (${micros.join(', ')}) on each of ` +
          `${dataParallel} data-parallel ranks`,
      )
    ranks.splice(0, ranks.length, dataParallel)
  }
  const micro = micros.find((size) => (batch / dataParallel) % size === 0) as number
  return {
    train_batch_size: batch,
    train_micro_batch_size_per_gpu: micro,
    gradient_accumulation_steps: batch / dataParallel / micro,
    ranks,
  }
}

/** Where this number of ranks fits no elastic batch: the largest (or smallest) of the micro-batches' largest ones. */
function largestFor(elasticity: Elasticity, dataParallel: number): number {
  const { micro_batch_sizes: micros, max_train_batch_size: limit, prefer_larger_batch: larger } = elasticity
  const sizes = micros
    .map((micro) => Math.floor(limit / (micro * dataParallel)) * micro * dataParallel)
    .filter((size) => size > 0)
  return sizes.length === 0 ? 0 : larger ? Math.max(...sizes) : Math.min(...sizes)
}

function checkLimits(reading: Reading, given: Elasticity): void {
  const { micro_batch_sizes: micros, max_train_batch_size: limit, num_gpus_per_node: perNode } = given
  const { model_parallel_size: parts, version } = given
  if (micros.length === 0) fail(reading, 'elasticity.micro_batch_sizes is empty; give at least one')
  if (micros.length > 64) fail(reading, `elasticity.micro_batch_sizes has ${micros.length} values; at most 64`)
  const large = micros.find((micro) => micro > limit)
  if (large !== undefined)
    fail(reading, `elasticity.micro_batch_sizes has ${large}, more than max_train_batch_size ${limit}`)
  if (given.min_gpus > given.max_gpus)
    fail(reading, `elasticity.min_gpus ${given.min_gpus} is more than max_gpus ${given.max_gpus}`)
  if (version === 0.1 && parts > 1)
    fail(reading, `elasticity.model_parallel_size ${parts} needs elasticity.version 0.2, not 0.1`)
  if (perNode % parts !== 0)
    fail(reading, `elasticity.num_gpus_per_node ${perNode} is not divisible by model_parallel_size ${parts}`)
}
