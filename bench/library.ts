// The built library (dist/, what users run) with the types of the sources: what tsx makes of a source file is slower.

const built = (path: string): Promise<any> => import(new URL(`../dist/${path}`, import.meta.url).href)

export const { binding } = (await built('binding/native.js')) as typeof import('../lib/binding/native.js')
export const { empty, runOp, tensor } = (await built('tensor/tensor.js')) as typeof import('../lib/tensor/tensor.js')
export const { tidy, unscoped } = (await built('tensor/scope.js')) as typeof import('../lib/tensor/scope.js')
export const { memory } = (await built('tensor/memory.js')) as typeof import('../lib/tensor/memory.js')
export const ops = (await built('ops/index.js')) as typeof import('../lib/ops/index.js')
export const nn = (await built('nn/index.js')) as typeof import('../lib/nn/index.js')
export const { createModel } = (await built('nn/models/index.js')) as typeof import('../lib/nn/models/index.js')
export const { initialize, joinWorld, leaveWorld } = (await built(
  'engine/initialize.js',
)) as typeof import('../lib/engine/initialize.js')
export const { backwardFrom } = (await built('autograd/functions.js')) as typeof import('../lib/autograd/functions.js')
export const { noGrad } = (await built('autograd/tape.js')) as typeof import('../lib/autograd/tape.js')
export const { busyIntervals, lengthOf, now, overlapShare, trace } = (await built(
  'monitor/trace.js',
)) as typeof import('../lib/monitor/trace.js')
export const { deviceState } = (await built('monitor/hardware.js')) as typeof import('../lib/monitor/hardware.js')
export const { idleOf } = (await built('monitor/idle.js')) as typeof import('../lib/monitor/idle.js')
export const { modelFlops } = (await built('monitor/flops.js')) as typeof import('../lib/monitor/flops.js')
export const parallel = (await built('parallel/index.js')) as typeof import('../lib/parallel/index.js')
