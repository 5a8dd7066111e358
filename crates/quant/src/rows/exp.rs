//! The exponential function eight values at a time: plain loops that compilers turn into the vector instructions of
//! whichever function they are inlined into. It must not know what the values are.
//!
//! Multiplications and additions are apart, so that every instruction set rounds alike.

/// ln 2 in two parts: the first times any exponent is exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// 1/k! from k = 7 down to 0: enough for an error of 2⁻²³ on |r| ≤ ln 2 / 2 (Taylor's series).
const SERIES: [f32; 8] = [
    1.0 / 5040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

/// e^x, within three units in the last place; of x below −87 it is e^−87 instead, of x above 88 e^88. Of NaN it is NaN.
#[inline(always)]
pub(super) fn exp(x: [f32; 8]) -> [f32; 8] {
    // Adding 1.5·2²³ leaves the rounded integer in the low bits of a float.
    const MAGIC: f32 = 12_582_912.0;
    x.map(|x| {
        // In this order NaN passes.
        let x = if x < -87.0 { -87.0 } else { x };
        let x = if x > 88.0 { 88.0 } else { x };
        let shifted = x * std::f32::consts::LOG2_E + MAGIC;
        let n = shifted - MAGIC;
        let r = x - n * LN2_HIGH - n * LN2_LOW;
        let series = SERIES.iter().fold(0.0, |sum, term| sum * r + term);
        // 2ⁿ, n from −126 to 127: its exponent's bits.
        let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
        series * power
    })
}

/// `x` becomes exp(x − top); their sum, in eight partial sums.
#[inline(always)]
pub(super) fn exps(x: &mut [f32], top: f32) -> f32 {
    let mut sums = [0.0f32; 8];
    let (eights, rest) = x.as_chunks_mut::<8>();
    for eight in eights {
        *eight = exp(eight.map(|x| x - top));
        for (sum, x) in sums.iter_mut().zip(&*eight) {
            *sum += x;
        }
    }
    for (x, sum) in rest.iter_mut().zip(&mut sums) {
        [*x, ..] = exp([*x - top; 8]);
        *sum += *x;
    }
    sums.iter().sum()
}

/// `gate` becomes gate·sigmoid(gate)·up.
#[inline(always)]
pub(super) fn swiglu(gate: &mut [f32], up: &[f32]) {
    let one = |gate: [f32; 8], up: [f32; 8]| {
        let exps = exp(gate.map(|gate| -gate));
        std::array::from_fn(|lane| gate[lane] / (1.0 + exps[lane]) * up[lane])
    };
    let (gates, gate_rest) = gate.as_chunks_mut::<8>();
    let (ups, up_rest) = up.as_chunks::<8>();
    for (gate, up) in gates.iter_mut().zip(ups) {
        *gate = one(*gate, *up);
    }
    for (gate, up) in gate_rest.iter_mut().zip(up_rest) {
        let eight: [f32; 8] = one([*gate; 8], [*up; 8]);
        *gate = eight[0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_the_library() {
        for step in -8_700..8_800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp([x; 8])[0]) / exact - 1.0).abs();
            assert!(error < 3.0 * f64::from(f32::EPSILON), "e^{x}: {error:e}");
        }
        assert_eq!(exp([f32::NEG_INFINITY; 8])[0], exp([-87.0; 8])[0]);
        assert_eq!(exp([0.0; 8])[0], 1.0);
        assert!(exp([f32::NAN; 8])[0].is_nan());
        assert!(exp([f32::INFINITY; 8])[0].is_finite());
    }
}
