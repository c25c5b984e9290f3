// The training schedules by the names that a configuration uses.

import { nearest, ZeroshardError } from '../../../binding/errors.js'
import type { Schedule } from '../schedule.js'
import { gpipe } from './gpipe.js'
import { interleaved1F1B } from './interleaved.js'
import { oneF1B } from './one-f-one-b.js'
import { zeroBubbleH1 } from './zero-bubble-h1.js'
import { zeroBubbleV } from './zero-bubble-v.js'

const BY_NAME: Record<string, (numChunks: number | undefined) => Schedule> = {
  gpipe: () => gpipe,
  '1f1b': () => oneF1B,
  interleaved: (numChunks = 2) => interleaved1F1B(numChunks),
  'zb-h1': () => zeroBubbleH1,
  'zb-v': () => zeroBubbleV,
}

export const scheduleNames: readonly string[] = Object.keys(BY_NAME)

/**
 * `numChunks`: parts of the model per stage, free for `interleaved` (default 2), fixed for the others.
 * Throws CONFIG for an unknown name or another number of chunks than the schedule has.
 */
export function scheduleNamed(name: string, numChunks?: number): Schedule {
  if (!Object.hasOwn(BY_NAME, name)) {
    const guess = nearest(name, scheduleNames)
    const hint = guess ? `did you mean '${guess}'?` : `known: ${scheduleNames.join(', ')}`
    throw new ZeroshardError('CONFIG', `[pipeline] no schedule is called '${name}'; ${hint}`)
  }
  if (numChunks !== undefined && !(Number.isSafeInteger(numChunks) && numChunks > 0)) {
    throw new ZeroshardError('CONFIG', `[pipeline] chunks must be a whole number above 0, not ${numChunks}`)
  }
  const schedule = (BY_NAME[name] as (numChunks: number | undefined) => Schedule)(numChunks)
  if (numChunks !== undefined && numChunks !== schedule.numChunks) {
    const counts = `has ${schedule.numChunks} chunks per stage, not ${numChunks}`
    throw new ZeroshardError('CONFIG', `[pipeline] ${name} ${counts}; 'interleaved' takes any number`)
  }
  return schedule
}
