// What a configuration value may be: each type has a label for messages and a reader that returns undefined where
// the value does not fit. Numbers take integral floats (5e8) where integers are wanted.

export interface ValueType<T> {
  /** "must be …" */
  readonly label: string
  read(value: unknown): T | undefined
  /** The words that fit, for the nearest one. */
  readonly words?: readonly string[]
}

export interface Range {
  min?: number
  above?: number
  max?: number
  below?: number
}

const rangeLabel = (r: Range): string =>
  [
    r.min !== undefined && `at least ${r.min}`,
    r.above !== undefined && `greater than ${r.above}`,
    r.max !== undefined && `at most ${r.max}`,
    r.below !== undefined && `less than ${r.below}`,
  ]
    .filter(Boolean)
    .join(' and ')

const within = (v: number, r: Range): boolean =>
  v >= (r.min ?? -Infinity) && v > (r.above ?? -Infinity) && v <= (r.max ?? Infinity) && v < (r.below ?? Infinity)

export function number(range: Range = {}): ValueType<number> {
  return {
    label: `a number ${rangeLabel(range)}`.trim(),
    read: (v) => (typeof v === 'number' && Number.isFinite(v) && within(v, range) ? v : undefined),
  }
}

export function integer(range: Range = { min: 0 }): ValueType<number> {
  return {
    label: `an integer ${rangeLabel(range)}`.trim(),
    read: (v) => (typeof v === 'number' && Number.isInteger(v) && within(v, range) ? v : undefined),
  }
}

export const boolean: ValueType<boolean> = {
  label: 'true or false',
  read: (v) => (typeof v === 'boolean' ? v : undefined),
}

export const string: ValueType<string> = {
  label: 'a text',
  read: (v) => (typeof v === 'string' ? v : undefined),
}

export const path: ValueType<string> = {
  label: 'the path of a file or folder',
  read: (v) => (typeof v === 'string' && v !== '' ? v : undefined),
}

/** Any value: for keys whose content does not matter here. */
export const anything: ValueType<unknown> = { label: 'any value', read: (v) => v }

/** One of a few words; letter case does not matter where `anyCase`. */
export function oneOf<const W extends string>(words: readonly W[], anyCase = false): ValueType<W> {
  return {
    label: words.map((word) => `"${word}"`).join(words.length > 2 ? ', ' : ' or '),
    words,
    read: (v) =>
      words.find((word) => v === word || (anyCase && typeof v === 'string' && v.toLowerCase() === word.toLowerCase())),
  }
}

export function nullable<T>(type: ValueType<T>): ValueType<T | null> {
  return { ...type, label: `${type.label}, or null`, read: (v) => (v === null ? null : type.read(v)) }
}

/** A list; a single value counts as a list of one. */
export function list<T>(type: ValueType<T>, length?: number): ValueType<T[]> {
  return {
    label: `a list of ${length ?? ''} (each ${type.label})`.replace('  ', ' ').replace('of (', 'of values ('),
    read: (v) => {
      const read = (Array.isArray(v) ? v : [v]).map((item) => type.read(item))
      const fits = !read.includes(undefined) && (length === undefined || read.length === length)
      return fits ? (read as T[]) : undefined
    },
  }
}
