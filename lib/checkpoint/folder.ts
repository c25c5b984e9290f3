// The folder of a run's checkpoints: step-00000500/, `latest`, retention, finding the newest whole one.
// A checkpoint exists whole or not at all: it is written beside, synced, renamed, and only then named by `latest`.

import { createHash } from 'node:crypto'
import { lstat, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { Agreement, alone, type Ranks } from './agreement.js'
import { type FileEntry, type Manifest, readManifest, verifyFiles } from './manifest.js'

export const stepName = (step: number): string => `step-${String(step).padStart(8, '0')}`
const stepOf = (name: string): number | undefined => {
  const match = /^step-(\d+)$/.exec(name)
  return match ? Number(match[1]) : undefined
}
/** What a save has under way; one that was killed leaves it behind. */
const temporaryOf = (step: number): string => `tmp-${stepName(step)}`
/** One that is being replaced, and one that is being removed. */
const [OLD, GONE] = ['tmp-old-', 'tmp-gone-']
const isOurs = (name: string): boolean => /^tmp-(old-|gone-)?step-\d+$/.test(name) || name === 'tmp-latest'

const exists = (path: string): Promise<boolean> =>
  lstat(path).then(
    () => true,
    () => false,
  )

/** Makes what was written in a folder durable. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** A small new file, durable when this resolves. @throws IO */
export async function writeDurably(path: string, text: string): Promise<void> {
  const bytes = Buffer.from(text)
  let at = 0
  try {
    const file = await open(path, 'wx')
    try {
      while (at < bytes.length) at += (await file.write(bytes, at)).bytesWritten
      await file.sync()
    } finally {
      await file.close()
    }
  } catch (cause) {
    const { message } = cause as Error
    throw new ZeroshardError('IO', `${path}: could not be written at byte ${at}: ${message}`, { cause })
  }
}

/** Names of the checkpoints, newest first. */
export async function listCheckpoints(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [] as string[])
  return names
    .filter((name) => stepOf(name) !== undefined)
    .sort((a, b) => (stepOf(b) as number) - (stepOf(a) as number))
}

/** A checkpoint that was being replaced by another of the same step when the save was killed is put back. */
async function putBack(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [] as string[])) {
    if (!name.startsWith(OLD) || stepOf(name.slice(OLD.length)) === undefined) continue
    const place = join(folder, name.slice(OLD.length))
    if (!(await exists(place))) await rename(join(folder, name), place)
  }
}

/** An empty temporary folder for a save; what killed saves left is removed. */
export async function beginSave(folder: string, step: number): Promise<string> {
  await mkdir(folder, { recursive: true })
  await putBack(folder)
  for (const name of await readdir(folder)) {
    if (isOurs(name)) await rm(join(folder, name), { recursive: true, force: true })
  }
  const temporary = join(folder, temporaryOf(step))
  await mkdir(temporary)
  return temporary
}

/** After a failed save. */
export const dropSave = (folder: string, step: number): Promise<void> =>
  rm(join(folder, temporaryOf(step)), { recursive: true, force: true })

/** Renames a complete temporary folder to its place, points `latest` at it, removes the oldest beyond `retain`. */
export async function commitSave(folder: string, temporary: string, step: number, retain: number): Promise<string> {
  const final = join(folder, stepName(step))
  await syncFolder(temporary)
  const old = join(folder, OLD + stepName(step))
  if (await exists(final)) await rename(final, old)
  await rename(temporary, final)
  await syncFolder(folder)
  const pointer = join(folder, 'tmp-latest')
  await writeDurably(pointer, `${stepName(step)}\n`)
  await rename(pointer, join(folder, 'latest'))
  await syncFolder(folder)
  await rm(old, { recursive: true, force: true })
  if (retain > 0) await removeOldest(folder, step, retain)
  return final
}

/** Out of sight first: a checkpoint that is half removed is none. The newest is what `latest` names. */
async function removeOldest(folder: string, step: number, retain: number): Promise<void> {
  const kept = (await listCheckpoints(folder)).filter((name) => (stepOf(name) as number) <= step)
  for (const name of kept.slice(retain)) {
    const gone = join(folder, GONE + name)
    await rename(join(folder, name), gone)
    await rm(gone, { recursive: true, force: true })
  }
}

/** What `latest` says, where it is a name. */
async function latestOf(folder: string): Promise<string | undefined> {
  const name = (await readFile(join(folder, 'latest'), 'utf8').catch(() => '')).trim()
  return name && basename(name) === name && name !== '..' ? name : undefined
}

export interface FoundCheckpoint {
  folder: string
  manifest: Manifest
}

