// Runs the lists without time and says where they stop. Channels are in order and every receive names its channel, so
// the order in which stages advance cannot change what each of them sees: one run is a proof for all.

import { describe, type Instruction, isForward, isSend, type Transfer } from './instruction.js'
import type { Pipeline } from './schedule.js'

export interface DeadlockOptions {
  /**
   * - `buffered` (default): a send never waits
   * - `grouped`: a send waits for its receive, but transfers without a computation between them begin together
   * - `rendezvous`: a send waits for its receive, one transfer after the other
   */
  transfers?: 'buffered' | 'grouped' | 'rendezvous'
}

/** One violation for each stage that waits for ever. */
export function findDeadlock(pipeline: Pipeline, { transfers = 'buffered' }: DeadlockOptions = {}): string[] {
  const { lists } = pipeline
  const run = new Run(pipeline, transfers)
  const ready = lists.map((_, stage) => stage)
  for (let stage = ready.pop(); stage !== undefined; stage = ready.pop()) run.advance(stage, ready)
  return lists.flatMap((_, stage) => run.complaint(stage))
}

interface StageState {
  next: number
  /** The transfers of the group at `next`, with their place in their channel, once they have begun. */
  begun: { sending: boolean; channel: Channel; place: number; index: number }[]
  waiting: boolean
}

/** How many sends and receives have begun. */
interface Channel {
  sends: number
  receives: number
}

class Run {
  private readonly states: StageState[]
  private readonly channels = new Map<number, Channel>()

  constructor(
    private readonly pipeline: Pipeline,
    private readonly transfers: NonNullable<DeadlockOptions['transfers']>,
  ) {
    this.states = pipeline.lists.map(() => ({ next: 0, begun: [], waiting: false }))
  }

  /** Runs a stage until it ends or waits; stages that may go on are added to `ready`. */
  advance(stage: number, ready: number[]): void {
    const list = this.pipeline.lists[stage] as Instruction[]
    const state = this.states[stage] as StageState
    while (state.next < list.length) {
      if (!('peer' in (list[state.next] as Instruction))) {
        state.next++
        continue
      }
      if (state.begun.length === 0) this.begin(stage, ready)
      if (state.begun.some((transfer) => !this.isDone(transfer))) {
        state.waiting = true
        return
      }
      state.next += state.begun.length
      state.begun = []
    }
  }

  private begin(stage: number, ready: number[]): void {
    const list = this.pipeline.lists[stage] as Instruction[]
    const state = this.states[stage] as StageState
    const most = this.transfers === 'grouped' ? list.length : state.next + 1
    for (let index = state.next; index < most; index++) {
      const instruction = list[index] as Instruction
      if (!('peer' in instruction)) break
      const sending = isSend(instruction)
      const channel = this.channel(stage, instruction)
      const place = sending ? channel.sends++ : channel.receives++
      state.begun.push({ sending, channel, place, index })
      const peer = this.states[instruction.peer]
      if (peer?.waiting) ready.push(instruction.peer)
      if (peer) peer.waiting = false
    }
  }

  private isDone({ sending, channel, place }: StageState['begun'][number]): boolean {
    if (!sending) return place < channel.sends
    return this.transfers === 'buffered' || place < channel.receives
  }

  private channel(stage: number, transfer: Transfer): Channel {
    const [from, to] = isSend(transfer) ? [stage, transfer.peer] : [transfer.peer, stage]
    const key = (from * this.pipeline.stages + to) * 2 + Number(isForward(transfer))
    let channel = this.channels.get(key)
    if (!channel) this.channels.set(key, (channel = { sends: 0, receives: 0 }))
    return channel
  }

  complaint(stage: number): string[] {
    const list = this.pipeline.lists[stage] as Instruction[]
    const { next, begun } = this.states[stage] as StageState
    if (next >= list.length) return []
    const index = begun.find((transfer) => !this.isDone(transfer))?.index ?? next
    const instruction = list[index] as Instruction
    const peer = 'peer' in instruction ? instruction.peer : stage
    const other = this.states[peer]
    const ended = !other || other.next >= (this.pipeline.lists[peer]?.length ?? 0)
    const why = ended ? `stage ${peer} has ended` : `stage ${peer} itself waits at instruction ${other.next}`
    return [`stage ${stage}, instruction ${index} (${describe(instruction)}): waits for ever; ${why}`]
  }
}
