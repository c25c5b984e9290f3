// The ways to give a configuration, as in DeepSpeed: an object, the path of a file, or urlsafe base64 of JSON text
// (launchers pass it on the command line).

import { readFileSync, type Stats, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { ZeroshardError } from '../binding/errors.js'
import { parseConfigText } from './parse.js'

export interface ConfigSource {
  raw: unknown
  /** For messages. */
  source: string
  /** Relative paths in it start here. */
  directory: string
}

/** @throws CONFIG where the text is neither a file nor base64, or what it holds is no JSON. */
export function readConfigSource(config: string | Record<string, unknown>): ConfigSource {
  if (typeof config !== 'string') return { raw: config, source: 'config', directory: process.cwd() }
  const found = statOf(config)
  if (found?.isFile()) {
    return { raw: parseConfigText(readText(config), config), source: config, directory: dirname(resolve(config)) }
  }
  const text = decode(config)
  if (text !== undefined) return { raw: parseConfigText(text, 'config'), source: 'config', directory: process.cwd() }
  const name = config.length > 120 ? `${config.slice(0, 120)}…` : config
  throw new ZeroshardError(
    'CONFIG',
    `${name}: is no file${found ? '' : ' that exists'}, and not base64 of a JSON object`,
  )
}

function statOf(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new ZeroshardError('CONFIG', `${path}: ${(cause as Error).message}`, { cause })
  }
}

/** The text of urlsafe (or plain) base64; undefined where it is none, or no object. */
function decode(config: string): string | undefined {
  if (!/^[A-Za-z0-9_+/-]+={0,2}$/.test(config.trim())) return undefined
  const text = Buffer.from(config.trim(), 'base64').toString('utf8')
  return text.includes('\uFFFD') || !/^\s*[{/#]/.test(text) ? undefined : text
}
