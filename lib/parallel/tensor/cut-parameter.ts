// Cuts a parameter over the ranks of a group, once.

import { ZeroshardError } from '../../binding/errors.js'
import type { Parameter } from '../../nn/parameter.js'
import type { ProcessGroup } from '../group.js'
import { type Range, vocabularyRange } from './cut.js'

/**
 * Leaves this rank its ranges of `dim`. The same cut again (of a tied parameter) is fine.
 *
 * @throws CONFIG where the two differ
 */
export function cutParameter(
  parameter: Parameter,
  dim: number,
  rangesOf: (rank: number) => readonly Range[],
  group: ProcessGroup,
): void {
  const { slice } = parameter
  const ranges = rangesOf(group.rank)
  if (slice && (slice.dim !== dim || slice.ranges.join() !== ranges.join())) {
    throw new ZeroshardError(
      'CONFIG',
      `parameter '${parameter.name}' is cut along dim ${slice.dim} and ${dim}; plan its places alike`,
    )
  }
  if (slice) return
  parameter.cut(dim, ranges)
  parameter.cutOver = { group, rangesOf }
}

/** Leaves this rank its rows of a vocabulary; which those are. @throws CONFIG where there are fewer rows than ranks. */
export function cutVocabulary(parameter: Parameter, group: ProcessGroup): Range {
  const rangeOf = (rank: number): Range => vocabularyRange(parameter, { size: group.size, rank })
  cutParameter(parameter, 0, (rank) => [rangeOf(rank)], group)
  return rangeOf(group.rank)
}
