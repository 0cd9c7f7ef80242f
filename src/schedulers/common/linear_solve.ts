/** Solves a small square system by Gaussian elimination with row pivoting, in float64. */
export function solveLinear(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  const n = rows.length;
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) {
      if (Math.abs(rows[i]![k]!) > Math.abs(rows[pivot]![k]!)) {
        pivot = i;
      }
    }
    [rows[k], rows[pivot]] = [rows[pivot]!, rows[k]!];
    for (let i = k + 1; i < n; i++) {
      const factor = rows[i]![k]! / rows[k]![k]!;
      for (let j = k; j <= n; j++) {
        rows[i]![j]! -= factor * rows[k]![j]!;
      }
    }
  }
  const solution = new Array<number>(n).fill(0);
  for (let k = n - 1; k >= 0; k--) {
    const known = solution.reduce((sum, x, j) => (j > k ? sum + rows[k]![j]! * x : sum), 0);
    solution[k] = (rows[k]![n]! - known) / rows[k]![k]!;
  }
  return solution;
}
