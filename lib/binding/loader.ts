// The only importer of the compiled addon: a prebuilt of this platform, or what `npm run build` made.

import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ZeroshardError } from './errors.js'

/** The package's root: the nearest folder above with a package.json, from lib/ as from dist/. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder)
  return folder
}

/** Loads the addon. @throws NATIVE where there is none for this platform. */
export function loadAddon(): unknown {
  const require = createRequire(import.meta.url)
  try {
    return (require('node-gyp-build') as (folder: string) => unknown)(packageRoot())
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}`
    throw new ZeroshardError(
      'NATIVE',
      `there is no compiled zeroshard for ${platform} (Node ${process.version}): ${(cause as Error).message.split('\n')[0]}; in the repository run \`npm run build\`, elsewhere reinstall zeroshard`,
      { cause },
    )
  }
}
