// The checker of pipeline lists: what it says of lists that are wrong, and that it agrees with running them.

import t from 'tap'
import {
  buildPipeline,
  checkPipeline,
  evaluation,
  findDeadlock,
  type Instruction,
  interleaved1F1B,
  locate,
  oneF1B,
  type Pipeline,
  simulate,
  virtualStageOf,
  zeroBubbleH1,
  zeroBubbleV,
} from '../../lib/parallel/pipeline/index.js'
import { fc } from '../helpers/properties.js'

/** A pipeline with the list of one stage changed. */
function change(pipeline: Pipeline, stage: number, edit: (list: Instruction[]) => void): Pipeline {
  const lists = structuredClone(pipeline.lists)
  edit(lists[stage] as Instruction[])
  return { ...pipeline, lists }
}

const swap = (list: Instruction[], i: number, j: number): void => {
  const kept = list[i] as Instruction
  list[i] = list[j] as Instruction
  list[j] = kept
}

t.test('names the stage, the instruction and what is wrong', (t) => {
  const pipeline = buildPipeline(oneF1B, 2, 3)
  const says = (expected: RegExp, stage: number, edit: (list: Instruction[]) => void): void => {
    t.match(checkPipeline(change(pipeline, stage, edit)).join('\n'), expected)
  }
  const find = (list: Instruction[], op: string, nth = 0): number =>
    list.flatMap((instruction, i) => (instruction.op === op ? i : []))[nth] as number
  const remove = (op: string) => (list: Instruction[]) => void list.splice(find(list, op), 1)
  const repeat = (op: string) => (list: Instruction[]) =>
    void list.splice(find(list, op), 0, list[find(list, op)] as Instruction)

  says(/stage 0: chunk 0, micro-batch 0: no forward/, 0, remove('forward'))
  says(/stage 1: chunk 0, micro-batch 0: no sendBackward/, 1, remove('sendBackward'))
  says(/stage 0: chunk 0: no reduceGradients/, 0, remove('reduceGradients'))
  says(/stage 0: no step at the end/, 0, remove('step'))
  says(/stage 0, instruction 1 \(forward of chunk 0, micro-batch 0\): it happened before/, 0, repeat('forward'))
  says(/reduceGradients of chunk 0\): it happened before/, 0, repeat('reduceGradients'))
  says(/\(step\): the step must be the last/, 0, repeat('step'))
  says(/recvForward of chunk 0, micro-batch 0, peer 0\): it happened before/, 1, repeat('recvForward'))
  says(/stage 1, instruction 0 \(forward .*\): its input is not there yet/, 1, (list) => swap(list, 0, 1))
  says(/its gradient is not there yet/, 0, (list) => swap(list, find(list, 'backward'), find(list, 'recvBackward')))
  says(/stage 1, .*\(backward .*\): forward must come first/, 1, (list) =>
    swap(list, find(list, 'backward'), find(list, 'forward')),
  )
  says(/sendForward .*\): forward must come first/, 0, (list) => swap(list, 0, 1))
  says(/1 weight gradients are still to come/, 1, (list) =>
    swap(list, find(list, 'reduceGradients'), find(list, 'backward', 2)),
  )
  says(/the gradients of chunk 0 are not reduced/, 0, (list) => swap(list, list.length - 1, list.length - 2))
  says(/there is no such chunk/, 0, (list) => Object.assign(list[0] as Instruction, { chunk: 1 }))
  says(/there is no such micro-batch/, 0, (list) => Object.assign(list[0] as Instruction, { microBatch: 3 }))
  says(/the other end is stage 1/, 0, (list) => Object.assign(list[1] as Instruction, { peer: 0 }))
  says(/the other end is nowhere/, 0, (list) => list.splice(2, 0, { ...(list[1] as any), op: 'sendBackward' }))
  t.same(checkPipeline({ ...pipeline, lists: [] }), ['there are 0 lists for 2 stages'])
  t.end()
})

t.test('refuses a weight gradient before the input gradient, and a transfer within a stage', (t) => {
  const h1 = buildPipeline(zeroBubbleH1, 1, 1)
  t.match(checkPipeline(change(h1, 0, (list) => swap(list, 1, 2))).join('\n'), /backwardInput must come first/)
  const vee = buildPipeline(zeroBubbleV, 2, 1)
  const local = change(vee, 1, (list) => list.splice(2, 0, { op: 'sendForward', chunk: 0, microBatch: 0, peer: 1 }))
  t.match(checkPipeline(local).join('\n'), /the other end is on this stage/)
  t.end()
})

t.test('refuses more activations than promised', (t) => {
  const pipeline = { ...buildPipeline(oneF1B, 3, 8), maxActivations: [3, 1, 1] }
  const violations = checkPipeline(pipeline)
  t.equal(violations.length, 1, 'once, where it goes above')
  t.match(violations[0], /^stage 1, instruction 4 \(forward .*\): 2 activations are held, 1 promised$/)
  t.end()
})