/**
 * Where a run goes on: the newest whole checkpoint up to the one that `latest` names, for later ones are those of a run
 * that was left (it was resumed further back); without any, the newest of them. Each damaged one on the way is told to
 * `onDamaged`. Undefined where there is none.
 */
export async function findNewest(
  folder: string,
  onDamaged: (message: string) => void,
  ranks: Ranks = alone,
): Promise<FoundCheckpoint | undefined> {
  const names = await new Agreement(ranks, 'find').byFirst('names', async () => {
    await putBack(folder).catch(() => {}) // where it may not be written to, the others are still there
    const [found, latest] = [await listCheckpoints(folder), await latestOf(folder)]
    const from = latest ? Math.max(0, found.indexOf(latest)) : 0
    return [...found.slice(from), ...found.slice(0, from)]
  })
  for (const name of names) {
    try {
      return await openFolder(new Agreement(ranks, 'open'), join(folder, name))
    } catch (error) {
      if (!(error instanceof ZeroshardError && (error.code === 'CHECKPOINT' || error.code === 'IO'))) throw error
      onDamaged(`${name} is damaged and not used: ${error.message}`)
    }
  }
  return undefined
}

/**
 * A given checkpoint, verified: a checkpoint, a folder of checkpoints, or a run's output folder. Collective: rank 0 says
 * which one a path means, and each file is read by one of the ranks.
 */
export async function openCheckpoint(path: string, ranks: Ranks = alone): Promise<FoundCheckpoint> {
  const agreement = new Agreement(ranks, 'open')
  const folder = await agreement.byFirst('folder', async () => {
    const found = await resolveCheckpoint(path)
    if (found !== path || (await exists(join(path, 'manifest.json')))) return found
    throw new ZeroshardError('CHECKPOINT', `${path}: holds no checkpoint; ${await whatIsIn(path)}`)
  })
  return openFolder(agreement, folder)
}

async function openFolder(agreement: Agreement, folder: string): Promise<FoundCheckpoint> {
  let manifest: Manifest | undefined
  const seen = await agreement.all('manifest', async () => {
    manifest = await readManifest(folder)
    return createHash('sha256').update(JSON.stringify(manifest)).digest('hex')
  })
  const other = seen.findIndex((digest) => digest !== seen[0])
  if (other >= 0) {
    throw new ZeroshardError(
      'CHECKPOINT',
      `${folder}: is not the same on rank ${other} as on rank 0; give a folder that all hosts share`,
    )
  }
  const found = { folder, manifest: manifest as Manifest }
  await agreement.all('files', () =>
    verifyFiles(folder, found.manifest, shareOf(found.manifest.files, agreement.ranks)),
  )
  return found
}

/** Which files a rank reads, so that all have about as much to do. */
function shareOf(files: readonly FileEntry[], { rank, worldSize }: Ranks): FileEntry[] {
  const loads = Array.from({ length: worldSize }, () => 0)
  return [...files]
    .sort((a, b) => b.bytes - a.bytes)
    .filter(({ bytes }) => {
      const least = loads.indexOf(Math.min(...loads))
      loads[least] = (loads[least] as number) + bytes
      return least === rank
    })
}

/** The checkpoint that a path means: itself, or the one that `latest` in it (or in its checkpoints/) names. */
export async function resolveCheckpoint(path: string): Promise<string> {
  for (const folder of [path, join(path, 'checkpoints')]) {
    const name = await latestOf(folder)
    if (!name) continue
    for (const found of [join(folder, name), join(folder, OLD + name)]) if (await exists(found)) return found
    throw new ZeroshardError(
      'CHECKPOINT',
      `${join(folder, 'latest')}: names ${name}, which is not there; ${await whatIsIn(folder)}`,
    )
  }
  return path
}

/** For messages: where a checkpoint is looked for in vain. */
async function whatIsIn(path: string): Promise<string> {
  for (const folder of [path, join(path, 'checkpoints'), dirname(path)]) {
    const names = await listCheckpoints(folder)
    const more = names.length > 3 ? `, and ${names.length - 3} older ones` : ''
    if (names.length) return `there are ${names.slice(0, 3).join(', ')}${more} in ${folder}; name one of them`
  }
  const names = await readdir(path).catch(() => undefined)
  if (!names) return 'it does not exist, nor a checkpoint beside it'
  return names.length ? `it holds ${names.slice(0, 5).join(', ')}${names.length > 5 ? ', …' : ''}` : 'it is empty'
}

export const outputOf = (checkpoint: string): string => dirname(dirname(checkpoint))
