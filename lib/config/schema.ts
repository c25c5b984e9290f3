// What a schema is made of. A key is 'served', a 'hint' (ignoring it cannot change a result; said once) or 'refused'
// (an error that says why and what to use). read.ts reads a configuration by it, scripts/config-docs.ts writes it down.

import type { ValueType } from './values.js'

export type Status = 'served' | 'hint' | 'refused'

export interface Leaf<T, S extends Status = Status> {
  readonly status: S
  readonly type: ValueType<T>
  readonly fallback: T
  /** Served: what it does. Hint: why it changes nothing. Refused: why, and what to use. */
  readonly text: string
}

/** An old key that says in another way what a key says now. */
export interface Deprecated {
  readonly to: string
  /** Reads the old value as one of the new key; null: it asks for nothing. */
  readonly convert: ValueType<unknown>
  readonly text: string
}

export interface Section<K extends Keys = Keys, S extends Status = Status> {
  readonly status: S
  readonly keys: K
  readonly text: string
  /** Other name of a key, to its name here. */
  readonly aliases: Readonly<Record<string, string>>
  readonly deprecated: Readonly<Record<string, Deprecated>>
  /** "auto" stands for the default here and in sections within, as in DeepSpeed. */
  readonly auto: boolean
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

export function served<T>(type: ValueType<T>, fallback: NoInfer<T>, text: string): Leaf<T, 'served'> {
  return { status: 'served', type, fallback, text }
}
export function hint<T>(type: ValueType<T>, fallback: NoInfer<T>, text: string): Leaf<T, 'hint'> {
  return { status: 'hint', type, fallback, text }
}
/** Only `fallback`, which asks for nothing, is accepted. */
export function refused<T>(type: ValueType<T>, fallback: NoInfer<T>, text: string): Leaf<T, 'refused'> {
  return { status: 'refused', type, fallback, text }
}

type SectionOptions = Partial<Omit<Section, 'status' | 'keys' | 'text'>>
function makeSection<K extends Keys, S extends Status>(
  status: S,
  text: string,
  keys: K,
  options: SectionOptions,
): Section<K, S> {
  const active = (given: Record<string, unknown>): boolean =>
    'enabled' in keys ? given.enabled === true : Object.keys(given).length > 0
  return { status, text, keys, aliases: {}, deprecated: {}, auto: false, active, ...options }
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

/** Every leaf and section below, with its path. */
export function* rulesOf(section: Section, where = ''): Generator<[path: string, rule: Rule]> {
  for (const [key, rule] of Object.entries(section.keys)) {
    const path = where ? `${where}.${key}` : key
    yield [path, rule]
    if (isSection(rule)) yield* rulesOf(rule, path)
  }
}
