// zeroshard: large-model training for Node.js.

export { backwardFrom, checkpoint, customFunction } from './autograd/functions.js'
export { noGrad } from './autograd/tape.js'
export { type ErrorCode, ZeroshardError } from './binding/errors.js'
export { Engine, type SaveOptions, type StepResult } from './engine/engine.js'
export { initialize } from './engine/initialize.js'
export * as monitor from './monitor/index.js'
export * as nn from './nn/index.js'
export * as ops from './ops/index.js'
export { type Estimate, estimateModelStates, estimateZero2, estimateZero3 } from './parallel/zero/estimate.js'
export { memory } from './tensor/memory.js'
export { keep, tidy } from './tensor/scope.js'
export { empty, Tensor, tensor } from './tensor/tensor.js'
