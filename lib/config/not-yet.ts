// Keys whose shape is final but which the engine does not follow yet. A line is deleted when the feature is there;
// `npm run docs:config` then shows the key as served.

import type { Config } from './index.js'
import { fail, type Reading, show } from './read.js'

export interface NotYet {
  /** A key of the schema. */
  path: string
  /** True where the configuration asks for it. */
  asked: (config: Config) => boolean
  /** What to do instead. */
  instead: string
}

export const notYet: readonly NotYet[] = [
  { path: 'mesh.expert', asked: (c) => c.mesh.expert > 1, instead: 'leave it out' },
]

/** @throws CONFIG for the first key that asks for what is not there. */
export function applyNotYet(reading: Reading, config: Config): void {
  for (const { path, asked, instead } of notYet)
    if (asked(config)) fail(reading, `${path} ${show(valueAt(config, path))} is not there yet: ${instead}`)
}

function valueAt(config: Config, path: string): unknown {
  return path.split('.').reduce<unknown>((value, key) => (value as Record<string, unknown>)[key], config)
}
