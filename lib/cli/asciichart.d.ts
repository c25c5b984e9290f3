declare module 'asciichart' {
  export function plot(series: readonly number[], options?: { height?: number }): string
  const asciichart: { plot: typeof plot }
  export default asciichart
}
