// Proves what the lists of a pipeline must keep, or says where they do not:
// - each micro-batch once in each direction through each virtual stage, every input at hand when it is used
// - the activations held never above the promise
// - a chunk's gradients reduced once, after the last of them; the step last
// - the i-th receive of a channel (from, to, direction) is the i-th send
// - no deadlock (deadlock.ts)

import { type DeadlockOptions, findDeadlock } from './deadlock.js'
import { describe, type Instruction, type Transfer } from './instruction.js'
import { type Neighbours, neighboursOf, virtualStageOf } from './placement.js'
import type { Pipeline } from './schedule.js'

/** The violations, each naming the stage and, where there is one, the instruction's index. Empty: all is proven. */
export function checkPipeline(pipeline: Pipeline, options: DeadlockOptions = {}): string[] {
  const { lists, stages } = pipeline
  if (lists.length !== stages) return [`there are ${lists.length} lists for ${stages} stages`]
  const channels: Channels = new Map()
  const violations = lists.flatMap((_, stage) => new StageCheck(pipeline, stage, channels).run())
  return [...violations, ...compareChannels(pipeline, channels), ...findDeadlock(pipeline, options)]
}

/** What goes over a channel: virtual stage of the sender × micro-batch, and the index of the instruction. */
interface ChannelLog {
  sent: number[]
  sentAt: number[]
  received: number[]
  receivedAt: number[]
}
type Channels = Map<string, ChannelLog>

// What has happened to one (chunk, micro-batch) of a stage.
const FORWARD = 1
const INPUT = 2
const WEIGHT = 4
const RECEIVED_FORWARD = 8
const RECEIVED_BACKWARD = 16
const SENT_FORWARD = 32
const SENT_BACKWARD = 64
const NAMES: [number, string][] = [
  [FORWARD, 'forward'],
  [INPUT, 'backward or backwardInput'],
  [WEIGHT, 'backward or backwardWeight'],
  [RECEIVED_FORWARD, 'recvForward'],
  [RECEIVED_BACKWARD, 'recvBackward'],
  [SENT_FORWARD, 'sendForward'],
  [SENT_BACKWARD, 'sendBackward'],
]

class StageCheck {
  private readonly violations: string[] = []
  private readonly neighbours: Neighbours[]
  private readonly happened: Uint8Array
  private readonly numWeight: number[]
  private readonly reduced: boolean[]
  private readonly logs = new Map<number, ChannelLog>()
  private held = 0
  private index = 0

  constructor(
    private readonly pipeline: Pipeline,
    private readonly stage: number,
    private readonly channels: Channels,
  ) {
    this.neighbours = neighboursOf(pipeline, stage)
    this.happened = new Uint8Array(pipeline.numChunks * pipeline.microBatches)
    this.numWeight = new Array(pipeline.numChunks).fill(0)
    this.reduced = new Array(pipeline.numChunks).fill(false)
  }

  run(): string[] {
    const list = this.pipeline.lists[this.stage] as Instruction[]
    for (; this.index < list.length; this.index++) this.check(list[this.index] as Instruction, list.length)
    this.checkComplete()
    return this.violations
  }

