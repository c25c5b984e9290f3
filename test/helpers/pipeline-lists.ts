// The lists of all pipeline schedules as text, for test/native/device_pipeline_test.cpp, which has no JavaScript.
// A pipeline: `name stages`, then a line for each stage. A computation is F, B, I (of inputs) or W (of weights) with
// chunk.microBatch; a transfer is s or r, f(orward) or b(ackward), chunk.microBatch:peer:message.

import {
  buildPipeline,
  evaluation,
  gpipe,
  type Instruction,
  interleaved1F1B,
  isForward,
  isSend,
  oneF1B,
  type Pipeline,
  zeroBubbleH1,
  zeroBubbleV,
} from '../../lib/parallel/pipeline/index.js'
import { messageOf } from '../../lib/parallel/pipeline/placement.js'

const letters = { forward: 'F', backward: 'B', backwardInput: 'I', backwardWeight: 'W' }

function word(pipeline: Pipeline, stage: number, instruction: Instruction): string[] {
  if (!('microBatch' in instruction)) return []
  const { chunk, microBatch } = instruction
  if (!('peer' in instruction)) return [`${letters[instruction.op]}${chunk}.${microBatch}`]
  const kind = `${isSend(instruction) ? 's' : 'r'}${isForward(instruction) ? 'f' : 'b'}`
  const message = messageOf(pipeline, pipeline.microBatches, stage, instruction)
  return [`${kind}${chunk}.${microBatch}:${instruction.peer}:${message}`]
}

export function pipelineLists(): string {
  const training = [gpipe, oneF1B, interleaved1F1B(2), interleaved1F1B(3), zeroBubbleH1, zeroBubbleV]
  const lines: string[] = []
  for (const schedule of [...training, evaluation(interleaved1F1B(2)), evaluation(zeroBubbleV)]) {
    for (const [stages, microBatches] of [
      [2, 4],
      [3, 6],
      [4, 8],
    ] as const) {
      const pipeline = buildPipeline(schedule, stages, microBatches)
      lines.push(`${schedule.name.replaceAll(' ', '-')}-${schedule.numChunks} ${stages}`)
      for (const [stage, list] of pipeline.lists.entries())
        lines.push(list.flatMap((instruction) => word(pipeline, stage, instruction)).join(' '))
    }
  }
  return `${lines.join('\n')}\n`
}
