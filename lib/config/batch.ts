// The batch triangle: train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x dp.
// Two of the three give the third; one of the sizes alone means no accumulation.

import { fail } from './read.js'

export interface BatchSizes {
  train_batch_size: number
  train_micro_batch_size_per_gpu: number
  gradient_accumulation_steps: number
}

export type GivenBatch = { [K in keyof BatchSizes]: number | null }

/**
 * All three sizes for `dataParallel` replicas.
 *
 * @throws ZeroshardError CONFIG that shows the numbers where they don't fit
 */
export function resolveBatch(given: GivenBatch, dataParallel: number, source: string): BatchSizes {
  const { train_batch_size: total, train_micro_batch_size_per_gpu: micro, gradient_accumulation_steps: steps } = given
  const ranks = `${dataParallel} data-parallel rank${dataParallel === 1 ? '' : 's'}`
  const sizes = (b: number, m: number, s: number): BatchSizes => ({
    train_batch_size: b,
    train_micro_batch_size_per_gpu: m,
    gradient_accumulation_steps: s,
  })

  if (total === null) {
    if (micro === null) {
      const alone = steps === null ? '' : 'gradient_accumulation_steps alone does not say how large a batch is; '
      fail({ source }, `${alone}give train_micro_batch_size_per_gpu or train_batch_size`)
    }
    const product = micro * (steps ?? 1) * dataParallel
    if (!Number.isSafeInteger(product))
      fail({ source }, `train_micro_batch_size_per_gpu ${micro} gives a batch of ${product}; lower it`)
    return sizes(product, micro, steps ?? 1)
  }
  if (micro !== null && steps !== null) {
    const product = micro * steps * dataParallel
    if (total === product) return sizes(total, micro, steps)
    fail(
      { source },
      `train_batch_size ${total} is not train_micro_batch_size_per_gpu ${micro} x gradient_accumulation_steps ` +
        `${steps} x ${ranks} = ${product}; change one, or leave one out`,
    )
  }
  const known = (micro ?? steps ?? 1) * dataParallel
  if (total % known !== 0) {
    const factor =
      micro !== null
        ? `train_micro_batch_size_per_gpu ${micro} x `
        : steps !== null
          ? `gradient_accumulation_steps ${steps} x `
          : ''
    fail({ source }, `train_batch_size ${total} is not divisible by ${factor}${ranks}${factor ? ` = ${known}` : ''}`)
  }
  return micro === null ? sizes(total, total / known, steps ?? 1) : sizes(total, micro, total / known)
}
