// What a schema is made of, and the one walk that reads a section: unknown keys, aliases, types, defaults, and what
// becomes of a key: 'served', 'hint' (ignoring it cannot change a result; said once) or 'refused'.

import { nearest, ZeroshardError } from '../binding/errors.js'
import type { ValueType } from './values.js'

export type Status = 'served' | 'hint' | 'refused'

export interface Leaf<T, S extends Status = Status> {
  readonly status: S
  readonly type: ValueType<T>
  readonly fallback: T
  /** Served: what it does. Hint: why it changes nothing. Refused: why, and what to use. */
  readonly text: string
  /** False where "auto" is refused: only the caller can know the value. */
  readonly auto: boolean
}

export interface Section<K extends Keys = Keys, S extends Status = Status> {
  readonly status: S
  readonly keys: K
  readonly text: string
  /** Other name of a key, to its name here. */
  readonly aliases: Readonly<Record<string, string>>
  /** For hint and refused sections: whether what was given asks for anything. */
  readonly active: (given: Record<string, unknown>) => boolean
  /** Turns what is no object into one (`zero_optimization: true`). */
  readonly shorthand?: (value: unknown) => unknown
}

export type Rule = Leaf<any> | Section<any>
export interface Keys {
  readonly [key: string]: Rule
}

/** What reading a section gives: its served sections and its served and hint leaves, all present. */
export type Resolved<K extends Keys> = {
  -readonly [P in keyof K as K[P] extends Leaf<any, 'served' | 'hint'> | Section<any, 'served'>
    ? P
    : never]: K[P] extends Section<infer Inner> ? Resolved<Inner> : K[P] extends Leaf<infer T> ? T : never
}

export function served<T>(type: ValueType<T>, fallback: NoInfer<T>, text: string, auto = true): Leaf<T, 'served'> {
  return { status: 'served', type, fallback, text, auto }
}
export function hint<T>(type: ValueType<T>, fallback: NoInfer<T>, text: string): Leaf<T, 'hint'> {
  return { status: 'hint', type, fallback, text, auto: true }
}
/** Only `fallback`, which asks for nothing, is accepted. */
export function refused<T>(type: ValueType<T>, fallback: NoInfer<T>, text: string): Leaf<T, 'refused'> {
  return { status: 'refused', type, fallback, text, auto: true }
}

type SectionOptions = Partial<Pick<Section, 'aliases' | 'active' | 'shorthand'>>
const isActive = (given: Record<string, unknown>): boolean =>
  'enabled' in given ? given.enabled === true : Object.keys(given).length > 0

function makeSection<K extends Keys, S extends Status>(
  status: S,
  text: string,
  keys: K,
  options: SectionOptions,
): Section<K, S> {
  return { status, text, keys, aliases: {}, active: isActive, ...options }
}
export const section = <K extends Keys>(text: string, keys: K, options: SectionOptions = {}): Section<K, 'served'> =>
  makeSection('served', text, keys, options)
export const hintSection = <K extends Keys>(text: string, keys: K, options: SectionOptions = {}): Section<K, 'hint'> =>
  makeSection('hint', text, keys, options)
export const refusedSection = <K extends Keys>(
  text: string,
  keys: K,
  options: SectionOptions = {},
): Section<K, 'refused'> => makeSection('refused', text, keys, options)

export const isSection = (rule: Rule): rule is Section<any> => 'keys' in rule

/** What a walk needs beside the values: where errors point to, and the hints found (text to paths). */
export interface Reading {
  source: string
  hints: Map<string, string[]>
}

export function fail(reading: { source: string }, message: string): never {
  throw new ZeroshardError('CONFIG', `${reading.source}: ${message}`)
}

export const show = (value: unknown): string => JSON.stringify(value) ?? String(value)

/** Reads `raw` by `section`: checks everything, fills in defaults. `where` is the section's path, '' for the top. */
export function readSection<K extends Keys>(
  reading: Reading,
  section: Section<K>,
  raw: unknown,
  where: string,
): Resolved<K> {
  const given = givenKeys(reading, section, raw, where)
  const result: Record<string, unknown> = {}
  for (const [key, rule] of Object.entries(section.keys)) {
    const path = where ? `${where}.${key}` : key
    const value = given.get(key)
    if (!isSection(rule)) {
      const read = readLeaf(reading, rule, value, path)
      if (rule.status !== 'refused') result[key] = read
    } else if (rule.status === 'served') {
      result[key] = readSection(reading, rule, value, path)
    } else {
      readUnserved(reading, rule, value, path)
    }
  }
  return result as Resolved<K>
}

/** Names to values, aliases replaced, null sections and undefined left out. */
function givenKeys(reading: Reading, section: Section, raw: unknown, where: string): Map<string, unknown> {
  const value = section.shorthand && raw !== undefined ? section.shorthand(raw) : raw
  if (value === undefined || value === null || value === 'auto') return new Map()
  if (typeof value !== 'object' || Array.isArray(value)) {
    fail(reading, `${where || 'the configuration'} is ${show(value)}; it must be an object { … }`)
  }
  const given = new Map<string, unknown>()
  const names = [...Object.keys(section.keys), ...Object.keys(section.aliases)]
  for (const [name, item] of Object.entries(value)) {
    if (item === undefined) continue
    const key = Object.hasOwn(section.aliases, name) ? (section.aliases[name] as string) : name
    const path = where ? `${where}.${name}` : name
    if (!Object.hasOwn(section.keys, key)) fail(reading, `unknown key ${path}${suggestion(name, names)}`)
    if (given.has(key)) fail(reading, `${path} and ${key} are two names of one key; keep ${key}`)
    given.set(key, item)
  }
  return given
}

export function suggestion(word: string, known: Iterable<string>): string {
  const near = nearest(word, known)
  return near === undefined ? '' : `; did you mean ${near}?`
}

function readLeaf<T>(reading: Reading, leaf: Leaf<T>, value: unknown, path: string): T {
  if (value === undefined) return leaf.fallback
  if (value === 'auto') {
    if (!leaf.auto) fail(reading, `${path} is "auto", which only a trainer around the engine can fill in; give a value`)
    return leaf.fallback
  }
  const read = leaf.type.read(value)
  if (read === undefined) {
    const near = typeof value === 'string' && leaf.type.words ? suggestion(value, leaf.type.words) : ''
    fail(reading, `${path} is ${show(value)}; it must be ${leaf.type.label}${near}`)
  }
  if (leaf.status === 'served' || show(read) === show(leaf.fallback)) return read
  if (leaf.status === 'refused') fail(reading, `${path} ${show(value)} is not served: ${leaf.text}`)
  note(reading, leaf.text, path)
  return read
}

/** A section that is not served as a whole: its keys are still checked, then it is said or refused once. */
function readUnserved(reading: Reading, section: Section, value: unknown, path: string): void {
  const given = givenKeys(reading, section, value, path)
  readSection({ ...reading, hints: new Map() }, section, Object.fromEntries(given), path)
  if (!section.active(Object.fromEntries(given))) return
  if (section.status === 'refused') fail(reading, `${path} is not served: ${section.text}`)
  note(reading, section.text, path)
}

function note(reading: Reading, text: string, path: string): void {
  reading.hints.set(text, [...(reading.hints.get(text) ?? []), path])
}
