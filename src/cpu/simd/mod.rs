//! Sixteen lanes of `f32` on whatever the processor has.
//!
//! Kernels are written once over [`Isa`]. Every operation is defined lane by lane (and sums by one
//! fixed tree), so all instruction sets give the same bits: AVX-512 holds the lanes in one
//! register, AVX2 in two, NEON in four.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_dots;
pub mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

/// Lanes of a vector.
pub const LANES: usize = 16;

/// One vector in memory.
pub type Lanes = [f32; LANES];

/// A computation that runs under the target features of an instruction set. `run` and all it
/// calls over `Isa` must be `#[inline(always)]`: code that is not inlined into
/// [`Isa::vectorize`] is compiled without those features. That rules out `array::map` and
/// `array::from_fn` over vectors, whose closures stay calls.
pub trait Kernel {
    type Output;
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// An instruction set. A value is proof that the processor has it.
pub trait Isa: Copy + Send + Sync + 'static {
    /// 16 floats.
    type F: Copy;
    /// 16 integers of 32 bits.
    type I: Copy;
    /// 32 bytes.
    type B: Copy;
    /// 32 integers of 16 bits.
    type S: Copy;

    /// Whether 24 accumulators and their operands fit the registers.
    const WIDE: bool;

    /// The instruction set, where the processor has it.
    fn detect() -> Option<Self>;
    /// Runs a kernel compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &Lanes) -> Self::F;
    fn store(self, x: Self::F, out: &mut Lanes);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b`: the second where one is not a number.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? a : b`: the second where one is not a number.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? x : y`, lane by lane.
    fn select_less(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// Bit i is set where `a > b` in lane i.
    fn greater(self, a: Self::F, b: Self::F) -> u32;
    /// The sum of all lanes: lanes 8 apart first, then 4, 2, 1.
    fn sum(self, x: Self::F) -> f32;
    /// [`Isa::sum`] of each.
    #[inline(always)]
    fn sum4(self, x: [Self::F; 4]) -> [f32; 4] {
        [
            self.sum(x[0]),
            self.sum(x[1]),
            self.sum(x[2]),
            self.sum(x[3]),
        ]
    }

    fn splat_int(self, x: i32) -> Self::I;
    /// Unsigned bytes.
    fn bytes(self, x: &[u8; 16]) -> Self::I;
    /// Signed bytes.
    fn signed_bytes(self, x: &[u8; 16]) -> Self::I;
    /// Unsigned little-endian pairs of bytes.
    fn words(self, x: &[u8; 32]) -> Self::I;
    fn int_add(self, a: Self::I, b: Self::I) -> Self::I;
    fn int_and(self, a: Self::I, b: Self::I) -> Self::I;
    fn int_shl(self, a: Self::I, n: u32) -> Self::I;
    fn int_shr(self, a: Self::I, n: u32) -> Self::I;
    /// The numbers, as floats.
    fn to_float(self, x: Self::I) -> Self::F;
    /// The bits, as floats.
    #[expect(
        clippy::wrong_self_convention,
        reason = "self is the instruction set, x what is converted"
    )]
    fn from_bits(self, x: Self::I) -> Self::F;
    fn to_bits(self, x: Self::F) -> Self::I;
    /// Sets bit 4 of the lanes whose bit is set in `mask`.
    fn set_bit_4(self, x: Self::I, mask: u16) -> Self::I;

    /// Half floats, widened.
    fn halves(self, x: &[u8; 32]) -> Self::F;
    /// Half floats as they are kept in memory, widened.
    fn load_halves(self, x: &[u16; 16]) -> Self::F;
    /// Rounds to half floats, ties to even.
    fn store_halves(self, x: Self::F, out: &mut [u16; 16]);
    /// One half float, widened.
    fn half(self, bits: u16) -> f32;
    /// One half float, widened, in all lanes.
    #[inline(always)]
    fn splat_half(self, bits: u16) -> Self::F {
        self.splat(self.half(bits))
    }
    /// Four half floats, widened.
    #[inline(always)]
    fn four_halves(self, x: [u16; 4]) -> [f32; 4] {
        [
            self.half(x[0]),
            self.half(x[1]),
            self.half(x[2]),
            self.half(x[3]),
        ]
    }
    /// Two half floats, each in all lanes.
    #[inline(always)]
    fn splat_halves(self, x: &[u8; 4]) -> [Self::F; 2] {
        [
            self.splat(self.half(u16::from_le_bytes([x[0], x[1]]))),
            self.splat(self.half(u16::from_le_bytes([x[2], x[3]]))),
        ]
    }

    /// Asks for the cache line at an address, which need not be valid, ahead of its use.
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    fn load_32(self, x: &[u8; 32]) -> Self::B;
    fn store_32(self, x: Self::B, out: &mut [u8; 32]);
    /// `(x >> n) & mask` byte by byte, for masks without the upper n bits.
    fn shr_and(self, x: Self::B, n: u32, mask: u8) -> Self::B;
    /// `(x << n) & mask` byte by byte, for masks without the lower n bits.
    fn shl_and(self, x: Self::B, n: u32, mask: u8) -> Self::B;
    fn or_32(self, a: Self::B, b: Self::B) -> Self::B;
    /// Negates the bytes whose bit is set.
    fn negate(self, x: Self::B, signs: u32) -> Self::B;
    /// The entry of `table` that each byte (0 to 15) names.
    fn lookup(self, x: Self::B, table: &[i8; 16]) -> Self::B;

    fn load_shorts(self, x: &[i16; 32]) -> Self::S;
    /// As [`Isa::load_shorts`], at this place among calls of [`Isa::dot_rows`].
    #[inline(always)]
    fn load_shorts_here(self, x: &[i16; 32]) -> Self::S {
        self.load_shorts(x)
    }
    fn store_shorts(self, x: Self::S, out: &mut [i16; 32]);
    /// 64 bytes, two by two.
    fn join(self, low: Self::B, high: Self::B) -> Self::S;
    fn shorts_and(self, a: Self::S, mask: i16) -> Self::S;
    fn shorts_or(self, a: Self::S, b: Self::S) -> Self::S;
    /// The bits moved down, zeros from above.
    fn shorts_shr(self, a: Self::S, n: u32) -> Self::S;
    fn shorts_sub(self, a: Self::S, b: Self::S) -> Self::S;
    /// The low 16 bits of the products.
    fn shorts_mul(self, a: Self::S, b: Self::S) -> Self::S;
    /// Two numbers in all pairs.
    fn splat_pair(self, x: [i16; 2]) -> Self::S;
    /// Lanes `8 q .. 8 q + 8` are `x[at[q]]`.
    fn splat_quarters(self, x: &[u8; 16], at: [u8; 4]) -> Self::S;
    /// Lanes 0 to 7 and 8 to 15 are the bytes of `x`, lowest first; the others are zero.
    fn eight_twice(self, x: u64) -> Self::S;
    /// Lane `i` of `acc` plus the products of lanes `2 i` and `2 i + 1`.
    fn dot_pairs(self, acc: Self::I, a: Self::S, b: Self::S) -> Self::I;
    /// [`Isa::dot_pairs`] of each `b` with a pair of each row of `a` in all lanes.
    #[inline(always)]
    fn dot_rows<const R: usize, const N: usize>(
        self,
        acc: &mut [[Self::I; N]; R],
        a: &[[[i16; 2]; 16]; R],
        pair: usize,
        b: &[Self::S; N],
    ) {
        for r in 0..R {
            let a = self.splat_pair(a[r][pair]);
            for n in 0..N {
                acc[r][n] = self.dot_pairs(acc[r][n], a, b[n]);
            }
        }
    }
    /// Lane `4 q + i` is the sum of lanes `4 q .. 4 q + 4` of `x[i]`.
    fn sum_quarters(self, x: [Self::I; 4]) -> Self::I;
    /// Lane `i` is the sum of the products of the bytes of `minima[i]` with the first eight of `x`, lane `4 + i` that with the next eight, and the others are zero; `x` ends in zeros.
    #[inline(always)]
    fn sum_minima(self, minima: &[u64; 4], x: &[i16; 32]) -> Self::I {
        let x = self.load_shorts(x);
        let mut sums = [self.splat_int(0); 4];
        for i in 0..4 {
            sums[i] = self.dot_pairs(sums[i], self.eight_twice(minima[i]), x);
        }
        self.sum_quarters(sums)
    }
    /// Lane `4 q + i` is `x[i]`.
    fn splat_four(self, x: [f32; 4]) -> Self::F;

    /// Weights of the low four bits of each lane. Where table look-ups are cheap they are computed
    /// once for the sixteen codes: the results are the same.
    #[inline(always)]
    fn decode_4<R: Rule<Self>>(self, codes: Self::I, rule: R) -> Self::F {
        let codes = self.int_and(codes, self.splat_int(15));
        rule.weight(self, self.to_float(codes))
    }

    /// As [`Isa::decode_4`] for codes of five bits; the lanes have no other bits.
    #[inline(always)]
    fn decode_5<R: Rule<Self>>(self, codes: Self::I, rule: R) -> Self::F {
        rule.weight(self, self.to_float(codes))
    }
}

/// How codes become weights. A trait and not a closure, since only functions that are always
/// inlined are sure to be compiled for the instruction set.
pub trait Rule<I: Isa>: Copy {
    fn weight(self, isa: I, code: I::F) -> I::F;
}

/// An instruction set chosen at run time.
#[derive(Debug, Clone, Copy)]
pub enum InstructionSet {
    Scalar(scalar::Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl InstructionSet {
    /// All that this processor has, the fastest last.
    pub fn present() -> Vec<InstructionSet> {
        let mut sets = Vec::new();
        sets.extend(scalar::Scalar::detect().map(InstructionSet::Scalar));
        #[cfg(target_arch = "x86_64")]
        sets.extend(avx2::Avx2::detect().map(InstructionSet::Avx2));
        #[cfg(target_arch = "x86_64")]
        sets.extend(avx512::Avx512::detect().map(InstructionSet::Avx512));
        #[cfg(target_arch = "aarch64")]
        sets.extend(neon::Neon::detect().map(InstructionSet::Neon));
        sets
    }

    /// The fastest that this processor has.
    pub fn best() -> InstructionSet {
        let scalar = InstructionSet::Scalar(scalar::Scalar);
        InstructionSet::present().pop().unwrap_or(scalar)
    }

    /// Such as `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            InstructionSet::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon(_) => "neon",
        }
    }

    /// `Isa::WIDE` of it.
    pub fn is_wide(self) -> bool {
        struct Wide;
        impl Kernel for Wide {
            type Output = bool;
            fn run<I: Isa>(self, _: I) -> bool {
                I::WIDE
            }
        }
        self.run(Wide)
    }

    /// Runs a kernel.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            InstructionSet::Scalar(isa) => isa.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(isa) => isa.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(isa) => isa.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon(isa) => isa.vectorize(kernel),
        }
    }
}
