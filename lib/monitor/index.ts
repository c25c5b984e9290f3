// What a training tells: traces, timers, collectives, FLOPs, events for dashboards.

export { CommsLogger, type CommsRow } from './comms.js'
export { measurePeak, mfu, modelFlops } from './flops.js'
export { deviceState } from './hardware.js'
export { type Idle, idleOf } from './idle.js'
export { type MonitorConfig, type MonitorEvent, makeMonitor } from './monitor.js'
export { Observer, type ObserverConfig, type ObserverOptions } from './observer.js'
export { type ModuleProfile, ModuleProfiler, profileReport } from './profile.js'
export { Timers, type Timing } from './timers.js'
export { byPhase, type Overlap, overlapShare, type Span, type TraceRecords, trace } from './trace.js'
export { mergeTraces, TraceFile } from './trace-file.js'
