//! The loops over rows of floats for vectors of any width: some queries and some rows share their loads, and the sums of
//! four queries over some columns stay in registers while all rows pass. It must not know an instruction set.

/// Makes `dots_vectors` and `add_weighted_vectors` with the vectors and instructions given: `rows` rows with four queries,
/// and `vectors` columns of vectors.
macro_rules! loops {
    (
        $features:literal, $x86:ident, $vector:ident, lanes: $lanes:literal, rows: $rows:literal, vectors: $vectors:literal,
        $zero:ident, $spread:ident, $multiply_add:ident
    ) => {
        const LANES: usize = $lanes;

        /// Queries that are computed together.
        const QUERIES: usize = 4;

        #[target_feature(enable = $features)]
        fn dots_vectors(queries: &[&[f32]], rows: &[f32], out: &mut [f32]) {
            let len = queries.first().map_or(1, |q| q.len().max(1));
            let count = rows.len() / len;
            let mut outs = out.chunks_exact_mut(count.max(1));
            let (fours, rest) = queries.as_chunks::<QUERIES>();
            for queries in fours {
                let outs = std::array::from_fn(|_| outs.next().unwrap_or_default());
                all_rows::<QUERIES, $rows>(queries, rows, outs);
            }
            for query in rest {
                let out = outs.next().unwrap_or_default();
                all_rows::<1, { 2 * $rows }>(&[query], rows, [out]);
            }
        }

        /// Some queries with all rows, `R` rows at a time.
        #[inline]
        #[target_feature(enable = $features)]
        fn all_rows<const Q: usize, const R: usize>(
            queries: &[&[f32]; Q],
            rows: &[f32],
            mut outs: [&mut [f32]; Q],
        ) {
            let len = queries[0].len().max(1);
            let (groups, rest) = rows.split_at(rows.len() / (R * len) * (R * len));
            let mut at = 0;
            for group in groups.chunks_exact(R * len) {
                let rows = std::array::from_fn(|row| &group[row * len..(row + 1) * len]);
                put(&mut outs, at, pairs::<Q, R>(queries, rows));
                at += R;
            }
            for row in rest.chunks_exact(len) {
                put(&mut outs, at, pairs::<Q, 1>(queries, [row]));
                at += 1;
            }
        }

        fn put<const Q: usize, const R: usize>(
            outs: &mut [&mut [f32]; Q],
            at: usize,
            sums: [[f32; R]; Q],
        ) {
            for (out, sums) in outs.iter_mut().zip(sums) {
                if let Some(out) = out.get_mut(at..at + R) {
                    out.copy_from_slice(&sums);
                }
            }
        }

        /// The product of each query with each row, each in one running sum of a vector.
        #[inline]
        #[target_feature(enable = $features)]
        fn pairs<const Q: usize, const R: usize>(
            queries: &[&[f32]; Q],
            rows: [&[f32]; R],
        ) -> [[f32; R]; Q] {
            let steps = queries[0].len() / LANES;
            let qs = queries.map(|q| &q.as_chunks::<LANES>().0[..steps]);
            let xs = rows.map(|row| &row.as_chunks::<LANES>().0[..steps]);
            let mut sums = [[$zero(); R]; Q];
            for step in 0..steps {
                let xs = xs.map(|x| $x86::floats(&x[step]));
                for (sums, q) in sums.iter_mut().zip(qs) {
                    let q = $x86::floats(&q[step]);
                    for (sum, x) in sums.iter_mut().zip(xs) {
                        *sum = $multiply_add(q, x, *sum);
                    }
                }
            }
            let mut out = [[0.0; R]; Q];
            for query in 0..Q {
                for row in 0..R {
                    let rest = queries[query].iter().zip(rows[row]).skip(LANES * steps);
                    let rest = rest.map(|(q, x)| q * x).sum::<f32>();
                    out[query][row] = $x86::sum(sums[query][row]) + rest;
                }
            }
            out
        }

        #[target_feature(enable = $features)]
        fn add_weighted_vectors(
            y: &mut [f32],
            width: usize,
            weights: &[f32],
            rows: &[f32],
            stride: usize,
        ) {
            let (width, stride) = (width.max(1), stride.max(1));
            let count = (rows.len() / stride).max(1);
            let together = y.len().min(weights.len() / count * width) / (QUERIES * width) * QUERIES;
            let (four_y, y) = y.split_at_mut(together * width);
            let (four_weights, weights) = weights.split_at((together * count).min(weights.len()));
            let fours = four_weights.chunks_exact(QUERIES * count);
            for (y, weights) in four_y.chunks_exact_mut(QUERIES * width).zip(fours) {
                all_columns::<QUERIES, $vectors>(y, width, weights, rows, stride);
            }
            for (y, weights) in y.chunks_exact_mut(width).zip(weights.chunks_exact(count)) {
                all_columns::<1, 4>(y, width, weights, rows, stride);
            }
        }

        /// The sums of `Q` queries, `C` vectors of columns at a time.
        #[inline]
        #[target_feature(enable = $features)]
        fn all_columns<const Q: usize, const C: usize>(
            y: &mut [f32],
            width: usize,
            weights: &[f32],
            rows: &[f32],
            stride: usize,
        ) {
            let count = weights.len() / Q;
            let weights: [&[f32]; Q] =
                std::array::from_fn(|q| &weights[q * count..(q + 1) * count]);
            let mut first = 0;
            while first + LANES * C <= width {
                let mut sums = [[$zero(); C]; Q];
                for (query, sums) in sums.iter_mut().enumerate() {
                    let y = y[query * width + first..].as_chunks::<LANES>().0;
                    for (sum, y) in sums.iter_mut().zip(y) {
                        *sum = $x86::floats(y);
                    }
                }
                for (at, row) in rows.chunks_exact(stride).enumerate().take(count) {
                    let x: &[[f32; LANES]] = row[first..first + LANES * C].as_chunks().0;
                    let x: [$vector; C] = std::array::from_fn(|column| $x86::floats(&x[column]));
                    for (sums, weights) in sums.iter_mut().zip(weights) {
                        let weight = $spread(weights[at]);
                        for (sum, x) in sums.iter_mut().zip(x) {
                            *sum = $multiply_add(weight, x, *sum);
                        }
                    }
                }
                for (query, sums) in sums.iter().enumerate() {
                    let y = y[query * width + first..].as_chunks_mut::<LANES>().0;
                    for (y, sum) in y.iter_mut().zip(sums) {
                        *y = $x86::array(*sum);
                    }
                }
                first += LANES * C;
            }
            for (query, weights) in weights.iter().enumerate() {
                for at in first..width {
                    let y = &mut y[query * width + at];
                    for (row, weight) in rows.chunks_exact(stride).zip(*weights) {
                        *y = weight.mul_add(row[at], *y);
                    }
                }
            }
        }
    };
}
pub(super) use loops;
