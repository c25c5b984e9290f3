// Keys whose shape is final but which the engine does not follow yet. A line is deleted when the feature is there;
// `npm run docs:config` then shows the key as served. 'refused': an error. 'hint': said once, as it changes no result.

import type { Config } from './index.js'
import { fail, note, type Reading, show } from './read.js'

export interface NotYet {
  /** A key of the schema. */
  path: string
  effect: 'refused' | 'hint'
  /** True where the configuration asks for it. */
  asked: (config: Config) => boolean
  /** What to do instead. */
  instead: string
}

type Asked = NotYet['asked']
const refuse = (path: string, asked: Asked, instead: string): NotYet => ({ path, effect: 'refused', asked, instead })
const say = (path: string, asked: Asked, instead: string): NotYet => ({ path, effect: 'hint', asked, instead })

const alone = 'leave it out'
const inF32 = 'gradients are averaged in f32, where it makes no difference'
const units = 'a transformer block is one bucket'
const metrics = 'use --metrics, one JSON object per step'

export const notYet: readonly NotYet[] = [
  refuse('mesh.expert', (c) => c.mesh.expert > 1, alone),
  say('prescale_gradients', (c) => c.prescale_gradients, inF32),
  say('gradient_predivide_factor', (c) => c.gradient_predivide_factor !== 1, inF32),
  say('zero_optimization.allgather_bucket_size', (c) => c.zero_optimization.allgather_bucket_size !== 5e8, units),
  say('jsonl_monitor.enabled', (c) => c.jsonl_monitor.enabled, metrics),
  say('dump_state', (c) => c.dump_state, metrics),
]

/** @throws CONFIG for the first key that asks for what is not there; hints are added to `reading`. */
export function applyNotYet(reading: Reading, config: Config): void {
  for (const { path, effect, asked, instead } of notYet) {
    if (!asked(config)) continue
    if (effect === 'hint') note(reading, `not there yet: ${instead}`, path)
    else fail(reading, `${path} ${show(valueAt(config, path))} is not there yet: ${instead}`)
  }
}

function valueAt(config: Config, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], config)
}
