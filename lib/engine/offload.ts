// What ZeRO is told of DeepSpeed's offload_optimizer, offload_param and aio.

import type { Config } from '../config/index.js'
import type { OffloadOptions, OffloadTarget } from '../parallel/zero/offload.js'

interface Section {
  device: string
  nvme_path: string | null
}

const targetOf = ({ device, nvme_path: path }: Section): OffloadTarget => ({
  device: device as OffloadTarget['device'],
  ...(path !== null && { path }),
})

/** Undefined where nothing is offloaded. */
export function offloadOf({ zero_optimization: zero, aio }: Config): OffloadOptions | undefined {
  const { offload_optimizer: optimizer, offload_param: parameters } = zero
  if (optimizer.device === 'none' && parameters.device === 'none') return undefined
  return {
    ...(optimizer.device !== 'none' && {
      optimizer: { ...targetOf(optimizer), bufferCount: optimizer.buffer_count, ratio: optimizer.ratio },
    }),
    ...(parameters.device !== 'none' && {
      parameters: { ...targetOf(parameters), maxInMemory: parameters.max_in_cpu },
    }),
    io: {
      blockSize: aio.block_size,
      queueDepth: aio.queue_depth,
      threads: aio.intra_op_parallelism,
      singleSubmit: aio.single_submit,
      overlapEvents: aio.overlap_events,
    },
  }
}
