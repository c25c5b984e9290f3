// zeroshard: large-model training for Node.js.

export { type CustomResult, checkpoint, customFunction } from './autograd/functions.js'
export { type GradientCheck, type GradientCheckOptions, gradCheck } from './autograd/gradient-check.js'
export { type BackwardContext, type BackwardRule, noGrad } from './autograd/tape.js'
export { type ErrorCode, ZeroshardError } from './binding/errors.js'
export { Engine, type SaveOptions, type StepResult } from './engine/engine.js'
export { initialize } from './engine/initialize.js'
export * as nn from './nn/index.js'
export * as ops from './ops/index.js'
export { memory } from './tensor/memory.js'
export { keep, tidy } from './tensor/scope.js'
export { empty, Tensor, tensor } from './tensor/tensor.js'