t.test('refuses a backward, a reduction and a step in evaluation', (t) => {
  const training = buildPipeline(oneF1B, 2, 2)
  const text = checkPipeline({ ...training, forwardOnly: true }).join('\n')
  for (const expected of [/no backward/, /no gradients/, /no step/]) t.match(text, expected)
  t.same(checkPipeline(buildPipeline(evaluation(), 2, 2)), [])
  t.end()
})

t.test('names the first message that is received in another order than sent', (t) => {
  // The two receives and forwards of the second stage in the other order.
  const pipeline = change(buildPipeline(evaluation(), 2, 2), 1, (list) => list.push(...list.splice(0, 2)))
  const expected = /^stage 0 to 1, forward: message 0: .* sends .* micro-batch 0, .* receives .* micro-batch 1$/
  t.match(checkPipeline(pipeline), [expected])
  t.end()
})

t.test('finds a deadlock and who waits for whom; the simulator refuses it', (t) => {
  const recv = { op: 'recvForward', chunk: 0, microBatch: 0 } as const
  const send = { op: 'sendForward', chunk: 0, microBatch: 0 } as const
  const lists: Instruction[][] = [
    [
      { ...recv, peer: 1 },
      { ...send, peer: 1 },
    ],
    [
      { ...recv, peer: 0 },
      { ...send, peer: 0 },
    ],
  ]
  const pipeline = { ...buildPipeline(evaluation(interleaved1F1B(2)), 2, 1), lists }
  t.same(findDeadlock(pipeline), [
    'stage 0, instruction 0 (recvForward of chunk 0, micro-batch 0, peer 1): waits for ever; stage 1 itself waits at instruction 0',
    'stage 1, instruction 0 (recvForward of chunk 0, micro-batch 0, peer 0): waits for ever; stage 0 itself waits at instruction 0',
  ])
  t.throws(() => simulate(pipeline, { forward: 1 }), { code: 'ARGUMENT', message: /stage 0 waits for ever/ })
  for (const list of lists) list.reverse()
  t.same(findDeadlock(pipeline), [])
  t.equal(findDeadlock(pipeline, { transfers: 'rendezvous' }).length, 2)
  t.same(findDeadlock(pipeline, { transfers: 'grouped' }), [])
  t.match(findDeadlock({ ...pipeline, lists: [[{ ...recv, peer: 1 }], []] }), [/stage 1 has ended/])
  t.end()
})

/**
 * Runs the lists with queues of values, stages taking turns as `pick` says; false where they stop, use a value that is
 * not there, do something twice or leave something out. Written apart from the checker, with obvious steps.
 */
function runs(pipeline: Pipeline, pick: (count: number) => number): boolean {
  const { lists, stages, numChunks, microBatches, forwardOnly } = pipeline
  const last = stages * numChunks - 1
  const queues = new Map<string, string[]>()
  const memory = lists.map(() => new Set<string>())
  const next = lists.map(() => 0)
  const held = lists.map(() => 0)
  const add = (stage: number, value: string): boolean => {
    const values = memory[stage] as Set<string>
    return !values.has(value) && !!values.add(value)
  }

  /** undefined: it must wait */
  const step = (stage: number, instruction: Instruction): boolean | undefined => {
    const has = (value: string): boolean => (memory[stage] as Set<string>).has(value)
    if (instruction.op === 'step') {
      const reduced = Array.from({ length: numChunks }, (_, chunk) => has(`reduced ${chunk}`))
      return !forwardOnly && next[stage] === (lists[stage] as Instruction[]).length - 1 && reduced.every(Boolean)
    }
    const { chunk } = instruction
    const here = virtualStageOf(pipeline, chunk, stage)
    if (chunk >= numChunks) return false
    if (instruction.op === 'reduceGradients') {
      const ready = Array.from({ length: microBatches }, (_, i) => has(`weight ${here} ${i}`)).every(Boolean)
      return ready && !forwardOnly && add(stage, `reduced ${chunk}`)
    }
    const { microBatch: i } = instruction
    if (i >= microBatches) return false
    const release = (): boolean =>
      has(`gradient ${here} ${i}`) && add(stage, `weight ${here} ${i}`) && !!(held[stage] as number)--
    switch (instruction.op) {
      case 'forward':
        if (here > 0 && !has(`output ${here - 1} ${i}`)) return false
        if (!forwardOnly && ++(held[stage] as number) > (pipeline.maxActivations[stage] as number)) return false
        return add(stage, `output ${here} ${i}`)
      case 'backward':
      case 'backwardInput':
        if (forwardOnly || !has(`output ${here} ${i}`)) return false
        if (here < last && !has(`gradient ${here + 1} ${i}`)) return false
        return add(stage, `gradient ${here} ${i}`) && (instruction.op === 'backwardInput' || release())
      case 'backwardWeight':
        return release()
    }
    const forward = instruction.op === 'sendForward' || instruction.op === 'recvForward'
    const sends = instruction.op === 'sendForward' || instruction.op === 'sendBackward'
    const other = forward === sends ? here + 1 : here - 1
    if (other < 0 || other > last) return false
    if (locate(pipeline, other).stage !== instruction.peer || instruction.peer === stage) return false
    const value = `${forward ? 'output' : 'gradient'} ${sends ? here : other} ${i}`
    const [from, to] = sends ? [stage, instruction.peer] : [instruction.peer, stage]
    const key = `${from} ${to} ${forward}`
    const queue = queues.get(key) ?? []
    queues.set(key, queue)
    if (sends) return has(value) && add(stage, `sent ${value}`) && queue.push(value) > 0
    if (queue.length === 0) return undefined
    return queue.shift() === value && add(stage, value)
  }

  let running = [...lists.keys()]
  while (running.length) {
    const stage = running[pick(running.length)] as number
    const list = lists[stage] as Instruction[]
    const result = next[stage] === list.length ? undefined : step(stage, list[next[stage] as number] as Instruction)
    if (result === false) return false
    if (result) {
      ;(next[stage] as number)++
      running = [...lists.keys()]
    } else running = running.filter((one) => one !== stage)
  }
  const done = lists.every((list, stage) => next[stage] === list.length)
  return done && isComplete(pipeline, memory, queues)
}