  private check(instruction: Instruction, length: number): void {
    const { op } = instruction
    if (op === 'step') return this.checkStep(instruction, length)
    if (!(instruction.chunk in this.neighbours)) return this.violation(instruction, 'there is no such chunk')
    if (op === 'reduceGradients') return this.checkReduce(instruction)
    const { microBatch, chunk } = instruction
    if (!Number.isInteger(microBatch) || microBatch < 0 || microBatch >= this.pipeline.microBatches) {
      return this.violation(instruction, 'there is no such micro-batch')
    }
    const { previous, next } = this.neighbours[chunk] as Neighbours
    switch (op) {
      case 'forward': {
        const input = this.atHand(previous, microBatch, chunk, FORWARD, RECEIVED_FORWARD)
        if (!input) this.violation(instruction, 'its input is not there yet')
        this.held++
        return this.mark(instruction, FORWARD, 0)
      }
      case 'backward':
      case 'backwardInput': {
        const gradient = this.atHand(next, microBatch, chunk, INPUT, RECEIVED_BACKWARD)
        if (!gradient) this.violation(instruction, 'its gradient is not there yet')
        if (op === 'backward') this.release(chunk)
        return this.mark(instruction, op === 'backward' ? INPUT | WEIGHT : INPUT, FORWARD)
      }
      case 'backwardWeight':
        this.release(chunk)
        return this.mark(instruction, WEIGHT, INPUT)
      case 'sendForward':
        return this.checkTransfer(instruction, next, SENT_FORWARD, FORWARD)
      case 'sendBackward':
        return this.checkTransfer(instruction, previous, SENT_BACKWARD, INPUT)
      case 'recvForward':
        return this.checkTransfer(instruction, previous, RECEIVED_FORWARD, 0)
      case 'recvBackward':
        return this.checkTransfer(instruction, next, RECEIVED_BACKWARD, 0)
      default:
        instruction satisfies never
    }
  }

  /** Whether what the neighbour makes is on this stage: made here, received, or not needed. */
  private atHand(
    neighbour: { chunk: number; stage: number } | undefined,
    microBatch: number,
    chunk: number,
    made: number,
    received: number,
  ): boolean {
    if (!neighbour) return true
    return neighbour.stage === this.stage
      ? this.has(neighbour.chunk, microBatch, made)
      : this.has(chunk, microBatch, received)
  }

  private has(chunk: number, microBatch: number, flag: number): boolean {
    return ((this.happened[chunk * this.pipeline.microBatches + microBatch] as number) & flag) !== 0
  }

  /** Notes what happened; a violation where it did before, or where `needed` did not. */
  private mark(instruction: Exclude<Instruction, { op: 'step' | 'reduceGradients' }>, flags: number, needed: number) {
    const place = instruction.chunk * this.pipeline.microBatches + instruction.microBatch
    const before = this.happened[place] as number
    if (before & flags) this.violation(instruction, 'it happened before')
    if (needed & ~before) this.violation(instruction, `${namesOf(needed & ~before)} must come first`)
    this.happened[place] = before | flags
    if (flags & (FORWARD | INPUT | WEIGHT)) this.checkComputation(instruction)
  }

  private checkComputation(instruction: Instruction): void {
    const promised = this.pipeline.maxActivations[this.stage] as number
    if (this.pipeline.forwardOnly) {
      if (instruction.op !== 'forward') this.violation(instruction, 'evaluation has no backward')
      this.held = 0
    }
    // Once, where it first goes above.
    if (instruction.op === 'forward' && this.held === promised + 1) {
      this.violation(instruction, `${this.held} activations are held, ${promised} promised`)
    }
  }

  private release(chunk: number): void {
    this.held--
    this.numWeight[chunk] = (this.numWeight[chunk] as number) + 1
  }

  private checkTransfer(
    instruction: Transfer,
    neighbour: { chunk: number; stage: number } | undefined,
    flag: number,
    needed: number,
  ): void {
    const { op, chunk, microBatch, peer } = instruction
    if (!neighbour) return this.violation(instruction, 'there is no virtual stage at the other end')
    if (neighbour.stage === this.stage) return this.violation(instruction, 'the other end is on the same stage')
    if (peer !== neighbour.stage) return this.violation(instruction, `the peer is ${neighbour.stage}`)
    this.mark(instruction, flag, needed)
    const sending = op === 'sendForward' || op === 'sendBackward'
    const forward = op === 'sendForward' || op === 'recvForward'
    const log = this.log(peer, sending, forward)
    const sender = sending ? this.at(chunk) : this.at(chunk) + (forward ? -1 : 1)
    ;(sending ? log.sent : log.received).push(sender * this.pipeline.microBatches + microBatch)
    ;(sending ? log.sentAt : log.receivedAt).push(this.index)
  }

  private at(chunk: number): number {
    return virtualStageOf(this.pipeline, chunk, this.stage)
  }

