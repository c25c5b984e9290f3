// Pipeline parallelism without a pipeline: schedules as lists of instructions, the proof that a list is right, its
// time, its picture, and the cut of a model into parts. All pure; nothing here loads native code.
//
//   const pipeline = buildPipeline(scheduleNamed('zb-v'), 8, 64)
//   checkPipeline(pipeline)                                  // [] : proven
//   const simulation = simulate(pipeline, { forward: 1 })    // .bubble, .peakActivations
//   console.log(drawPipeline(pipeline, simulation))

export { checkPipeline } from './checker.js'
export { type DeadlockOptions, findDeadlock } from './deadlock.js'
export { type Computation, describe, type Instruction, isForward, isSend, type Transfer } from './instruction.js'
export { drawPipeline, type PictureOptions } from './picture.js'
export { locate, type Neighbours, neighboursOf, type Placement, virtualStageOf } from './placement.js'
export { buildPipeline, defineSchedule, type Pipeline, type Schedule, type ScheduleRule } from './schedule.js'
export { evaluation } from './schedules/evaluation.js'
export { gpipe } from './schedules/gpipe.js'
export { interleaved1F1B } from './schedules/interleaved.js'
export { scheduleNamed, scheduleNames } from './schedules/named.js'
export { oneF1B } from './schedules/one-f-one-b.js'
export { zeroBubbleH1 } from './schedules/zero-bubble-h1.js'
export { zeroBubbleV } from './schedules/zero-bubble-v.js'
export { type Costs, type PerVirtualStage, type Simulation, simulate } from './simulator.js'
export { chunkRanges, type LayerInfo, type SplitMethod, splitBalanced, splitLayers, splitUniform } from './split.js'
export { type TraceEvent, traceOf } from './trace.js'
export { orderTransfers } from './transfer-order.js'
