// The folder of a run's checkpoints: step-00000500/, `latest`, retention, finding the newest whole one.
// A checkpoint exists whole or not at all: it is written beside, synced, renamed, and only then named by `latest`.

import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { type Manifest, readManifest, verifyFiles } from './manifest.js'

export const stepName = (step: number): string => `step-${String(step).padStart(8, '0')}`
const stepOf = (name: string): number | undefined => {
  const match = /^step-(\d+)$/.exec(name)
  return match ? Number(match[1]) : undefined
}

/** Makes what was written in a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  await folder.sync()
  await folder.close()
}

/** Names of the checkpoints, newest first. */
export async function listCheckpoints(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [] as string[])
  return names
    .filter((name) => stepOf(name) !== undefined)
    .sort((a, b) => (stepOf(b) as number) - (stepOf(a) as number))
}

/** An empty temporary folder for a save; what killed saves left is removed. */
export async function beginSave(folder: string, step: number): Promise<string> {
  await mkdir(folder, { recursive: true })
  for (const name of await readdir(folder)) {
    if (name.startsWith('tmp-')) await rm(join(folder, name), { recursive: true, force: true })
  }
  const temporary = join(folder, `tmp-${stepName(step)}`)
  await mkdir(temporary)
  return temporary
}

/** Renames a complete temporary folder to its place, points `latest` at it, removes the oldest beyond `retain`. */
export async function commitSave(folder: string, temporary: string, step: number, retain: number): Promise<string> {
  const final = join(folder, stepName(step))
  await syncFolder(temporary)
  const old = join(folder, `tmp-old-${stepName(step)}`)
  await rename(final, old).catch(() => {})
  await rename(temporary, final)
  await syncFolder(folder)
  const pointer = join(folder, 'tmp-latest')
  await writeFile(pointer, `${stepName(step)}\n`, { flush: true } as object)
  await rename(pointer, join(folder, 'latest'))
  await syncFolder(folder)
  await rm(old, { recursive: true, force: true })
  if (retain > 0) {
    const kept = (await listCheckpoints(folder)).filter((name) => (stepOf(name) as number) <= step)
    for (const name of kept.slice(retain)) await rm(join(folder, name), { recursive: true, force: true })
  }
  return final
}

export interface FoundCheckpoint {
  folder: string
  manifest: Manifest
}

/** The newest whole checkpoint; each damaged one on the way is told to `onDamaged`. Undefined where there is none. */
export async function findNewest(
  folder: string,
  onDamaged: (message: string) => void,
): Promise<FoundCheckpoint | undefined> {
  for (const name of await listCheckpoints(folder)) {
    const path = join(folder, name)
    try {
      return await openCheckpoint(path)
    } catch (error) {
      if (!(error instanceof ZeroshardError)) throw error
      onDamaged(`${name} is damaged and not used: ${error.message}`)
    }
  }
  return undefined
}

/** A given checkpoint, verified. Accepts a checkpoint, a folder of checkpoints, or a run's output folder. */
export async function openCheckpoint(path: string): Promise<FoundCheckpoint> {
  const folder = await resolveCheckpoint(path)
  const manifest = await readManifest(folder)
  await verifyFiles(folder, manifest)
  return { folder, manifest }
}

/** The checkpoint that a path means: itself, or the one that `latest` in it (or in its checkpoints/) names. */
export async function resolveCheckpoint(path: string): Promise<string> {
  for (const folder of [path, join(path, 'checkpoints')]) {
    const name = (await readFile(join(folder, 'latest'), 'utf8').catch(() => '')).trim()
    if (name && basename(name) === name) return join(folder, name)
  }
  return path
}

export const outputOf = (checkpoint: string): string => dirname(dirname(checkpoint))
