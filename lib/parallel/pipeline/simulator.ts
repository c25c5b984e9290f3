// Times the lists of a pipeline: a stage's instructions run one after the other; transfers overlap with computing and
// queue on their channel (one per pair of stages and direction). One pass over all instructions, so that the planner
// can afford it for thousands of micro-batches.

import { ZeroshardError } from '../../binding/errors.js'
import { describe, type Instruction, type Transfer } from './instruction.js'
import { virtualStageOf } from './placement.js'
import type { Pipeline } from './schedule.js'

/** One number for all virtual stages, or one for each. */
export type PerVirtualStage = number | readonly number[]

/** How long things take, in one unit of time of the caller's choice. */
export interface Costs {
  forward: PerVirtualStage
  /** Both gradients at once. Default: the sum of the two parts. */
  backward?: PerVirtualStage
  /** Default: half of `backward`, or as long as a forward. */
  backwardInput?: PerVirtualStage
  backwardWeight?: PerVirtualStage
  /** From the end of a transfer to its arrival; other transfers of the channel may follow at once. Default 0. */
  latency?: number
  /** How long a transfer occupies its channel: a constant, or bytes over bandwidth. Default 0. */
  transfer?: number | { bytes: number; bandwidth: number }
  /** Reducing a chunk's gradients; overlaps with computing, one after the other. Default 0. */
  reduceGradients?: PerVirtualStage
  /** After the last reduction. Default 0. */
  step?: number
}

export interface Simulation {
  /** Start and end of each instruction, per stage. A transfer's end is its arrival. */
  starts: Float64Array[]
  ends: Float64Array[]
  total: number
  /** Time spent computing, per stage. */
  busy: number[]
  /** 1 - busy / total, per stage and over all. */
  stageBubbles: number[]
  bubble: number
  /** Most pairs (chunk, micro-batch) whose activations a stage held at once. */
  peakActivations: number[]
}

interface Channel {
  arrivals: number[]
  numReceived: number
  freeAt: number
  waiting: boolean
}

interface StageState {
  next: number
  time: number
  reducedAt: number
  busy: number
  held: number
  peak: number
}

/** Throws ARGUMENT where a stage waits for ever: the checker says why. */
export function simulate(pipeline: Pipeline, costs: Costs): Simulation {
  const simulator = new Simulator(pipeline, costs)
  simulator.run()
  return simulator.result()
}

class Simulator {
  private readonly starts: Float64Array[]
  private readonly ends: Float64Array[]
  private readonly states: StageState[]
  private readonly channels = new Map<number, Channel>()
  private readonly ready: number[]
  private readonly durations: Durations

  constructor(
    private readonly pipeline: Pipeline,
    costs: Costs,
  ) {
    this.durations = durationsOf(pipeline, costs)
    this.starts = pipeline.lists.map((list) => new Float64Array(list.length))
    this.ends = pipeline.lists.map((list) => new Float64Array(list.length))
    this.states = pipeline.lists.map(() => ({ next: 0, time: 0, reducedAt: 0, busy: 0, held: 0, peak: 0 }))
    this.ready = pipeline.lists.map((_, stage) => pipeline.lists.length - 1 - stage)
  }

  run(): void {
    for (let stage = this.ready.pop(); stage !== undefined; stage = this.ready.pop()) this.advance(stage)
    for (const [stage, { next }] of this.states.entries()) {
      const stuck = this.pipeline.lists[stage]?.[next]
      if (!stuck) continue
      const where = `stage ${stage} waits for ever at instruction ${next} (${describe(stuck)})`
      throw new ZeroshardError('ARGUMENT', `[simulate] ${this.pipeline.name}: ${where}; checkPipeline says why`)
    }
  }

  /** Runs a stage until it ends or waits for a message that nobody has sent yet. */
  private advance(stage: number): void {
    const list = this.pipeline.lists[stage] as Instruction[]
    const state = this.states[stage] as StageState
    const starts = this.starts[stage] as Float64Array
    const ends = this.ends[stage] as Float64Array
    for (; state.next < list.length; state.next++) {
      const instruction = list[state.next] as Instruction
      starts[state.next] = state.time
      let end: number
      switch (instruction.op) {
        case 'forward':
        case 'backward':
        case 'backwardInput':
        case 'backwardWeight': {
          const duration = this.durations[instruction.op][instruction.chunk * this.pipeline.stages + stage] as number
          end = state.time += duration
          state.busy += duration
          if (instruction.op === 'forward') state.peak = Math.max(state.peak, ++state.held)
          else if (instruction.op !== 'backwardInput') state.held--
          break
        }
        case 'sendForward':
        case 'sendBackward':
          end = this.send(stage, instruction, state.time)
          break
        case 'recvForward':
        case 'recvBackward': {
          const arrival = this.receive(stage, instruction)
          if (arrival === undefined) return
          end = state.time = Math.max(state.time, arrival)
          break
        }
        case 'reduceGradients': {
          const start = (starts[state.next] = Math.max(state.time, state.reducedAt))
          const place = instruction.chunk * this.pipeline.stages + stage
          end = state.reducedAt = start + (this.durations.reduceGradients[place] as number)
          break
        }
        case 'step':
          starts[state.next] = Math.max(state.time, state.reducedAt)
          end = state.time = (starts[state.next] as number) + this.durations.step
          break
        default:
          end = instruction satisfies never
      }
      ends[state.next] = end
    }
  }

