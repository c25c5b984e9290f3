// Whose draws a dropout's are in a list of layers, wherever a pipeline cuts it.

import type { DrawingLayer } from '../ops/random.js'
import type { Layer } from './layered.js'

/** What each layer draws as. `layers`: all of the model's, for a module is the first one's that lists it. */
export function drawingLayers(layers: readonly Pick<Layer, 'modules'>[]): DrawingLayer[] {
  const homes = new Map<string, number>()
  let prefixes: string[][] | undefined
  const homeOf = (site: string): number => {
    let home = homes.get(site)
    if (home === undefined) {
      prefixes ??= layers.map(({ modules }) => modules.flatMap(({ path }) => (path ? [`${path}.`] : [])))
      const within = `${site}.`
      home = prefixes.findIndex((own) => own.some((prefix) => within.startsWith(prefix)))
      homes.set(site, home)
    }
    return home
  }
  return layers.map((_, index) => ({ label: `${index}`, owns: (site) => homeOf(site) === index }))
}
