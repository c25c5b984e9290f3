// Tables as text: the first column to the left, numbers to the right.

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)))
  const line = (row: readonly string[]): string =>
    widths
      .map((width, column) => (column === 0 ? (row[0] ?? '').padEnd(width) : (row[column] ?? '').padStart(width)))
      .join('  ')
      .trimEnd()
  return [line(head), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n')
}

const prefixes = ['', 'K', 'M', 'G', 'T', 'P', 'E']

/** 1234567 → "1.23 M". */
export function withPrefix(value: number, digits = 2): string {
  if (!Number.isFinite(value)) return String(value)
  let [rest, index] = [value, 0]
  while (Math.abs(rest) >= 1000 && index < prefixes.length - 1) {
    rest /= 1000
    index++
  }
  return `${index === 0 && Number.isInteger(rest) ? rest : rest.toFixed(digits)} ${prefixes[index]}`.trim()
}

/** Bytes in units of 1024. */
export function bytesText(bytes: number): string {
  const index = bytes < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1024 ** index
  return `${Number.isInteger(value) ? value : value.toFixed(2)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][index]}`
}

/** Bytes by category: live now, and at the peak. */
export function memoryTable(live: Record<string, number>, peak: Record<string, number>): string {
  const rows = Object.keys(live).map((name) => [name, bytesText(live[name] ?? 0), bytesText(peak[name] ?? 0)])
  return table(['memory', 'live', 'peak'], rows)
}