  private send(stage: number, { op, peer }: Transfer, time: number): number {
    const channel = this.channel(stage, peer, op === 'sendForward')
    channel.freeAt = Math.max(time, channel.freeAt) + this.durations.transfer
    const arrival = channel.freeAt + this.durations.latency
    channel.arrivals.push(arrival)
    if (channel.waiting) this.ready.push(peer)
    channel.waiting = false
    return arrival
  }

  private receive(stage: number, { op, peer }: Transfer): number | undefined {
    const channel = this.channel(peer, stage, op === 'recvForward')
    const arrival = channel.arrivals[channel.numReceived]
    if (arrival === undefined) channel.waiting = true
    else channel.numReceived++
    return arrival
  }

  private channel(from: number, to: number, forward: boolean): Channel {
    const key = (from * this.pipeline.stages + to) * 2 + Number(forward)
    let channel = this.channels.get(key)
    if (!channel) this.channels.set(key, (channel = { arrivals: [], numReceived: 0, freeAt: 0, waiting: false }))
    return channel
  }

  result(): Simulation {
    const { starts, ends, states } = this
    const total = Math.max(...states.map(({ time, reducedAt }) => Math.max(time, reducedAt)))
    const busy = states.map((state) => state.busy)
    const bubbleOf = (time: number): number => (total > 0 ? 1 - time / total : 0)
    return {
      ...{ starts, ends, total, busy },
      stageBubbles: busy.map(bubbleOf),
      bubble: bubbleOf(busy.reduce((sum, time) => sum + time, 0) / busy.length),
      peakActivations: states.map(({ peak }) => (this.pipeline.forwardOnly ? 0 : peak)),
    }
  }
}

/** Durations by chunk · stages + stage. */
interface Durations {
  forward: Float64Array
  backward: Float64Array
  backwardInput: Float64Array
  backwardWeight: Float64Array
  reduceGradients: Float64Array
  latency: number
  transfer: number
  step: number
}

function durationsOf(pipeline: Pipeline, costs: Costs): Durations {
  const { stages, numChunks } = pipeline
  const at = (what: string, given: PerVirtualStage): Float64Array => {
    const table = new Float64Array(stages * numChunks)
    if (typeof given !== 'number' && given.length !== table.length) {
      const counts = `${given.length} values for ${table.length} virtual stages`
      throw new ZeroshardError('ARGUMENT', `[simulate] ${what} has ${counts}; give one for each, or one number`)
    }
    return table.map((_, place) => {
      const virtualStage = virtualStageOf(pipeline, Math.floor(place / stages), place % stages)
      return duration(what, typeof given === 'number' ? given : (given[virtualStage] as number))
    })
  }
  const forward = at('forward', costs.forward)
  const whole = costs.backward === undefined ? undefined : at('backward', costs.backward)
  const part = (what: 'backwardInput' | 'backwardWeight'): Float64Array => {
    const given = costs[what]
    return given === undefined ? (whole?.map((time) => time / 2) ?? forward) : at(what, given)
  }
  const backwardInput = part('backwardInput')
  const backwardWeight = part('backwardWeight')
  const { transfer = 0 } = costs
  return {
    ...{ forward, backwardInput, backwardWeight },
    backward: whole ?? backwardInput.map((time, i) => time + (backwardWeight[i] as number)),
    reduceGradients: at('reduceGradients', costs.reduceGradients ?? 0),
    latency: duration('latency', costs.latency ?? 0),
    transfer: duration('transfer', typeof transfer === 'number' ? transfer : transfer.bytes / transfer.bandwidth),
    step: duration('step', costs.step ?? 0),
  }
}

function duration(what: string, time: number): number {
  if (time >= 0 && time < Number.POSITIVE_INFINITY) return time
  throw new ZeroshardError('ARGUMENT', `[simulate] ${what} must be a time of 0 or more, not ${time}`)
}
