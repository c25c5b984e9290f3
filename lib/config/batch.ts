// The batch triangle: train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x dp.
// Two of the three give the third; one of the sizes alone means no accumulation.

import { ZeroshardError } from '../binding/errors.js'

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
  const fail = (message: string): never => {
    throw new ZeroshardError('CONFIG', `${source}: ${message}`)
  }
  const ranks = `${dataParallel} data-parallel rank${dataParallel === 1 ? '' : 's'}`
  const sizes = (b: number, m: number, s: number): BatchSizes => ({
    train_batch_size: b,
    train_micro_batch_size_per_gpu: m,
    gradient_accumulation_steps: s,
  })

  if (total === null && micro === null) {
    fail(
      `${steps === null ? '' : 'gradient_accumulation_steps alone does not say how large a batch is; '}` +
        'give train_micro_batch_size_per_gpu or train_batch_size',
    )
  }
  if (total === null) return sizes((micro as number) * (steps ?? 1) * dataParallel, micro as number, steps ?? 1)
  if (micro !== null && steps !== null) {
    const product = micro * steps * dataParallel
    if (total === product) return sizes(total, micro, steps)
    fail(
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
    fail(`train_batch_size ${total} is not divisible by ${factor}${ranks}${factor ? ` = ${known}` : ''}`)
  }
  return micro === null ? sizes(total, total / known, steps ?? 1) : sizes(total, micro, total / known)
}