function isComplete(pipeline: Pipeline, memory: Set<string>[], queues: Map<string, string[]>): boolean {
  const { stages, numChunks, microBatches, forwardOnly, lists } = pipeline
  if ([...queues.values()].some((queue) => queue.length > 0)) return false
  if (!forwardOnly && lists.some((list) => list.at(-1)?.op !== 'step')) return false
  for (let here = 0; here < stages * numChunks; here++) {
    const { stage, chunk } = locate(pipeline, here)
    const has = (value: string): boolean => (memory[stage] as Set<string>).has(value)
    if (!forwardOnly && !has(`reduced ${chunk}`)) return false
    for (let i = 0; i < microBatches; i++) {
      if (!has(`output ${here} ${i}`)) return false
      if (!forwardOnly && !has(`weight ${here} ${i}`)) return false
    }
  }
  return true
}

t.test('agrees with running the lists, whatever single change is made to them', (t) => {
  const schedules = [oneF1B, interleaved1F1B(2), zeroBubbleH1, zeroBubbleV, evaluation(), evaluation(zeroBubbleV)]
  const setting = fc.record({
    schedule: fc.constantFrom(...schedules),
    stages: fc.integer({ min: 1, max: 3 }),
    microBatches: fc.integer({ min: 1, max: 4 }),
    edit: fc.constantFrom('none', 'remove', 'repeat', 'swap', 'move', 'microBatch', 'chunk', 'peer'),
    numbers: fc.array(fc.nat(), { minLength: 3, maxLength: 3 }),
    seed: fc.nat(),
  })
  let [right, wrong] = [0, 0]
  fc.assert(
    fc.property(setting, ({ schedule, stages, microBatches, edit, numbers: [a = 0, b = 0, c = 0], seed }) => {
      const original = buildPipeline(schedule, stages, microBatches)
      const pipeline = change(original, a % stages, (list) => {
        const i = b % list.length
        const instruction = list[i] as Instruction
        if (edit === 'remove') list.splice(i, 1)
        if (edit === 'repeat') list.splice(i, 0, instruction)
        if (edit === 'swap' && i + 1 < list.length) swap(list, i, i + 1)
        if (edit === 'move') list.splice(c % list.length, 0, ...list.splice(i, 1))
        if (edit === 'microBatch' && 'microBatch' in instruction) instruction.microBatch = c % (microBatches + 1)
        if (edit === 'chunk' && 'chunk' in instruction) instruction.chunk = c % (schedule.numChunks + 1)
        if (edit === 'peer' && 'peer' in instruction) instruction.peer = c % stages
      })
      let state = seed
      const pick = (count: number): number => (state = (state * 48271 + 11) % 2147483647) % count
      const ok = runs(pipeline, pick)
      if (ok) right++
      else wrong++
      const violations = checkPipeline(pipeline)
      t.equal(violations.length === 0, ok, `${schedule.name} ${stages} ${microBatches} ${edit}: ${violations[0]}`)
    }),
    { numRuns: 600 },
  )
  t.ok(right > 100 && wrong > 100, `${right} right, ${wrong} wrong`)
  t.end()
})
