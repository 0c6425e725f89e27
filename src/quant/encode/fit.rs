//! The scale of a few weights, found by trying: each candidate fixes the codes, and for these codes the best scale is a
//! least-squares solution. The candidates and the weighting are those of GGML.

/// Groups whose weights are all smaller are taken for zeros.
const ZERO: f32 = 1e-15;

/// Which candidates are tried for a scale with a minimum: the range is cut into `top + first + 0.1 * i` steps, for `i`
/// up to `n` included.
pub(super) struct Search {
    pub top: u8,
    pub first: f32,
    pub n: u8,
    /// Errors are summed as magnitudes, not as squares.
    pub magnitudes: bool,
}

impl Search {
    fn error(&self, scale: f32, least: f32, codes: &[f32], x: &[f32], importance: &[f32]) -> f32 {
        let terms = codes.iter().zip(x).zip(importance);
        terms.fold(0.0, |sum, ((code, x), importance)| {
            let off = scale * code + least - x;
            sum + importance
                * if self.magnitudes {
                    off.abs()
                } else {
                    off * off
                }
        })
    }

    /// Scale and offset such that `scale * code - offset`, with codes from 0 to `top`, is near to `x`; both are
    /// at least 0. At most 32 weights.
    pub fn scale_and_offset(&self, x: &[f32], importance: &[f32]) -> (f32, f32) {
        let mut least = x.iter().copied().fold(0.0, f32::min);
        let greatest = x.iter().copied().fold(f32::MIN, f32::max);
        let range = greatest - least;
        // One value in all: the offset stands for it.
        if range <= 0.0 {
            return (0.0, -least);
        }
        let (sum_i, sum_x) = importance
            .iter()
            .zip(x)
            .fold((0.0, 0.0), |(i, s), (w, x)| (i + w, s + w * x));
        let top = f32::from(self.top);
        let mut buffer = [0.0; 32];
        let codes = &mut buffer[..x.len()];
        let round = |steps: f32, least: f32, codes: &mut [f32]| {
            let inverse = steps / (greatest - least);
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (inverse * (x - least)).round_ties_even().clamp(0.0, top);
            }
        };
        round(top, least, codes);
        let mut scale = range / top;
        let mut best = self.error(scale, least, codes, x, importance);
        for i in 0..=self.n {
            // As GGML: from the best offset so far.
            round(self.first + 0.1 * f32::from(i) + top, least, codes);
            let (mut sum_c, mut sum_cc, mut sum_cx) = (0.0, 0.0, 0.0);
            for ((code, x), w) in codes.iter().zip(x).zip(importance) {
                sum_c += w * code;
                sum_cc += w * code * code;
                sum_cx += w * code * x;
            }
            let determinant = sum_i * sum_cc - sum_c * sum_c;
            if determinant <= 0.0 {
                continue;
            }
            let mut candidate = (
                (sum_i * sum_cx - sum_x * sum_c) / determinant,
                (sum_cc * sum_x - sum_c * sum_cx) / determinant,
            );
            if candidate.1 > 0.0 {
                candidate = (sum_cx / sum_cc, 0.0);
            }
            let error = self.error(candidate.0, candidate.1, codes, x, importance);
            if error < best {
                (best, scale, least) = (error, candidate.0, candidate.1);
            }
        }
        (scale, -least)
    }
}

/// The weight of largest magnitude, none if all are as good as zero.
fn extreme(x: &[f32]) -> Option<f32> {
    let larger = |best: f32, &w: &f32| if w.abs() > best.abs() { w } else { best };
    let extreme = x.iter().fold(0.0, larger);
    (extreme.abs() >= ZERO).then_some(extreme)
}

/// Code of `x`, of `2 * half` levels around zero.
fn signed(x: f32, half: f32) -> f32 {
    x.round_ties_even().clamp(-half, half - 1.0)
}

/// Scale such that `scale * code`, with codes from `-half` to `half - 1`, is near to `x`: of 19 candidates the one
/// whose error, weighted by the square of the weights, is least.
pub(super) fn scale(x: &[f32], half: f32) -> f32 {
    let Some(extreme) = extreme(x) else {
        return 0.0;
    };
    let sums = |steps: f32| {
        let inverse = -steps / extreme;
        x.iter().fold((0.0, 0.0), |(xc, cc), x| {
            let (code, w) = (signed(inverse * x, half), x * x);
            (xc + w * x * code, cc + w * code * code)
        })
    };
    let (mut xc, mut cc) = sums(half);
    for i in (-9i8..=9).filter(|i| *i != 0) {
        let (new_xc, new_cc) = sums(half + 0.1 * f32::from(i));
        // The error falls by xc * xc / cc.
        if new_cc > 0.0 && new_xc * new_xc * cc > xc * xc * new_cc {
            (xc, cc) = (new_xc, new_cc);
        }
    }
    if cc > 0.0 { xc / cc } else { 0.0 }
}

/// As [`scale`], from one candidate whose codes are then moved one at a time while that helps, in five rounds at most.
pub(super) fn scale_by_moves(x: &[f32; 16], half: f32) -> f32 {
    let Some(extreme) = extreme(x) else {
        return 0.0;
    };
    let mut codes = x.map(|x| signed(-half / extreme * x, half));
    let (mut xc, mut cc) = (0.0, 0.0);
    for (x, code) in x.iter().zip(&codes) {
        xc += x * x * x * code;
        cc += x * x * code * code;
    }
    for _ in 0..5 {
        let mut is_moved = false;
        for (x, code) in x.iter().zip(&mut codes) {
            let w = x * x;
            let (xc_rest, cc_rest) = (xc - w * x * *code, cc - w * *code * *code);
            if xc_rest <= 0.0 {
                continue;
            }
            let moved = signed(x * cc_rest / xc_rest, half);
            let (new_xc, new_cc) = (xc_rest + w * x * moved, cc_rest + w * moved * moved);
            if moved != *code && new_cc > 0.0 && new_xc * new_xc * cc > xc * xc * new_cc {
                (*code, xc, cc, is_moved) = (moved, new_xc, new_cc, true);
            }
        }
        if !is_moved {
            break;
        }
    }
    if cc > 0.0 { xc / cc } else { 0.0 }
}
