// `zeroshard launch`: a user's script on every local rank.

import { launchLocal } from '../launch/index.js'

/** Resolves with the exit status: 0, or that of the first rank that failed. */
export async function launch(script: string, args: string[], options: { nproc: number }): Promise<number> {
  const loader = /\.[cm]?ts$/.test(script) ? ['--import', 'tsx'] : []
  const result = await launchLocal({
    nproc: options.nproc,
    command: process.execPath,
    args: [...loader, script, ...args],
  })
  if (result.message) process.stderr.write(`zeroshard: ${result.message}\n`)
  for (const line of result.lastLines ?? []) process.stderr.write(`  ${line}\n`)
  return result.status
}
