// The one walk that reads a configuration by its schema: unknown keys, aliases, deprecated keys, "auto", types,
// defaults, and what becomes of a key that is not served. Every error names the path, the value and what is allowed.

import { nearest, ZeroshardError } from '../binding/errors.js'
import { isSection, type Keys, type Leaf, type Resolved, type Section } from './schema.js'

/** What a walk needs beside the values: where errors point to, and the hints found (text to paths). */
export interface Reading {
  source: string
  hints: Map<string, string[]>
  /** The paths of all keys there are: an unknown one may belong elsewhere. */
  paths?: () => Iterable<string>
}

export function fail(reading: { source: string }, message: string): never {
  throw new ZeroshardError('CONFIG', `${reading.source}: ${message}`)
}

const shorten = (text: string, length: number): string => (text.length > length ? `${text.slice(0, length)}…` : text)

/** A value as it is written, cut where it is long. */
export function show(value: unknown): string {
  if (typeof value === 'number') return String(value)
  return shorten(JSON.stringify(value) ?? String(value), 120)
}

export function note(reading: Reading, text: string, path: string): void {
  reading.hints.set(text, [...(reading.hints.get(text) ?? []), path])
}

/** Reads `raw` by `section`: checks everything, fills in defaults. `where` is the section's path, '' for the top. */
export function readSection<K extends Keys>(
  reading: Reading,
  section: Section<K>,
  raw: unknown,
  where: string,
  auto = section.auto,
): Resolved<K> {
  const given = givenKeys(reading, section, raw, where)
  const result: Record<string, unknown> = {}
  for (const [key, rule] of Object.entries(section.keys)) {
    const path = where ? `${where}.${key}` : key
    const value = given.get(key)
    if (!isSection(rule)) {
      const read = readLeaf(reading, rule, value, path, auto)
      if (rule.status !== 'refused') result[key] = read
    } else if (rule.status === 'served') {
      result[key] = readSection(reading, rule, value, path, auto || rule.auto)
    } else {
      readUnserved(reading, rule, value, path, auto || rule.auto)
    }
  }
  return result as Resolved<K>
}

/** Names to values: aliases and deprecated keys replaced, null sections and undefined left out. */
function givenKeys(reading: Reading, section: Section, raw: unknown, where: string): Map<string, unknown> {
  const value = section.shorthand && raw !== undefined ? section.shorthand(raw) : raw
  const given = new Map<string, unknown>()
  const names = new Map<string, string>()
  if (value === undefined || (value === null && where)) return given
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    fail(reading, `${where || 'the configuration'} is ${show(value)}; it must be an object { … }`)
  }
  for (const [name, item] of Object.entries(value)) {
    if (item === undefined) continue
    const path = where ? `${where}.${shorten(name, 80)}` : shorten(name, 80)
    const [key, renewed] = currentKey(reading, section, name, item, path)
    const before = names.get(key)
    if (before) fail(reading, `${before} and ${path} are two names of one key; keep one`)
    names.set(key, path)
    given.set(key, renewed)
  }
  return given
}

/** The key's name and value of today. */
function currentKey(reading: Reading, section: Section, name: string, item: unknown, path: string): [string, unknown] {
  if (Object.hasOwn(section.aliases, name)) return [section.aliases[name] as string, item]
  if (Object.hasOwn(section.keys, name)) return [name, item]
  if (!Object.hasOwn(section.deprecated, name)) {
    const known = [section.keys, section.aliases, section.deprecated].flatMap((names) => Object.keys(names))
    const prefix = path.slice(0, path.length - shorten(name, 80).length)
    fail(reading, `unknown key ${path}${cure(reading, name, known, prefix)}`)
  }
  const { to, convert, text } = section.deprecated[name] as Section['deprecated'][string]
  const value = convert.read(item)
  if (value === undefined) fail(reading, `${path} is ${show(item)}; it must be ${convert.label}`)
  note(reading, text, path)
  return [to, value]
}

/** What an unknown key was probably meant to be. */
function cure(reading: Reading, name: string, known: readonly string[], prefix: string): string {
  const paths = new Set(reading.paths?.() ?? [])
  const elsewhere = [...paths].filter((path) => path.endsWith(`.${name}`) || path === name)
  if (elsewhere.length > 0 && elsewhere.length < 4) return `; did you mean ${elsewhere.join(' or ')}?`
  const near = suggestion(name, known, prefix)
  if (near) return near
  return known.length <= 16 ? `; known here: ${known.join(', ')}` : '; docs/config.md lists all keys'
}

export function suggestion(word: string, known: Iterable<string>, prefix = ''): string {
  const near = word.length > 80 ? undefined : nearest(word, known)
  return near === undefined ? '' : `; did you mean ${prefix}${near}?`
}

function readLeaf<T>(reading: Reading, leaf: Leaf<T>, value: unknown, path: string, auto: boolean): T {
  if (value === undefined) return leaf.fallback
  const read = leaf.type.read(value)
  if (value === 'auto' && (read === undefined || auto)) {
    if (auto) return leaf.fallback
    fail(reading, `${path} is "auto", which a trainer around the engine fills in; here it must be ${leaf.type.label}`)
  }
  if (read === undefined) {
    const near = typeof value === 'string' && leaf.type.words ? suggestion(value, leaf.type.words) : ''
    fail(reading, `${path} is ${show(value)}; it must be ${leaf.type.label}${near}`)
  }
  if (leaf.status === 'served' || JSON.stringify(read) === JSON.stringify(leaf.fallback)) return read
  if (leaf.status === 'refused') fail(reading, `${path} ${show(value)} is not served: ${leaf.text}`)
  note(reading, leaf.text, path)
  return read
}

/** A section that is not served as a whole: its keys are still checked, then it is said or refused once. */
function readUnserved(reading: Reading, section: Section, value: unknown, path: string, auto: boolean): void {
  const given = Object.fromEntries(givenKeys(reading, section, value, path))
  readSection({ ...reading, hints: new Map() }, section, given, path, auto)
  if (!section.active(given)) return
  if (section.status === 'refused') fail(reading, `${path} is not served: ${section.text}`)
  note(reading, section.text, path)
}
