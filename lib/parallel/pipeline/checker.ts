// Proves what the lists of a pipeline must keep, or says where they do not:
// - each micro-batch once in each direction through each virtual stage, every input at hand when it is used
// - the activations held never above the promise
// - a chunk's gradients reduced once, after the last of them; the step last
// - the i-th receive of a channel (from, to, direction) is the i-th send
// - no deadlock (deadlock.ts)

import { type DeadlockOptions, findDeadlock } from './deadlock.js'
import { type Computation, describe, type Instruction, isForward, isSend, type Transfer } from './instruction.js'
import { messageOf, type Neighbour, type Neighbours, neighboursOf } from './placement.js'
import type { Pipeline } from './schedule.js'

/** The violations, each naming the stage and, where there is one, the instruction's index. Empty: all is proven. */
export function checkPipeline(pipeline: Pipeline, options: DeadlockOptions = {}): string[] {
  const { lists, stages } = pipeline
  if (lists.length !== stages) return [`there are ${lists.length} lists for ${stages} stages`]
  const channels: Channels = new Map()
  const violations = lists.flatMap((_, stage) => new StageCheck(pipeline, stage, channels).run())
  return [...violations, ...compareChannels(pipeline, channels), ...findDeadlock(pipeline, options)]
}

/** The messages of a channel in order, and the indices of the instructions. */
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
  private isAbove = false
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
    if (op === 'step') this.checkStep(instruction, length)
    else if (!(instruction.chunk in this.neighbours)) this.violation(instruction, 'there is no such chunk')
    else if (op === 'reduceGradients') this.checkReduce(instruction)
    else if (!this.isMicroBatch(instruction.microBatch)) this.violation(instruction, 'there is no such micro-batch')
    else if ('peer' in instruction) this.checkTransfer(instruction)
    else this.checkComputation(instruction)
  }

  private isMicroBatch(microBatch: number): boolean {
    return Number.isInteger(microBatch) && microBatch >= 0 && microBatch < this.pipeline.microBatches
  }

  private checkComputation(instruction: Computation): void {
    const { op, chunk } = instruction
    const { previous, next } = this.neighbours[chunk] as Neighbours
    if (this.pipeline.forwardOnly && op !== 'forward') this.violation(instruction, 'evaluation has no backward')
    switch (op) {
      case 'forward':
        this.checkAtHand(instruction, previous, FORWARD, RECEIVED_FORWARD)
        this.mark(instruction, FORWARD, 0)
        this.hold(instruction)
        break
      case 'backward':
        this.checkAtHand(instruction, next, INPUT, RECEIVED_BACKWARD)
        this.mark(instruction, INPUT | WEIGHT, FORWARD)
        this.release(chunk)
        break
      case 'backwardInput':
        this.checkAtHand(instruction, next, INPUT, RECEIVED_BACKWARD)
        this.mark(instruction, INPUT, FORWARD)
        break
      case 'backwardWeight':
        this.mark(instruction, WEIGHT, INPUT)
        this.release(chunk)
        break
      default:
        op satisfies never
    }
  }

  /** A violation where what the neighbour makes is not on this stage: neither made here nor received. */
  private checkAtHand(
    instruction: Computation,
    neighbour: Neighbour | undefined,
    made: number,
    received: number,
  ): void {
    if (!neighbour) return
    const { chunk, microBatch } = instruction
    const local = neighbour.stage === this.stage
    const place = (local ? neighbour.chunk : chunk) * this.pipeline.microBatches + microBatch
    if ((this.happened[place] as number) & (local ? made : received)) return
    const what = instruction.op === 'forward' ? 'input' : 'gradient'
    this.violation(instruction, `its ${what} is not there yet`)
  }

  /** Notes what happened; a violation where it did before, or where `needed` did not. */
  private mark(instruction: Computation | Transfer, flags: number, needed: number): void {
    const place = instruction.chunk * this.pipeline.microBatches + instruction.microBatch
    const before = this.happened[place] as number
    if (before & flags) this.violation(instruction, 'it happened before')
    if (needed & ~before) this.violation(instruction, `${namesOf(needed & ~before)} must come first`)
    this.happened[place] = before | flags
  }

  private hold(instruction: Computation): void {
    if (this.pipeline.forwardOnly) return
    const promised = this.pipeline.maxActivations[this.stage] as number
    this.held++
    if (this.held <= promised || this.isAbove) return
    // Said where it first goes above.
    this.isAbove = true
    this.violation(instruction, `${this.held} activations are held, ${promised} promised`)
  }

  private release(chunk: number): void {
    this.held--
    this.numWeight[chunk] = (this.numWeight[chunk] as number) + 1
  }

  private checkTransfer(instruction: Transfer): void {
    const { previous, next } = this.neighbours[instruction.chunk] as Neighbours
    const sending = isSend(instruction)
    const forward = isForward(instruction)
    const other = forward === sending ? next : previous
    if (other?.stage !== instruction.peer || other.stage === this.stage) {
      const where = !other ? 'nowhere' : other.stage === this.stage ? 'on this stage' : `stage ${other.stage}`
      this.violation(instruction, `the other end is ${where}`)
      return
    }
    if (sending) this.mark(instruction, forward ? SENT_FORWARD : SENT_BACKWARD, forward ? FORWARD : INPUT)
    else this.mark(instruction, forward ? RECEIVED_FORWARD : RECEIVED_BACKWARD, 0)
    const log = this.log(instruction.peer, sending, forward)
    const message = messageOf(this.pipeline, this.pipeline.microBatches, this.stage, instruction)
    ;(sending ? log.sent : log.received).push(message)
    ;(sending ? log.sentAt : log.receivedAt).push(this.index)
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
      : `virtual stage ${Math.floor(message / 2 / microBatches)}'s micro-batch ${(message >> 1) % microBatches}`
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
