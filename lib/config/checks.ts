// What no single key can say: rules between keys, and values that follow from others.

import type { Read } from './index.js'
import { fail, note, type Reading, show } from './read.js'

/** @throws CONFIG naming both keys of a contradiction. */
export function checkTogether(reading: Reading, read: Read): void {
  if (read.bf16.enabled && read.fp16.enabled) fail(reading, 'bf16 and fp16 are both enabled; choose one')
  checkFp8(reading, read)
  const { stage, offload_optimizer, offload_param } = read.zero_optimization
  if (read.gradient_allreduce_op === 'sum' && stage === 3)
    fail(reading, 'gradient_allreduce_op "sum" is not possible at zero_optimization.stage 3; scale the loss instead')
  if (offload_param.device !== 'none' && stage !== 3)
    fail(reading, `zero_optimization.offload_param.device "${offload_param.device}" needs stage 3, not ${stage}`)
  for (const [name, { device, nvme_path }] of Object.entries({ offload_optimizer, offload_param })) {
    if (device === 'nvme' && nvme_path === null)
      fail(reading, `zero_optimization.${name}.nvme_path is missing; "nvme" needs a folder`)
    if (device === 'nvme' && read.checkpoint.async_save)
      note(reading, `training waits for a save of what zero_optimization.${name} has on disk`, 'checkpoint.async_save')
  }
  const wire = read.communication_data_type ?? read.data_types.grad_accum_dtype
  const dividing = ['prescale_gradients', 'gradient_predivide_factor'] as const
  const undivided =
    read.gradient_allreduce_op === 'sum'
      ? 'gradients are added (gradient_allreduce_op "sum"), where nothing is divided'
      : wire === 'fp32' && 'gradients travel in f32 (communication_data_type), where it makes no difference'
  for (const key of undivided ? dividing : [])
    if (Number(read[key]) !== Number(key === 'gradient_predivide_factor')) note(reading, undivided as string, key)
  const { type: schedule, params } = read.scheduler
  if (schedule === null && JSON.stringify(params) !== '{}' && params !== null)
    fail(reading, `scheduler.params is ${show(params)}, but scheduler.type is missing; name the schedule`)
  const { type } = read.context_parallel
  if ((read.sequence_parallel_size ?? 1) > 1 && type === 'ring')
    fail(reading, 'sequence_parallel_size means Ulysses attention; use mesh.context with context_parallel.type "ring"')
}

function checkFp8(reading: Reading, { fp8, bf16, fp16 }: Read): void {
  if (!fp8.enabled) return
  if (!bf16.enabled)
    fail(
      reading,
      `fp8.enabled needs bf16, in which all but the products stays${fp16.enabled ? '; fp16 is enabled: disable it, and' : ';'} set bf16.enabled to true`,
    )
  const delayedAlone = { amax_history_len: 1024, amax_compute_algo: 'max' } as const
  for (const [key, fallback] of Object.entries(delayedAlone))
    if (fp8.recipe === 'current' && fp8[key as keyof typeof delayedAlone] !== fallback)
      note(reading, 'fp8.recipe "current" keeps no history', `fp8.${key}`)
}

/** Parts of the model on a stage: what the schedule needs. */
export function resolveChunks(reading: Reading, { pipeline: { schedule, chunks } }: Read): number {
  if (schedule === 'zb-v' && chunks !== null && chunks !== 2)
    fail(reading, `pipeline.chunks ${chunks} does not go with pipeline.schedule "zb-v", which has 2; leave it out`)
  if (schedule === 'interleaved' && chunks === 1)
    fail(reading, 'pipeline.chunks 1 does not go with pipeline.schedule "interleaved"; use "1f1b", or 2 or more')
  const many = schedule === 'zb-v' || schedule === 'interleaved'
  if (!many && (chunks ?? 1) > 1)
    fail(reading, `pipeline.chunks ${chunks} does not go with pipeline.schedule "${schedule}"; use "interleaved"`)
  return chunks ?? (many ? 2 : 1)
}