  private log(peer: number, sending: boolean, forward: boolean): ChannelLog {
    const place = (peer * 2 + Number(sending)) * 2 + Number(forward)
    let log = this.logs.get(place)
    if (log) return log
    const [from, to] = sending ? [this.stage, peer] : [peer, this.stage]
    const key = `${from} to ${to}, ${forward ? 'forward' : 'backward'}`
    log = this.channels.get(key) ?? { sent: [], sentAt: [], received: [], receivedAt: [] }
    this.channels.set(key, log)
    this.logs.set(place, log)
    return log
  }

  private checkReduce(instruction: { op: 'reduceGradients'; chunk: number }): void {
    const { chunk } = instruction
    if (this.pipeline.forwardOnly) this.violation(instruction, 'evaluation has no gradients')
    if (this.reduced[chunk]) this.violation(instruction, 'it happened before')
    const missing = this.pipeline.microBatches - (this.numWeight[chunk] as number)
    if (missing > 0) this.violation(instruction, `${missing} weight gradients are still to come`)
    this.reduced[chunk] = true
  }

  private checkStep(instruction: Instruction, length: number): void {
    if (this.pipeline.forwardOnly) this.violation(instruction, 'evaluation has no step')
    if (this.index !== length - 1) this.violation(instruction, 'the step must be the last instruction')
    const chunk = this.reduced.indexOf(false)
    if (chunk >= 0) this.violation(instruction, `the gradients of chunk ${chunk} are not reduced`)
  }

  private checkComplete(): void {
    const { numChunks, microBatches, forwardOnly, lists } = this.pipeline
    for (let chunk = 0; chunk < numChunks; chunk++) {
      const { previous, next } = this.neighbours[chunk] as Neighbours
      const before = previous && previous.stage !== this.stage
      const after = next && next.stage !== this.stage
      let expected = FORWARD | (before ? RECEIVED_FORWARD : 0) | (after ? SENT_FORWARD : 0)
      if (!forwardOnly) expected |= INPUT | WEIGHT | (before ? SENT_BACKWARD : 0) | (after ? RECEIVED_BACKWARD : 0)
      for (let microBatch = 0; microBatch < microBatches; microBatch++) {
        const missing = expected & ~(this.happened[chunk * microBatches + microBatch] as number)
        if (!missing) continue
        const what = `chunk ${chunk}, micro-batch ${microBatch}: no ${namesOf(missing)}`
        this.violations.push(`stage ${this.stage}: ${what}`)
      }
      if (!forwardOnly && !this.reduced[chunk]) {
        this.violations.push(`stage ${this.stage}: chunk ${chunk}: no reduceGradients`)
      }
    }
    const last = lists[this.stage]?.at(-1)
    if (!forwardOnly && last?.op !== 'step') this.violations.push(`stage ${this.stage}: no step at the end`)
  }

  private violation(instruction: Instruction, what: string): void {
    this.violations.push(`stage ${this.stage}, instruction ${this.index} (${describe(instruction)}): ${what}`)
  }
}

const namesOf = (flags: number): string =>
  NAMES.filter(([flag]) => flags & flag)
    .map(([, name]) => name)
    .join(', ')

/** Where the messages of a channel are sent and received in another order. */
function compareChannels({ microBatches }: Pipeline, channels: Channels): string[] {
  const violations: string[] = []
  const name = (message: number | undefined): string =>
    message === undefined
      ? 'nothing'
      : `virtual stage ${Math.floor(message / microBatches)}'s micro-batch ${message % microBatches}`
  for (const [key, { sent, sentAt, received, receivedAt }] of channels) {
    for (let i = 0; i < Math.max(sent.length, received.length); i++) {
      if (sent[i] === received[i]) continue
      const sender = `instruction ${sentAt[i] ?? '-'} sends ${name(sent[i])}`
      const receiver = `instruction ${receivedAt[i] ?? '-'} receives ${name(received[i])}`
      violations.push(`stage ${key}: message ${i}: ${sender}, ${receiver}`)
      break
    }
  }
  return violations
}
