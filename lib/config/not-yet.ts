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

const alone = 'leave it out'

export const notYet: readonly NotYet[] = [refuse('mesh.expert', (c) => c.mesh.expert > 1, alone)]

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
