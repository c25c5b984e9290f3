// Reads a schedule's parameters: type, range and order, with errors that name the key.

import { ZeroshardError } from '../binding/errors.js'

export type ScheduleParams = Record<string, unknown>

export function fail(message: string): never {
  throw new ZeroshardError('CONFIG', `scheduler.params.${message}`)
}

/** A number that is at least 0 (and at most, or below, a bound). */
export function real(
  params: ScheduleParams,
  key: string,
  fallback: number,
  { max = Number.POSITIVE_INFINITY, below = Number.POSITIVE_INFINITY } = {},
): number {
  const value = params[key] ?? fallback
  if (typeof value === 'number' && Number.isFinite(value) && value >= 0 && value <= max && value < below) return value
  const bound = Number.isFinite(max) ? ` and at most ${max}` : Number.isFinite(below) ? ` and less than ${below}` : ''
  return fail(`${key} is ${show(value)}; it must be a number, at least 0${bound}`)
}

/** A number of steps or stairs. */
export function count(params: ScheduleParams, key: string, fallback: number, min = 0): number {
  const value = params[key] ?? fallback
  if (typeof value === 'number' && Number.isInteger(value) && value >= min) return value
  return fail(`${key} is ${show(value)}; it must be an integer, at least ${min}`)
}

export function ordered(low: readonly [string, number], high: readonly [string, number]): void {
  if (low[1] > high[1]) fail(`${low[0]} ${low[1]} is more than ${high[0]} ${high[1]}; exchange them`)
}

const show = (value: unknown): string => JSON.stringify(value) ?? String(value)
