// Modules, parameters, layers.

export * from './layered.js'
export * from './layers.js'
export { Module } from './module.js'
export { constant, type Init, normal, Parameter, uniform } from './parameter.js'
export { type Sequence, wholeSequence } from './sequence.js'
